//! Rows of `fanout.run` as [`Row`]s, and of `fanout.event` as [`Stored`].

use std::time::Duration;

use fanout_core::call::RunId;
use tokio_postgres::Error;

use crate::record::kind_of;
use crate::store::{Row, RunState, Stored, Used};

pub(super) const COLUMNS: &str = "id, kind, state, reason, caller, project, title, began_ms, ended_ms, fence, turns, calls, \
                                  failed, tokens, cost_usd, took_us";

/// Reads a run, or says what of it cannot be read.
pub(super) fn row(row: &tokio_postgres::Row) -> Result<Row, String> {
    let read = || -> Result<(Row, String, String), Error> {
        let number = |at: usize| row.try_get::<_, i64>(at).map(i64::unsigned_abs);
        let used = Used {
            turns: number(10)?,
            calls: number(11)?,
            failed: number(12)?,
            tokens: number(13)?,
            cost_usd: row.try_get(14)?,
            elapsed: Duration::from_micros(number(15)?),
        };
        let whole = Row {
            run: RunId::from(row.try_get::<_, String>(0)?),
            // Both are read from their words, below.
            kind: fanout_core::event::RunKind::Agent,
            state: RunState::Running,
            reason: row.try_get(3)?,
            caller: row.try_get(4)?,
            project: row.try_get(5)?,
            title: row.try_get(6)?,
            began_ms: number(7)?,
            ended_ms: row.try_get::<_, Option<i64>>(8)?.map(i64::unsigned_abs),
            fence: number(9)?,
            used,
        };
        Ok((whole, row.try_get(1)?, row.try_get(2)?))
    };
    let (whole, kind, state) = read().map_err(|error| error.to_string())?;
    let kind = kind_of(&kind).map_err(|error| error.to_string())?;
    let state = RunState::of(&state).ok_or_else(|| format!("`{state}` is no state of a run"))?;
    Ok(Row { kind, state, ..whole })
}

/// Reads an event.
pub(super) fn stored(row: &tokio_postgres::Row) -> Result<Stored, Error> {
    let number = |at: usize| row.try_get::<_, i64>(at).map(i64::unsigned_abs);
    let form = row.try_get::<_, i32>(2)?.unsigned_abs();
    Ok(Stored { number: number(0)?, at_us: number(1)?, form, text: row.try_get(3)? })
}
