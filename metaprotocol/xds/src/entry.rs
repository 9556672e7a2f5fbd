//! One resource as it is stored: all text and content in one allocation.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::resource::Resource;
use crate::scope::{Scope, View};

/// A resource, who sees it, and when it was published.
///
/// A table holds very many of these, so name, version, origin and body share one allocation of the exact size.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Name, version, origin, body.
    data: Box<[u8]>,
    /// Where in `data` each text ends.
    ends: [u32; 3],
    pub(crate) scope: Scope,
    pub(crate) published: Instant,
}

impl Entry {
    pub(crate) fn new(resource: &Resource, scope: Scope, published: Instant) -> Self {
        let texts = [&resource.name, &resource.version, &resource.origin];
        let length = texts.map(String::len).iter().sum::<usize>() + resource.body.len();
        let mut data = Vec::with_capacity(length);
        let ends = texts.map(|text| {
            data.extend_from_slice(text.as_bytes());
            // Beyond 4 GiB the text is cut; no message could carry it.
            u32::try_from(data.len()).unwrap_or(u32::MAX)
        });
        data.extend_from_slice(&resource.body);
        Self {
            data: data.into_boxed_slice(),
            ends,
            scope,
            published,
        }
    }

    fn text(&self, from: u32, to: u32) -> &str {
        let bytes = self.part(from, to as usize);
        // It was a string in `new`.
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    fn part(&self, from: u32, to: usize) -> &[u8] {
        self.data.get(from as usize..to).unwrap_or_default()
    }

    pub(crate) fn name(&self) -> &str {
        self.text(0, self.ends[0])
    }

    /// The name, to compare.
    pub(crate) fn key(&self) -> &[u8] {
        self.part(0, self.ends[0] as usize)
    }

    pub(crate) fn version(&self) -> &str {
        self.text(self.ends[0], self.ends[1])
    }

    pub(crate) fn origin(&self) -> &str {
        self.text(self.ends[1], self.ends[2])
    }

    pub(crate) fn body(&self) -> &[u8] {
        self.part(self.ends[2], self.data.len())
    }

    /// As the host gave it.
    pub(crate) fn resource(&self) -> Resource {
        Resource {
            name: self.name().to_owned(),
            version: self.version().to_owned(),
            body: Bytes::copy_from_slice(self.body()),
            origin: self.origin().to_owned(),
        }
    }
}

/// The variants of one name, in the order of preference; never empty.
#[derive(Debug, Clone)]
pub(crate) enum Variants {
    One(Arc<Entry>),
    Several(Arc<[Arc<Entry>]>),
}

impl Variants {
    /// `None` if there is none.
    pub(crate) fn new(mut entries: Vec<Arc<Entry>>) -> Option<Self> {
        match entries.len() {
            0 => None,
            1 => entries.pop().map(Self::One),
            _ => Some(Self::Several(entries.into())),
        }
    }

    pub(crate) fn all(&self) -> &[Arc<Entry>] {
        match self {
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Several(entries) => entries,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.all().first().map_or("", |entry| entry.name())
    }

    /// The name, to compare.
    pub(crate) fn key(&self) -> &[u8] {
        self.all().first().map_or(&[], |entry| entry.key())
    }

    /// What a stream sees of it.
    pub(crate) fn seen_by(&self, view: &View) -> Option<&Arc<Entry>> {
        self.all().iter().find(|entry| view.admits(&entry.scope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_returns_the_resource_it_was_made_of() {
        for (name, version, origin, body) in [
            ("", "", "", &b""[..]),
            ("näme", "1", "default/a", b"\xff\x00"),
        ] {
            let resource = Resource {
                name: name.to_owned(),
                version: version.to_owned(),
                body: Bytes::from_static(body),
                origin: origin.to_owned(),
            };
            let entry = Entry::new(&resource, Scope::All, Instant::now());
            assert_eq!(entry.resource(), resource);
            assert_eq!(entry.key(), name.as_bytes());
        }
    }

    #[test]
    fn entries_and_variants_are_small() {
        assert!(size_of::<Entry>() <= 64, "{}", size_of::<Entry>());
        assert!(size_of::<Variants>() <= 16, "{}", size_of::<Variants>());
    }
}
