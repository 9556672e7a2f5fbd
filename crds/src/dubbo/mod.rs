//! `dubbo.aeraki.io/v1alpha1`: DubboAuthorizationPolicy.

mod policy;

pub use policy::{
    Action, DubboAuthorizationPolicy, DubboAuthorizationPolicySpec, From, Operation, Rule, Source,
    To,
};

/// API group.
pub const GROUP: &str = "dubbo.aeraki.io";
