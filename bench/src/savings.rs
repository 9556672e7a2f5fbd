//! What scoping saves: proxies that count what istiod sends them.

mod proxies;

pub use proxies::Proxies;
