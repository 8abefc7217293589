//! A deserializer around another one that leaves out entries, and knows which one an error was in.

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, Expected, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::rc::Rc;

/// The way to an entry: its number in the map or list, from the outermost to the innermost.
pub(super) type Way = Vec<usize>;

/// One reading of a text.
pub(super) struct Pass<'s> {
    left_out: &'s BTreeSet<Way>,
    here: RefCell<Way>,
    failed: RefCell<Option<Way>>,
}

impl<'s> Pass<'s> {
    pub(super) fn without(left_out: &'s BTreeSet<Way>) -> Self {
        Self {
            left_out,
            here: RefCell::default(),
            failed: RefCell::default(),
        }
    }

    /// The entry that was wrong; the way of length 0 for the whole text.
    pub(super) fn into_failed(self) -> Way {
        self.failed.into_inner().unwrap_or_default()
    }

    fn enter(&self, index: usize) {
        self.here.borrow_mut().push(index);
    }

    fn leave(&self) {
        self.here.borrow_mut().pop();
    }

    fn is_left_out(&self) -> bool {
        self.left_out.contains(&*self.here.borrow())
    }

    /// The innermost entry that meets an error is the one that it is in.
    fn note<T, E>(&self, result: &Result<T, E>) {
        if result.is_err() {
            self.failed
                .borrow_mut()
                .get_or_insert_with(|| self.here.borrow().clone());
        }
    }
}

/// The keys of a map so far.
type Keys = Rc<RefCell<HashSet<String>>>;

/// See the module.
pub(super) struct Careful<'p, T> {
    inner: T,
    pass: &'p Pass<'p>,
    /// Of a key: those before it.
    keys: Option<Keys>,
}

impl<'p, T> Careful<'p, T> {
    pub(super) fn new(inner: T, pass: &'p Pass<'p>) -> Self {
        Self {
            inner,
            pass,
            keys: None,
        }
    }

    fn check_key<E: Error>(&self, key: &str) -> Result<(), E> {
        match &self.keys {
            Some(keys) if !keys.borrow_mut().insert(key.to_owned()) => {
                Err(E::custom(format!("duplicate mapping key: {key}")))
            }
            _ => Ok(()),
        }
    }
}

macro_rules! deserialize {
    ($($name:ident($($argument:ident: $of:ty),*))*) => {
        $(fn $name<V: Visitor<'de>>(self, $($argument: $of,)* visitor: V) -> Result<V::Value, D::Error> {
            let Self { inner, pass, keys } = self;
            inner.$name($($argument,)* Careful { inner: visitor, pass, keys })
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Careful<'_, D> {
    type Error = D::Error;

    deserialize! {
        deserialize_any() deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64()
        deserialize_i128() deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128()
        deserialize_f32() deserialize_f64() deserialize_char() deserialize_str() deserialize_string()
        deserialize_bytes() deserialize_byte_buf() deserialize_option() deserialize_unit()
        deserialize_unit_struct(name: &'static str) deserialize_newtype_struct(name: &'static str)
        deserialize_seq() deserialize_tuple(length: usize)
        deserialize_tuple_struct(name: &'static str, length: usize) deserialize_map()
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
        deserialize_identifier() deserialize_ignored_any()
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($name:ident($of:ty))*) => {
        $(fn $name<E: Error>(self, value: $of) -> Result<V::Value, E> {
            self.inner.$name(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Careful<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Expected::fmt(&self.inner, f)
    }

    visit! {
        visit_bool(bool) visit_i8(i8) visit_i16(i16) visit_i32(i32) visit_i64(i64) visit_i128(i128) visit_u8(u8)
        visit_u16(u16) visit_u32(u32) visit_u64(u64) visit_u128(u128) visit_f32(f32) visit_f64(f64) visit_char(char)
        visit_bytes(&[u8]) visit_borrowed_bytes(&'de [u8]) visit_byte_buf(Vec<u8>)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<V::Value, E> {
        self.check_key(text)?;
        self.inner.visit_str(text)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<V::Value, E> {
        self.check_key(text)?;
        self.inner.visit_borrowed_str(text)
    }

    fn visit_string<E: Error>(self, text: String) -> Result<V::Value, E> {
        self.check_key(&text)?;
        self.inner.visit_string(text)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Careful::new(deserializer, self.pass))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner
            .visit_newtype_struct(Careful::new(deserializer, self.pass))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Entries::new(list, self.pass))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let depth = self.pass.here.borrow().len();
        let read = self.inner.visit_map(Entries::new(map, self.pass));
        // A key that was read and whose value was not is what a struct refuses: a key that it has under another name.
        self.pass.note(&read);
        self.pass.here.borrow_mut().truncate(depth);
        read
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(variant)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Careful<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let Self { inner, pass, keys } = self;
        inner.deserialize(Careful {
            inner: deserializer,
            pass,
            keys,
        })
    }
}

/// The entries of a map or a list.
struct Entries<'p, A> {
    inner: A,
    pass: &'p Pass<'p>,
    index: usize,
    keys: Keys,
}

impl<'p, A> Entries<'p, A> {
    fn new(inner: A, pass: &'p Pass<'p>) -> Self {
        Self {
            inner,
            pass,
            index: 0,
            keys: Keys::default(),
        }
    }

    fn leave(&mut self) {
        self.pass.leave();
        self.index += 1;
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Entries<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        loop {
            self.pass.enter(self.index);
            if !self.pass.is_left_out() {
                break;
            }
            let skipped = self.inner.next_element::<IgnoredAny>();
            self.pass.note(&skipped);
            self.leave();
            if skipped?.is_none() {
                return Ok(None);
            }
        }
        let element = self.inner.next_element_seed(Careful::new(seed, self.pass));
        self.pass.note(&element);
        self.leave();
        element
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        loop {
            self.pass.enter(self.index);
            if !self.pass.is_left_out() {
                break;
            }
            let skipped = self.inner.next_entry::<IgnoredAny, IgnoredAny>();
            self.pass.note(&skipped);
            self.leave();
            if skipped?.is_none() {
                return Ok(None);
            }
        }
        let key = self.inner.next_key_seed(Careful {
            inner: seed,
            pass: self.pass,
            keys: Some(Rc::clone(&self.keys)),
        });
        self.pass.note(&key);
        if !matches!(key, Ok(Some(_))) {
            self.pass.leave();
        }
        key
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let value = self.inner.next_value_seed(Careful::new(seed, self.pass));
        self.pass.note(&value);
        self.leave();
        value
    }
}
