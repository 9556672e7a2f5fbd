//! What a limiter is named by.

use trimtab_kit::generated::owner_name;
use trimtab_mesh::Name;

/// Which of the two published forms an object has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// `microservice.slime.io/v1alpha2`.
    V1alpha2,
    /// `microservice.netease.com/v1alpha1`.
    First,
}

impl Form {
    /// The API version.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1alpha2 => "microservice.slime.io/v1alpha2",
            Self::First => "microservice.netease.com/v1alpha1",
        }
    }
}

/// Names a limiter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimiterKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Form.
    pub form: Form,
}

impl std::fmt::Display for LimiterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SmartLimiter {}/{}", self.namespace, self.name)
    }
}

impl LimiterKey {
    /// Of a namespace and name.
    pub(super) fn new((namespace, name): &Name, form: Form) -> Self {
        Self {
            namespace: namespace.clone(),
            name: name.clone(),
            form,
        }
    }

    /// The object as the labels of its outputs name it: `SmartLimiter.GROUP namespace/name`.
    pub fn title(&self) -> String {
        let (group, _) = self.form.api_version().split_once('/').unwrap_or_default();
        let name = owner_name(&self.name);
        format!("SmartLimiter.{group} {}/{name}", self.namespace)
    }

    /// What [`Self::title`] is the title of, for names that labels can hold.
    pub fn of_title(title: &str) -> Option<Self> {
        let (kind, name) = title.split_once(' ')?;
        let group = kind.strip_prefix("SmartLimiter.")?;
        let (namespace, name) = name.split_once('/')?;
        let mut forms = [Form::V1alpha2, Form::First].into_iter();
        let form = forms.find(|f| f.api_version().split('/').next() == Some(group))?;
        Some(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            form,
        })
    }
}
