//! Every key of the configuration, described once.
//!
//! From nobody: this is where they are written down. To the readers, which may ask for no other key; to
//! [`schema`](super::schema) and [`reference`](super::reference), which are made of it.
//!
//! What a key comes to is said by its reader, not here. Nothing is read.

mod tables;

/// A table of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The top of the file.
    Top,
    /// `[model]`.
    Model,
    /// `[run]`.
    Run,
    /// `[scheduler]`.
    Scheduler,
    /// `[limits.NAME]`.
    Limit,
    /// One condition of `approval`.
    Condition,
    /// `retry` of a limit group.
    Retry,
    /// `breaker` of a limit group.
    Breaker,
    /// A `[[tool]]`.
    Tool,
    /// `http` of a tool.
    Http,
    /// `command` of a tool.
    Command,
    /// `sql` of a tool.
    Sql,
    /// `[database.NAME]`.
    Database,
    /// `[openapi.NAME]`.
    Openapi,
    /// `[mcp_servers.NAME]`.
    McpServer,
    /// `oauth` of such a server.
    Oauth,
    /// One tool of such a source: `tools.NAME`.
    SourceTool,
    /// `[server]`.
    Server,
    /// `jwt` of `[server]`.
    Jwt,
    /// `[project.NAME]`.
    Project,
    /// A `[[notify]]`.
    Notify,
    /// `[store]`.
    Store,
    /// `[worker]`.
    Worker,
    /// `[prices."MODEL"]`.
    Price,
    /// A table whose keys are names that its author chooses.
    Names,
}

/// What may be said in one table.
pub(super) struct Table {
    pub(super) kind: Kind,
    /// How it is written: `[run]`.
    pub(super) header: &'static str,
    /// What it is about, as a sentence.
    pub(super) about: &'static str,
    /// Whether `FANOUT_SECTION__KEY` wins over its keys.
    pub(super) overridden: bool,
    pub(super) keys: &'static [Key],
    pub(super) rules: &'static [Rule],
}

/// What holds between keys of one table.
pub(super) enum Rule {
    ExactlyOneOf(&'static [&'static str]),
    AtMostOneOf(&'static [&'static str]),
}

/// One key.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) takes: Takes,
    /// A value, as it stands in the file.
    pub(super) example: &'static str,
    /// What it means, as a part of a sentence.
    pub(super) about: &'static str,
    /// What holds where the key is left out, as it would stand in the file; `None`: nothing, no bound, or not declared.
    pub(super) default: Option<&'static str>,
    pub(super) needed: bool,
}

impl Key {
    const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    const fn needed(mut self) -> Self {
        self.needed = true;
        self
    }
}

/// What a key takes.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    Text,
    /// A text in which `${NAME}` may stand.
    Setting,
    /// A text that fits a regular expression, and what that is in words.
    Like(&'static str, &'static str),
    OneOf(&'static [&'static str]),
    Flag,
    /// A whole number, from and to.
    Whole(u64, u64),
    Amount,
    /// Any number.
    Number,
    /// Any value that JSON can hold.
    Anything,
    Share,
    Duration,
    Rate,
    Size,
    Texts,
    Settings,
    /// A list of texts that fit a regular expression, and what they are in words.
    ListLike(&'static str, &'static str),
    /// Texts in which `${NAME}` may stand, by names.
    SettingsByName,
    /// The same, in which `${caller.token}` may stand too.
    CredentialsByName,
    /// Fields of an input, each with its schema.
    Inputs,
    /// A JSON Schema of an object.
    Schema,
    Table(Kind),
    /// `true` or `false`, or a table that says more.
    FlagOr(Kind),
    Tables(Kind),
    /// One of these, or a list of such tables.
    OneOfOr(&'static [&'static str], Kind),
    TablesByName(Kind),
}

/// Durations as [`units`](super::units) reads them, never zero.
pub(super) const DURATION: &str = r"^\s*0*[1-9][0-9]*\s*(ms|s|m|h|d)\s*$";
/// Rates as [`units`](super::units) reads them.
pub(super) const RATE: &str = r"^\s*0*[1-9][0-9]*\s*/\s*(s|m|h)\s*$";
/// Sizes as [`units`](super::units) reads them, never zero.
pub(super) const SIZE: &str = r"^\s*0*[1-9][0-9]*\s*(B|kB|KB|MB|GB|KiB|MiB|GiB)?\s*$";
/// Texts as [`Setting`](super::Setting) reads them.
pub(super) const SETTING: &str =
    r"^(\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*(:-([^$}]|\$(?!\{))*)?|file:[^}]+)\}|\$(?!\{)|[^$])*$";

/// The same with the end user's token.
pub(super) const CREDENTIAL: &str =
    r"^(\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*(:-([^$}]|\$(?!\{))*)?|caller\.token|file:[^}]+)\}|\$(?!\{)|[^$])*$";

/// Every table, in the order of the reference page.
pub(super) fn all() -> &'static [Table] {
    &tables::TABLES
}

/// The tables that know a key, in words.
pub(super) fn tables_with(key: &str) -> Option<String> {
    let tables = all().iter().filter(|table| table.keys.iter().any(|known| known.name == key));
    let headers: Vec<&str> = tables.map(|table| table.header).collect();
    (!headers.is_empty()).then(|| headers.join(" and "))
}

/// A value of the key that takes this table, if it shows any of its keys.
fn example_of(kind: Kind) -> Option<&'static str> {
    let keys = all().iter().flat_map(|table| table.keys);
    let mut keys = keys.filter(|key| matches!(key.takes, Takes::Table(inner) | Takes::FlagOr(inner) if inner == kind));
    keys.next().map(|key| key.example).filter(|example| *example != "{}")
}

impl Kind {
    /// What a value must be that is to be this table.
    pub(super) fn expected(self) -> String {
        format!("a table such as {}", example_of(self).unwrap_or("{ key = \"value\" }"))
    }

    /// Whether a key of this table stands where the table's own name should.
    pub(super) fn lacks_name(self, key: &str) -> Option<&'static str> {
        let header = self.table()?.header;
        (self.has(key) && (header.contains("NAME") || header.contains("MODEL"))).then_some(header)
    }

    /// Its description; `None` for a table whose keys are names.
    pub(super) fn table(self) -> Option<&'static Table> {
        tables::TABLES.iter().find(|table| table.kind == self)
    }

    /// Whether a key is described for this table.
    pub(super) fn has(self, key: &str) -> bool {
        self.table().is_some_and(|table| table.keys.iter().any(|known| known.name == key))
    }
}

#[cfg(test)]
mod tests;
