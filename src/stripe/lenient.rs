//! Reading a few members out of JSON that may hold anything else: the building blocks of `event`.
//! Values nobody asks for are skipped, never interpreted, so that nothing inside them can fail.

use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Walks `text`, calling `member` for each member. True if it is one well-formed JSON object.
/// Of repeated keys each is seen in turn, so that plain assignment lets the last one win, as in
/// Postgres and JavaScript.
pub fn members<'a>(text: &'a str, mut member: impl FnMut(&str, &'a RawValue)) -> bool {
    let mut json = serde_json::Deserializer::from_str(text);
    let walk = Members(|key: &str, value| {
        member(key, value);
        ControlFlow::Continue(())
    });
    walk.deserialize(&mut json).is_ok() && json.end().is_ok()
}

/// Walks the object that is the member `key` of `text`, until `member` has seen enough.
pub fn members_within<'a>(
    text: &'a str,
    key: &'static str,
    member: impl FnMut(&str, &'a RawValue) -> ControlFlow<()>,
) {
    let mut json = serde_json::Deserializer::from_str(text);
    // Fails when it has seen enough, and where there is no such object: then nothing was seen.
    let _ = Within { key, members: Members(member) }.deserialize(&mut json);
}

/// Visits the members of an object; a break ends the walk with an error.
struct Members<F>(F);

impl<'de, F> DeserializeSeed<'de> for Members<F>
where
    F: FnMut(&str, &'de RawValue) -> ControlFlow<()>,
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F> Visitor<'de> for Members<F>
where
    F: FnMut(&str, &'de RawValue) -> ControlFlow<()>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Key<'de>>()? {
            let value = map.next_value::<&RawValue>()?;
            // A key that is no text (a lone surrogate) is none that we know.
            if let Ok(key) = std::str::from_utf8(&key.0)
                && (self.0)(key, value).is_break()
            {
                return Err(de::Error::custom("enough"));
            }
        }
        Ok(())
    }
}

/// Visits the members of an object's member.
struct Within<F> {
    key: &'static str,
    members: Members<F>,
}

impl<'de, F> DeserializeSeed<'de> for Within<F>
where
    F: FnMut(&str, &'de RawValue) -> ControlFlow<()>,
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F> Visitor<'de> for Within<F>
where
    F: FnMut(&str, &'de RawValue) -> ControlFlow<()>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Key<'de>>()? {
            if *key.0 == *self.key.as_bytes() {
                map.next_value_seed(Members(&mut self.members.0))?;
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
            fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(bytes)))
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(bytes.to_vec())))
            }
        }
        deserializer.deserialize_bytes(KeyVisitor)
    }
}
