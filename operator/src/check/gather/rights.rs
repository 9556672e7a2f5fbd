//! Rights, by reviews: of the operator's ServiceAccount where it is installed, else of the user who installs.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use trimtab_kit::rights::Right;

use super::super::facts::{Asked, Missing, Rights};
use super::api::{ask, review};

/// Reviews that are under way at the same time.
const AT_ONCE: usize = 16;
/// Namespaces that are asked one by one.
const MOST_NAMESPACES: usize = 50;
/// What installing the charts takes besides the rights that they grant: group, resource, whether it is in a namespace.
const INSTALL: [(&str, &str, bool); 8] = [
    ("apiextensions.k8s.io", "customresourcedefinitions", false),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    ("rbac.authorization.k8s.io", "roles", true),
    ("apps", "deployments", true),
    ("", "services", true),
    ("", "configmaps", true),
    ("", "serviceaccounts", true),
];

/// A right, and the only namespace where it is needed.
#[derive(Clone, Debug)]
pub(super) struct Scoped {
    pub(super) right: Right,
    pub(super) namespace: Option<String>,
}

/// Whose rights are asked for.
pub(super) enum Subject {
    /// The operator's account: namespace, name.
    Account(String, String),
    /// The same, which this program runs as.
    OwnAccount(String, String),
    /// Whoever runs this program: name, and the namespace of the installation.
    User(String, String),
}

impl Subject {
    pub(super) async fn of(
        client: &Client,
        deployment: Option<&Deployment>,
        namespace: Option<&str>,
    ) -> Self {
        let api: Api<SelfSubjectReview> = Api::all(client.clone());
        let own = review(&api, &SelfSubjectReview::default()).await.ok();
        let own = own.and_then(|own| own.status?.user_info?.username);
        let Some(deployment) = deployment else {
            let namespace = namespace.unwrap_or(trimtab_crds::NAMESPACE).to_owned();
            return Self::User(own.unwrap_or_else(|| "you".to_owned()), namespace);
        };
        let namespace = deployment.namespace().unwrap_or_default();
        let pod = deployment
            .spec
            .as_ref()
            .and_then(|s| s.template.spec.as_ref());
        let name = pod.and_then(|pod| pod.service_account_name.clone());
        let name = name.unwrap_or_else(|| "default".to_owned());
        if own.as_deref() == Some(user(&namespace, &name).as_str()) {
            return Self::OwnAccount(namespace, name);
        }
        Self::Account(namespace, name)
    }

    /// Namespace of the operator.
    pub(super) fn namespace(&self) -> &str {
        match self {
            Self::Account(namespace, _)
            | Self::OwnAccount(namespace, _)
            | Self::User(_, namespace) => namespace,
        }
    }

    fn title(&self) -> String {
        match self {
            Self::Account(namespace, name) | Self::OwnAccount(namespace, name) => {
                format!("ServiceAccount {namespace}/{name}")
            }
            Self::User(name, _) => format!("User {name}"),
        }
    }

    fn is_operator(&self) -> bool {
        !matches!(self, Self::User(..))
    }

    async fn may(&self, client: &Client, asked: ResourceAttributes) -> Result<bool, String> {
        let resource_attributes = Some(asked);
        let Self::Account(namespace, name) = self else {
            let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
            let spec = SelfSubjectAccessReviewSpec {
                resource_attributes,
                ..SelfSubjectAccessReviewSpec::default()
            };
            let asked = SelfSubjectAccessReview {
                spec,
                ..SelfSubjectAccessReview::default()
            };
            let answer = review(&api, &asked).await?;
            return Ok(answer.status.is_some_and(|status| status.allowed));
        };
        let api: Api<SubjectAccessReview> = Api::all(client.clone());
        let groups = ["system:serviceaccounts", "system:authenticated"].map(str::to_owned);
        let own = format!("system:serviceaccounts:{namespace}");
        let spec = SubjectAccessReviewSpec {
            resource_attributes,
            user: Some(user(namespace, name)),
            groups: Some(groups.into_iter().chain([own]).collect()),
            ..SubjectAccessReviewSpec::default()
        };
        let asked = SubjectAccessReview {
            spec,
            ..SubjectAccessReview::default()
        };
        let answer = review(&api, &asked).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

fn user(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct One {
    group: String,
    resource: String,
    name: String,
    namespace: Option<String>,
    verb: String,
}

impl One {
    fn attributes(&self) -> ResourceAttributes {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (resource, sub) = match self.resource.split_once('/') {
            Some((resource, sub)) => (resource, Some(sub.to_owned())),
            None => (self.resource.as_str(), None),
        };
        ResourceAttributes {
            group: some(&self.group),
            resource: some(resource),
            subresource: sub,
            name: some(&self.name),
            namespace: self.namespace.clone(),
            verb: some(&self.verb),
            ..ResourceAttributes::default()
        }
    }

    /// Whether the chart may grant it in some namespaces only.
    fn is_write(&self) -> bool {
        let read = ["get", "list", "watch"].contains(&self.verb.as_str());
        !read && self.namespace.is_none()
    }
}

/// The rights that a subject lacks. `written`: namespaces with objects of ours; a right to write in all of these will do.
pub(super) async fn rights(
    client: &Client,
    subject: &Subject,
    needed: &[Scoped],
    written: &BTreeSet<String>,
) -> Asked<Rights> {
    let mut all: Vec<One> = needed.iter().flat_map(ones).collect();
    if !subject.is_operator() {
        all.extend(INSTALL.map(|(group, resource, inside)| One {
            group: group.to_owned(),
            resource: resource.to_owned(),
            name: String::new(),
            namespace: inside.then(|| subject.namespace().to_owned()),
            verb: "create".to_owned(),
        }));
    }
    let denied = denied(client, subject, all.clone()).await?;
    let mut missing: BTreeMap<(String, String, BTreeSet<String>), BTreeSet<String>> =
        BTreeMap::new();
    for one in denied {
        // Where it cannot be known whether the object is there, the right is missing.
        if is_void(client, &one).await.unwrap_or(false) {
            continue;
        }
        let places = if one.is_write() {
            lacking(client, subject, &one, written).await?
        } else {
            Some(one.namespace.clone().into_iter().collect())
        };
        let Some(places) = places else { continue };
        let resource = format!("{}.{}", one.resource, one.group);
        let resource = resource.trim_end_matches('.').to_owned();
        let verbs = missing.entry((resource, one.name, places)).or_default();
        verbs.insert(one.verb);
    }
    let missing = missing.into_iter();
    Ok(Rights {
        subject: subject.title(),
        of_operator: subject.is_operator(),
        asked: all.len(),
        missing: missing
            .map(|((resource, name, namespaces), verbs)| Missing {
                resource,
                name,
                namespaces,
                verbs,
            })
            .collect(),
    })
}

fn ones(scoped: &Scoped) -> Vec<One> {
    let Scoped { right, namespace } = scoped;
    let verbs = right.verbs.iter();
    verbs
        .map(|verb| One {
            group: right.group.clone(),
            resource: right.resource.clone(),
            name: right.name.clone(),
            namespace: namespace.clone(),
            verb: (*verb).to_owned(),
        })
        .collect()
}

/// Whether the right is about one object that is not there, such as the Service of a fallback that is not installed.
async fn is_void(client: &Client, one: &One) -> Result<bool, String> {
    if one.name.is_empty() || one.namespace.is_some() || !one.group.is_empty() {
        return Ok(false);
    }
    let kind = GroupVersionKind::gvk("", "v1", "");
    let resource = ApiResource::from_gvk_with_plural(&kind, &one.resource);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let named = ListParams::default().fields(&format!("metadata.name={}", one.name));
    Ok(ask(api.list_metadata(&named)).await?.items.is_empty())
}

/// Where a right to write that is not held everywhere is lacking: empty: everywhere; `None`: nowhere that matters.
async fn lacking(
    client: &Client,
    subject: &Subject,
    one: &One,
    written: &BTreeSet<String>,
) -> Result<Option<BTreeSet<String>>, String> {
    let places: Vec<One> = written
        .iter()
        .take(MOST_NAMESPACES)
        .map(|namespace| One {
            namespace: Some(namespace.clone()),
            ..one.clone()
        })
        .collect();
    let asked = places.len();
    let denied = denied(client, subject, places).await?;
    if asked == 0 || denied.len() == asked {
        return Ok(Some(BTreeSet::new()));
    }
    let namespaces: BTreeSet<String> = denied.into_iter().filter_map(|one| one.namespace).collect();
    Ok((!namespaces.is_empty()).then_some(namespaces))
}

/// Those that are denied, sorted.
async fn denied(client: &Client, subject: &Subject, all: Vec<One>) -> Result<Vec<One>, String> {
    let answers = futures::stream::iter(all)
        .map(|one| async move {
            let may = subject.may(client, one.attributes()).await;
            may.map(|may| (!may).then_some(one))
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let mut out = Vec::new();
    for answer in answers {
        out.extend(answer?);
    }
    out.sort();
    Ok(out)
}
