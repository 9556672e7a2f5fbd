//! A batch of meshes: what is asked of istiod, and how it is held against the prediction and the scopes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::{Value, json};
use trimtab_lazyload::predict::{Given, Release};
use trimtab_lazyload::scope::Labels;

use crate::ads::{Around, Difference, Judge, Sidecar, differences};
use crate::calls::{Answer, Call, answer, calls, is_hidden, is_shared};
use crate::meshes::SmallMesh;
use crate::registry::{Asked, Registry, Scoped};
use crate::world::{Outcome, WIDTH};

/// The label by which Sidecars select.
pub const ROLE: &str = "role";
/// So long istiod may take for a change.
const BOUND: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(250);

/// With the random Sidecar; with everything; with the scope of a fence; without a Sidecar of its own, which is asked where
/// one for the whole namespace counts, or else is the one with everything.
const ROLES: [&str; 4] = ["client", "free", "fenced", "plain"];

/// Number of the mesh, and role.
type Who = (usize, &'static str);

/// Meshes that are in the API server at once.
pub struct Batch<'a> {
    meshes: &'a [SmallMesh],
    registry: &'a Registry,
    scopes: Vec<Scoped>,
}

/// What one proxy got.
struct Told {
    given: Given,
    around: Around,
    differ: Vec<Difference>,
    otherwise: usize,
    asked: Asked,
}

impl<'a> Batch<'a> {
    pub fn new(meshes: &'a [SmallMesh], registry: &'a Registry) -> Self {
        let selector = Labels::from([(ROLE.to_owned(), "fenced".to_owned())]);
        let scopes = meshes.iter().map(|mesh| registry.scope(mesh, &selector));
        Self {
            meshes,
            registry,
            scopes: scopes.collect(),
        }
    }

    /// Sidecars by role, without selectors.
    pub fn sidecars(&self, mesh: &SmallMesh) -> Vec<(&'static str, Value)> {
        let of = |hosts: &[String]| json!({"egress": [{"hosts": hosts}]});
        let mut fenced = serde_json::to_value(&self.scopes[mesh.number].spec).unwrap();
        fenced["workloadSelector"] = Value::Null;
        let mut out = vec![("client", of(&mesh.entries)), ("fenced", fenced)];
        if self.registry.has_default(&mesh.client) {
            out.push(("free", of(&["*/*".to_owned()])));
        }
        out
    }

    fn asked(&self, mesh: &SmallMesh, role: &str, release: Release) -> Asked {
        let entries = match role {
            "client" => Some(mesh.entries.clone()),
            "fenced" => Some(self.scopes[mesh.number].entries.clone()),
            "plain" => self.registry.default_entries(&mesh.client),
            _ => None,
        };
        Asked {
            namespace: mesh.client.clone(),
            entries,
            release,
        }
    }

    /// Asks for all clients, and looks.
    pub async fn compare(&self, release: Release, judge: &Judge, out: &mut Outcome) {
        let end = Instant::now() + BOUND;
        let all = self.meshes.iter().flat_map(|mesh| {
            let default = self.registry.has_default(&mesh.client);
            let roles = ROLES.into_iter().filter(move |r| default || *r != "plain");
            roles.map(move |role| (mesh, role))
        });
        let one = |(mesh, role): (&'a SmallMesh, &'static str)| {
            let asked = self.asked(mesh, role, release);
            let namespace = mesh.client.clone();
            let sidecar = Sidecar { namespace, role };
            async move {
                (
                    (mesh.number, role),
                    self.told(asked, judge, &sidecar, end).await,
                )
            }
        };
        let told = futures::stream::iter(all.map(one)).buffer_unordered(WIDTH);
        let told: BTreeMap<Who, Told> = told.collect().await;
        for ((number, role), told) in &told {
            out.otherwise += told.otherwise;
            if !told.differ.is_empty() {
                let lines: Vec<&str> = told.differ.iter().map(|(_, line)| &**line).collect();
                out.differences.push(format!(
                    "{release:?} mesh {number} {role} {:?}\n{}\n{}",
                    told.asked.entries,
                    lines.join("\n"),
                    yaml(&self.meshes[*number])
                ));
            }
        }
        for mesh in self.meshes {
            self.rest(mesh, release, &told, out);
            self.safe(mesh, release, &told, out);
        }
    }

    /// What istiod gives, when it is as predicted or does not become so.
    async fn told(&self, asked: Asked, judge: &Judge, sidecar: &Sidecar, end: Instant) -> Told {
        let predicted = self.registry.predict(&asked);
        loop {
            let (given, around) = judge.given(sidecar).await;
            let all = differences(&predicted, &[], &given);
            let matters = |host: &str| all.iter().any(|(about, _)| about.contains(host));
            let others = if all.is_empty() {
                Vec::new()
            } else {
                self.registry.others(&asked, matters)
            };
            let differ = differences(&predicted, &others, &given);
            if differ.is_empty() || Instant::now() > end {
                let otherwise = all.len() - differ.len();
                return Told {
                    given,
                    around,
                    differ,
                    otherwise,
                    asked,
                };
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether the Sidecar of a scope keeps what the Sidecar for the whole namespace says besides hosts.
    fn rest(
        &self,
        mesh: &SmallMesh,
        release: Release,
        told: &BTreeMap<Who, Told>,
        out: &mut Outcome,
    ) {
        let number = mesh.number;
        let Some(plain) = told.get(&(number, "plain")) else {
            return;
        };
        let fenced = &told[&(number, "fenced")];
        let allowed = self.registry.allows_any(&mesh.client);
        if plain.around != fenced.around || plain.around.allows_any != allowed {
            out.differences.push(format!(
                "{release:?} mesh {number}: without a Sidecar of its own {:?}\n  in scope {:?}\n  predicted: any is allowed: {allowed}\n{}",
                plain.around,
                fenced.around,
                yaml(mesh)
            ));
        }
    }

    /// Whether calls get in scope what they get without a Sidecar.
    fn safe(
        &self,
        mesh: &SmallMesh,
        release: Release,
        told: &BTreeMap<Who, Told>,
        out: &mut Outcome,
    ) {
        let services = self.registry.services();
        let (free, scoped) = (
            &told[&(mesh.number, "free")],
            &told[&(mesh.number, "fenced")],
        );
        let hosts = mesh.calls.iter();
        for call in hosts.flat_map(|host| calls(&*services, &mesh.client, host)) {
            let (without, with) = (answer(&free.given, &call), answer(&scoped.given, &call));
            // What is unknown without a Sidecar, fails there, or shares its connections, may become what it likes.
            let open = without == Answer::default() || without.fails();
            if open || is_hidden(&*services, &mesh.client, &without, &call) {
                continue;
            }
            if is_shared(&*services, &mesh.client, &without, &call) {
                out.shared += 1;
                continue;
            }
            out.calls += 1;
            if without != with && !self.is_otherwise(free, &call, &with) {
                out.changed.push(format!(
                    "{release:?} mesh {} {call:?} of {}, scope {:?}\n  without {without:?}\n  in scope {with:?}\n{}",
                    mesh.number,
                    mesh.client,
                    scoped.asked.entries,
                    yaml(mesh)
                ));
            }
        }
    }

    /// Whether a client without a Sidecar may have that too: istiod decides anew with each push.
    fn is_otherwise(&self, free: &Told, call: &Call, with: &Answer) -> bool {
        let others = self.registry.others(&free.asked, |host| host == call.host);
        others.iter().any(|given| answer(given, call) == *with)
    }
}

/// A mesh as objects, to copy into a case.
fn yaml(mesh: &SmallMesh) -> String {
    let later = mesh.later.iter().map(|object| format!("later {object}"));
    let objects = mesh.objects.iter().chain(&mesh.defaults);
    let all = objects.map(ToString::to_string).chain(later);
    all.collect::<Vec<_>>().join("\n")
}
