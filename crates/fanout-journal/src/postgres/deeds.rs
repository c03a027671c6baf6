//! Who changed what, in the database.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

use super::append::{number, plain};
use super::link::Param;
use crate::deeds::Deed;

const COLUMNS: &str = "n, at_ms, who, project, action, target, detail";

/// Adds one, and answers its number.
pub(super) async fn add(client: &Client, deed: &Deed) -> Result<u64, Error> {
    let insert = "insert into fanout.deed (at_ms, who, project, action, subject, target, detail) \
                  values ($1, $2, $3, $4, $5, $6, $7) returning n";
    let (who, project, target) = (plain(&deed.who), deed.project.as_deref().map(plain), plain(&deed.target));
    // JSON has no character of the number 0 but in an escape, which the database takes as text.
    let detail = deed.detail.to_string();
    let values: &[Param<'_>] = &[
        (&number(deed.at_ms), Type::INT8),
        (&who, Type::TEXT),
        (&project, Type::TEXT),
        (&deed.action.as_str(), Type::TEXT),
        (&deed.action.subject(), Type::TEXT),
        (&target, Type::TEXT),
        (&detail, Type::TEXT),
    ];
    let rows = client.query_typed(insert, values).await?;
    rows.first().map_or(Ok(0), |row| Ok(row.try_get::<_, i64>(0)?.unsigned_abs()))
}

/// The orders that stand.
pub(super) fn standing() -> String {
    format!(
        "select {COLUMNS} from fanout.deed where n in \
         (select max(n) from fanout.deed where subject is not null group by subject, target) order by n"
    )
}

/// All, newest first, before `$1`, at most `$2`.
pub(super) fn list() -> String {
    format!("select {COLUMNS} from fanout.deed where $1::bigint is null or n < $1 order by n desc limit $2")
}

pub(super) fn read(row: &Row) -> Result<Deed, String> {
    let unreadable = |error: Error| error.to_string();
    let count = |at: usize| row.try_get::<_, i64>(at).map(i64::unsigned_abs).map_err(unreadable);
    let text = |at: usize| row.try_get::<_, String>(at).map_err(unreadable);
    let project = row.try_get(3).map_err(unreadable)?;
    Deed::read((count(0)?, count(1)?, text(2)?, project), &text(4)?, text(5)?, &text(6)?)
}
