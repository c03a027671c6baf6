//! The journal in a PostgreSQL, which any number of processes share, on any number of machines.
//!
//! From whoever opens connections ([`Connect`]). Everything is in the schema `fanout`. Each step is one transaction, and nothing is
//! kept on a connection between two of them: neither prepared statements nor locks, so that it works behind a pooler.
//!
//! That a process lives cannot be seen from another machine. It says so, by [`Store::beat`], and is taken to be gone once it has not
//! for as long as its *lease*; should it live all the same, its runs have another fence, and it cannot write to them.

mod append;
mod approvals;
mod deeds;
mod link;
mod memos;
mod rows;
mod spending;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use fanout_core::call::RunId;
use fanout_core::tool::BoxFuture;
use tokio::sync::Mutex;
use tokio_postgres::types::Type;

pub use link::Connect;

use crate::deeds::Deed;
use crate::memo::Remembered;
use crate::store::{DAY_MS, Entry, Row, RunState, Store, StoreError, Stored, Wanted};
use append::{append, number, plain};
use link::{Link, Param};

/// The server's clock: the one that all processes share.
const NOW_MS: &str = "(extract(epoch from clock_timestamp()) * 1000)::bigint";

/// The journal in a PostgreSQL.
pub struct PostgresStore {
    /// All that changes something goes through the one, so that whoever only looks waits for nobody.
    writer: Link,
    reader: Link,
    owner: String,
    lease: Duration,
    /// How many groups were added.
    appended: Mutex<u64>,
}

impl PostgresStore {
    fn deeds_of(&self, rows: &[tokio_postgres::Row]) -> Result<Vec<Deed>, StoreError> {
        rows.iter().map(deeds::read).collect::<Result<_, _>>().map_err(|detail| self.reader.unusable(detail))
    }

    /// Opens the journal, and makes it if there is none: for that the database's user must be allowed to create a schema.
    /// `place` is how it is called in messages; it holds no password. Who does not [`beat`](Store::beat) for as long as `lease`
    /// loses its runs to others.
    ///
    /// # Errors
    /// [`StoreError`]: it cannot be reached or made, or a newer version made it.
    pub async fn open(connect: Connect, place: impl Into<Arc<str>>, lease: Duration) -> Result<Self, StoreError> {
        let place = place.into();
        let writer = Link::new(Arc::clone(&connect), Arc::clone(&place));
        writer.migrate().await?;
        let random = || RandomState::new().hash_one(std::process::id());
        let owner = format!("{:016x}{:016x}", random(), random());
        let store = Self { writer, reader: Link::new(connect, place), owner, lease, appended: Mutex::new(0) };
        store.live().await?;
        Ok(store)
    }

    /// Says that this process lives.
    async fn live(&self) -> Result<(), StoreError> {
        let lease = number(u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX) >> 1);
        let upsert = format!(
            "insert into fanout.owner (name, until_ms) values ($1, {NOW_MS} + 2 * $2) \
             on conflict (name) do update set until_ms = excluded.until_ms"
        );
        self.reader.query(&upsert, &[(&self.owner, Type::TEXT), (&lease, Type::INT8)]).await.map(drop)
    }

    /// Adds the group of this number. One whose COMMIT nobody answered may be there already.
    async fn add(&self, entries: &[Entry], group: u64) -> Result<Vec<RunId>, StoreError> {
        let owner = &self.owner;
        let added = self.writer.transact(async |client| {
            let count = "update fanout.owner set appended = $2 where name = $1 and appended < $2 returning 1";
            let is_new = client.query_typed(count, &[(owner, Type::TEXT), (&number(group), Type::INT8)]).await?;
            if is_new.is_empty() { Ok(None) } else { append(client, entries, owner).await.map(Some) }
        });
        match added.await? {
            Some(lost) => Ok(lost),
            None => self.lost(entries).await,
        }
    }

    /// The runs of entries that are there already which belong to others, and so did when nothing of theirs was taken.
    async fn lost(&self, entries: &[Entry]) -> Result<Vec<RunId>, StoreError> {
        let mut lost: Vec<RunId> = Vec::new();
        for entry in entries.iter().filter(|entry| !matches!(entry, Entry::Begin(_))) {
            let Some(run) = entry.run() else { continue };
            let select = "select 1 from fanout.run where id = $1 and fence = $2 and (owner = $3 or owner is null)";
            let fence = number(entry.fence());
            let values: &[Param<'_>] = &[(&run.as_str(), Type::TEXT), (&fence, Type::INT8), (&self.owner, Type::TEXT)];
            if !lost.contains(run) && self.writer.query(select, values).await?.is_empty() {
                lost.push(run.clone());
            }
        }
        Ok(lost)
    }

    /// Makes the runs that `which` selects this owner's, under the next fence; oldest first.
    async fn take_over(&self, which: &str, max: usize) -> Result<Vec<Row>, StoreError> {
        let update = format!(
            "with taken as (update fanout.run set state = 'running', owner = $1, fence = fence + 1 \
             where n in (select n from fanout.run r where {which} order by n limit $2 for update skip locked) \
             returning *) select {} from taken order by n",
            rows::COLUMNS
        );
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let taken = self.writer.transact(async |client| {
            client.query_typed(&update, &[(&self.owner, Type::TEXT), (&max, Type::INT8)]).await
        });
        self.read(taken.await?)
    }

    fn read(&self, rows: Vec<tokio_postgres::Row>) -> Result<Vec<Row>, StoreError> {
        rows.iter().map(rows::row).collect::<Result<_, String>>().map_err(|detail| self.reader.unusable(detail))
    }
}

impl Store for PostgresStore {
    /// Who is answered with an error gives the same entries again next: they may be there already, and are not added twice.
    fn append(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Vec<RunId>, StoreError>> {
        Box::pin(async move {
            let mut appended = self.appended.lock().await;
            let lost = self.add(&entries, *appended + 1).await?;
            *appended += 1;
            Ok(lost)
        })
    }

    fn runs(&self, wanted: Wanted) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        let select = format!(
            "select {} from fanout.run where ($1 is null or id = $1) and ($2 is null or state = $2) \
             and ($3 is null or caller = $3) and ($4 is null or n < (select n from fanout.run where id = $4)) \
             order by n desc limit $5",
            rows::COLUMNS
        );
        Box::pin(async move {
            let (run, after) = (wanted.run.as_ref().map(RunId::as_str), wanted.after.as_ref().map(RunId::as_str));
            let (state, max) = (wanted.state.map(RunState::as_str), i64::try_from(wanted.max).unwrap_or(i64::MAX));
            let values: &[Param<'_>] = &[
                (&run, Type::TEXT),
                (&state, Type::TEXT),
                (&wanted.caller, Type::TEXT),
                (&after, Type::TEXT),
                (&max, Type::INT8),
            ];
            self.read(self.reader.query(&select, values).await?)
        })
    }

    fn open_runs(&self) -> BoxFuture<'_, Result<Vec<(RunState, usize)>, StoreError>> {
        let select =
            "select state, count(*) from fanout.run where state in ('proposed', 'queued', 'running') group by state";
        Box::pin(async move {
            let rows = self.reader.query(select, &[]).await?;
            let open = |row: &tokio_postgres::Row| {
                let count = usize::try_from(row.try_get::<_, i64>(1)?).unwrap_or_default();
                Ok((row.try_get::<_, String>(0)?, count))
            };
            let open: Result<Vec<_>, _> = rows.iter().map(open).collect();
            let open = open.map_err(|error| self.reader.error(&error))?;
            Ok(open.into_iter().filter_map(|(word, count)| Some((RunState::of(&word)?, count))).collect())
        })
    }

    fn events(&self, run: RunId, after: u64, max: usize) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        let select = "select e.n, e.at_us, e.form, e.text from fanout.event e join fanout.run r on r.n = e.run \
                      where r.id = $1 and e.n > $2 order by e.n limit $3";
        Box::pin(async move {
            let (after, max) = (number(after), i64::try_from(max).unwrap_or(i64::MAX));
            let values: &[Param<'_>] = &[(&run.as_str(), Type::TEXT), (&after, Type::INT8), (&max, Type::INT8)];
            let rows = self.reader.query(select, values).await?;
            rows.iter().map(rows::stored).collect::<Result<_, _>>().map_err(|error| self.reader.error(&error))
        })
    }

    fn adopt(&self, max: usize) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        let which = format!(
            "r.state = 'running' and r.owner <> $1 and not exists \
             (select from fanout.owner o where o.name = r.owner and o.until_ms > {NOW_MS})"
        );
        Box::pin(async move { self.take_over(&which, max).await })
    }

    fn take_queued(&self, max: usize) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        Box::pin(self.take_over("r.state = 'queued'", max))
    }

    fn change(
        &self,
        run: RunId,
        from: RunState,
        to: RunState,
        reason: Option<String>,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        let update = format!(
            "update fanout.run set state = $1, reason = $2, ended_ms = case when $3 then {NOW_MS} end \
             where id = $4 and state = $5 returning 1"
        );
        Box::pin(async move {
            let reason = reason.as_deref().map(plain);
            let changed = self.writer.transact(async |client| {
                let values: &[Param<'_>] = &[
                    (&to.as_str(), Type::TEXT),
                    (&reason, Type::TEXT),
                    (&to.is_over(), Type::BOOL),
                    (&run.as_str(), Type::TEXT),
                    (&from.as_str(), Type::TEXT),
                ];
                client.query_typed(&update, values).await
            });
            Ok(!changed.await?.is_empty())
        })
    }

    fn ask_to_stop(&self, run: Option<RunId>, reason: String) -> BoxFuture<'_, Result<usize, StoreError>> {
        let update = "update fanout.run set stop = coalesce(stop, $1) \
                      where state = 'running' and ($2 is null or id = $2) returning 1";
        Box::pin(async move {
            let (reason, run) = (plain(&reason), run.as_ref().map(RunId::as_str));
            let asked = self.writer.query(update, &[(&reason, Type::TEXT), (&run, Type::TEXT)]).await?;
            Ok(asked.len())
        })
    }

    fn beat(&self) -> BoxFuture<'_, Result<Vec<(RunId, String)>, StoreError>> {
        let select = "select id, stop from fanout.run where state = 'running' and owner = $1 and stop is not null";
        Box::pin(async move {
            self.live().await?;
            let rows = self.reader.query(select, &[(&self.owner, Type::TEXT)]).await?;
            let stopped = |row: &tokio_postgres::Row| Ok((RunId::from(row.try_get::<_, String>(0)?), row.try_get(1)?));
            rows.iter().map(stopped).collect::<Result<_, _>>().map_err(|error| self.reader.error(&error))
        })
    }

    fn prune(&self, ended_before_ms: u64) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(async move {
            let before = number(ended_before_ms);
            let gone = self.writer.transact(async |client| {
                let outcomes = "delete from fanout.outcome o using fanout.run r where o.run = r.id and r.ended_ms < $1";
                client.query_typed(outcomes, &[(&before, Type::INT8)]).await?;
                let owners = format!(
                    "delete from fanout.owner o where until_ms < least($1, {NOW_MS}) \
                     and not exists (select from fanout.run r where r.owner = o.name)"
                );
                client.query_typed(&owners, &[(&before, Type::INT8)]).await?;
                let approvals = "delete from fanout.approval where expires_ms < $1";
                client.query_typed(approvals, &[(&before, Type::INT8)]).await?;
                let spent = "delete from fanout.spent where day < $1";
                client.query_typed(spent, &[(&(before / number(DAY_MS)), Type::INT8)]).await?;
                client.query_typed("delete from fanout.memo where until_ms < $1", &[(&before, Type::INT8)]).await?;
                let runs = "delete from fanout.run where ended_ms < $1 returning 1";
                client.query_typed(runs, &[(&before, Type::INT8)]).await
            });
            Ok(gone.await?.len())
        })
    }

    fn reopen(&self, run: RunId, caller: String) -> BoxFuture<'_, Result<Option<Row>, StoreError>> {
        Box::pin(async move {
            let update = format!(
                "update fanout.run set state = 'running', owner = $1, fence = fence + 1, ended_ms = null, reason = null \
                 where id = $2 and caller = $3 and ended_ms is not null returning {}",
                rows::COLUMNS
            );
            let caller = plain(&caller);
            let reopened = self.writer.transact(async |client| {
                let values: &[Param<'_>] =
                    &[(&self.owner, Type::TEXT), (&run.as_str(), Type::TEXT), (&caller, Type::TEXT)];
                client.query_typed(&update, values).await
            });
            Ok(self.read(reopened.await?)?.pop())
        })
    }

    fn recall(
        &self,
        caller: String,
        keys: Vec<Vec<String>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Remembered>>, StoreError>> {
        Box::pin(async move {
            let caller = plain(&caller);
            let all: Vec<String> = keys.iter().flatten().map(|key| plain(key)).collect();
            let values: &[Param<'_>] = &[(&caller, Type::TEXT), (&all, Type::TEXT_ARRAY)];
            let rows = self.reader.query(&memos::select(), values).await?;
            memos::sorted(&rows, &keys).map_err(|error| self.reader.error(&error))
        })
    }

    fn keep_deed(&self, deed: Deed) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { self.writer.transact(async |client| deeds::add(client, &deed).await).await })
    }

    fn standing(&self) -> BoxFuture<'_, Result<Vec<Deed>, StoreError>> {
        Box::pin(async move { self.deeds_of(&self.reader.query(&deeds::standing(), &[]).await?) })
    }

    fn deeds(&self, before: Option<u64>, max: usize) -> BoxFuture<'_, Result<Vec<Deed>, StoreError>> {
        Box::pin(async move {
            let (before, max) = (before.map(number), i64::try_from(max).unwrap_or(i64::MAX));
            let values: &[Param<'_>] = &[(&before, Type::INT8), (&max, Type::INT8)];
            self.deeds_of(&self.reader.query(&deeds::list(), values).await?)
        })
    }
}
