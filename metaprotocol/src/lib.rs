//! MetaProtocol: services and MetaRouters to routes of any layer-7 protocol.
//!
//! `resolve` -> `input` -> `validate` -> `translate` -> `output`, all pure: no client, no runtime, no clock. `features` is the table of
//! what each filter can do; translators decide by it and the documentation shows it.
//!
//! Around that, `index` is the state from watches, `engine` what was made of each host; `module` declares it all to the kit.

pub mod bootstrap;
pub mod config;
pub mod describe;
pub mod engine;
pub mod explain;
pub mod features;
mod http;
pub mod index;
pub mod input;
pub mod metrics;
pub mod module;
pub mod object;
pub mod output;
pub mod owner;
pub mod proto;
pub mod resolve;
pub mod secrets;
pub mod span;
pub mod status;
pub mod translate;
pub mod validate;
pub mod vip;
