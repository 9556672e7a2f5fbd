//! `HTTP_FILTER` and `NETWORK_FILTER` patches.

use serde_json::Value;

use super::{
    MergeError, Patch, items, list, listeners, merge_filter, mesh_port, name_wanted, port_wanted,
};

const CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";

/// Names from before Envoy 1.14 that Istio still understands in matches.
const OLD_NAMES: [(&str, &str); 3] = [
    ("envoy.http_connection_manager", CONNECTION_MANAGER),
    ("envoy.router", "envoy.filters.http.router"),
    ("envoy.tcp_proxy", "envoy.filters.network.tcp_proxy"),
];

/// The HTTP connection managers of a listener.
pub(super) fn connection_managers(listener: &mut Value) -> impl Iterator<Item = &mut Value> {
    network_filters(listener).filter(|filter| filter["name"] == CONNECTION_MANAGER)
}

fn network_filters(listener: &mut Value) -> impl Iterator<Item = &mut Value> {
    items(listener, "/filter_chains").flat_map(|chain| items(chain, "/filters"))
}

impl Patch {
    pub(super) fn patch_http_filters(&self, base: &mut Value) -> Result<usize, MergeError> {
        self.known_listener_match()?;
        let anchor = self.filter_match()["subFilter"]["name"]
            .as_str()
            .map(current_name);
        let mut places = 0;
        for listener in listeners(base).filter(|listener| self.wants_listener(listener)) {
            for manager in connection_managers(listener) {
                let Some(filters) = list(manager, "/typed_config/http_filters") else {
                    continue;
                };
                places += self.patch_filter_list(filters, anchor)?;
            }
        }
        Ok(places)
    }

    pub(super) fn patch_network_filters(&self, base: &mut Value) -> Result<usize, MergeError> {
        self.known_listener_match()?;
        let anchor = self.filter_match()["name"].as_str().map(current_name);
        let mut places = 0;
        for listener in listeners(base).filter(|listener| self.listener_wanted(listener)) {
            for filters in
                items(listener, "/filter_chains").filter_map(|chain| list(chain, "/filters"))
            {
                places += self.patch_filter_list(filters, anchor)?;
            }
        }
        Ok(places)
    }

    /// The operations that both kinds of filter lists have; returns how many places changed.
    fn patch_filter_list(
        &self,
        filters: &mut Vec<Value>,
        anchor: Option<&str>,
    ) -> Result<usize, MergeError> {
        let at = anchor.map(|name| filters.iter().position(|filter| filter["name"] == name));
        // An anchor that is asked for and absent means that this list is not meant.
        let position = match at {
            Some(None) => return Ok(0),
            Some(Some(position)) => Some(position),
            None => None,
        };
        match (self.operation.as_str(), position) {
            ("INSERT_FIRST", _) | ("INSERT_BEFORE", None) => filters.insert(0, self.value.clone()),
            ("INSERT_BEFORE", Some(position)) => filters.insert(position, self.value.clone()),
            ("INSERT_AFTER", Some(position)) => filters.insert(position + 1, self.value.clone()),
            ("INSERT_AFTER" | "ADD", None) | ("ADD", Some(_)) => filters.push(self.value.clone()),
            ("MERGE", Some(position)) => merge_filter(self, &mut filters[position])?,
            ("MERGE", None) => {
                for filter in filters.iter_mut() {
                    merge_filter(self, filter)?;
                }
            }
            ("REMOVE", Some(position)) => drop(filters.remove(position)),
            ("REPLACE", Some(position)) => filters[position] = self.value.clone(),
            _ => return Err(self.unsupported()),
        }
        Ok(1)
    }

    fn filter_match(&self) -> &Value {
        &self.conditions["listener"]["filterChain"]["filter"]
    }

    fn known_listener_match(&self) -> Result<(), MergeError> {
        for other in ["routeConfiguration", "cluster"] {
            if !self.conditions[other].is_null() {
                return Err(self.error(&format!(
                    "match.{other} is for another applyTo; use match.listener"
                )));
            }
        }
        let listener = &self.conditions["listener"];
        self.known_fields(listener, &["name", "portNumber", "filterChain"])?;
        self.known_fields(&listener["filterChain"], &["filter"])?;
        self.known_fields(self.filter_match(), &["name", "subFilter"])?;
        self.known_fields(&self.filter_match()["subFilter"], &["name"])
    }

    /// Context, name and port of the listener.
    fn listener_wanted(&self, listener: &Value) -> bool {
        let conditions = &self.conditions["listener"];
        self.wants_context(listener)
            && name_wanted(&conditions["name"], &listener["name"])
            && port_wanted(&conditions["portNumber"], mesh_port(listener))
    }

    /// The same, and the network filter must be the one that holds HTTP filters.
    fn wants_listener(&self, listener: &Value) -> bool {
        let filter = self.filter_match()["name"].as_str().map(current_name);
        self.listener_wanted(listener) && filter.is_none_or(|name| name == CONNECTION_MANAGER)
    }
}

fn current_name(name: &str) -> &str {
    OLD_NAMES
        .iter()
        .find(|(old, _)| *old == name)
        .map_or(name, |(_, current)| current)
}
