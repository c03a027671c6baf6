//! The questions that wait for people, in the file.
//!
//! From [`ApprovalStore`]. To `fanout_approval`, a row for each; how often people have decided is a setting.

use std::sync::Arc;

use fanout_core::call::{ApprovalId, CallId, RunId};
use fanout_core::tool::BoxFuture;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, params};

use super::{SqliteStore, begin};
use crate::approvals::{Approval, ApprovalStore, Filter, Parting, Ruling};
use crate::deeds::Action;
use crate::store::StoreError;

const COLUMNS: &str = "id, run, call, caller, project, tool, input, hash, asked_ms, expires_ms, holder_run, holder_call, agreed, \
                       decided_by, words, decided_ms, is_used, is_withdrawn";

impl ApprovalStore for SqliteStore {
    fn ask(&self, asked: Approval) -> BoxFuture<'_, Result<Approval, StoreError>> {
        self.writer.ask(move |connection| {
            let transaction = begin(connection)?;
            let found = take_up(&transaction, &asked)?;
            let found = match found {
                Some(found) => found,
                None => put(&transaction, asked)?,
            };
            transaction.commit()?;
            Ok(found)
        })
    }

    fn decide(&self, id: ApprovalId, ruling: Ruling) -> BoxFuture<'_, Result<Option<Approval>, StoreError>> {
        self.writer.ask(move |connection| {
            let transaction = begin(connection)?;
            let sql = "update fanout_approval set agreed = ?, decided_by = ?, words = ?, decided_ms = ?4 \
                       where id = ? and agreed is null and not is_withdrawn and expires_ms > ?4";
            let values = params![ruling.is_approved, ruling.by, ruling.words, ruling.at_ms, id.as_str()];
            if transaction.execute(sql, values)? > 0 {
                let sql = "insert into fanout_setting values ('decisions', '1') \
                           on conflict (name) do update set value = value + 1";
                transaction.execute(sql, [])?;
                let sql = "insert into fanout_deed (at_ms, who, action, target, detail) \
                           select ?, ?, ?, id, json_object('tool', tool, 'run', run, 'call', call) \
                           from fanout_approval where id = ?";
                let action = if ruling.is_approved { Action::Approve } else { Action::Deny };
                transaction.execute(sql, params![ruling.at_ms, ruling.by, action.as_str(), id.as_str()])?;
            }
            let found = one(&transaction, "id = ?", &[&id.as_str()])?;
            transaction.commit()?;
            Ok(found)
        })
    }

    fn part(&self, id: ApprovalId, holder: (RunId, CallId), parting: Parting) -> BoxFuture<'_, Result<(), StoreError>> {
        self.writer.ask(move |connection| {
            let change = match parting {
                Parting::Uses => "is_used = true",
                Parting::LetsGo => "holder_run = null, holder_call = null",
                Parting::Withdraws => "is_withdrawn = true",
            };
            let sql =
                format!("update fanout_approval set {change} where id = ? and holder_run = ? and holder_call = ?");
            connection.execute(&sql, params![id.as_str(), holder.0.as_str(), holder.1.as_str()]).map(drop)
        })
    }

    fn get(&self, id: ApprovalId) -> BoxFuture<'_, Result<Option<Approval>, StoreError>> {
        self.reader.ask(move |connection| one(connection, "id = ?", &[&id.as_str()]))
    }

    fn list(&self, filter: Filter, after: Option<ApprovalId>) -> BoxFuture<'_, Result<Vec<Approval>, StoreError>> {
        self.reader.ask(move |connection| {
            let sql = format!(
                "select {COLUMNS} from fanout_approval where (?1 or caller = ?2 or (?3 and project is ?4)) \
                 and (not ?5 or (agreed is null and not is_withdrawn and expires_ms > ?6)) \
                 and (?7 is null or n < (select n from fanout_approval where id = ?7)) order by n desc limit ?8"
            );
            let Filter { viewer, is_open, count_max, now_ms } = filter;
            let values = params![
                viewer.is_admin,
                viewer.caller.as_str(),
                viewer.may_approve,
                viewer.project,
                is_open,
                now_ms,
                after.as_ref().map(ApprovalId::as_str),
                count_max
            ];
            connection.prepare_cached(&sql)?.query_map(values, row)?.collect()
        })
    }

    fn let_go(&self, run: RunId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.writer.ask(move |connection| {
            let sql = "update fanout_approval set holder_run = null, holder_call = null \
                       where holder_run = ? and agreed is null and not is_used";
            connection.execute(sql, [run.as_str()]).map(drop)
        })
    }

    fn decisions(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.reader.ask(|connection| {
            let sql = "select cast(value as integer) from fanout_setting where name = 'decisions'";
            Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?.unwrap_or_default())
        })
    }
}

/// Gives a call the question that it holds already, or one that is free.
fn take_up(connection: &Connection, asked: &Approval) -> rusqlite::Result<Option<Approval>> {
    let Some((run, call)) = &asked.holder else { return Ok(None) };
    let own = one(
        connection,
        "hash = ? and holder_run = ? and holder_call = ?",
        &[&asked.hash, &run.as_str(), &call.as_str()],
    )?;
    let free = || {
        let free = "hash = ? and caller = ? and holder_run is null and not is_used and not is_withdrawn \
                    and agreed is not false and expires_ms > ? order by n limit 1";
        one(connection, free, &[&asked.hash, &asked.caller.as_str(), &asked.asked_ms])
    };
    let Some(found) = own.map_or_else(free, |own| Ok(Some(own)))? else { return Ok(None) };
    let sql = "update fanout_approval set holder_run = ?, holder_call = ?, is_withdrawn = false where id = ?";
    connection.execute(sql, params![run.as_str(), call.as_str(), found.id.as_str()])?;
    Ok(Some(Approval { holder: asked.holder.clone(), is_withdrawn: false, ..found }))
}

/// Puts a question in. One of its id whose call let go of it, and that is no longer to be had, keeps it.
fn put(connection: &Connection, mut asked: Approval) -> rusqlite::Result<Approval> {
    let sql = "insert into fanout_approval (id, run, call, caller, project, tool, input, hash, asked_ms, expires_ms, \
               holder_run, holder_call) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict (id) do nothing";
    loop {
        let holder = asked.holder.as_ref();
        let values = params![
            asked.id.as_str(),
            asked.run.as_str(),
            asked.call.as_str(),
            asked.caller.as_str(),
            asked.project,
            asked.tool.as_str(),
            asked.input.to_string(),
            asked.hash,
            asked.asked_ms,
            asked.expires_ms,
            holder.map(|(run, _)| run.as_str()),
            holder.map(|(_, call)| call.as_str())
        ];
        if connection.execute(sql, values)? > 0 {
            return Ok(asked);
        }
        asked.id = asked.next_id();
    }
}

fn one(connection: &Connection, which: &str, values: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<Option<Approval>> {
    let sql = format!("select {COLUMNS} from fanout_approval where {which}");
    connection.prepare_cached(&sql)?.query_row(values, row).optional()
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Approval> {
    let text = |at: usize| row.get::<_, String>(at);
    let input = serde_json::from_str(&text(6)?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(6, Type::Text, Box::new(error)))?;
    let holder = row.get::<_, Option<String>>(10)?.zip(row.get::<_, Option<String>>(11)?);
    let ruling = match row.get(12)? {
        None => None,
        Some(is_approved) => Some(Ruling { is_approved, by: text(13)?, words: row.get(14)?, at_ms: row.get(15)? }),
    };
    Ok(Approval {
        id: text(0)?.into(),
        run: text(1)?.into(),
        call: text(2)?.into(),
        caller: text(3)?.into(),
        project: row.get(4)?,
        tool: text(5)?.into(),
        input: Arc::new(input),
        hash: text(7)?,
        asked_ms: row.get(8)?,
        expires_ms: row.get(9)?,
        holder: holder.map(|(run, call)| (run.into(), call.into())),
        ruling,
        is_used: row.get(16)?,
        is_withdrawn: row.get(17)?,
    })
}
