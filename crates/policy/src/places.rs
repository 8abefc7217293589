//! Where the keys and entries of a YAML text stand, for warnings about what is right and looks wrong.

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;
use serde_saphyr::options::{DuplicateKeyPolicy, Options};
use std::fmt;

/// Line and column, both from 1.
pub(crate) type Place = (u64, u64);

/// The keys of a text and where they stand; empty for a text that is no YAML.
#[derive(Debug, Default)]
pub(crate) struct Places(Node);

/// A map, or a list, whose keys are its indices.
#[derive(Debug, Default)]
struct Node(Vec<(String, Place, Self)>);

impl Places {
    pub(crate) fn of(text: &str) -> Self {
        let mut options = Options::default();
        // A key twice is an error that is told elsewhere; the rest has its places all the same.
        options.duplicate_keys = DuplicateKeyPolicy::PassThrough;
        Self(serde_saphyr::from_str_with_options(text, options).unwrap_or_default())
    }

    /// Where the last key of a path stands, or the last one on the way to it that is there.
    pub(crate) fn find(&self, path: &[impl AsRef<str>]) -> Option<Place> {
        let (mut node, mut place) = (&self.0, None);
        for key in path {
            let Some((_, there, next)) = node.0.iter().find(|(name, ..)| name == key.as_ref()) else {
                break;
            };
            (node, place) = (next, Some(*there));
        }
        place
    }

    /// The same, of keys at the top or under `policy:`.
    pub(crate) fn find_section(&self, path: &[&str]) -> Option<Place> {
        let below: Vec<&str> = [&["policy"], path].concat();
        match self.has_section() {
            true => self.find(&below),
            false => self.find(path),
        }
    }

    /// Which key of the rules a place is in: the last that begins before it.
    pub(crate) fn section_at(&self, place: Place) -> Option<&str> {
        let sections = match self.0.0.iter().find(|(name, ..)| name == "policy") {
            Some((.., below)) => below,
            None => &self.0,
        };
        let before = sections.0.iter().filter(|(_, there, _)| *there <= place);
        before.map(|(name, ..)| name.as_str()).next_back()
    }

    fn has_section(&self) -> bool {
        self.0.0.iter().any(|(name, ..)| name == "policy")
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Anything)
    }
}

fn place<T>(spanned: &Spanned<T>) -> Place {
    (spanned.referenced.line(), spanned.referenced.column())
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let at = place(&key);
            entries.push((key.value, at, map.next_value()?));
        }
        Ok(Node(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element::<Spanned<Node>>()? {
            entries.push((entries.len().to_string(), place(&entry), entry.value));
        }
        Ok(Node(entries))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::default())
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::default())
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Node, E> {
        Ok(Node::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_entries_are_found_where_they_stand() {
        let text = "users:\n  alice: [admin, eng]\n  7: []\nhosts:\n  \"*.b\":\n    allow: {root: [x]}\n    ttl: 5m\n";
        let places = Places::of(text);
        for (path, place) in [
            (&["users"][..], Some((1, 1))),
            (&["users", "alice"], Some((2, 3))),
            (&["users", "alice", "1"], Some((2, 18))),
            (&["users", "7"], Some((3, 3))),
            (&["hosts", "*.b"], Some((5, 3))),
            (&["hosts", "*.b", "allow", "root"], Some((6, 13))),
            (&["hosts", "*.b", "ttl"], Some((7, 5))),
            (&["hosts", "*.b", "nothing", "more"], Some((5, 3))),
            (&["nothing"], None),
            (&[], None),
        ] {
            assert_eq!(places.find(path), place, "{path:?}");
        }
        assert_eq!(Places::of("a: [").find(&["a"]), None);
        assert_eq!(Places::of("").find(&["a"]), None);
    }
}
