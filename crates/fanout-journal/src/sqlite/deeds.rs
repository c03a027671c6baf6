//! Who changed what, in the file.

use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

use crate::deeds::Deed;

const COLUMNS: &str = "n, at_ms, who, project, action, target, detail";

/// Adds one, and answers its number.
pub(super) fn add(connection: &Connection, deed: &Deed) -> rusqlite::Result<u64> {
    let sql =
        "insert into fanout_deed (at_ms, who, project, action, subject, target, detail) values (?, ?, ?, ?, ?, ?, ?)";
    let (action, detail) = (deed.action, deed.detail.to_string());
    let values = params![deed.at_ms, deed.who, deed.project, action.as_str(), action.subject(), deed.target, detail];
    connection.execute(sql, values)?;
    Ok(connection.last_insert_rowid().unsigned_abs())
}

/// The orders that stand.
pub(super) fn standing(connection: &Connection) -> rusqlite::Result<Vec<Deed>> {
    let sql = format!(
        "select {COLUMNS} from fanout_deed where n in \
         (select max(n) from fanout_deed where subject is not null group by subject, target) order by n"
    );
    connection.prepare_cached(&sql)?.query_map([], row)?.collect()
}

/// All, newest first, before this one.
pub(super) fn list(connection: &Connection, before: Option<u64>, max: usize) -> rusqlite::Result<Vec<Deed>> {
    let sql = format!("select {COLUMNS} from fanout_deed where ?1 is null or n < ?1 order by n desc limit ?2");
    connection.prepare_cached(&sql)?.query_map(params![before, max], row)?.collect()
}

fn row(row: &Row<'_>) -> rusqlite::Result<Deed> {
    let head = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
    let (action, detail): (String, String) = (row.get(4)?, row.get(6)?);
    let deed = Deed::read(head, &action, row.get(5)?, &detail);
    deed.map_err(|error| rusqlite::Error::FromSqlConversionFailure(4, Type::Text, error.into()))
}
