//! The JSON API: its routes, its index, its OpenAPI document and its page are of the same paths, every answer is as the
//! document says, and every error is JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trimtab::config::Config;
use trimtab::operator::Operator;
use trimtab::{manifests, standalone};
use trimtab_lab::process::wait_until;

use crate::{BOUND, repository};

struct Answer {
    status: u16,
    kind: String,
    allow: String,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.kind, "application/json", "{}", self.text);
        serde_json::from_str(&self.text).unwrap()
    }
}

async fn ask(operator: &Operator, method: &str, path: &str) -> Answer {
    let url = format!("http://{}{path}", operator.http);
    let request = reqwest::Client::new()
        .request(method.parse().unwrap(), url)
        .header(trimtab::http::REQUEST_HEADER, "1");
    let answer = request.send().await.unwrap();
    let header = |name: &str| {
        let value = answer.headers().get(name);
        value.map_or_else(String::new, |v| v.to_str().unwrap().to_owned())
    };
    Answer {
        status: answer.status().as_u16(),
        kind: header("content-type"),
        allow: header("allow"),
        text: answer.text().await.unwrap(),
    }
}

/// An operator with a limiter, fences, a MetaRouter and objects of Redis.
async fn operator() -> Operator {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let embedded = standalone::embedded().unwrap();
    let folders = [
        "examples/quickstart",
        "examples/lazyload/bookinfo",
        "examples/metaprotocol/thrift",
        "examples/metaprotocol/redis",
    ];
    let folders = folders.map(|name| repository().join(name));
    for document in manifests::read(&folders).unwrap().documents {
        standalone::load(&embedded, &document).unwrap();
    }
    let config: Config = serde_saphyr::from_str(
        "{http: {address: '127.0.0.1:0'}, xds: {address: '127.0.0.1:0'}, lazyload: {learn: {accessLog: {address: '127.0.0.1:0'}}}}",
    )
    .unwrap();
    let operator = Operator::start(config, embedded.client(), CancellationToken::new())
        .await
        .unwrap();
    wait_until("ready", BOUND, || async {
        let ready = ask(&operator, "GET", "/readyz").await;
        (ready.status == 200).then_some(()).ok_or(ready.text)
    })
    .await
    .unwrap();
    operator
}

/// Method and path of each row of the page.
fn documented() -> BTreeSet<(String, String)> {
    let text = std::fs::read_to_string(repository().join("docs/api.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (method, path) = (cells.next()?, cells.next()?);
        let path = path.strip_prefix('`')?.strip_suffix('`')?;
        Some((method.to_owned(), path.to_owned()))
    });
    rows.collect()
}

/// A path of the document with real names in it.
fn real(path: &str) -> String {
    let (namespace, name, kind) = if path.contains("limiters") {
        ("default", "a", "")
    } else if path.contains("routers") {
        ("default", "thrift-demo", "")
    } else if path.contains("objects") {
        ("default", "redis-cache", "redisservice")
    } else if path.contains("pods") {
        ("bookinfo", "details-1", "")
    } else {
        ("bookinfo", "details", "servicefence")
    };
    path.replace("{namespace}", namespace)
        .replace("{name}", name)
        .replace("{kind}", kind)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_o24_routes_index_document_and_page_are_of_the_same_paths() {
    let operator = operator().await;
    let document = ask(&operator, "GET", "/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            described.insert((method.to_uppercase(), path.clone()));
        }
    }
    let index = ask(&operator, "GET", "/api/v1").await.json();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let listed = index["paths"].as_array().unwrap().iter();
    let listed: BTreeSet<_> = listed
        .map(|p| (text(&p["method"]), text(&p["path"])))
        .collect();
    assert_eq!(listed, described, "left: index, right: OpenAPI");
    assert_eq!(documented(), described, "left: docs/api.md, right: OpenAPI");
    for (method, path) in &described {
        let path = real(path);
        // No proxy is connected, and what changes state is tried by the tests of fences.
        if method != "GET" || path.contains("{node}") {
            continue;
        }
        let answer = ask(&operator, "GET", &path).await;
        let missing_pod = path.contains("/pods/") && answer.status == 404;
        assert!(
            answer.status == 200 || missing_pod,
            "{path}: {}",
            answer.text
        );
    }
    operator.stop().await.unwrap();
}

/// What of a value is not as its schema says.
fn differs(at: &str, value: &Value, schema: &Value, all: &Value, out: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.strip_prefix("#/components/schemas/").unwrap();
        let found = &all[name];
        assert!(found.is_object(), "{reference} leads nowhere");
        return differs(at, value, found, all, out);
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[choice].as_array() {
            let fits = |schema: &Value| {
                let mut wrong = Vec::new();
                differs(at, value, schema, all, &mut wrong);
                wrong.is_empty()
            };
            if !choices.iter().any(fits) {
                out.push(format!("{at}: {value} is none of {choices:?}"));
            }
        }
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        out.push(format!("{at}: {value} is none of {values:?}"));
    }
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let own = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let number = own == "integer" && types.contains(&"number");
    if !types.is_empty() && !types.contains(&own) && !number {
        out.push(format!("{at}: {value} is no {types:?}"));
    }
    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
        differs(&format!("{at}[{i}]"), item, &schema["items"], all, out);
    }
    if let Some(object) = value.as_object() {
        fields_differ(at, object, schema, all, out);
    }
}

fn fields_differ(
    at: &str,
    object: &serde_json::Map<String, Value>,
    schema: &Value,
    all: &Value,
    out: &mut Vec<String>,
) {
    for key in schema["required"].as_array().into_iter().flatten() {
        if !object.contains_key(key.as_str().unwrap()) {
            out.push(format!("{at}: {key} is missing"));
        }
    }
    for (key, value) in object {
        let own = &schema["properties"][key];
        let rest = &schema["additionalProperties"];
        if own.is_object() {
            differs(&format!("{at}.{key}"), value, own, all, out);
        } else if rest.is_object() {
            differs(&format!("{at}.{key}"), value, rest, all, out);
        } else if schema["properties"].is_object() && rest != true {
            out.push(format!("{at}.{key} is not in the schema"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_o24_every_answer_is_as_the_document_says() {
    let operator = operator().await;
    let document = ask(&operator, "GET", "/openapi.json").await.json();
    let schemas = &document["components"]["schemas"];
    let mut seen = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let content = &methods["get"]["responses"]["200"]["content"];
        let schema = &content["application/json"]["schema"];
        if !schema.is_object() || path.contains("{node}") {
            continue;
        }
        let answer = ask(&operator, "GET", &real(path)).await;
        if answer.status == 404 {
            continue;
        }
        let mut wrong = Vec::new();
        let answer = answer.json();
        differs(path, &answer, schema, schemas, &mut wrong);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        seen.insert(path.clone(), answer);
    }
    for (path, part) in [
        ("/api/v1/limiters", "limits"),
        ("/api/v1/metaprotocol/routers", "status"),
        ("/api/v1/lazyload/fences", "conditions"),
    ] {
        let item = &seen[path]["items"][0];
        assert!(!item[part].is_null(), "{path} has something: {item}");
        assert_eq!(
            seen[path]["total"],
            json!(seen[path]["items"].as_array().unwrap().len())
        );
    }
    // Debug texts of this language look like this.
    for (path, answer) in &seen {
        let text = answer.to_string();
        for word in ["Some(", "None,", " { ", "Ok("] {
            assert!(!text.contains(word), "{path}: {word} in {text}");
        }
    }
    operator.stop().await.unwrap();
}

/// Requests that are wrong, the status of their answers, and words of the error.
const ERRORS: &[(&str, &str, u16, &str)] = &[
    ("GET", "/nothing", 404, "there is nothing at /nothing"),
    ("GET", "/api/v2", 404, "/api/v1 has all paths"),
    ("GET", "/api/v1/limiters/x/y", 404, "no SmartLimiter x/y"),
    (
        "GET",
        "/api/v1/metaprotocol/routers/x/y",
        404,
        "no MetaRouter x/y",
    ),
    (
        "GET",
        "/api/v1/limiters/x/a/description",
        404,
        "no SmartLimiter x/a; there are default/a",
    ),
    (
        "GET",
        "/api/v1/metaprotocol/objects/redisservice/x/y",
        404,
        "no RedisService x/y",
    ),
    (
        "GET",
        "/api/v1/metaprotocol/objects/metarouter/x/y",
        404,
        "write redisservice",
    ),
    ("GET", "/api/v1/lazyload/fences/x/y", 404, "x/y"),
    ("GET", "/api/v1/xds/nodes/x", 404, "node id x"),
    (
        "GET",
        "/api/v1/describe/cow/x/y",
        404,
        "cannot be described",
    ),
    ("GET", "/api/v1/limiters?limit=0", 400, "limit: \"0\""),
    (
        "GET",
        "/api/v1/lazyload/edges?limit=99999999",
        400,
        "from 1 to 10000",
    ),
    ("GET", "/api/v1/lazyload/edges?limit=x", 400, "limit: \"x\""),
    ("GET", "/api/v1/limiters?limt=1", 400, "known here: limit"),
    ("GET", "/api/v1/limiters/%ff/y", 400, "UTF-8"),
    ("POST", "/lazyload/debug/svfReset", 400, "ns: it is missing"),
    ("POST", "/api/v1/limiters", 405, "use GET"),
    ("DELETE", "/", 405, "use GET"),
    (
        "GET",
        "/lazyload/debug/svfReset?ns=x",
        405,
        "use POST (curl -X POST -H",
    ),
    ("GET", "/api/v1/lazyload/fences/x/y/forget", 405, "use POST"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_o24_every_error_is_json_and_names_the_fix() {
    let operator = operator().await;
    for &(method, path, status, words) in ERRORS {
        let answer = ask(&operator, method, path).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(words), "{method} {path}: {error}");
        assert_eq!(!answer.allow.is_empty(), status == 405, "{method} {path}");
    }
    operator.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_o25_each_object_has_a_page() {
    let operator = operator().await;
    for path in [
        "/",
        "/metarouters",
        "/fences",
        "/limiters/default/a",
        "/metarouters/default/thrift-demo",
        "/fences/bookinfo/details",
    ] {
        let answer = ask(&operator, "GET", path).await;
        assert_eq!(
            (answer.status, answer.kind.as_str()),
            (200, "text/html; charset=utf-8")
        );
        assert!(answer.text.contains("/status.js"), "{path}");
    }
    let view = ask(&operator, "GET", "/api/v1/limiters/default/a").await;
    let host = &view.json()["target"]["host"];
    assert_eq!(host, "a.default.svc.cluster.local", "{}", view.text);
    operator.stop().await.unwrap();
}
