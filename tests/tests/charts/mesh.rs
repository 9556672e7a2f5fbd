//! Certificates of the mesh for access logs and pushed metrics.

use crate::helm::{object, objects, render};

const ISTIO: [&str; 2] = ["--api-versions", "networking.istio.io/v1/DestinationRule"];
const ON: [&str; 2] = ["--set", "meshCertificate.enabled=true"];

fn rendered(arguments: &[&[&str]]) -> String {
    render("trimtab", &arguments.concat()).unwrap()
}

#[test]
fn fault_t14_sidecars_use_the_meshs_mtls_for_the_ports_that_want_it() {
    let both = ["--set-json", "config.metrics.mds={}"];
    let rule = |text: &str| object(text, "DestinationRule", "trimtab")["spec"].clone();
    let ports = |text: &str| -> Vec<(u64, String)> {
        let settings = rule(text)["trafficPolicy"]["portLevelSettings"].clone();
        let settings = settings.as_array().unwrap().iter();
        settings
            .map(|s| {
                let mode = s["tls"]["mode"].as_str().unwrap().to_owned();
                (s["port"]["number"].as_u64().unwrap(), mode)
            })
            .collect()
    };
    let mutual = || "ISTIO_MUTUAL".to_owned();
    let one = rendered(&[&ISTIO, &ON]);
    assert_eq!(ports(&one), [(8082, mutual())]);
    let host = "trimtab.istio-system.svc.cluster.local";
    assert_eq!(rule(&one)["host"], host);
    let two = rendered(&[&ISTIO, &ON, &both]);
    assert_eq!(ports(&two), [(8082, mutual()), (8084, mutual())]);
    // Off, without Istio, and where somebody else writes it.
    let without = ["--set", "meshCertificate.destinationRule=false"];
    for arguments in [&[&ISTIO[..]][..], &[&ON[..]], &[&ISTIO, &ON, &without]] {
        let text = rendered(arguments);
        let kinds = objects(&text).into_iter();
        assert!(
            kinds
                .map(|o| o["kind"].clone())
                .all(|kind| kind != "DestinationRule")
        );
    }
    let nothing = ["--set", "config.lazyload.enabled=false"];
    let error = render("trimtab", &[&ON[..], &nothing].concat()).unwrap_err();
    assert!(
        error.contains("no port would use the certificate"),
        "{error}"
    );
}

#[test]
fn fault_t14_the_pod_has_what_istiod_asks_for() {
    let deployment = object(&rendered(&[&ON]), "Deployment", "trimtab");
    let pod = &deployment["spec"]["template"]["spec"];
    let volumes = pod["volumes"].to_string();
    assert!(volumes.contains(r#""audience":"istio-ca""#), "{volumes}");
    assert!(volumes.contains("istio-ca-root-cert"), "{volumes}");
    let off = object(&rendered(&[]), "Deployment", "trimtab").to_string();
    assert!(!off.contains("istio-ca"), "{off}");
}
