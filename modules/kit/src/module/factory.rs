//! A module without its types.

use std::fmt::Debug;
use std::net::SocketAddr;

use serde_json::Value;

use super::legacy::{advice, without_effect};
use super::{LegacyKey, Module, ModuleConfig, Setup, SetupError};
use crate::host::Host;

/// A module, without its types: what the operator's list holds.
#[derive(Clone, Copy)]
pub struct Factory {
    /// [`Module::NAME`].
    pub name: &'static str,
    legacy: fn() -> &'static [LegacyKey],
    check: fn(&Value) -> Result<(), String>,
    enabled: fn(&Value) -> bool,
    effective: fn(&Value) -> Value,
    addresses: fn(&Value) -> Vec<(&'static str, SocketAddr)>,
    fixed: fn(&Value, &Value) -> Vec<&'static str>,
    setup: fn(&Value, &mut Setup<'_>) -> Result<(), SetupError>,
}

impl PartialEq for Factory {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Debug for Factory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Factory").field(&self.name).finish()
    }
}

/// Reads a section; an absent one is the default. The error begins with the path in the section.
pub fn read<C: ModuleConfig>(section: &Value) -> Result<C, String> {
    if section.is_null() {
        return Ok(C::default());
    }
    let ignored = without_effect(C::legacy(), section);
    let mut known = section.clone();
    if let Some(keys) = known.as_object_mut() {
        keys.retain(|key, _| ignored.iter().all(|(name, _)| name != key));
    }
    serde_path_to_error::deserialize(&known).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.inner().to_string();
        // Only the section's own keys: a path with a dot is of a part of it.
        let advice =
            advice(C::legacy(), &inner).filter(|_| !path.contains(['.', '[']) || path == ".");
        let inner = advice.map_or_else(|| inner.clone(), |advice| format!("{inner}; {advice}"));
        match path.as_str() {
            "." => format!(": {inner}"),
            path => format!(".{path}: {inner}"),
        }
    })
}

impl Factory {
    /// The factory of a module.
    pub fn of<M: Module>() -> Self {
        Self {
            name: M::NAME,
            legacy: M::Config::legacy,
            check: |section| {
                let named = |error| format!("{}{error}", M::NAME);
                read::<M::Config>(section).map_err(named)?.check()
            },
            enabled: |section| read::<M::Config>(section).is_ok_and(|c| c.enabled()),
            effective: |section| {
                let config = read::<M::Config>(section);
                let value = config.and_then(|c| serde_json::to_value(c).map_err(|e| e.to_string()));
                value.unwrap_or_else(|_| section.clone())
            },
            addresses: |section| {
                let config = read::<M::Config>(section);
                config.map(|c| c.addresses()).unwrap_or_default()
            },
            fixed: |old, new| match (read::<M::Config>(old), read::<M::Config>(new)) {
                (Ok(old), Ok(new)) => old.fixed(&new),
                _ => vec!["*"],
            },
            setup: |section, setup| {
                let config = read::<M::Config>(section).map_err(SetupError)?;
                M::setup(config, setup)
            },
        }
    }

    /// Keys that predecessors have for the module's job.
    pub fn legacy(&self) -> &'static [LegacyKey] {
        (self.legacy)()
    }

    /// Keys of predecessors in a section that are taken and have no effect, a line each.
    pub fn ignored(&self, section: &Value) -> Vec<String> {
        let keys = without_effect(self.legacy(), section).into_iter();
        keys.map(|(key, why)| format!("{}.{key} has no effect: {why}: remove it", self.name))
            .collect()
    }

    /// Checks a section. The error names the key and the fix.
    pub fn check(&self, section: &Value) -> Result<(), String> {
        (self.check)(section)
    }

    /// Whether the section switches the module on.
    pub fn enabled(&self, section: &Value) -> bool {
        (self.enabled)(section)
    }

    /// The section with all keys, defaults filled in.
    pub fn effective(&self, section: &Value) -> Value {
        (self.effective)(section)
    }

    /// Keys with the addresses that the module listens on.
    pub fn addresses(&self, section: &Value) -> Vec<(&'static str, SocketAddr)> {
        (self.addresses)(section)
    }

    /// Keys that differ and need a restart.
    pub fn fixed(&self, old: &Value, new: &Value) -> Vec<&'static str> {
        (self.fixed)(old, new)
    }

    /// Sets the module up in a host.
    pub fn add(&self, section: &Value, host: &mut Host) -> Result<(), SetupError> {
        for line in self.ignored(section) {
            tracing::warn!("{line}");
        }
        host.add(self.name, |setup| (self.setup)(section, setup))
    }
}
