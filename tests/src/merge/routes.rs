//! `ROUTE_CONFIGURATION`, `VIRTUAL_HOST` and `HTTP_ROUTE` patches.

use serde_json::Value;

use super::filters::connection_managers;
use super::{MergeError, Patch, items, listeners, merge, mesh_port, name_wanted, port_wanted};

impl Patch {
    pub(super) fn patch_routes(&self, base: &mut Value) -> Result<usize, MergeError> {
        self.known_route_match()?;
        if self.operation != "MERGE" {
            return Err(self.unsupported());
        }
        let mut places = 0;
        for listener in listeners(base).filter(|listener| self.wants_context(listener)) {
            let port = mesh_port(listener);
            for manager in connection_managers(listener) {
                let Some(config) = manager.pointer_mut("/typed_config/route_config") else {
                    continue;
                };
                let conditions = &self.conditions["routeConfiguration"];
                if name_wanted(&conditions["name"], &config["name"])
                    && port_wanted(&conditions["portNumber"], port)
                {
                    places += self.merge_into(config);
                }
            }
        }
        Ok(places)
    }

    /// Merges into the route configuration itself, its matching virtual hosts, or their matching routes.
    fn merge_into(&self, config: &mut Value) -> usize {
        if self.apply_to == "ROUTE_CONFIGURATION" {
            merge(config, &self.value);
            return 1;
        }
        let host_match = &self.conditions["routeConfiguration"]["vhost"];
        let hosts = items(config, "/virtual_hosts");
        let hosts = hosts.filter(|host| name_wanted(&host_match["name"], &host["name"]));
        if self.apply_to == "VIRTUAL_HOST" {
            return hosts.map(|host| merge(host, &self.value)).count();
        }
        let routes = hosts.flat_map(|host| items(host, "/routes"));
        let routes = routes.filter(|route| {
            name_wanted(&host_match["route"]["name"], &route["name"])
                && action_wanted(&host_match["route"]["action"], route)
        });
        routes.map(|route| merge(route, &self.value)).count()
    }

    fn known_route_match(&self) -> Result<(), MergeError> {
        for other in ["listener", "cluster"] {
            if !self.conditions[other].is_null() {
                return Err(self.error(&format!(
                    "match.{other} is for another applyTo; use match.routeConfiguration"
                )));
            }
        }
        let config = &self.conditions["routeConfiguration"];
        self.known_fields(config, &["name", "portNumber", "vhost"])?;
        self.known_fields(&config["vhost"], &["name", "route"])?;
        self.known_fields(&config["vhost"]["route"], &["name", "action"])
    }
}

fn action_wanted(condition: &Value, route: &Value) -> bool {
    match condition.as_str() {
        None | Some("" | "ANY") => true,
        Some(action) => route.get(action.to_ascii_lowercase()).is_some(),
    }
}
