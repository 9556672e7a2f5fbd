//! The protocol rules, one case each.

mod answers;
mod full;
mod subscriptions;
mod unasked;
mod unresolved;
mod wildcards;

use std::time::Instant;

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::google::rpc;

use super::{Action, Mode, Push, Session};
use crate::resource::{Resource, Scoped};
use crate::scope::View;
use crate::table::Table;

fn resource(name: &str, version: &str) -> Scoped {
    Scoped::from(Resource {
        name: name.into(),
        version: version.into(),
        body: Bytes::from(format!("{name}@{version}")),
        origin: format!("default/{name}"),
    })
}

fn refusal(text: &str) -> rpc::Status {
    rpc::Status {
        code: 3,
        message: text.into(),
        details: vec![],
    }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// A session with its table, driven by hand.
struct Rig {
    table: Table,
    session: Session,
    now: Instant,
}

impl Rig {
    fn new(delta: bool) -> Self {
        Self::seeing(
            if delta { Mode::Delta } else { Mode::Sotw },
            View::default(),
        )
    }

    fn seeing(mode: Mode, view: View) -> Self {
        let now = Instant::now();
        Self {
            table: Table::default(),
            session: Session::new("node".into(), 1, mode, view.into(), now),
            now,
        }
    }

    fn set(&mut self, name: &str, version: &str) {
        self.table
            .apply(vec![resource(name, version)], &[], self.now);
    }

    fn set_body(&mut self, name: &str, version: &str, body: &'static [u8]) {
        let mut scoped = resource(name, version);
        scoped.resource.body = Bytes::from_static(body);
        self.table.apply(vec![scoped], &[], self.now);
    }

    fn remove(&mut self, name: &str) {
        self.table.apply(vec![], &[name.to_owned()], self.now);
    }

    fn sotw(&mut self, names: &[&str], nonce: &str, error: Option<rpc::Status>) -> Vec<Action> {
        let request = DiscoveryRequest {
            resource_names: strings(names),
            response_nonce: nonce.into(),
            error_detail: error,
            ..DiscoveryRequest::default()
        };
        let actions = self.session.on_sotw(request, self.now);
        self.keep_pins(&actions);
        actions
    }

    fn delta(&mut self, request: DeltaDiscoveryRequest) -> Vec<Action> {
        let actions = self.session.on_delta(request, self.now);
        self.keep_pins(&actions);
        actions
    }

    fn keep_pins(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Rejected {
                    name, rejection, ..
                } => {
                    self.table.reject(name, "node", rejection.clone());
                }
                Action::ClearRejection(name) => self.table.clear_rejection(name, "node"),
                _ => {}
            }
        }
    }

    fn push(&mut self) -> Option<std::sync::Arc<Push>> {
        self.session.next_push(&self.table, self.now, None)
    }

    fn expect(&mut self, sent: &[&str], removed: &[&str]) -> String {
        let push = self.push().expect("a message");
        assert_eq!(listed(&push), (strings(sent), strings(removed)));
        push.nonce.clone()
    }

    fn silent(&mut self) {
        assert!(self.push().is_none());
    }

    fn reconnect(&mut self) {
        let mode = match (self.session.delta, self.session.full) {
            (true, _) => Mode::Delta,
            (false, true) => Mode::FullSotw,
            (false, false) => Mode::Sotw,
        };
        let view = std::sync::Arc::clone(&self.session.view);
        self.session = Session::new("node".into(), self.session.stream + 1, mode, view, self.now);
    }
}

fn listed(push: &Push) -> (Vec<String>, Vec<String>) {
    let sent = push
        .items
        .iter()
        .map(|item| format!("{}@{}", item.name(), item.entry.version()))
        .collect();
    (sent, push.removed.iter().map(ToString::to_string).collect())
}

fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: strings(names),
        ..DeltaDiscoveryRequest::default()
    }
}

fn unsubscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_unsubscribe: strings(names),
        ..DeltaDiscoveryRequest::default()
    }
}

fn ack(nonce: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        response_nonce: nonce.into(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn nack(nonce: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        error_detail: Some(refusal("bad")),
        ..ack(nonce)
    }
}

fn rejections(actions: &[Action]) -> usize {
    actions
        .iter()
        .filter(|action| {
            matches!(
                action,
                Action::Rejected { .. } | Action::RejectedWithoutContent { .. }
            )
        })
        .count()
}
