//! JSON that is taken apart only if the rule has to look into it, which for most versions it does
//! not. What equal states are is decided in `canonical`.

use std::cell::OnceCell;
use std::ops::Deref;

use serde_json::Value;

/// JSON as it stands in an event.
#[derive(Clone, Debug)]
pub struct Json {
    text: String,
    value: OnceCell<Value>,
}

impl Json {
    /// The JSON itself, as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), value: OnceCell::new() }
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self { text: value.to_string(), value: value.into() }
    }
}

impl Deref for Json {
    type Target = Value;

    /// What cannot be taken apart (numbers beyond all bounds) counts as a text, equal only to itself.
    fn deref(&self) -> &Value {
        let read = || serde_json::from_str(&self.text);
        self.value.get_or_init(|| read().unwrap_or_else(|_| Value::String(self.text.clone())))
    }
}
