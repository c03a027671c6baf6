//! What was found in the statements of a tool so far.
//!
//! From `walk` and `tables`. To an [`Inference`].

use fanout_core::effects::{Mode, Template};

use super::Inference;
use super::keys::Keys;

/// How statements go together.
#[derive(Debug)]
pub(super) struct Touched {
    database: String,
    reads: Vec<Template>,
    writes: Vec<Template>,
    why: Vec<String>,
    /// Whether a row was read that is not itself written.
    pub reads_beside: bool,
    /// Whether rows are changed that were found by anything but their whole primary key.
    pub finds_otherwise: bool,
    /// Whether one statement changes more than one row.
    pub finds_several: bool,
    /// Whether an earlier statement added rows, so that what the connection did last is what this call did.
    pub has_added: bool,
}

impl Touched {
    pub(super) fn new(database: &str) -> Self {
        Self {
            database: database.to_owned(),
            reads: Vec::new(),
            writes: Vec::new(),
            why: Vec::new(),
            reads_beside: false,
            finds_otherwise: false,
            finds_several: false,
            has_added: false,
        }
    }

    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// The whole database, for this reason.
    pub(super) fn whole(&mut self, mode: Mode, reason: &str) {
        self.add(mode, Template::row(&["sql", &self.database], &[]));
        match mode {
            Mode::Read => self.reads_beside = true,
            Mode::Write => self.finds_otherwise = true,
        }
        let verb = if mode == Mode::Read { "reads" } else { "writes" };
        self.say(format!("{verb} the whole database: {reason}"));
    }

    /// A table's rows, or all of it for the reason that stands in their place.
    pub(super) fn table(&mut self, mode: Mode, table: &str, keys: &Keys) {
        let verb = if mode == Mode::Read { "reads" } else { "writes" };
        match keys {
            Ok(rows) => {
                let shown: Vec<String> = rows.templates.iter().map(|row| format!("`{row}`")).collect();
                self.say(format!("{verb} `{table}` by its primary key: {}", shown.join(", ")));
                for row in &rows.templates {
                    self.add(mode, row.clone());
                }
            }
            Err(reason) => {
                self.say(format!("{verb} all of `{table}`: {reason}"));
                self.add(mode, Template::row(&["sql", &self.database, table], &[]));
            }
        }
    }

    fn add(&mut self, mode: Mode, template: Template) {
        let list = if mode == Mode::Read { &mut self.reads } else { &mut self.writes };
        if !list.contains(&template) {
            list.push(template);
        }
    }

    fn say(&mut self, sentence: String) {
        if !self.why.contains(&sentence) {
            self.why.push(sentence);
        }
    }

    pub(super) fn into_inference(self, statements: usize) -> Inference {
        let Self { mut reads, mut writes, why, .. } = self;
        let whole = Template::row(&["sql", &self.database], &[]);
        if writes.contains(&whole) {
            (reads, writes) = (Vec::new(), vec![whole]);
        } else if reads.contains(&whole) {
            reads = vec![whole];
        }
        reads.retain(|read| !writes.contains(read));
        let is_read = writes.is_empty();
        let is_keyed = !is_read && !self.reads_beside && !self.finds_otherwise;
        let is_one_row = is_keyed && statements == 1 && !self.finds_several;
        Inference { reads, writes, is_read, is_keyed, is_one_row, why }
    }
}
