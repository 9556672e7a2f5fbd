//! Which namespaces see an object (`exportTo`).

/// Namespaces that see an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exports {
    own: bool,
    names: Option<Box<[String]>>,
    /// Nothing is written: the mesh's default decides.
    implied: bool,
}

/// Who sees objects without `exportTo`, by the MeshConfig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportDefaults {
    /// Services and ServiceEntries.
    pub services: Exports,
    /// VirtualServices.
    pub virtual_services: Exports,
    /// DestinationRules.
    pub destination_rules: Exports,
}

impl Exports {
    /// Everybody.
    pub const ALL: Self = Self {
        own: true,
        names: None,
        implied: false,
    };

    /// Reads a list as Istio does: `*` = all, `.` = the object's namespace, `~` = nobody, else a namespace. Empty = all,
    /// unless the mesh has another default, see [`Self::under`].
    pub fn new<'a>(list: impl IntoIterator<Item = &'a str>) -> Self {
        let mut own = false;
        let mut names = Vec::new();
        let mut any = false;
        for item in list.into_iter().map(str::trim).filter(|i| !i.is_empty()) {
            any = true;
            match item {
                "*" => return Self::ALL,
                "." => own = true,
                "~" => {}
                name => names.push(name.to_owned()),
            }
        }
        if any {
            names.sort();
            Self {
                own,
                names: Some(names.into()),
                implied: false,
            }
        } else {
            Self {
                implied: true,
                ..Self::ALL
            }
        }
    }

    /// What holds under a default of the mesh; `None`: what is written, or the same as now.
    pub fn under(&self, default: &Self) -> Option<Self> {
        let new = Self {
            implied: true,
            ..default.clone()
        };
        (self.implied && *self != new).then_some(new)
    }

    /// As objects write it; everybody: empty.
    pub fn written(&self) -> Vec<String> {
        let Some(names) = &self.names else {
            return Vec::new();
        };
        let own = self.own.then(|| ".".to_owned());
        let mut out: Vec<String> = own.into_iter().chain(names.iter().cloned()).collect();
        if out.is_empty() {
            out.push("~".to_owned());
        }
        out
    }

    /// Whether a client in `client` sees the object in `owner`.
    pub fn visible(&self, owner: &str, client: &str) -> bool {
        match &self.names {
            None => true,
            Some(names) => (self.own && owner == client) || names.iter().any(|name| name == client),
        }
    }

    /// Whether a namespace may see both this object of `owner` and another one.
    pub fn overlap(&self, owner: &str, other: &Self, other_owner: &str) -> bool {
        match (self.clients(owner), other.clients(other_owner)) {
            (None, Some(mut few)) | (Some(mut few), None) => few.next().is_some(),
            (None, None) => true,
            (Some(mut mine), Some(_)) => mine.any(|c| other.visible(other_owner, c)),
        }
    }

    /// The namespaces that see the object in `owner`; `None` = all.
    pub fn clients<'a>(&'a self, owner: &'a str) -> Option<impl Iterator<Item = &'a str>> {
        let own = self.own && self.names.iter().flatten().all(|name| name != owner);
        let names = self.names.as_ref()?;
        Some(names.iter().map(String::as_str).chain(own.then_some(owner)))
    }
}

impl Default for ExportDefaults {
    fn default() -> Self {
        Self::new(&[], &[], &[])
    }
}

impl ExportDefaults {
    /// From the lists of the MeshConfig. istiod reads those of Services and VirtualServices as it reads `exportTo`; of the one of
    /// DestinationRules it honours `.` only.
    pub fn new(
        services: &[String],
        virtual_services: &[String],
        destination_rules: &[String],
    ) -> Self {
        let of = |list: &[String]| Exports::new(list.iter().map(String::as_str));
        Self {
            services: of(services),
            virtual_services: of(virtual_services),
            destination_rules: if destination_rules.iter().any(|item| item == ".") {
                Exports::new(["."])
            } else {
                Exports::ALL
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_default_of_the_mesh_holds_where_nothing_is_written() {
        let sees =
            |exports: &Exports| ["own", "other"].map(|client| exports.visible("own", client));
        for (default, services, rules) in [
            (&[][..], [true, true], [true, true]),
            (&["*"], [true, true], [true, true]),
            (&["."], [true, false], [true, false]),
            (&["*", "."], [true, true], [true, false]),
            (&["other"], [false, true], [true, true]),
            (&["~"], [false, false], [true, true]),
        ] {
            let list = list(default);
            let defaults = ExportDefaults::new(&list, &list, &list);
            for (default, expected) in [
                (&defaults.services, services),
                (&defaults.virtual_services, services),
                (&defaults.destination_rules, rules),
            ] {
                let silent = Exports::new([]);
                let now = silent.under(default).unwrap_or(silent);
                assert_eq!(sees(&now), expected, "{list:?}");
                assert_eq!(now.under(default), None, "nothing changes twice");
                let back = now.under(&Exports::ALL).unwrap_or(now.clone());
                assert_eq!(sees(&back), [true, true], "the default is gone");
                let mut export_to = now.written();
                if export_to.is_empty() {
                    export_to.push("*".to_owned());
                }
                let read = Exports::new(export_to.iter().map(String::as_str));
                assert_eq!(sees(&read), sees(&now), "written as {export_to:?}");
                for written in ["*", ".", "other", "~"] {
                    assert_eq!(Exports::new([written]).under(default), None, "{written}");
                }
            }
        }
    }
}
