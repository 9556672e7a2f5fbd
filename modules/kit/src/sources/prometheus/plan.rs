//! Which queries a tick needs, and which answer goes where. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::config::{Aggregate, Handler, HandlerType, Labels, PrometheusConfig};
use super::restrict::restrict;
use super::series::canonical_name;
use crate::sources::{Failure, SampleRequest};

/// One query to send, unique in its tick.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Query {
    pub(crate) text: String,
    pub(crate) timeout: Duration,
    pub(crate) max_age: Option<Duration>,
    /// The namespace whose limiters bring it themselves; `None`: it is the configuration's.
    pub(crate) owner: Option<Arc<str>>,
}

/// How a value is taken from the answer of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reduction<'a> {
    /// The only series.
    Value,
    /// All series by their names; asked for by the handler's name.
    AllSeries,
    /// The series of this canonical name, if it is there.
    Series(String),
    /// The series of the demand's pods.
    Pods {
        labels: &'a Labels,
        aggregate: Aggregate,
    },
    /// The series of the demand's service; without an aggregate there must be one.
    Service {
        labels: &'a Labels,
        aggregate: Option<Aggregate>,
    },
}

/// One value that a demand wants.
#[derive(Clone, Debug)]
pub(crate) struct Want<'a> {
    /// Position of the demand.
    pub(crate) sample_request: usize,
    /// The name as the demand wrote it.
    pub(crate) name: &'a str,
    /// The query, or why there is none to send.
    pub(crate) query: Result<usize, Failure>,
    /// Whether the limiter brings the query itself.
    pub(crate) own: bool,
    pub(crate) take: Reduction<'a>,
}

/// A handler, and whether it is a limiter's own.
#[derive(Clone, Copy)]
struct Found<'a> {
    handler: &'a Handler,
    own: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    pub(crate) queries: Vec<Query>,
    pub(crate) wants: Vec<Want<'a>>,
    known: HashMap<Query, usize>,
    /// Queries without placeholders, by the address of their handler: most demands share them, and need no rendering.
    fixed: HashMap<usize, usize>,
}

/// Plans a tick.
pub(crate) fn plan<'a>(
    config: &'a PrometheusConfig,
    sample_requests: &'a [SampleRequest],
) -> Plan<'a> {
    let mut plan = Plan::default();
    for (index, sample_request) in sample_requests.iter().enumerate() {
        for name in &sample_request.metrics {
            if name.contains('{') {
                plan.want_series(config, index, sample_request, name);
            } else if let Some((found, take)) = resolve(&config.handlers, sample_request, name) {
                let query = plan.query(found, config, sample_request);
                plan.wants.push(Want {
                    sample_request: index,
                    name,
                    query,
                    own: found.own,
                    take,
                });
            }
        }
    }
    plan
}

/// Finds the handler of a name. A limiter's own query wins over a configured handler, and a name written out over a derived one.
fn resolve<'a>(
    handlers: &'a BTreeMap<String, Handler>,
    sample_request: &'a SampleRequest,
    name: &str,
) -> Option<(Found<'a>, Reduction<'a>)> {
    let find = |name: &str| {
        let mut own = sample_request.custom.iter();
        let own = own
            .find(|(n, _)| n == name)
            .map(|(_, handler)| Found { handler, own: true });
        own.or_else(|| {
            let grouped = || sample_request.grouped.get(name);
            let handler = handlers.get(name).or_else(grouped)?;
            Some(Found {
                handler,
                own: false,
            })
        })
    };
    if let Some(found) = find(name) {
        return Some((found, take(found.handler, found.handler.aggregate)));
    }
    let (base, aggregate) = Aggregate::split(name)?;
    let found = find(base).filter(|found| {
        matches!(
            found.handler.kind,
            HandlerType::PerPod | HandlerType::PerService
        )
    })?;
    Some((found, take(found.handler, Some(aggregate))))
}

fn take(handler: &Handler, aggregate: Option<Aggregate>) -> Reduction<'_> {
    let labels = &handler.labels;
    match handler.kind {
        HandlerType::Value => Reduction::Value,
        HandlerType::Group => Reduction::AllSeries,
        HandlerType::PerPod => Reduction::Pods {
            labels,
            aggregate: aggregate.unwrap_or_default(),
        },
        HandlerType::PerService => Reduction::Service { labels, aggregate },
    }
}

impl<'a> Plan<'a> {
    /// A raw series name can come from any group, so each group is asked.
    fn want_series(
        &mut self,
        config: &'a PrometheusConfig,
        index: usize,
        sample_request: &'a SampleRequest,
        name: &'a str,
    ) {
        let own = sample_request
            .custom
            .iter()
            .map(|(_, handler)| Found { handler, own: true });
        let configured = config.handlers.values().map(|handler| Found {
            handler,
            own: false,
        });
        let groups = own
            .chain(configured)
            .filter(|found| found.handler.kind == HandlerType::Group);
        let series = canonical_name(name);
        for found in groups {
            let query = self.query(found, config, sample_request);
            self.wants.push(Want {
                sample_request: index,
                name,
                query,
                own: found.own,
                take: Reduction::Series(series.clone()),
            });
        }
    }

    fn query(
        &mut self,
        Found { handler, own }: Found<'a>,
        config: &PrometheusConfig,
        sample_request: &SampleRequest,
    ) -> Result<usize, Failure> {
        if let Some(index) = self.fixed.get(&std::ptr::from_ref(handler).addr()) {
            return Ok(*index);
        }
        let rendered = render(&handler.query, sample_request)?;
        let fixed = rendered.is_none();
        let mut text = rendered.unwrap_or_else(|| handler.query.clone());
        if own {
            text = allowed(text, config, &sample_request.namespace)?;
        }
        let query = Query {
            text,
            timeout: handler.timeout.map_or(*config.timeout, Into::into),
            max_age: handler.max_age.map(Into::into),
            owner: own.then(|| sample_request.namespace.as_str().into()),
        };
        let index = *self.known.entry(query).or_insert_with_key(|query| {
            self.queries.push(query.clone());
            self.queries.len() - 1
        });
        if fixed {
            self.fixed.insert(std::ptr::from_ref(handler).addr(), index);
        }
        Ok(index)
    }
}

/// A limiter's own query as it may be asked.
fn allowed(text: String, config: &PrometheusConfig, namespace: &str) -> Result<String, Failure> {
    let rules = &config.own_queries;
    if !rules.enabled {
        return Err(Failure::Error(
            "queries of limiters are switched off by metrics.prometheus.ownQueries.enabled; use a metric that the configuration has a handler for".to_owned(),
        ));
    }
    if rules.namespace_label.is_empty() {
        return Ok(text);
    }
    restrict(&text, &rules.namespace_label, namespace).map_err(|why| {
        Failure::Error(format!(
            "the query cannot be held to the limiter's namespace, as metrics.prometheus.ownQueries.namespaceLabel asks: {why}; correct or simplify it"
        ))
    })
}

const NAMESPACE: &str = "$namespace";
const POD_NAME: &str = "$pod_name";
const SERVICE: &str = "$service";

/// Replaces the placeholders; `None` when there are none.
fn render(query: &str, sample_request: &SampleRequest) -> Result<Option<String>, Failure> {
    if !query.contains('$') {
        return Ok(None);
    }
    let mut out = String::with_capacity(query.len() + 64);
    let (mut rest, mut changed) = (query, false);
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let placeholder = [NAMESPACE, POD_NAME, SERVICE]
            .into_iter()
            .find(|p| starts_with_word(rest, p));
        match placeholder {
            Some(NAMESPACE) => out.push_str(safe("namespace", &sample_request.namespace)?),
            Some(SERVICE) => out.push_str(safe("service", &sample_request.service)?),
            Some(_) => push_pods(&mut out, sample_request)?,
            // Dollar signs of other meaning, such as `$1` of label_replace, stay.
            None => out.push('$'),
        }
        changed |= placeholder.is_some();
        rest = &rest[placeholder.map_or(1, str::len)..];
    }
    out.push_str(rest);
    Ok(changed.then_some(out))
}

fn starts_with_word(text: &str, word: &str) -> bool {
    text.strip_prefix(word)
        .is_some_and(|after| !after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
}

fn push_pods(out: &mut String, sample_request: &SampleRequest) -> Result<(), Failure> {
    // `pod=~""` would match every series without a pod label, so a set without pods has no answer.
    if sample_request.pods.is_empty() {
        return Err(Failure::Empty);
    }
    let mut names: Vec<&str> = sample_request
        .pods
        .iter()
        .map(|p| p.name.as_ref())
        .collect();
    names.sort_unstable();
    for (i, name) in names.into_iter().enumerate() {
        if i > 0 {
            out.push('|');
        }
        // `[.]` means a dot inside "..." and inside `...`, where a backslash would need a different number of escapes.
        out.push_str(&safe("pod", name)?.replace('.', "[.]"));
    }
    Ok(())
}

/// Kubernetes names cannot hold quotes or regex signs; anything else could end the string of the query.
fn safe<'t>(what: &str, name: &'t str) -> Result<&'t str, Failure> {
    if !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    {
        return Ok(name);
    }
    Err(Failure::Error(format!(
        "the {what} name {name:?} cannot be put into a query; use a handler without placeholders, or a name of letters, digits, '-' and '.'"
    )))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::sources::{PodFacts, SampleRequestId};

    fn sample_request(service: &str, metrics: &[&str]) -> SampleRequest {
        let pods: Vec<_> = ["b.1", "a-0"]
            .iter()
            .map(|n| PodFacts::new("shop", n, true))
            .collect();
        SampleRequest {
            id: SampleRequestId(7),
            set: "_base".into(),
            namespace: "shop".into(),
            service: service.into(),
            pods: Arc::from(pods),
            metrics: metrics.iter().map(|m| (*m).to_owned()).collect(),
            ..SampleRequest::default()
        }
    }

    fn config(list: &[(&str, &str, HandlerType)]) -> PrometheusConfig {
        let mut config = PrometheusConfig::new("http://p");
        config.handlers = list
            .iter()
            .map(|(n, q, k)| ((*n).to_owned(), Handler::new(*q, *k)))
            .collect();
        config
    }

    #[test]
    fn placeholders_render_sorted_and_escaped() {
        let d = sample_request("cart", &[]);
        let text = render(
            r#"x{n="$namespace",p=~"$pod_name",s="$service",l="$namespaces$1"}"#,
            &d,
        )
        .unwrap()
        .unwrap();
        assert_eq!(
            text,
            r#"x{n="shop",p=~"a-0|b[.]1",s="cart",l="$namespaces$1"}"#
        );
        assert_eq!(
            render(r#"label_replace(x,"a","$1","b","(.*)")"#, &d),
            Ok(None)
        );
    }

    #[test]
    fn no_pods_is_empty_and_a_quote_is_refused() {
        let mut d = sample_request("cart", &[]);
        d.pods = Arc::from(Vec::new());
        assert_eq!(render("$pod_name", &d), Err(Failure::Empty));
        d.service = r#"x"} or vector(1"#.into();
        assert!(matches!(render("$service", &d), Err(Failure::Error(_))));
    }

    #[test]
    fn only_named_handlers_are_asked_and_equal_queries_once() {
        let config = config(&[
            ("mesh", "up", HandlerType::Value),
            ("svc", "r{s=\"$service\"}", HandlerType::Value),
            ("cpu", "c", HandlerType::PerPod),
            ("unused", "u", HandlerType::Value),
        ]);
        let sample_requests: Vec<_> = ["a", "b", "a"]
            .iter()
            .map(|s| sample_request(s, &["mesh", "svc", "cpu", "cpu.max", "mesh.max", "unknown"]))
            .collect();
        let plan = plan(&config, &sample_requests);
        let texts: Vec<_> = plan.queries.iter().map(|q| q.text.as_str()).collect();
        assert_eq!(texts, ["up", "r{s=\"a\"}", "c", "r{s=\"b\"}"]);
        assert_eq!(plan.wants.len(), 3 * 4);
    }

    #[test]
    fn explicit_and_custom_names_win() {
        let config = config(&[
            ("cpu", "c", HandlerType::PerPod),
            ("cpu.sum", "s", HandlerType::Value),
        ]);
        let mut d = sample_request("a", &["cpu.sum", "cpu"]);
        d.custom
            .push(("cpu".into(), Handler::new("own", HandlerType::Value)));
        let sample_requests = [d];
        let plan = plan(&config, &sample_requests);
        let texts: Vec<_> = plan.queries.iter().map(|q| q.text.as_str()).collect();
        assert_eq!(texts, ["s", "own"]);
        assert!(plan.wants.iter().all(|w| w.take == Reduction::Value));
    }

    #[test]
    fn fault_t5_own_queries_are_apart_restricted_or_refused() {
        let mut config = config(&[("mesh", "up", HandlerType::Value)]);
        let mut requests: Vec<_> = ["shop", "shop", "bank"]
            .map(|namespace| {
                let mut request = sample_request("a", &["mesh", "own"]);
                request.namespace = namespace.to_owned();
                let own = Handler::new("up", HandlerType::Value);
                request.custom.push(("own".into(), own));
                request
            })
            .into();
        let texts = |config: &PrometheusConfig, requests: &[SampleRequest]| -> Vec<String> {
            let plan = plan(config, requests);
            plan.queries
                .iter()
                .map(|q| format!("{} {}", q.owner.as_deref().unwrap_or("-"), q.text))
                .collect()
        };
        assert_eq!(texts(&config, &requests), ["- up", "shop up", "bank up"]);
        config.own_queries.namespace_label = "ns".to_owned();
        assert_eq!(
            texts(&config, &requests),
            ["- up", "shop up{ns=\"shop\"}", "bank up{ns=\"bank\"}"]
        );
        requests[0].custom[0].1.query = "up{".to_owned();
        let refused = |config: &PrometheusConfig| {
            let plan = plan(config, &requests[..1]);
            let want = plan.wants.iter().find(|w| w.own).unwrap();
            want.query.clone().unwrap_err().to_string()
        };
        assert!(refused(&config).contains("namespaceLabel"));
        config.own_queries.enabled = false;
        assert!(refused(&config).contains("switched off"));
    }

    proptest! {
        // Whatever the names are, a rendered query has as many quotes as its template.
        #[test]
        fn names_never_leave_their_string(namespace in ".{0,12}", service in ".{0,12}", pod in ".{0,12}") {
            let mut d = sample_request(&service, &[]);
            d.namespace = namespace;
            d.pods = Arc::from(vec![PodFacts::new("n", &pod, true)]);
            if let Ok(Some(text)) = render(r#"x{a="$namespace",b="$service",c=~"$pod_name"}"#, &d) {
                prop_assert_eq!(text.matches('"').count(), 6);
                let closed = !text.contains(['\\', '\n']) && text.matches('}').count() == 1;
                prop_assert!(closed, "{}", text);
            }
        }
    }
}
