//! What limiters ask of proxies. Pure.

use trimtab_crds::limiter::{Descriptor, GrpcStatus, LimiterSpec};
use trimtab_kit::istiod::Release;
use trimtab_kit::needs::{Need, Party};

use crate::owner::descriptor_path;

/// The first whose proxies have a bucket for each value of a header.
const SEPARATE: Release = Release {
    major: 1,
    minor: 26,
};
/// The first whose proxies refuse gRPC calls with `RESOURCE_EXHAUSTED` in this filter.
const EXHAUSTED: Release = Release {
    major: 1,
    minor: 18,
};

/// What the proxies of a limiter must be able to do: each release once, with its first field, the newest first.
pub(crate) fn needs(spec: &LimiterSpec, first_form: bool) -> Vec<Need> {
    let mut out: Vec<Need> = Vec::new();
    for (set, descriptors) in &spec.sets {
        for (index, descriptor) in descriptors.iter().enumerate() {
            let path = descriptor_path(first_form, set, index);
            out.extend(of_descriptor(descriptor, &path));
        }
    }
    out.sort_by(|a, b| b.since.cmp(&a.since).then_with(|| a.field.cmp(&b.field)));
    let mut seen = Vec::new();
    out.retain(|need| {
        let new = !seen.contains(&need.since);
        seen.push(need.since);
        new
    });
    out
}

fn of_descriptor(descriptor: &Descriptor, path: &str) -> Vec<Need> {
    let mut out = Vec::new();
    let mut need = |since, field: &str, what: &str, instead: &str| {
        out.push(Need {
            party: Party::Proxies,
            since,
            field: format!("{path}.{field}"),
            what: what.to_owned(),
            instead: instead.to_owned(),
        });
    };
    let separate = |m: &trimtab_crds::limiter::Matcher| m.present_match_separate == Some(true);
    if let Some(at) = descriptor.matches.iter().position(separate) {
        need(
            SEPARATE,
            &format!("match[{at}].present_match_separate"),
            "a bucket for each value",
            "match values one by one",
        );
    }
    let response = descriptor.action.response.as_ref();
    let status = response.and_then(|response| response.grpc_status);
    if status.unwrap_or_default() == GrpcStatus::ResourceExhausted {
        need(
            EXHAUSTED,
            "action.response.grpcStatus",
            "refusing gRPC calls with RESOURCE_EXHAUSTED",
            "set it to FromStatus",
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(descriptors: &str) -> Vec<String> {
        let text = format!("{{sets: {{_base: {descriptors}}}}}");
        let spec: LimiterSpec = serde_saphyr::from_str(&text).unwrap();
        needs(&spec, false)
            .into_iter()
            .map(|need| need.field)
            .collect()
    }

    #[test]
    fn each_need_is_told_once() {
        const BUCKET: &str = "quota: '1', fill_interval: {seconds: 1}";
        let plain = format!("{{condition: 'true', action: {{{BUCKET}}}}}");
        let status = "response: {grpcStatus: FromStatus}";
        let quiet = format!("{{condition: 'true', action: {{{BUCKET}, {status}}}}}");
        assert_eq!(
            fields(&format!("[{plain}, {plain}]")),
            ["spec.sets._base.descriptor[0].action.response.grpcStatus"]
        );
        assert!(fields(&format!("[{quiet}]")).is_empty());
        let separate = format!(
            "{{condition: 'true', match: [{{name: user, present_match_separate: true}}], action: {{{BUCKET}, {status}}}}}"
        );
        assert_eq!(
            fields(&format!("[{quiet}, {separate}]")),
            ["spec.sets._base.descriptor[1].match[0].present_match_separate"]
        );
    }
}
