//! What the API answers when it cannot do what was asked.

use serde::Serialize;
use serde_json::{Value, json};

/// One reason inside `Status.details.causes`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Cause {
    /// Machine-readable reason, such as `FieldValueRequired`.
    pub reason: String,
    /// What is wrong with the field.
    pub message: String,
    /// Path of the field, such as `spec.descriptors[0].action.fill_interval`.
    pub field: String,
}

impl Cause {
    /// A cause for one field.
    pub fn new(reason: &str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.into(),
            field: field.into(),
        }
    }
}

/// The resource (and, where known, the object) that an error is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// API group; empty for the core group.
    pub group: String,
    /// Plural name, or the kind where the real API server names the kind.
    pub resource: String,
    /// Object name.
    pub name: String,
}

impl Subject {
    /// `plural.group`, or only `plural` for the core group.
    fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.resource.clone()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} \"{}\"", self.qualified(), self.name)
    }
}

/// An error that becomes a `metav1.Status`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The object does not exist.
    #[error("{0} not found")]
    NotFound(Subject),
    /// No such path, group, version or resource.
    #[error("the server could not find the requested resource ({0})")]
    NoResource(String),
    /// An object of this name exists.
    #[error("{0} already exists")]
    AlreadyExists(Subject),
    /// The write was based on an old state, or a precondition does not hold.
    #[error("Operation cannot be fulfilled on {subject}: {message}")]
    Conflict {
        /// The object.
        subject: Subject,
        /// What does not hold and what to do.
        message: String,
    },
    /// Server-side apply would take fields from other managers.
    #[error("{}", apply_conflict_message(causes))]
    ApplyConflict {
        /// The object.
        subject: Subject,
        /// One cause for each field.
        causes: Vec<Cause>,
    },
    /// The object breaks its schema.
    #[error("{subject} is invalid: {}", invalid_message(causes))]
    Invalid {
        /// The object; `resource` holds the kind.
        subject: Subject,
        /// One cause for each field.
        causes: Vec<Cause>,
    },
    /// The request cannot be understood.
    #[error("{0}")]
    BadRequest(String),
    /// The request is understood and refused.
    #[error("{subject} is forbidden: {message}")]
    Forbidden {
        /// The object.
        subject: Subject,
        /// Why.
        message: String,
    },
    /// The request is refused, whatever it is for.
    #[error("{0}")]
    Unserved(&'static str),
    /// The resource version or the continue token is too old.
    #[error("{0}")]
    Expired(String),
    /// The resource does not have this verb.
    #[error("the server does not allow this method on the requested resource ({0})")]
    MethodNotAllowed(String),
    /// The patch type or content type is not served.
    #[error("the body of the request was in an unknown format - accepted media types include: {0}")]
    UnsupportedMediaType(String),
    /// The object is larger than etcd takes, or the request larger than the API server reads.
    #[error("Request entity too large: {0}")]
    TooLarge(&'static str),
    /// A fault that a test asked for.
    #[error("injected fault: HTTP {0}")]
    Injected(u16),
    /// The API cannot serve a request for a reason of its own.
    #[error("Internal error occurred: {0}")]
    Internal(String),
}

fn invalid_message(causes: &[Cause]) -> String {
    let mut all: Vec<String> = causes
        .iter()
        .map(|c| format!("{}: {}", c.field, c.message))
        .collect();
    if all.len() == 1 {
        all.remove(0)
    } else {
        format!("[{}]", all.join(", "))
    }
}

fn apply_conflict_message(causes: &[Cause]) -> String {
    let lines: Vec<String> = causes
        .iter()
        .map(|c| format!("{}: {}", c.message, c.field))
        .collect();
    let plural = if causes.len() == 1 { "" } else { "s" };
    format!(
        "Apply failed with {} conflict{plural}: {}",
        causes.len(),
        lines.join(", ")
    )
}

impl ApiError {
    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        match self {
            Self::NotFound(_) | Self::NoResource(_) => 404,
            Self::AlreadyExists(_) | Self::Conflict { .. } | Self::ApplyConflict { .. } => 409,
            Self::Invalid { .. } => 422,
            Self::BadRequest(_) => 400,
            Self::Forbidden { .. } | Self::Unserved(_) => 403,
            Self::Expired(_) => 410,
            Self::MethodNotAllowed(_) => 405,
            Self::UnsupportedMediaType(_) => 415,
            Self::Injected(code) => *code,
            Self::TooLarge(_) => 413,
            Self::Internal(_) => 500,
        }
    }

    /// The machine-readable reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::AlreadyExists(_) => "AlreadyExists",
            Self::Expired(_) => "Expired",
            other => reason_of(other.code()),
        }
    }

    /// The `metav1.Status` object.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.to_string(), "reason": self.reason(), "code": self.code(),
        });
        let (subject, causes) = match self {
            Self::NotFound(s) | Self::AlreadyExists(s) => (s, &[][..]),
            Self::Conflict { subject, .. } | Self::Forbidden { subject, .. } => (subject, &[][..]),
            Self::ApplyConflict { subject, causes } | Self::Invalid { subject, causes } => {
                (subject, causes.as_slice())
            }
            _ => return status,
        };
        let mut details = json!({ "name": subject.name, "kind": subject.resource });
        if !subject.group.is_empty() {
            details["group"] = json!(subject.group);
        }
        if !causes.is_empty() {
            details["causes"] = json!(causes);
        }
        status["details"] = details;
        status
    }
}

fn reason_of(code: u16) -> &'static str {
    match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        409 => "Conflict",
        410 => "Gone",
        413 => "RequestEntityTooLarge",
        415 => "UnsupportedMediaType",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "",
    }
}
