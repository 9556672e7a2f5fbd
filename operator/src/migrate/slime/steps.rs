//! The order in which Slime is replaced, so that no limit and no scope is lifted meanwhile.

use serde_json::Value;

use super::boot::Slime;
use super::made::{OF_GLOBAL_SIDECAR, is_first_form};
use crate::migrate::objects::{Objects, name, namespace, place};
use crate::migrate::report::{INSTALL, Report, again, install, saved, titled, uninstall};

/// Deployment of the operator that turns SlimeBoots into Helm releases.
const BOOT: &str = "slime-boot";

/// Writes the steps for what is there.
pub fn write(objects: &Objects, modules: &[Slime], report: &mut Report) {
    let kept = |m: &&Slime| matches!(m.kind.as_str(), "limiter" | "lazyload");
    let replaced: Vec<&Slime> = modules.iter().filter(kept).collect();
    let home = home(objects, &replaced);
    let deployments = deployments(&home, &replaced);
    let scopes = |m: &&Slime| m.kind == "lazyload";
    save(objects, &home, replaced.iter().any(scopes), report);
    crds(objects, report);
    stop(&deployments, report);
    report.step(
        "Install Trimtab",
        "it takes over the EnvoyFilters and Sidecars of your objects, under their names",
        install(),
        &[
            &uninstall(),
            "then back from step 3: what Trimtab wrote stays in force until Slime writes it anew",
        ],
    );
    if replaced.iter().any(|m| m.kind == "lazyload" && m.enabled) {
        fallback(objects, report);
    }
    report.step(
        "Compare",
        "every object is Ready, or says why not",
        vec![
            "kubectl get smartlimiters.microservice.slime.io --all-namespaces".to_owned(),
            "kubectl get servicefences --all-namespaces".to_owned(),
        ],
        &["as from step 4"],
    );
    removal(objects, &deployments, report);
}

/// Namespaces, and what runs there: Slime's operator, and modules, which a `SlimeBoot` may have elsewhere.
fn deployments(home: &str, modules: &[&Slime]) -> Vec<(String, String)> {
    let mut out = vec![(home.to_owned(), BOOT.to_owned())];
    for module in modules.iter().filter(|m| !m.deployment.is_empty()) {
        let namespace = match module.namespace.as_str() {
            "" => home,
            written => written,
        };
        match out.iter_mut().find(|(at, _)| at == namespace) {
            Some((_, names)) if names.split(' ').any(|n| n == module.deployment) => {}
            Some((_, names)) => *names = format!("{names} {}", module.deployment),
            None => out.push((namespace.to_owned(), module.deployment.clone())),
        }
    }
    out
}

fn stop(deployments: &[(String, String)], report: &mut Report) {
    let scale = |replicas: u8| -> Vec<String> {
        let all = deployments.iter();
        all.map(|(namespace, names)| {
            format!(
                "kubectl --namespace {namespace} scale deployment {names} --replicas={replicas}"
            )
        })
        .collect()
    };
    report.step(
        "Stop Slime",
        "limits and Sidecars stay in force, and do not follow metrics and calls",
        scale(0),
        &scale(1).iter().map(String::as_str).collect::<Vec<_>>(),
    );
}

/// Only kinds that are there can be asked for.
fn save(objects: &Objects, home: &str, scopes: bool, report: &mut Report) {
    let fences = scopes || !objects.kind("ServiceFence").is_empty();
    let own = if fences { ",servicefences" } else { "" };
    let boots = !objects.kind("SlimeBoot").is_empty();
    let boots = if boots { "slimeboots," } else { "" };
    report.step(
        "Save what is there",
        "nothing has changed",
        vec![
            saved(&format!("smartlimiters.microservice.slime.io{own}"), "slime-objects.yaml"),
            saved("envoyfilters,sidecars", "slime-generated.yaml"),
            format!("kubectl --namespace {home} get {boots}deployments,services,configmaps --output yaml > slime-installation.yaml"),
        ],
        &[],
    );
}

fn crds(objects: &Objects, report: &mut Report) {
    let first = objects.which("SmartLimiter", is_first_form);
    let form = if first.is_empty() {
        ""
    } else {
        " --set firstForm=true"
    };
    report.step(
        "Replace the CRDs",
        "Slime goes on working: the fields are the same, and none is pruned any more",
        vec![format!("helm install trimtab-crds charts/trimtab-crds --namespace {INSTALL} --take-ownership --force-conflicts{form}")],
        &["nothing to undo: Slime works with these CRDs"],
    );
}

/// Where Slime is installed.
fn home(objects: &Objects, modules: &[&Slime]) -> String {
    let boot = objects.which("Deployment", |o| name(o) == BOOT);
    let boot = boot.first().map(|o| namespace(o).to_owned());
    let module = modules.first().map(|m| m.namespace.clone());
    boot.or(module)
        .filter(|n| !n.is_empty())
        .unwrap_or_else(|| "mesh-operator".to_owned())
}

fn fallback(objects: &Objects, report: &mut Report) {
    let there = |o: &Value| name(o) == OF_GLOBAL_SIDECAR[0];
    let found = objects.which("EnvoyFilter", there);
    let mut commands = Vec::new();
    let mut back = vec![
        format!("kubectl --namespace {INSTALL} scale deployment trimtab --replicas=0"),
        format!(
            "kubectl --namespace {INSTALL} wait --for=delete pod --selector app.kubernetes.io/name=trimtab --timeout=60s"
        ),
        format!(
            "kubectl --namespace {INSTALL} delete envoyfilter {} --ignore-not-found",
            OF_GLOBAL_SIDECAR[0]
        ),
    ];
    for filter in &found {
        let of = format!("kubectl --namespace {}", namespace(filter));
        let (name, file) = (name(filter), "to-global-sidecar.yaml");
        commands.push(format!(
            "{of} get envoyfilter {name} --output yaml > {file}"
        ));
        commands.push(format!("{of} delete envoyfilter {name}"));
        back.push(format!("{} | kubectl create -f -", again(file, false)));
    }
    if commands.is_empty() {
        commands.push(format!(
            "kubectl --namespace {INSTALL} delete envoyfilter {} --ignore-not-found",
            OF_GLOBAL_SIDECAR[0]
        ));
    }
    let words = format!("then back from step 4; {BOOT} installs what is missing of its releases");
    report.step(
        "Hand the first calls over",
        "Trimtab writes its own EnvoyFilter of that name once its fallback is ready; for that moment calls out of scope follow outboundTrafficPolicy",
        commands,
        &back
            .iter()
            .map(String::as_str)
            .chain([words.as_str()])
            .collect::<Vec<_>>(),
    );
}

/// The end: from here there is no way back but a new installation.
fn removal(objects: &Objects, deployments: &[(String, String)], report: &mut Report) {
    let mut commands = Vec::new();
    for boot in objects.kind("SlimeBoot") {
        let (namespace, name) = (namespace(boot), name(boot));
        commands.push(format!("kubectl --namespace {namespace} patch slimeboot {name} --type merge --patch '{{\"metadata\":{{\"finalizers\":null}}}}'"));
        commands.push(format!(
            "kubectl --namespace {namespace} delete slimeboot {name}"
        ));
    }
    for (namespace, names) in deployments {
        commands.push(format!("kubectl --namespace {namespace} delete deployment,service,configmap,serviceaccount --ignore-not-found {names}"));
    }
    let sidecars = objects.which("Deployment", |o| {
        name(o) == "global-sidecar" && namespace(o) != INSTALL
    });
    for sidecar in &sidecars {
        let namespace = namespace(sidecar);
        commands.push(format!("kubectl --namespace {namespace} delete deployment,service,configmap,serviceaccount,role,rolebinding --ignore-not-found global-sidecar"));
    }
    for filter in objects.which("EnvoyFilter", |o| OF_GLOBAL_SIDECAR[1..].contains(&name(o))) {
        commands.push(format!(
            "kubectl --namespace {} delete envoyfilter {}",
            namespace(filter),
            name(filter)
        ));
    }
    if objects
        .which("Deployment", |o| {
            name(o) == "global-sidecar" && namespace(o) == INSTALL
        })
        .len()
        == 1
    {
        report.decide(
            format!("Deployment {INSTALL}/global-sidecar"),
            "Slime's global-sidecar has the name and namespace that Trimtab's fallback wants",
            &[
                "config.lazyload.fallback.clusterGsNamespace: another namespace",
                "delete Slime's before Trimtab is installed: meanwhile calls out of scope fail",
            ],
        );
    }
    if !objects.kind("SlimeBoot").is_empty() {
        commands.push("kubectl delete crd slimeboots.config.netease.com".to_owned());
    }
    let boots: Vec<String> = objects.kind("SlimeBoot").iter().map(|o| place(o)).collect();
    report.change(
        titled("SlimeBoot", boots),
        "deleted in the last step: values.yaml takes its place",
    );
    report.step(
        "Remove Slime",
        "only Trimtab is there; a finalizer of SlimeBoot is taken away because the program that it waits for is stopped",
        commands,
        &["none: install Slime anew, with slime-installation.yaml as a pattern"],
    );
}
