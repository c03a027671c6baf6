//! The journal in one SQLite file, which several processes may share.
//!
//! Two connections on threads of their own: `append` and all that changes something goes through the one, so that whoever
//! only looks waits for nobody. Write-ahead log, full synchronisation: what an append answered for outlives the power.

mod approvals;
mod deeds;
mod memos;
mod open;
mod owner;
mod rows;
mod spending;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fanout_core::call::RunId;
use fanout_core::tool::BoxFuture;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::deeds::Deed;
use crate::memo::Remembered;
use crate::record::FORM;
use crate::store::{DAY_MS, Entry, Row, RunState, Store, StoreError, Stored, Wanted};
use open::Worker;
use owner::Owner;

/// The journal in a SQLite file.
pub struct SqliteStore {
    writer: Worker,
    reader: Worker,
    owner: Arc<Owner>,
}

impl SqliteStore {
    /// Opens the file, and makes it if there is none: readable by its owner alone. The folder must be there.
    ///
    /// # Errors
    /// [`StoreError`]: it cannot be made or opened, it is no SQLite, or a newer version made it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let writer = open::connect(path)?;
        let owner = Owner::new(path).map_err(|error| open::of_system(path, &error))?;
        let reader = open::connect(path)?;
        Ok(Self { writer: Worker::start(path, writer)?, reader: Worker::start(path, reader)?, owner: Arc::new(owner) })
    }

    /// Where the file is.
    pub fn path(&self) -> &PathBuf {
        self.writer.path()
    }
}

impl Store for SqliteStore {
    fn append(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Vec<RunId>, StoreError>> {
        let owner = Arc::clone(&self.owner);
        self.writer.ask(move |connection| {
            let transaction = begin(connection)?;
            let lost = add(&transaction, &entries, owner.name())?;
            transaction.commit()?;
            Ok(lost)
        })
    }

    fn runs(&self, wanted: Wanted) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        self.reader.ask(move |connection| rows::runs(connection, &wanted))
    }

    fn open_runs(&self) -> BoxFuture<'_, Result<Vec<(RunState, usize)>, StoreError>> {
        self.reader.ask(|connection| {
            let sql = "select state, count(*) from fanout_run where state in ('proposed', 'queued', 'running') group by state";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            let mut open = Vec::new();
            while let Some(row) = rows.next()? {
                open.extend(RunState::of(&row.get::<_, String>(0)?).zip(Some(row.get(1)?)));
            }
            Ok(open)
        })
    }

    fn events(&self, run: RunId, after: u64, max: usize) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        self.reader.ask(move |connection| {
            let mut statement = connection.prepare_cached(
                "select e.n, e.at_us, e.form, e.text from fanout_event e join fanout_run r on r.n = e.run \
                 where r.id = ? and e.n > ? order by e.n limit ?",
            )?;
            let stored = |row: &rusqlite::Row<'_>| {
                Ok(Stored { number: row.get(0)?, at_us: row.get(1)?, form: row.get(2)?, text: row.get(3)? })
            };
            statement.query_map(params![run.as_str(), after, max], stored)?.collect()
        })
    }

    fn adopt(&self, max: usize) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        let owner = Arc::clone(&self.owner);
        self.writer.ask(move |connection| {
            let transaction = begin(connection)?;
            let sql =
                "select distinct owner from fanout_run where state = 'running' and owner is not null and owner <> ?";
            let others: Vec<String> =
                transaction.prepare(sql)?.query_map([owner.name()], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let mut adopted = Vec::new();
            for gone in others.iter().filter(|other| owner.is_gone(other)) {
                let left = max.saturating_sub(adopted.len());
                let sql = "select n from fanout_run where state = 'running' and owner = ? order by n limit ?";
                let runs: Vec<u64> = transaction
                    .prepare(sql)?
                    .query_map(params![gone, left], |row| row.get(0))?
                    .collect::<Result<_, _>>()?;
                for run in runs {
                    adopted.push(take_over(&transaction, run, owner.name())?);
                }
            }
            transaction.commit()?;
            for gone in others.iter().filter(|other| owner.is_gone(other)) {
                owner.forget(gone);
            }
            adopted.sort_by_key(|row: &Row| row.began_ms);
            Ok(adopted)
        })
    }

    fn take_queued(&self, max: usize) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        let owner = Arc::clone(&self.owner);
        self.writer.ask(move |connection| {
            let transaction = begin(connection)?;
            let sql = "select n from fanout_run where state = 'queued' order by n limit ?";
            let runs: Vec<u64> =
                transaction.prepare_cached(sql)?.query_map([max], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let taken: Vec<Row> =
                runs.iter().map(|run| take_over(&transaction, *run, owner.name())).collect::<Result<_, _>>()?;
            transaction.commit()?;
            Ok(taken)
        })
    }

    fn change(
        &self,
        run: RunId,
        from: RunState,
        to: RunState,
        reason: Option<String>,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.writer.ask(move |connection| {
            let ended = to.is_over().then(now_ms);
            let sql = "update fanout_run set state = ?, reason = ?, ended_ms = ? where id = ? and state = ?";
            let changed = connection.execute(sql, params![to.as_str(), reason, ended, run.as_str(), from.as_str()])?;
            Ok(changed > 0)
        })
    }

    fn ask_to_stop(&self, run: Option<RunId>, reason: String) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.writer.ask(move |connection| {
            let run = run.as_ref().map(RunId::as_str);
            let sql =
                "update fanout_run set stop = coalesce(stop, ?1) where state = 'running' and (?2 is null or id = ?2)";
            connection.execute(sql, params![reason, run])
        })
    }

    fn beat(&self) -> BoxFuture<'_, Result<Vec<(RunId, String)>, StoreError>> {
        let owner = Arc::clone(&self.owner);
        // That it lives, the lock on its file says; this only asks.
        self.reader.ask(move |connection| {
            let sql = "select id, stop from fanout_run where state = 'running' and owner = ? and stop is not null";
            let mut statement = connection.prepare_cached(sql)?;
            let stopped = |row: &rusqlite::Row<'_>| Ok((RunId::from(row.get::<_, String>(0)?), row.get(1)?));
            statement.query_map([owner.name()], stopped)?.collect()
        })
    }

    fn prune(&self, ended_before_ms: u64) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.writer.ask(move |connection| {
            let transaction = begin(connection)?;
            let sql = "delete from fanout_outcome where run in (select id from fanout_run where ended_ms < ?)";
            transaction.execute(sql, [ended_before_ms])?;
            transaction.execute("delete from fanout_approval where expires_ms < ?", [ended_before_ms])?;
            transaction.execute("delete from fanout_spent where day < ?", [ended_before_ms / DAY_MS])?;
            transaction.execute("delete from fanout_memo where until_ms < ?", [ended_before_ms])?;
            let gone = transaction.execute("delete from fanout_run where ended_ms < ?", [ended_before_ms])?;
            transaction.commit()?;
            Ok(gone)
        })
    }

    fn reopen(&self, run: RunId, caller: String) -> BoxFuture<'_, Result<Option<Row>, StoreError>> {
        let owner = Arc::clone(&self.owner);
        self.writer.ask(move |connection| {
            let transaction = begin(connection)?;
            let sql = "select n from fanout_run where id = ? and caller = ? and ended_ms is not null";
            let n = transaction.prepare_cached(sql)?.query_row([run.as_str(), &caller], |row| row.get(0)).optional()?;
            let Some(n) = n else { return Ok(None) };
            transaction.execute("update fanout_run set ended_ms = null, reason = null where n = ?", [n])?;
            let row = take_over(&transaction, n, owner.name())?;
            transaction.commit()?;
            Ok(Some(row))
        })
    }

    fn recall(
        &self,
        caller: String,
        keys: Vec<Vec<String>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Remembered>>, StoreError>> {
        self.reader.ask(move |connection| memos::recall(connection, &caller, &keys))
    }

    fn keep_deed(&self, deed: Deed) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.writer.ask(move |connection| deeds::add(connection, &deed))
    }

    fn standing(&self) -> BoxFuture<'_, Result<Vec<Deed>, StoreError>> {
        self.reader.ask(|connection| deeds::standing(connection))
    }

    fn deeds(&self, before: Option<u64>, max: usize) -> BoxFuture<'_, Result<Vec<Deed>, StoreError>> {
        self.reader.ask(move |connection| deeds::list(connection, before, max))
    }
}

/// Everything that changes something takes the one lock for writing at once: two that read first could never both go on.
fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Adds the entries of those runs that are still this owner's, under their fence; answers the other runs.
fn add(transaction: &Transaction<'_>, entries: &[Entry], owner: &str) -> rusqlite::Result<Vec<RunId>> {
    let mut lost: Vec<RunId> = Vec::new();
    // The place of the last run: entries of one run tend to stand together.
    let mut last: Option<(RunId, u64, Option<u64>)> = None;
    let mut find = transaction
        .prepare_cached("select n from fanout_run where id = ? and owner = ? and fence = ? and state = 'running'")?;
    let mut insert =
        transaction.prepare_cached("insert into fanout_event (run, at_us, form, text) values (?, ?, ?, ?)")?;
    for entry in entries {
        if let Entry::Begin(new) = entry {
            let sql = "insert into fanout_run (id, kind, state, caller, project, title, began_ms, owner) \
                       values (?, ?, ?, ?, ?, ?, ?, ?) on conflict (id) do nothing";
            let owner = (new.state == RunState::Running).then_some(owner);
            let values = params![
                new.run.as_str(),
                new.kind.as_str(),
                new.state.as_str(),
                new.caller,
                new.project,
                new.title,
                now_ms(),
                owner
            ];
            // An id that is there is another run's, and what is told of this one is not taken.
            if transaction.prepare_cached(sql)?.execute(values)? == 0 {
                last = Some((new.run.clone(), 0, None));
                continue;
            }
            // Its first events are written with it, whoever goes on with it.
            last = Some((new.run.clone(), 0, Some(u64::try_from(transaction.last_insert_rowid()).unwrap_or_default())));
            continue;
        }
        let Some(run) = entry.run() else { continue };
        let fence = entry.fence();
        let known = last.as_ref().filter(|(known, under, _)| known == run && *under == fence).map(|(.., n)| *n);
        let n = match known {
            Some(n) => n,
            None => find.query_row(params![run.as_str(), owner, fence], |row| row.get(0)).optional()?,
        };
        last = Some((run.clone(), fence, n));
        let Some(n) = n else {
            if !lost.contains(run) {
                lost.push(run.clone());
            }
            continue;
        };
        match entry {
            Entry::Event { at_us, text, .. } => {
                insert.execute(params![n, at_us, FORM, text])?;
            }
            Entry::End { at_us, text, state, reason, used, .. } => {
                insert.execute(params![n, at_us, FORM, text])?;
                let sql = "update fanout_run set state = ?, reason = ?, ended_ms = ?, owner = null, stop = null, turns = ?, calls = ?, \
                           failed = ?, tokens = ?, cost_usd = ?, took_us = ? where n = ?";
                let took = crate::record::micros(used.elapsed);
                let values = params![
                    state.as_str(),
                    reason,
                    now_ms(),
                    used.turns,
                    used.calls,
                    used.failed,
                    used.tokens,
                    used.cost_usd,
                    took,
                    n
                ];
                transaction.prepare_cached(sql)?.execute(values)?;
            }
            Entry::Begin(_) | Entry::Memo(_) => {}
        }
    }
    memos::add(transaction, entries.iter().filter_map(Entry::memo))?;
    Ok(lost)
}

/// Makes a run this owner's, under the next fence.
fn take_over(transaction: &Transaction<'_>, run: u64, owner: &str) -> rusqlite::Result<Row> {
    let sql = "update fanout_run set state = 'running', owner = ?, fence = fence + 1 where n = ?";
    transaction.prepare_cached(sql)?.execute(params![owner, run])?;
    let sql = format!("{} where n = ?", rows::SELECT);
    transaction.prepare_cached(&sql)?.query_row([run], rows::row)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
