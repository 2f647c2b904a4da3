//! Reading a few members out of JSON that may hold anything else: the building blocks of `event`.
//! Values nobody asks for are skipped, never interpreted, so that nothing inside them can fail.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Calls `member` for each member of a JSON object. Where a key is repeated the caller sees each
/// in turn, so that plain assignment lets the last one win, as in Postgres and JavaScript.
pub struct Members<F>(pub F);

impl<'de, F> DeserializeSeed<'de> for Members<F>
where
    F: FnMut(&str, &'de RawValue),
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F> Visitor<'de> for Members<F>
where
    F: FnMut(&str, &'de RawValue),
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Key<'de>>()? {
            let value = map.next_value::<&RawValue>()?;
            // A key that is no text (a lone surrogate) is none that we know.
            if let Ok(key) = std::str::from_utf8(&key.0) {
                (self.0)(key, value);
            }
        }
        Ok(())
    }
}

/// Reads one member of a JSON object with a seed of its own and skips the rest, so that what is
/// inside is walked through once. Fails if there is no object, or the seed does. Of repeated keys
/// each is read in turn.
pub struct Member<S> {
    pub key: &'static str,
    pub value: S,
}

impl<'de, F> DeserializeSeed<'de> for Member<Members<F>>
where
    F: FnMut(&str, &'de RawValue),
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F> Visitor<'de> for Member<Members<F>>
where
    F: FnMut(&str, &'de RawValue),
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Key<'de>>()? {
            if *key.0 == *self.key.as_bytes() {
                map.next_value_seed(Members(&mut self.value.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// An object key as bytes: asking `serde_json` for text would fail on lone surrogates.
struct Key<'de>(Cow<'de, [u8]>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object key")
            }
            fn visit_borrowed_bytes<E: de::Error>(
                self,
                bytes: &'de [u8],
            ) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(bytes)))
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(bytes.to_vec())))
            }
        }
        deserializer.deserialize_bytes(KeyVisitor)
    }
}
