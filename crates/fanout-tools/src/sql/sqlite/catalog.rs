//! SQLite's own account of a database, as a [`Catalog`].
//!
//! From its schema table and its pragmas. To [`infer`](crate::sql::infer).
//!
//! Names are taken in lower case throughout, since SQLite finds them in any. Nothing is written.

use std::collections::BTreeMap;

use fanout_core::effects::Canonical;
use rusqlite::{Connection, Result, Row, params_from_iter};

use crate::sql::Dialect;
use crate::sql::infer::catalog::{Action, Catalog, Column, Events, Kind, Name, Reference, Relation, Trigger};

/// One entry of the schema table.
struct Entry {
    kind: String,
    name: String,
    table: String,
    text: String,
}

/// Reads everything that [`infer`](crate::sql::infer) wants to know of the database that a connection has open.
///
/// # Errors
/// When the database cannot be read.
pub fn load(connection: &Connection) -> Result<Catalog> {
    let mut catalog = Catalog::new(Dialect::Sqlite);
    let entries = "select type, name, tbl_name, coalesce(sql, '') from sqlite_schema where name not like 'sqlite\\_%' escape '\\'";
    let entry = |row: &Row<'_>| {
        Ok(Entry { kind: row.get(0)?, name: lower(row.get(1)?), table: lower(row.get(2)?), text: row.get(3)? })
    };
    let entries: Vec<Entry> = rows(connection, entries, None, entry)?;
    for entry in &entries {
        let relation = match entry.kind.as_str() {
            "table" if starts_with_words(&entry.text, "create virtual") => {
                Relation { kind: Kind::Outside, ..Relation::default() }
            }
            "table" => table(connection, entry)?,
            "view" => Relation { kind: Kind::View, definition: Some(entry.text.clone()), ..Relation::default() },
            _ => continue,
        };
        catalog.relations.insert(Name::new("main", entry.name.clone()), relation);
    }
    for entry in entries.iter().filter(|entry| entry.kind == "trigger") {
        let trigger = Trigger { name: entry.name.clone(), on: events(&entry.text) };
        if let Some(relation) = catalog.relations.get_mut(&Name::new("main", entry.table.clone())) {
            relation.triggers.push(trigger);
        }
    }
    Ok(catalog)
}

fn rows<T>(
    connection: &Connection,
    text: &str,
    of: Option<&str>,
    read: impl Fn(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare(text)?;
    statement.query_map(params_from_iter(of), read)?.collect()
}

fn table(connection: &Connection, entry: &Entry) -> Result<Relation> {
    // A collation decides which texts are one, and it can stand at the column or at its key: where any is named, texts
    // have no spelling of their own.
    let has_collation = entry.text.to_ascii_lowercase().contains("collate");
    // Only generated columns are hidden in a table of its own.
    let columns =
        "select name, type, dflt_value is not null or hidden, pk, hidden from pragma_table_xinfo(?1) order by cid";
    let read = |row: &Row<'_>| {
        let (name, kind, has_default, place, is_generated): (String, String, bool, u32, bool) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
        let form = form(&kind).filter(|form| *form == Canonical::Integer || !has_collation);
        Ok((Column { name: lower(name), form, has_default, is_generated, ..Column::default() }, place))
    };
    let columns: Vec<(Column, u32)> = rows(connection, columns, Some(&entry.name), read)?;
    let mut key: Vec<(u32, String)> =
        columns.iter().filter(|(_, place)| *place > 0).map(|(column, place)| (*place, column.name.clone())).collect();
    key.sort();
    Ok(Relation {
        columns: columns.into_iter().map(|(column, _)| column).collect(),
        primary_key: key.into_iter().map(|(_, name)| name).collect(),
        uniques: uniques(connection, &entry.name)?,
        references: references(connection, &entry.name)?,
        // `on conflict replace` at one of its constraints, whatever stands in between.
        replaces: ["conflict", "replace"].iter().all(|word| entry.text.to_ascii_lowercase().contains(word)),
        ..Relation::default()
    })
}

fn uniques(connection: &Connection, table: &str) -> Result<Vec<Option<Vec<String>>>> {
    let indexes = "select name, partial from pragma_index_list(?1) where \"unique\" and origin <> 'pk'";
    let indexes: Vec<(String, bool)> = rows(connection, indexes, Some(table), |row| Ok((row.get(0)?, row.get(1)?)))?;
    // An expression has no name; and in an index of another collation two texts can be one that their column tells apart.
    let columns = "select iif(coll = 'BINARY', name, null) from pragma_index_xinfo(?1) where key order by seqno";
    let of_index = |(name, is_partial): (String, bool)| {
        let columns: Vec<Option<String>> = rows(connection, columns, Some(&name), |row| row.get(0))?;
        Ok(columns.into_iter().map(|column| column.map(lower)).collect::<Option<Vec<_>>>().filter(|_| !is_partial))
    };
    indexes.into_iter().map(of_index).collect()
}

fn references(connection: &Connection, table: &str) -> Result<Vec<Reference>> {
    let text = "select id, \"table\", \"from\", \"to\", on_update, on_delete from pragma_foreign_key_list(?1) order by id, seq";
    let read = |row: &Row<'_>| {
        let target: Option<String> = row.get(3)?;
        let (on_update, on_delete): (String, String) = (row.get(4)?, row.get(5)?);
        let reference = Reference {
            columns: vec![lower(row.get(2)?)],
            target: Name::new("main", lower(row.get(1)?)),
            target_columns: target.into_iter().map(lower).collect(),
            on_delete: action(&on_delete),
            on_update: action(&on_update),
        };
        Ok((row.get(0)?, reference))
    };
    let mut whole: BTreeMap<i64, Reference> = BTreeMap::new();
    for (id, part) in rows(connection, text, Some(table), read)? {
        match whole.get_mut(&id) {
            Some(reference) => {
                reference.columns.extend(part.columns);
                reference.target_columns.extend(part.target_columns);
            }
            None => {
                whole.insert(id, part);
            }
        }
    }
    Ok(whole.into_values().collect())
}

fn action(text: &str) -> Action {
    match text.to_ascii_lowercase().as_str() {
        "cascade" => Action::Cascade,
        "set null" | "set default" => Action::Clear,
        _ => Action::Refuse,
    }
}

/// How the values of a column with this declared type are spelled, by the rules for its affinity: a whole number or a text
/// that is compared or stored there is turned into the column's own kind.
fn form(declared: &str) -> Option<Canonical> {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    if has("INT") {
        Some(Canonical::Integer)
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Some(Canonical::Text)
    } else {
        None
    }
}

/// What a trigger runs on, by the words before its body; all of them if none is found.
fn events(text: &str) -> Events {
    let text = text.to_ascii_lowercase();
    let words = || text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').take_while(|word| *word != "begin");
    let has = |event: &str| words().any(|word| word == event);
    let found = Events { insert: has("insert"), update: has("update"), delete: has("delete") };
    if found == Events::default() { Events::ALL } else { found }
}

fn starts_with_words(text: &str, start: &str) -> bool {
    let words: Vec<String> = text.split_whitespace().take(2).map(str::to_ascii_lowercase).collect();
    words.join(" ") == start
}

fn lower(mut name: String) -> String {
    name.make_ascii_lowercase();
    name
}
