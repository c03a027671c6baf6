//! PostgreSQL's own account of a database, as a [`Catalog`].
//!
//! From the system catalogs, which every role may read. To [`infer`](crate::sql::infer).
//!
//! All of it is one text of several statements in one read-only transaction: one round trip, one moment in time, nothing
//! prepared, so that a pooler in between changes nothing. The statements are in `catalog.sql`, what two of them share in `converted.sql`.

use std::collections::BTreeMap;

use fanout_core::effects::Canonical;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::sql::Dialect;
use crate::sql::infer::catalog::{
    Action, Catalog, Column, Events, Function, Kind, Mention, Name, Reference, Relation, Trigger, Uses, Volatility,
};

/// One statement per list, in the order of [`read`].
const STATEMENTS: &str = include_str!("catalog.sql");

/// Two of them begin with the same, where this mark stands: a read-only transaction has no temporary view.
const CONVERTED: (&str, &str) = ("/* converted */", include_str!("converted.sql"));

/// Why a database's catalog could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The server refused, or the connection broke.
    #[error("the database does not say which tables it has")]
    Refused(#[source] tokio_postgres::Error),
    /// The server answered with something else.
    #[error("what the database says of its tables cannot be read")]
    Unreadable(#[source] serde_json::Error),
}

#[derive(Deserialize)]
struct RelationRow {
    schema: String,
    name: String,
    kind: String,
}

#[derive(Deserialize)]
struct ParentRow {
    schema: String,
    name: String,
    parent_schema: String,
    parent_name: String,
}

#[derive(Deserialize)]
struct ColumnRow {
    schema: String,
    table: String,
    name: String,
    form: Option<String>,
    is_limited: bool,
    has_default: bool,
    is_numbered: bool,
    is_generated: bool,
    is_partitioning: bool,
}

#[derive(Deserialize)]
struct UniqueRow {
    schema: String,
    table: String,
    is_primary: bool,
    columns: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct ReferenceRow {
    schema: String,
    table: String,
    columns: Vec<String>,
    target_schema: String,
    target_table: String,
    target_columns: Vec<String>,
    on_delete: String,
    on_update: String,
}

#[derive(Deserialize)]
struct TriggerRow {
    schema: String,
    table: String,
    name: String,
    insert: bool,
    update: bool,
    delete: bool,
}

#[derive(Deserialize)]
struct UseRow {
    schema: String,
    table: String,
    of: String,
    is_function: bool,
    used_schema: String,
    used_name: String,
}

#[derive(Deserialize)]
struct FunctionRow {
    schema: String,
    name: String,
    volatility: String,
    language: String,
    body: Option<String>,
    of_row: bool,
}

#[derive(Deserialize)]
struct MentionRow {
    text: String,
    is_row: bool,
    schema: String,
    name: String,
}

/// Asks a database for everything that [`infer`](crate::sql::infer) wants to know of it. Any role may, also behind a pooler.
///
/// # Errors
/// [`CatalogError`] when the server does not answer, or not as expected. The connection is left outside of a transaction as
/// far as it still works.
///
/// # Cancellation
/// Dropping the future may leave the connection inside the transaction: it is not to be used again.
pub async fn load(client: &Client) -> Result<Catalog, CatalogError> {
    let messages = match client.simple_query(&STATEMENTS.replace(CONVERTED.0, CONVERTED.1)).await {
        Ok(messages) => messages,
        Err(error) => {
            // The failed transaction stands open; the first error says more than a second one would.
            drop(client.simple_query("rollback").await);
            return Err(CatalogError::Refused(error));
        }
    };
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("[]").to_owned()),
        _ => None,
    });
    read(rows).map_err(CatalogError::Unreadable)
}

/// The next list.
fn list<T: DeserializeOwned>(lists: &mut impl Iterator<Item = String>) -> Result<Vec<T>, serde_json::Error> {
    serde_json::from_str(&lists.next().unwrap_or_default())
}

fn read(mut lists: impl Iterator<Item = String>) -> Result<Catalog, serde_json::Error> {
    let lists = &mut lists;
    let mut catalog = Catalog::new(Dialect::Postgres);
    catalog.search_path = list(lists)?;
    catalog.schemas_of_roles = list(lists)?;
    for RelationRow { schema, name, kind } in list(lists)? {
        let kind = match kind.as_str() {
            "v" => Kind::View,
            "f" => Kind::Outside,
            "S" => Kind::Sequence,
            _ => Kind::Table,
        };
        catalog.relations.insert(Name::new(schema, name), Relation { kind, ..Relation::default() });
    }
    set_roots(&mut catalog, list(lists)?);
    let relations = &mut catalog.relations;
    for row in list::<ColumnRow>(lists)? {
        with(relations, &row.schema, &row.table, |relation| relation.columns.push(column(&row)));
    }
    for row in list::<UniqueRow>(lists)? {
        with(relations, &row.schema, &row.table, |relation| match (row.is_primary, row.columns) {
            (true, Some(columns)) => relation.primary_key = columns,
            (_, columns) => relation.uniques.push(columns),
        });
    }
    for row in list::<ReferenceRow>(lists)? {
        let reference = Reference {
            columns: row.columns,
            target: Name::new(row.target_schema, row.target_table),
            target_columns: row.target_columns,
            on_delete: action(&row.on_delete),
            on_update: action(&row.on_update),
        };
        with(relations, &row.schema, &row.table, |relation| relation.references.push(reference));
    }
    for row in list::<TriggerRow>(lists)? {
        let on = Events { insert: row.insert, update: row.update, delete: row.delete };
        with(relations, &row.schema, &row.table, |relation| relation.triggers.push(Trigger { name: row.name, on }));
    }
    for row in list::<UseRow>(lists)? {
        let used = Name::new(row.used_schema, row.used_name);
        with(relations, &row.schema, &row.table, |relation| {
            let uses: &mut Uses = match row.of.as_str() {
                "view" => &mut relation.query,
                "always" => &mut relation.beside,
                _ => &mut relation.on_write,
            };
            if row.is_function {
                uses.functions.insert(used)
            } else {
                uses.relations.insert(used)
            };
        });
    }
    for row in list::<FunctionRow>(lists)? {
        let volatility = match row.volatility.as_str() {
            "i" => Volatility::Immutable,
            "s" => Volatility::Stable,
            _ => Volatility::Volatile,
        };
        let function = Function { volatility, language: row.language, body: row.body, of_row: row.of_row };
        catalog.functions.entry(Name::new(row.schema, row.name)).or_default().push(function);
    }
    catalog.volatile_builtins = list::<String>(lists)?.into_iter().collect();
    let mention = |row: MentionRow| Mention {
        text: row.text.to_lowercase(),
        is_row: row.is_row,
        calls: Name::new(row.schema, row.name),
    };
    catalog.mentions = list::<MentionRow>(lists)?.into_iter().map(mention).collect();
    Ok(catalog)
}

fn with(relations: &mut BTreeMap<Name, Relation>, schema: &str, table: &str, act: impl FnOnce(&mut Relation)) {
    if let Some(relation) = relations.get_mut(&Name::new(schema, table)) {
        act(relation);
    }
}

/// Gives every partition and child the table at its top. Tables that share a child come to one.
fn set_roots(catalog: &mut Catalog, parents: Vec<ParentRow>) {
    let mut above: BTreeMap<Name, Name> = BTreeMap::new();
    let top = |above: &BTreeMap<Name, Name>, name: &Name| {
        let mut at = name;
        while let Some(parent) = above.get(at) {
            at = parent;
        }
        at.clone()
    };
    for row in parents {
        let child = top(&above, &Name::new(row.schema, row.name));
        let parent = top(&above, &Name::new(row.parent_schema, row.parent_name));
        if child != parent {
            above.insert(child, parent);
        }
    }
    for (name, relation) in &mut catalog.relations {
        relation.root = above.contains_key(name).then(|| top(&above, name));
    }
}

fn column(row: &ColumnRow) -> Column {
    let form = row.form.as_deref().map(|form| match form {
        "integer" => Canonical::Integer,
        "uuid" => Canonical::Uuid,
        _ => Canonical::Text,
    });
    Column {
        name: row.name.clone(),
        form,
        is_limited: row.is_limited,
        has_default: row.has_default,
        is_numbered: row.is_numbered,
        is_generated: row.is_generated,
        is_partitioning: row.is_partitioning,
    }
}

/// As `pg_constraint` writes it.
fn action(letter: &str) -> Action {
    match letter {
        "c" => Action::Cascade,
        "n" | "d" => Action::Clear,
        _ => Action::Refuse,
    }
}
