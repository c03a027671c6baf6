//! What an author declares that a tool reads and writes, held against its input.
//!
//! From whoever builds a tool, of whatever source: templates as texts. To its spec: effects that can be resolved, or a
//! mistake that would otherwise only show as a call that waits for too much.

use fanout_core::effects::{EffectsSpec, Template, TemplateError};

use crate::schema::{Fields, UnknownField};

/// A declaration as it was written, and what its absence means.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declared {
    pub(crate) reads: Option<Vec<String>>,
    pub(crate) writes: Option<Vec<String>>,
    /// Undeclared, it keeps no order: `Promise.all` by choice.
    pub(crate) parallel: bool,
}

/// Why a declaration cannot be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EffectsError {
    /// A template cannot be read.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A template names a field that the input lacks.
    #[error(transparent)]
    UnknownField(#[from] UnknownField),
}

impl Declared {
    pub(crate) fn reads<'a>(&mut self, templates: impl IntoIterator<Item = &'a str>) {
        self.reads = Some(templates.into_iter().map(str::to_owned).collect());
    }

    pub(crate) fn writes<'a>(&mut self, templates: impl IntoIterator<Item = &'a str>) {
        self.writes = Some(templates.into_iter().map(str::to_owned).collect());
    }

    /// Whether anything was said.
    pub(crate) fn is_said(&self) -> bool {
        self.reads.is_some() || self.writes.is_some()
    }

    /// The declaration beside what is inferred of the source.
    pub(crate) fn effects(&self, inferred: EffectsSpec, fields: &Fields) -> Result<EffectsSpec, EffectsError> {
        let inferred = if self.parallel && !self.is_said() { EffectsSpec::default() } else { inferred };
        let read = |texts: &Option<Vec<String>>| -> Result<Option<Vec<Template>>, EffectsError> {
            texts.as_ref().map(|texts| texts.iter().map(|text| template(text, fields)).collect()).transpose()
        };
        Ok(EffectsSpec { reads: read(&self.reads)?, writes: read(&self.writes)?, ..inferred })
    }
}

fn template(text: &str, fields: &Fields) -> Result<Template, EffectsError> {
    let template = Template::parse(text)?;
    template.fields().try_for_each(|field| fields.check(field, || format!("`{text}`")))?;
    Ok(template)
}
