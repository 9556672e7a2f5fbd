//! Which namespaces see an object (`exportTo`).

/// Namespaces that see an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exports {
    own: bool,
    names: Option<Box<[String]>>,
}
impl Exports {
    /// Everybody.
    pub const ALL: Self = Self {
        own: true,
        names: None,
    };

    /// Reads a list as Istio does: `*` = all, `.` = the object's namespace, `~` = nobody, else a namespace. Empty = all.
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
            }
        } else {
            Self::ALL
        }
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
