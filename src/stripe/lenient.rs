//! Reading a few members out of JSON that may hold anything else: the building blocks of `event`.
//! Values nobody asks for are skipped, never interpreted, so that nothing inside them can fail.

use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Walks `text`, calling `member` for each member. True if it is one well-formed JSON object.
/// Of repeated keys each is seen in turn, so that plain assignment lets the last one win, as in
/// Postgres and JavaScript.
pub fn members<'a>(text: &'a str, mut member: impl FnMut(&str, &'a RawValue)) -> bool {
    members_until(text, |key, value| {
        member(key, value);
        ControlFlow::Continue(())
    })
}

/// As [`members`], until `member` has seen enough: then it is false, and the rest is not looked at.
pub fn members_until<'a>(
    text: &'a str,
    mut member: impl FnMut(&str, &'a RawValue) -> ControlFlow<()>,
) -> bool {
    let mut json = serde_json::Deserializer::from_str(text);
    let walk = Members { within: None, member: |_: Level, key: &str, value| member(key, value) };
    walk.deserialize(&mut json).is_ok() && json.end().is_ok()
}

/// Whose member it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Outer,
    Inner,
}

/// Walks `text` and, instead of calling `member` for its member `within`, that one's members too:
/// in one pass, where `members` twice would read them twice. False also if `within` is no object.
pub fn members_and_within<'a>(
    text: &'a str,
    within: &'static str,
    mut member: impl FnMut(Level, &str, &'a RawValue),
) -> bool {
    let mut json = serde_json::Deserializer::from_str(text);
    let member = |level: Level, key: &str, value| {
        member(level, key, value);
        ControlFlow::Continue(())
    };
    let walk = Members { within: Some(within), member };
    walk.deserialize(&mut json).is_ok() && json.end().is_ok()
}

type Member<'m, 'de> = &'m mut dyn FnMut(Level, &str, &'de RawValue) -> ControlFlow<()>;

/// Visits the members of an object, and of its member `within`.
struct Members<F> {
    within: Option<&'static str>,
    member: F,
}

impl<'de, F> DeserializeSeed<'de> for Members<F>
where
    F: FnMut(Level, &str, &'de RawValue) -> ControlFlow<()>,
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F> Visitor<'de> for Members<F>
where
    F: FnMut(Level, &str, &'de RawValue) -> ControlFlow<()>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Key<'de>>()? {
            if self.within.is_some_and(|within| *key.0 == *within.as_bytes()) {
                // By reference, so that the type does not contain itself.
                let member: Member<'_, 'de> =
                    &mut |_, key, value| (self.member)(Level::Inner, key, value);
                map.next_value_seed(Members { within: None, member })?;
                continue;
            }
            let value = map.next_value::<&RawValue>()?;
            // A key that is no text (a lone surrogate) is none that we know.
            if let Ok(key) = std::str::from_utf8(&key.0)
                && (self.member)(Level::Outer, key, value).is_break()
            {
                return Err(de::Error::custom("enough"));
            }
        }
        Ok(())
    }
}

/// The text of a JSON string, if it is one that is text: lone surrogates are not.
pub fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
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
