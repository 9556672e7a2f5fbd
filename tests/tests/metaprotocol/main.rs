//! MetaProtocol from its input to what proxies take: golden cases, Aeraki's configurations checked field by field
//! against the messages that its proxies read, and real Envoys for the stock filters.
//!
//! A golden case is a folder of `golden/metaprotocol` with `in.yaml` (the resolved input of one service port) and
//! `out.yaml` (everything that is made of it). `UPDATE_EXPECT=1 cargo test -p trimtab-tests --test metaprotocol golden`
//! writes the outputs anew. Aeraki's own proxy cannot be installed from a package registry and is not run here.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail the test"
)]

mod addresses;
mod aeraki;
mod carrier;
mod described;
mod events;
mod from_aeraki;
mod gateways;
mod golden;
mod lab;
mod made;
mod owners;
mod peers;
mod rules;
mod stock_dubbo;
mod stock_golden;
mod stock_redis;
mod stock_thrift;
mod told;
