//! CEL rules of this group, in place of Aeraki's webhook. What CEL cannot say is left to the operator: that a regex
//! compiles, and that `.` and the own namespace in `exportTo` are one.

use schemars::Schema;

use crate::schema::{add_rules, hosts_rule, no_nulls, rule};

pub(super) fn application_protocol(schema: &mut Schema) {
    add_rules(
        schema,
        vec![
            rule(
                "!self.protocol.contains('-') && !self.protocol.contains(' ')",
                "protocol must have no '-' and no space: it is one part of a port name such as tcp-metaprotocol-dubbo",
            ),
            rule(
                "!self.codec.contains(' ')",
                "codec must have no space: it is the name that the proxy knows the codec by",
            ),
        ],
    );
}

pub(super) fn meta_router(schema: &mut Schema) {
    no_nulls(schema);
    add_rules(
        schema,
        vec![
            hosts_rule("hosts"),
            rule(
                "(has(self.routes) && size(self.routes) > 0) || has(self.localRateLimit) || has(self.globalRateLimit)",
                "a MetaRouter needs at least one of routes, localRateLimit, globalRateLimit",
            ),
            rule(
                "!has(self.gateways) || self.gateways.all(g, g.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-.a-z0-9]*[a-z0-9])?$'))",
                "gateways must be namespace/name or name",
            ),
            rule(
                "!has(self.exportTo) || self.exportTo.all(n, n in ['.', '*', '~'] || n.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))",
                "exportTo takes names of namespaces, '.' (this namespace), '*' (all) or '~' (none)",
            ),
            rule(
                "!has(self.exportTo) || size(self.exportTo) <= 1 || self.exportTo.all(n, n != '*' && n != '~')",
                "'*' and '~' in exportTo stand alone: remove the other entries",
            ),
            rule(
                "!has(self.exportTo) || self.exportTo.all(n, self.exportTo.exists_one(m, m == n))",
                "exportTo names a namespace twice: remove one",
            ),
        ],
    );
}

pub(super) fn meta_route(schema: &mut Schema) {
    add_rules(
        schema,
        vec![
            rule(
                "size(self.route) <= 1 || self.route.map(d, has(d.weight) ? d.weight : 0).sum() == 100",
                "the weights of several destinations must sum to 100",
            ),
            rule(
                "!has(self.mirrorPercentage) || has(self.mirror)",
                "mirrorPercentage is used only with mirror: add mirror or remove it",
            ),
        ],
    );
}

pub(super) fn matches(schema: &mut Schema) {
    add_rules(
        schema,
        vec![rule(
            "!has(self.attributes) || self.attributes.all(name, size(name) > 0)",
            "an attribute needs a name",
        )],
    );
}

pub(super) fn string_match(schema: &mut Schema) {
    add_rules(
        schema,
        vec![rule(
            "[has(self.exact), has(self.prefix), has(self.regex)].filter(set, set).size() <= 1",
            "an attribute takes one of exact, prefix, regex; {} means that it is present",
        )],
    );
}

pub(super) fn local_rate_limit(schema: &mut Schema) {
    add_rules(
        schema,
        vec![rule(
            "has(self.tokenBucket) || (has(self.conditions) && size(self.conditions) > 0)",
            "localRateLimit needs tokenBucket, conditions or both",
        )],
    );
}
