//! Rows of `fanout_run` as [`Row`]s.

use std::time::Duration;

use fanout_core::call::RunId;
use rusqlite::types::Type;
use rusqlite::{Connection, params};

use crate::record::{RecordError, kind_of};
use crate::store::{Row, RunState, Used, Wanted};

pub(super) const SELECT: &str = "select id, kind, state, reason, caller, project, title, began_ms, ended_ms, fence, turns, \
                                 calls, failed, tokens, cost_usd, took_us from fanout_run";

pub(super) fn runs(connection: &Connection, wanted: &Wanted) -> rusqlite::Result<Vec<Row>> {
    let sql = format!(
        "{SELECT} where (?1 is null or id = ?1) and (?2 is null or state = ?2) and (?3 is null or caller = ?3) \
         and (?4 is null or n < (select n from fanout_run where id = ?4)) order by n desc limit ?5"
    );
    let (run, after) = (wanted.run.as_ref().map(RunId::as_str), wanted.after.as_ref().map(RunId::as_str));
    let values = params![run, wanted.state.map(RunState::as_str), wanted.caller, after, wanted.max];
    connection.prepare_cached(&sql)?.query_map(values, row)?.collect()
}

pub(super) fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let kind: String = row.get(1)?;
    let state: String = row.get(2)?;
    let damaged =
        |at: usize, error: RecordError| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, Box::new(error));
    Ok(Row {
        run: RunId::from(row.get::<_, String>(0)?),
        kind: kind_of(&kind).map_err(|error| damaged(1, error))?,
        state: RunState::of(&state).ok_or_else(|| damaged(2, RecordError::Word(state)))?,
        reason: row.get(3)?,
        caller: row.get(4)?,
        project: row.get(5)?,
        title: row.get(6)?,
        began_ms: row.get(7)?,
        ended_ms: row.get(8)?,
        fence: row.get(9)?,
        used: Used {
            turns: row.get(10)?,
            calls: row.get(11)?,
            failed: row.get(12)?,
            tokens: row.get(13)?,
            cost_usd: row.get(14)?,
            elapsed: Duration::from_micros(row.get(15)?),
        },
    })
}
