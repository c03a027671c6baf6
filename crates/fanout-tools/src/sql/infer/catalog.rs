//! What a database knows of its tables: plain data.
//!
//! From the readers of each database's own catalog. To [`infer`](super::infer), which asks here what a name in a statement
//! is, which columns name a row, and what else happens when a table is read or written.
//!
//! Nothing here asks a database, and nothing knows a statement.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fanout_core::effects::Canonical;

use crate::sql::Dialect;

/// The schema that needs no mention in a key: SQLite's only one, and PostgreSQL's first.
const PLAIN_SCHEMAS: [&str; 2] = ["main", "public"];

/// Everything known of one database.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// Whose rules of names hold.
    pub dialect: Dialect,
    /// The schemas that a bare name is looked up in, in order, as the connecting role has them.
    pub search_path: Vec<String>,
    /// Those in which only some of the roles find one that it can take on.
    pub schemas_of_roles: Vec<String>,
    /// Tables, views and what else can be read by name, without the system's own.
    pub relations: BTreeMap<Name, Relation>,
    /// Functions without the system's own; overloads stand together.
    pub functions: BTreeMap<Name, Vec<Function>>,
    /// The system's own functions that are volatile.
    pub volatile_builtins: BTreeSet<String>,
    /// What calls functions without their names.
    pub mentions: Vec<Mention>,
}

/// A name with its schema.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// `main` in SQLite.
    pub schema: String,
    /// As PostgreSQL keeps it; SQLite's are in lower case, since it finds them in any.
    pub name: String,
}

/// A table or a view.
#[derive(Clone, Debug, Default)]
pub struct Relation {
    /// What it is.
    pub kind: Kind,
    /// The table that it is a partition or a child of, at the top.
    pub root: Option<Name>,
    /// In their order, which an `INSERT` without a list of columns takes.
    pub columns: Vec<Column>,
    /// The columns of its primary key, in order.
    pub primary_key: Vec<String>,
    /// What else has to be unique or excludes other rows: the columns, or `None` where they are not all known.
    pub uniques: Vec<Option<Vec<String>>>,
    /// The rows of other tables that its own must point at.
    pub references: Vec<Reference>,
    /// What runs on a write, by whoever set it up: triggers and rules.
    pub triggers: Vec<Trigger>,
    /// What a view reads and calls.
    pub query: Uses,
    /// The text of a view, where that is all that is known of it.
    pub definition: Option<String>,
    /// What reading or writing it reads and calls beside: its row-level-security policies, and casts of its columns.
    pub beside: Uses,
    /// Whether a new or changed row may put away others that it meets, without the statement saying so.
    pub replaces: bool,
    /// What its defaults and checks, and those of its columns' types, call, and the sequences that they draw from and that are not its own.
    pub on_write: Uses,
}

/// What a relation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Rows of its own: also a materialised view, and a partitioned table.
    #[default]
    Table,
    /// A query with a name.
    View,
    /// Something behind which there may be anything: a foreign table, a virtual table.
    Outside,
    /// A sequence.
    Sequence,
}

/// A column.
#[derive(Clone, Debug, Default)]
pub struct Column {
    /// Spelled as a [`Name`].
    pub name: String,
    /// How its values are spelled, if each has one spelling.
    pub form: Option<Canonical>,
    /// Whether a longer text is cut to fit when it is written.
    pub is_limited: bool,
    /// Whether it has a value of its own where an `INSERT` gives none.
    pub has_default: bool,
    /// Whether that value is the next of a sequence.
    pub is_numbered: bool,
    /// Whether the database computes it from other columns of the row.
    pub is_generated: bool,
    /// Whether it decides in which partition a row is, so that a change of it can move the row.
    pub is_partitioning: bool,
}

/// A foreign key.
#[derive(Clone, Debug)]
pub struct Reference {
    /// The columns that point.
    pub columns: Vec<String>,
    /// The table that they point at.
    pub target: Name,
    /// The columns that they point at; empty: its primary key.
    pub target_columns: Vec<String>,
    /// What happens to the pointing row when its target goes.
    pub on_delete: Action,
    /// What happens to it when the target's columns change.
    pub on_update: Action,
}

/// What a foreign key does to the rows that point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the change is refused.
    Refuse,
    /// They go, or change along.
    Cascade,
    /// They point nowhere, or at the default.
    Clear,
}

/// What runs when a table is written.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// On what it runs.
    pub on: Events,
}

/// Kinds of writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Rows are added.
    pub insert: bool,
    /// Rows change.
    pub update: bool,
    /// Rows go.
    pub delete: bool,
}

/// What a view, a policy or a default is made of, without the system's own.
#[derive(Clone, Debug, Default)]
pub struct Uses {
    /// What it reads.
    pub relations: BTreeSet<Name>,
    /// What it calls.
    pub functions: BTreeSet<Name>,
}

/// A function of the database that is not the system's own.
#[derive(Clone, Debug)]
pub struct Function {
    /// What its author promises.
    pub volatility: Volatility,
    /// What it is written in, in lower case.
    pub language: String,
    /// Its text, if it is written in SQL.
    pub body: Option<String>,
    /// Whether it takes a row, so that PostgreSQL takes it for a column of that row.
    pub of_row: bool,
}

/// What calls a function where it stands in a statement, though it is not the function's name: an operator, or a type with
/// checks or casts.
#[derive(Clone, Debug)]
pub struct Mention {
    /// As it stands there, in lower case; empty: it may be called by any statement.
    pub text: String,
    /// Whether it is the type of a table's rows, so that only a cast means it and not the table.
    pub is_row: bool,
    /// The function.
    pub calls: Name,
}

/// What the author of a function promises of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volatility {
    /// Nothing is read.
    Immutable,
    /// Nothing is written.
    Stable,
    /// Nothing is promised.
    Volatile,
}

impl Events {
    /// All of them.
    pub const ALL: Self = Self { insert: true, update: true, delete: true };

    /// Those of either.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            insert: self.insert || other.insert,
            update: self.update || other.update,
            delete: self.delete || other.delete,
        }
    }

    /// Whether one is in both.
    pub(super) fn meet(self, other: Self) -> bool {
        self.insert && other.insert || self.update && other.update || self.delete && other.delete
    }
}

impl Mention {
    /// Whether it stands in a text: a name only as a whole word. The parser may take one operator for two others, so those
    /// count wherever their characters stand.
    pub(super) fn is_in(&self, text: &str) -> bool {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let (text, name) = (text.to_lowercase(), self.text.starts_with(is_word));
        text.match_indices(&self.text).any(|(at, found)| {
            let before = text[..at].chars().next_back().is_some_and(is_word);
            let after = text[at + found.len()..].chars().next().is_some_and(is_word);
            !(name && (before || after))
        })
    }
}

impl Name {
    /// A name in a schema.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }
}

/// As it stands in a key: with its schema only where that is not the usual one.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if PLAIN_SCHEMAS.contains(&self.schema.as_str()) {
            f.write_str(&self.name)
        } else {
            write!(f, "{}.{}", self.schema, self.name)
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Relation {
    /// A column by its name.
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

impl Catalog {
    /// Knows nothing yet.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            search_path: vec![PLAIN_SCHEMAS[usize::from(dialect == Dialect::Postgres)].to_owned()],
            schemas_of_roles: Vec::new(),
            relations: BTreeMap::new(),
            functions: BTreeMap::new(),
            volatile_builtins: BTreeSet::new(),
            mentions: Vec::new(),
        }
    }

    /// The relation that a name in a statement means: its schema as written or the first of the search path that has it.
    pub(super) fn relation(&self, schema: Option<&str>, name: &str) -> Option<(&Name, &Relation)> {
        self.schemas(schema).find_map(|schema| self.relations.get_key_value(&Name::new(schema, name)))
    }

    /// Whether a bare name means one relation or another, by who asks.
    pub(super) fn depends_on_role(&self, name: &str) -> bool {
        let having: BTreeSet<&str> =
            self.schemas(None).filter(|schema| self.relations.contains_key(&Name::new(*schema, name))).collect();
        having.len() > 1 && self.schemas_of_roles.iter().any(|schema| having.contains(schema.as_str()))
    }

    /// Every function that a name in a statement may mean.
    pub(super) fn functions(&self, schema: Option<&str>, name: &str) -> Vec<&Function> {
        let found = self.schemas(schema).filter_map(|schema| self.functions.get(&Name::new(schema, name)));
        found.flatten().collect()
    }

    fn schemas<'a>(&'a self, schema: Option<&'a str>) -> impl Iterator<Item = &'a str> {
        let path = self.search_path.iter().chain(&self.schemas_of_roles).filter(move |_| schema.is_none());
        schema.into_iter().chain(path.map(String::as_str))
    }

    /// The table that holds the rows: the top of the partitions or children that this one belongs to.
    pub(super) fn root<'a>(&'a self, name: &'a Name) -> &'a Name {
        self.relations.get(name).and_then(|relation| relation.root.as_ref()).unwrap_or(name)
    }

    /// A table with all its partitions and children, whatever of them is named.
    pub(super) fn family<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = (&'a Name, &'a Relation)> {
        let root = self.root(name);
        self.relations.iter().filter(move |(other, _)| self.root(other) == root)
    }

    /// The columns of a table, with those of its partitions and children.
    pub(super) fn columns<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a Column> {
        self.family(name).flat_map(|(_, member)| &member.columns)
    }

    /// The foreign keys that point at a table, each with the table that it is of.
    pub(super) fn pointing_at<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = (&'a Name, &'a Reference)> {
        let root = self.root(name);
        let all =
            self.relations.iter().flat_map(|(from, relation)| relation.references.iter().map(move |one| (from, one)));
        all.filter(move |(_, reference)| self.root(&reference.target) == root)
    }
}
