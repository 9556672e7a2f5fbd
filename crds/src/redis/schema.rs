//! CEL rules of this group.

use schemars::Schema;

use crate::schema::{add_rules, hosts_rule, no_nulls, rule};

pub(super) fn redis_service(schema: &mut Schema) {
    no_nulls(schema);
    add_rules(
        schema,
        vec![
            hosts_rule("host"),
            rule(
                "self.host.all(h, self.host.exists_one(other, other == h))",
                "host names a service twice: remove one",
            ),
        ],
    );
}

pub(super) fn redis_destination(schema: &mut Schema) {
    no_nulls(schema);
}

pub(super) fn redis_pool(schema: &mut Schema) {
    add_rules(
        schema,
        vec![rule(
            "!has(self.discoveryEndpoints) || self.discoveryEndpoints.all(e, e.matches('^([-._a-zA-Z0-9]+|\\\\[[0-9a-fA-F:.]+\\\\])(:[0-9]{1,5})?$'))",
            "discoveryEndpoints must be host or host:port; an IPv6 address is written in square brackets",
        )],
    );
}

pub(super) fn auth(schema: &mut Schema) {
    add_rules(
        schema,
        vec![rule(
            "has(self.secret) != has(self.plain)",
            "auth needs exactly one of secret and plain",
        )],
    );
}
