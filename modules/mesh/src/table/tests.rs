//! Lists and events into a table.

use k8s_openapi::api::core::v1;

use super::*;
use crate::model::Namespace;

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
