//! The Trimtab operator: CLI, configuration, list of modules, HTTP endpoints, standalone mode.

pub mod aeraki;
mod blocking;
pub mod bootstrap;
pub mod cli;
pub mod config;
pub mod describe;
mod described;
pub mod fallback;
pub mod files;
pub mod help;
pub mod http;
mod identity;
pub mod log;
pub mod manifests;
pub mod migrate;
pub mod modules;
pub mod nodes;
pub mod operator;
pub mod outputs;
pub mod process_series;
pub mod reload;
mod run;
pub mod standalone;
pub mod state;
pub mod translate;
pub mod xds_series;
