//! The protocol core: the state of one resource type on one stream, and the responses that follow from it.
//!
//! A [`Session`] does no input or output and has no clock. Requests change it and yield [`Action`]s for the shell;
//! [`Session::next_push`] reads the table and yields at most one response, and none while an ACK is pending. The response
//! is made when the transport can take it, so a slow client gets the newest content and nothing in between.
//!
//! | file | what |
//! |---|---|
//! | `resource` | what the client has of one resource |
//! | `baseline` | the resources of a wildcard subscription that are up to date at the client, in one snapshot |
//! | `message` | responses: being filled, sent, in flight |
//! | `state` | the session: subscriptions, queue, response in flight |
//! | `sotw`, `delta` | requests of the two variants of the protocol |
//! | `answer` | ACK and NACK |
//! | `plan` | which resources differ from what the client has, and what to send of each |
//! | `push` | the next response |
//! | `full` | responses that list everything: listeners and clusters over state of the world |
//! | `suspicion` | which resource of a refused response is to blame |
//! | `order` | what waits for clusters of other responses on the stream |
//! | `retry` | what is sent again without a request: after a refusal, or with what an answer is withheld for |
//! | `report` | the state for the admin API |

mod answer;
mod baseline;
mod delta;
mod full;
mod message;
mod order;
mod plan;
mod push;
mod report;
mod resource;
mod retry;
#[cfg(test)]
mod simulation;
mod sotw;
mod state;
mod suspicion;
#[cfg(test)]
mod tests;

pub(crate) use message::Push;
#[cfg(test)]
pub(crate) use message::item;
pub(crate) use order::Order;
pub(crate) use state::{Action, Mode, Session};
