//! Lists and events into a table.

use k8s_openapi::api::core::v1;

use super::*;
use crate::model::{MeshConfig, Namespace, Service};

/// What was told: the name, and whether there was and is a row.
#[derive(Default)]
struct Told(Mutex<Vec<(String, bool, bool)>>);

impl Follower<Namespace> for Told {
    fn changed(&self, change: Change<'_, Namespace>) {
        let (old, new) = (change.old.is_some(), change.new.is_some());
        self.0.lock().push((change.name.1.clone(), old, new));
    }
}

fn namespace(name: &str, label: &str) -> Arc<v1::Namespace> {
    let mut object = v1::Namespace::default();
    object.metadata.name = Some(name.to_owned());
    let label = ("l".to_owned(), label.to_owned());
    object.metadata.labels = Some([label].into());
    Arc::new(object)
}

#[test]
fn followers_hear_of_what_differs() {
    let table = Table::<Namespace>::new("cluster.local");
    let told = Arc::new(Told::default());
    table.follow(&told);
    let heard = || std::mem::take(&mut *told.0.lock());
    let said = |name: &str, old, new| (name.to_owned(), old, new);
    table.replace(&[namespace("a", "1"), namespace("b", "1")]);
    assert_eq!(heard(), [said("a", false, true), said("b", false, true)]);
    table.replace(&[namespace("a", "1"), namespace("b", "1")]);
    assert_eq!(heard(), [], "the same list again");
    table.replace(&[namespace("b", "2")]);
    assert_eq!(heard(), [said("b", true, true), said("a", true, false)]);
}

#[test]
fn what_cannot_be_decoded_stays_until_it_is_gone() {
    let table = Table::<Namespace>::new("cluster.local");
    let told = Arc::new(Told::default());
    table.follow(&told);
    let name = |name: &str| (String::new(), name.to_owned());
    table.replace(&[namespace("known", "1")]);
    for bad in ["known", "never"] {
        table.undecodable(&name(bad), "bad");
    }
    told.0.lock().clear();
    table.begin();
    table.end(&[name("known"), name("never")]);
    assert!(table.get("", "known").is_some());
    assert_eq!(*told.0.lock(), []);
    table.replace(&[]);
    let gone = [("known", true), ("never", false)];
    let gone = gone.map(|(name, old)| (name.to_owned(), old, false));
    assert_eq!(*told.0.lock(), gone);
    assert_eq!(table.rows().unreadable().count(), 0);
}

/// A name, and whether another namespace saw the Service before and sees it now.
type Sight = (String, Option<bool>, Option<bool>);

/// The changes that were told.
#[derive(Default)]
struct Seen(Mutex<Vec<Sight>>);

impl Follower<Service> for Seen {
    fn changed(&self, change: Change<'_, Service>) {
        let seen = |row: Option<&Arc<Service>>| row.map(|s| s.exports.visible("a", "b"));
        let told = (change.name.1.clone(), seen(change.old), seen(change.new));
        self.0.lock().push(told);
    }
}

#[test]
fn a_changed_default_of_the_mesh_is_told_once_of_what_it_touches() {
    let mesh = Mesh::new("");
    mesh.table::<MeshConfig>().follow(&mesh);
    let seen = Arc::new(Seen::default());
    let table = mesh.table::<Service>();
    table.follow(&seen);
    let heard = || std::mem::take(&mut *seen.0.lock());
    let service = |name: &str, exports: Option<&str>| {
        let mut object = v1::Service::default();
        object.metadata.namespace = Some("a".to_owned());
        object.metadata.name = Some(name.to_owned());
        let key = "networking.istio.io/exportTo".to_owned();
        object.metadata.annotations = exports.map(|list| [(key, list.to_owned())].into());
        object
    };
    let config = |text: &str| {
        let mut object = v1::ConfigMap::default();
        object.metadata.name = Some("istio".to_owned());
        object.data = Some([("mesh".to_owned(), text.to_owned())].into());
        mesh.put::<MeshConfig>(object);
    };
    mesh.put::<Service>(service("silent", None));
    mesh.put::<Service>(service("written", Some("*")));
    heard();
    let said = |name: &str, old, new| (name.to_owned(), old, new);
    config("defaultServiceExportTo: ['.']");
    assert_eq!(heard(), [said("silent", Some(true), Some(false))]);
    config("{defaultServiceExportTo: ['.'], accessLogFile: /dev/stdout}");
    assert_eq!(heard(), [], "the default is the same");
    config("defaultServiceExportTo: [");
    assert_eq!(heard(), [], "what cannot be read leaves what was known");
    mesh.put::<Service>(service("later", None));
    assert_eq!(heard(), [said("later", None, Some(false))]);
    let objects = ["silent", "later"].map(|name| Arc::new(service(name, None)));
    table.replace(&objects);
    assert_eq!(heard(), [said("written", Some(true), None)]);
    mesh.remove::<MeshConfig>("", "istio");
    let expected = ["later", "silent"].map(|name| said(name, Some(false), Some(true)));
    assert_eq!(heard(), expected);
}
