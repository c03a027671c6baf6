//! What a header carries for its author: a secret, with the end user's token in it where it says so.
//!
//! From the author of a tool. To `header`, which fills it for each attempt. Never printed.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A secret text, or one that differs from run to run because the end user's token stands in it.
#[derive(Clone)]
pub struct Credential {
    /// The texts before, between and after the tokens.
    texts: Vec<SecretString>,
}

impl Credential {
    /// These texts, with the token of the run's end user between each two: `["Bearer ", ""]`.
    pub fn around_token(texts: impl IntoIterator<Item = SecretString>) -> Self {
        Self { texts: texts.into_iter().collect() }
    }

    /// Whether a call needs the token of an end user.
    pub fn needs_token(&self) -> bool {
        self.texts.len() > 1
    }

    /// The same with a text before it, such as `Bearer `.
    #[must_use]
    pub(crate) fn after(mut self, text: &str) -> Self {
        match self.texts.first_mut() {
            Some(first) => *first = format!("{text}{}", first.expose_secret()).into(),
            None => self.texts.push(text.into()),
        }
        self
    }

    /// The text that is all of it.
    pub(crate) fn only(&self) -> Option<&str> {
        match self.texts.as_slice() {
            [text] => Some(text.expose_secret()),
            _ => None,
        }
    }

    /// The texts that its author wrote.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(ExposeSecret::expose_secret)
    }
}

impl<T: Into<SecretString>> From<T> for Credential {
    fn from(text: T) -> Self {
        Self { texts: vec![text.into()] }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}
