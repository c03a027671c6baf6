//! The questions that wait for people, in the database.
//!
//! From [`ApprovalStore`]. To `fanout.approval`, a row for each; how often people have decided is a setting, whose row makes decisions
//! come one after the other.

use std::sync::Arc;

use fanout_core::call::{ApprovalId, CallId, RunId};
use fanout_core::tool::BoxFuture;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::PostgresStore;
use super::append::{number, plain};
use super::link::Param;
use crate::approvals::{Approval, ApprovalStore, Filter, Parting, Ruling};
use crate::deeds::Action;
use crate::store::StoreError;

const COLUMNS: &str = "id, run, call, caller, project, tool, input, hash, asked_ms, expires_ms, holder_run, holder_call, agreed, \
                       decided_by, words, decided_ms, is_used, is_withdrawn";

impl PostgresStore {
    fn approval(&self, row: Option<&tokio_postgres::Row>) -> Result<Option<Approval>, StoreError> {
        row.map(approval).transpose().map_err(|detail| self.reader.unusable(detail))
    }
}

impl ApprovalStore for PostgresStore {
    fn ask(&self, asked: Approval) -> BoxFuture<'_, Result<Approval, StoreError>> {
        Box::pin(async move {
            let row = self.writer.transact(async |client| match take_up(client, &asked).await? {
                Some(row) => Ok(Some(row)),
                None => put(client, asked.clone()).await,
            });
            let gone = || self.reader.unusable("a question that was put in is not there".to_owned());
            self.approval(row.await?.as_ref())?.ok_or_else(gone)
        })
    }

    fn decide(&self, id: ApprovalId, ruling: Ruling) -> BoxFuture<'_, Result<Option<Approval>, StoreError>> {
        Box::pin(async move {
            let (by, words) = (plain(&ruling.by), ruling.words.as_deref().map(plain));
            let row = self.writer.transact(async |client| {
                let update = "update fanout.approval set agreed = $1, decided_by = $2, words = $3, decided_ms = $4 \
                              where id = $5 and agreed is null and not is_withdrawn and expires_ms > $4 returning 1";
                let values: &[Param<'_>] = &[
                    (&ruling.is_approved, Type::BOOL),
                    (&by, Type::TEXT),
                    (&words, Type::TEXT),
                    (&number(ruling.at_ms), Type::INT8),
                    (&id.as_str(), Type::TEXT),
                ];
                if !client.query_typed(update, values).await?.is_empty() {
                    let count = "insert into fanout.setting values ('decisions', '1') on conflict (name) \
                                 do update set value = (setting.value::bigint + 1)::text";
                    client.query_typed(count, &[]).await?;
                    let deed = "insert into fanout.deed (at_ms, who, action, target, detail) \
                                select $1, $2, $3, id, json_build_object('tool', tool, 'run', run, 'call', call)::text \
                                from fanout.approval where id = $4";
                    let action = if ruling.is_approved { Action::Approve } else { Action::Deny };
                    let values: &[Param<'_>] = &[
                        (&number(ruling.at_ms), Type::INT8),
                        (&by, Type::TEXT),
                        (&action.as_str(), Type::TEXT),
                        (&id.as_str(), Type::TEXT),
                    ];
                    client.query_typed(deed, values).await?;
                }
                let select = format!("select {COLUMNS} from fanout.approval where id = $1");
                Ok(client.query_typed(&select, &[(&id.as_str(), Type::TEXT)]).await?.pop())
            });
            self.approval(row.await?.as_ref())
        })
    }

    fn part(&self, id: ApprovalId, holder: (RunId, CallId), parting: Parting) -> BoxFuture<'_, Result<(), StoreError>> {
        let change = match parting {
            Parting::Uses => "is_used = true",
            Parting::LetsGo => "holder_run = null, holder_call = null",
            Parting::Withdraws => "is_withdrawn = true",
        };
        let update =
            format!("update fanout.approval set {change} where id = $1 and holder_run = $2 and holder_call = $3");
        Box::pin(async move {
            let (run, call) = (plain(holder.0.as_str()), plain(holder.1.as_str()));
            let values: &[Param<'_>] = &[(&id.as_str(), Type::TEXT), (&run, Type::TEXT), (&call, Type::TEXT)];
            self.writer.query(&update, values).await.map(drop)
        })
    }

    fn get(&self, id: ApprovalId) -> BoxFuture<'_, Result<Option<Approval>, StoreError>> {
        let select = format!("select {COLUMNS} from fanout.approval where id = $1");
        Box::pin(async move {
            let id = plain(id.as_str());
            self.approval(self.reader.query(&select, &[(&id, Type::TEXT)]).await?.first())
        })
    }

    fn list(&self, filter: Filter, after: Option<ApprovalId>) -> BoxFuture<'_, Result<Vec<Approval>, StoreError>> {
        let select = format!(
            "select {COLUMNS} from fanout.approval where ($1 or caller = $2 or ($3 and project is not distinct from $4)) \
             and (not $5 or (agreed is null and not is_withdrawn and expires_ms > $6)) \
             and ($7 is null or n < (select n from fanout.approval where id = $7)) order by n desc limit $8"
        );
        Box::pin(async move {
            let Filter { viewer, is_open, count_max, now_ms } = filter;
            let (caller, project) = (plain(viewer.caller.as_str()), viewer.project.as_deref().map(plain));
            let after = after.as_ref().map(|after| plain(after.as_str()));
            let max = i64::try_from(count_max).unwrap_or(i64::MAX);
            let values: &[Param<'_>] = &[
                (&viewer.is_admin, Type::BOOL),
                (&caller, Type::TEXT),
                (&viewer.may_approve, Type::BOOL),
                (&project, Type::TEXT),
                (&is_open, Type::BOOL),
                (&number(now_ms), Type::INT8),
                (&after, Type::TEXT),
                (&max, Type::INT8),
            ];
            let rows = self.reader.query(&select, values).await?;
            rows.iter().map(approval).collect::<Result<_, _>>().map_err(|detail| self.reader.unusable(detail))
        })
    }

    fn let_go(&self, run: RunId) -> BoxFuture<'_, Result<(), StoreError>> {
        let update = "update fanout.approval set holder_run = null, holder_call = null \
                      where holder_run = $1 and agreed is null and not is_used";
        Box::pin(async move { self.writer.query(update, &[(&plain(run.as_str()), Type::TEXT)]).await.map(drop) })
    }

    fn decisions(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let select = "select value::bigint from fanout.setting where name = 'decisions'";
            let rows = self.reader.query(select, &[]).await?;
            let count: i64 =
                rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(|error| self.reader.error(&error))?;
            Ok(count.unsigned_abs())
        })
    }
}

/// Gives a call the question that it holds already, or one that is free.
async fn take_up(client: &Client, asked: &Approval) -> Result<Option<tokio_postgres::Row>, Error> {
    let Some((run, call)) = &asked.holder else { return Ok(None) };
    let (run, call, caller) = (plain(run.as_str()), plain(call.as_str()), plain(asked.caller.as_str()));
    // Of two that find the same free question one waits for the other's lock, and finds it taken.
    for which in [
        "holder_run = $2 and holder_call = $3 and $4 is not null and $5 is not null",
        "caller = $4 and holder_run is null and not is_used and not is_withdrawn and agreed is not false \
         and expires_ms > $5",
    ] {
        let update = format!(
            "update fanout.approval set holder_run = $2, holder_call = $3, is_withdrawn = false where n = \
             (select n from fanout.approval where hash = $1 and {which} order by n limit 1 for update) returning {COLUMNS}"
        );
        let values: &[Param<'_>] = &[
            (&asked.hash, Type::TEXT),
            (&run, Type::TEXT),
            (&call, Type::TEXT),
            (&caller, Type::TEXT),
            (&number(asked.asked_ms), Type::INT8),
        ];
        if let Some(row) = client.query_typed(&update, values).await?.pop() {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

/// Puts a question in. One of its id whose call let go of it, and that is no longer to be had, keeps it.
async fn put(client: &Client, mut asked: Approval) -> Result<Option<tokio_postgres::Row>, Error> {
    let insert = format!(
        "insert into fanout.approval (id, run, call, caller, project, tool, input, hash, asked_ms, expires_ms, holder_run, \
         holder_call) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) on conflict (id) do nothing \
         returning {COLUMNS}"
    );
    loop {
        let text = |text: &str| plain(text);
        let (run, call, caller) = (text(asked.run.as_str()), text(asked.call.as_str()), text(asked.caller.as_str()));
        let holder = asked.holder.as_ref().map(|(run, call)| (text(run.as_str()), text(call.as_str()))).unzip();
        let (project, tool, input) =
            (asked.project.as_deref().map(plain), text(asked.tool.as_str()), asked.input.to_string());
        let values: &[Param<'_>] = &[
            (&asked.id.as_str(), Type::TEXT),
            (&run, Type::TEXT),
            (&call, Type::TEXT),
            (&caller, Type::TEXT),
            (&project, Type::TEXT),
            (&tool, Type::TEXT),
            (&input, Type::TEXT),
            (&asked.hash, Type::TEXT),
            (&number(asked.asked_ms), Type::INT8),
            (&number(asked.expires_ms), Type::INT8),
            (&holder.0, Type::TEXT),
            (&holder.1, Type::TEXT),
        ];
        if let Some(row) = client.query_typed(&insert, values).await?.pop() {
            return Ok(Some(row));
        }
        asked.id = asked.next_id();
    }
}

/// Reads a question, or says what of it cannot be read.
fn approval(row: &tokio_postgres::Row) -> Result<Approval, String> {
    let read = || -> Result<(Approval, String), Error> {
        let text = |at: usize| row.try_get::<_, String>(at);
        let number = |at: usize| row.try_get::<_, i64>(at).map(i64::unsigned_abs);
        let holder = row.try_get::<_, Option<String>>(10)?.zip(row.try_get::<_, Option<String>>(11)?);
        let ruling = match row.try_get(12)? {
            None => None,
            Some(is_approved) => {
                Some(Ruling { is_approved, by: text(13)?, words: row.try_get(14)?, at_ms: number(15)? })
            }
        };
        let approval = Approval {
            id: text(0)?.into(),
            run: text(1)?.into(),
            call: text(2)?.into(),
            caller: text(3)?.into(),
            project: row.try_get(4)?,
            tool: text(5)?.into(),
            // Read from its text, below.
            input: Arc::default(),
            hash: text(7)?,
            asked_ms: number(8)?,
            expires_ms: number(9)?,
            holder: holder.map(|(run, call)| (run.into(), call.into())),
            ruling,
            is_used: row.try_get(16)?,
            is_withdrawn: row.try_get(17)?,
        };
        Ok((approval, text(6)?))
    };
    let (approval, input) = read().map_err(|error| error.to_string())?;
    let input = serde_json::from_str(&input).map_err(|error| format!("the input of {}: {error}", approval.id))?;
    Ok(Approval { input: Arc::new(input), ..approval })
}
