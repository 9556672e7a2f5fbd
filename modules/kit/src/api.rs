//! Routes of the JSON API, each with what the OpenAPI document says of it: one declaration for both.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// The most that `limit` may ask for.
pub const MOST: usize = 10_000;
/// How many items a list gives at most.
pub const LIMIT: Parameter = Parameter {
    name: "limit",
    text: "How many items at most",
    most: Some(MOST),
    required: false,
};

/// Every error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// What is wrong, and what to do.
    pub error: String,
}

/// A list, or the first part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct List<T> {
    /// The items.
    pub items: Vec<T>,
    /// How many there are, with those that `limit` leaves out.
    pub total: usize,
}

impl<T> List<T> {
    /// At most [`LIMIT`] items.
    pub fn of(mut items: Vec<T>, call: &Call) -> Result<Self, ApiError> {
        let total = items.len();
        items.truncate(call.number(&LIMIT)?.unwrap_or(total));
        Ok(Self { items, total })
    }
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    error: String,
}

impl ApiError {
    /// There is no such thing.
    pub fn missing(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    /// The request is wrong; the text names the part of it and the fix.
    pub fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// With any status.
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorBody { error: self.error })).into_response()
    }
}

/// A parameter of the query string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub text: &'static str,
    /// It is a number from 1 to this.
    pub most: Option<usize>,
    /// A request without it is wrong.
    pub required: bool,
}

/// What a request asks.
#[derive(Clone, Debug, Default)]
pub struct Call {
    path: BTreeMap<String, String>,
    /// The query string; no name is there twice.
    pub query: BTreeMap<String, String>,
}

impl Call {
    /// A part of the path by its name in the template.
    pub fn path(&self, name: &str) -> String {
        self.path.get(name).cloned().unwrap_or_default()
    }

    /// `{namespace}` and `{name}` of the path.
    pub fn object(&self) -> (String, String) {
        (self.path("namespace"), self.path("name"))
    }

    /// A number of the query string.
    pub fn number(&self, parameter: &Parameter) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.query.get(parameter.name) else {
            return Ok(None);
        };
        let most = parameter.most.unwrap_or(usize::MAX);
        let number = text.parse().ok().filter(|n| (1..=most).contains(n));
        let number = number.ok_or_else(|| {
            let name = parameter.name;
            ApiError::bad(format!(
                "{name}: \"{text}\" is no number from 1 to {most}: write for example {name}=100"
            ))
        })?;
        Ok(Some(number))
    }
}

/// Methods of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Reads.
    Get,
    /// Changes state.
    Post,
}

impl Method {
    /// In capitals.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// What an operation answers.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// JSON of a type.
    Json(fn(&mut SchemaGenerator) -> Schema),
    /// Text of a media type.
    Text(&'static str),
}

/// One path and method, as the index and the OpenAPI document say it.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Method.
    pub method: Method,
    /// Path with `{names}`.
    pub path: &'static str,
    /// What it is for.
    pub summary: &'static str,
    /// What the query string may have.
    pub query: &'static [Parameter],
    /// It may have other names too.
    pub open: bool,
    /// What it answers.
    pub answer: Answer,
}

impl Operation {
    /// A read of JSON.
    pub fn json<R: JsonSchema>(path: &'static str, summary: &'static str) -> Self {
        Self {
            method: Method::Get,
            path,
            summary,
            query: &[],
            open: false,
            answer: Answer::Json(SchemaGenerator::subschema_for::<R>),
        }
    }

    /// A read of text.
    pub fn text(path: &'static str, summary: &'static str) -> Self {
        Self {
            answer: Answer::Text("text/plain"),
            ..Self::json::<ErrorBody>(path, summary)
        }
    }

    /// Whether `path` is one of this template.
    pub fn is_at(&self, path: &str) -> bool {
        let (mut own, mut asked) = (self.path.split('/'), path.split('/'));
        loop {
            match (own.next(), asked.next()) {
                (None, None) => return true,
                (Some(own), Some(asked)) if own == asked || own.starts_with('{') => {}
                _ => return false,
            }
        }
    }

    fn call(
        &self,
        path: Result<Path<BTreeMap<String, String>>, PathRejection>,
        uri: &Uri,
    ) -> Result<Call, ApiError> {
        let path = path
            .map_err(|_| ApiError::bad("the path has a part that is no UTF-8 text: encode it"))?;
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| ApiError::bad("the query string cannot be read: write NAME=VALUE"))?;
        let mut query = BTreeMap::new();
        for (name, value) in pairs.0 {
            if !self.open && !self.query.iter().any(|p| p.name == name) {
                return Err(self.unknown(&name));
            }
            if query.contains_key(&name) {
                let error = format!("{name}: it is given twice: write it once");
                return Err(ApiError::bad(error));
            }
            query.insert(name, value);
        }
        for parameter in self.query.iter().filter(|p| p.required) {
            if !query.contains_key(parameter.name) {
                return Err(ApiError::bad(format!(
                    "{0}: it is missing: add ?{0}=VALUE",
                    parameter.name
                )));
            }
        }
        Ok(Call {
            path: path.0,
            query,
        })
    }

    fn unknown(&self, name: &str) -> ApiError {
        let known: Vec<&str> = self.query.iter().map(|p| p.name).collect();
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        ApiError::bad(format!("{name}: unknown parameter; known here: {known}"))
    }
}

/// Routes and what is said of them.
#[derive(Clone, Debug, Default)]
pub struct Api {
    router: Router,
    operations: Vec<Operation>,
}

impl Api {
    /// Without routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// A path that answers JSON of one type.
    #[must_use]
    pub fn get<R: Serialize + JsonSchema + 'static>(
        self,
        path: &'static str,
        summary: &'static str,
        query: &'static [Parameter],
        answer: impl Fn(&Call) -> Result<R, ApiError> + Send + Sync + 'static,
    ) -> Self {
        let operation = Operation {
            query,
            ..Operation::json::<R>(path, summary)
        };
        self.with(operation, move |call| answer(call).map(Json))
    }

    /// The same for a request that changes state.
    #[must_use]
    pub fn post<R: Serialize + JsonSchema + 'static>(
        self,
        path: &'static str,
        summary: &'static str,
        query: &'static [Parameter],
        answer: impl Fn(&Call) -> Result<R, ApiError> + Send + Sync + 'static,
    ) -> Self {
        let operation = Operation {
            method: Method::Post,
            query,
            ..Operation::json::<R>(path, summary)
        };
        self.with(operation, move |call| answer(call).map(Json))
    }

    /// An operation whose answer is made by `answer`; [`Self::get`] holds the type of JSON besides.
    #[must_use]
    pub fn with<A: IntoResponse>(
        self,
        operation: Operation,
        answer: impl Fn(&Call) -> Result<A, ApiError> + Send + Sync + 'static,
    ) -> Self {
        let answer = Arc::new(answer);
        let handle = move |path: Result<Path<BTreeMap<String, String>>, PathRejection>,
                           uri: Uri| {
            let answered = operation.call(path, &uri).and_then(|call| answer(&call));
            std::future::ready(answered.into_response())
        };
        let route = match operation.method {
            Method::Get => get(handle),
            Method::Post => post(handle),
        };
        self.route(operation, route)
    }

    /// An operation with a handler of its own.
    #[must_use]
    pub fn route(mut self, operation: Operation, handler: MethodRouter) -> Self {
        self.router = self.router.route(operation.path, handler);
        self.operations.push(operation);
        self
    }

    /// Both.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.operations.extend(other.operations);
        self
    }

    /// What is said of the routes, sorted by path and method.
    pub fn operations(&self) -> Vec<Operation> {
        let mut out = self.operations.clone();
        out.sort_by_key(|o| (o.path, o.method));
        out
    }

    /// The routes.
    pub fn into_router(self) -> Router {
        self.router
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(operation: &Operation, uri: &str) -> Result<Call, String> {
        let called = operation.call(Ok(Path(BTreeMap::new())), &uri.parse().unwrap());
        called.map_err(|e| e.error)
    }

    #[test]
    fn fault_o24_what_is_wrong_in_a_query_is_named() {
        let operation = Operation {
            query: &[LIMIT],
            ..Operation::json::<ErrorBody>("/x", "x")
        };
        for (query, words) in [
            ("limit=0", "limit: \"0\" is no number from 1 to 10000"),
            ("limit=10001", "limit: \"10001\""),
            ("limit=-1", "limit: \"-1\""),
            ("limit=18446744073709551616", "limit: "),
            ("limit=many", "limit: \"many\""),
            ("limit=", "limit: \"\""),
            ("limit=1&limit=2", "limit: it is given twice"),
            ("limt=1", "limt: unknown parameter; known here: limit"),
        ] {
            let number = call(&operation, &format!("/x?{query}"))
                .and_then(|call| call.number(&LIMIT).map_err(|e| e.error));
            let error = number.unwrap_err();
            assert!(error.contains(words), "{query}: {error}");
        }
        let good = call(&operation, "/x?limit=2").unwrap();
        let list = List::of(vec![1, 2, 3], &good).unwrap();
        assert_eq!((list.items, list.total), (vec![1, 2], 3));
        assert!(operation.is_at("/x") && !operation.is_at("/x/y"));
        let template = Operation::text("/a/{b}/c", "c");
        assert!(template.is_at("/a/b1/c") && !template.is_at("/a/b1"));
    }
}
