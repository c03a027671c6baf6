//! Which of our tools a request may use: the header `fanout-tools`.
//!
//! From any request that tools could be called in. To its route.

use http::HeaderMap;

use crate::error::ApiError;

/// `none`, or names with commas between them.
const TOOLS: &str = "fanout-tools";

/// The tools that a request names; all, if it names none.
#[derive(Debug)]
pub(crate) struct Chosen(Option<Vec<String>>);

impl Chosen {
    /// What these headers say.
    ///
    /// # Errors
    /// 400 for a name that is no tool's, by `is_known`.
    pub(crate) fn of(headers: &HeaderMap, is_known: impl Fn(&str) -> bool) -> Result<Self, ApiError> {
        let Some(wanted) = headers.get(TOOLS) else { return Ok(Self(None)) };
        let wanted = wanted.to_str().map_err(|_| ApiError::invalid(format!("the header `{TOOLS}` is not text")))?;
        let names = wanted.split(',').map(str::trim).filter(|name| !name.is_empty());
        let names: Vec<String> = names.map(str::to_owned).collect();
        if names == ["none"] {
            return Ok(Self(Some(Vec::new())));
        }
        match names.iter().find(|name| !is_known(name)) {
            Some(name) => Err(ApiError::invalid(format!("the header `{TOOLS}` names `{name}`, which is no tool here"))),
            None => Ok(Self(Some(names))),
        }
    }

    /// Whether this tool may be used.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.iter().any(|known| known == name))
    }

    /// Whether it is all of them.
    pub(crate) fn is_all(&self) -> bool {
        self.0.is_none()
    }
}
