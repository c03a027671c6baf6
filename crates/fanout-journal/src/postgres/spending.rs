//! What was spent, in the database.
//!
//! From [`SpendingStore`]. To `fanout.spent`, a row for each day and scope: who adds holds the rows of all its scopes, taken in one
//! order.

use std::collections::HashMap;
use std::sync::Arc;

use fanout_core::tool::BoxFuture;
use tokio_postgres::types::Type;

use super::PostgresStore;
use super::append::{number, plain};
use super::link::Param;
use crate::spending::{Cap, NoRoom, SpendingStore, full};
use crate::store::StoreError;

impl SpendingStore for PostgresStore {
    fn add(&self, day: u64, caps: Vec<Cap>, nano_usd: u64) -> BoxFuture<'_, Result<Result<(), NoRoom>, StoreError>> {
        Box::pin(async move {
            let (day, amount) = (number(day), number(nano_usd));
            let mut scopes: Vec<String> = caps.iter().map(|cap| plain(&cap.scope)).collect();
            scopes.sort_unstable();
            let added = self.writer.transact(async |client| {
                let of_scopes: &[Param<'_>] = &[(&day, Type::INT8), (&scopes, Type::TEXT_ARRAY)];
                let make = "insert into fanout.spent (day, scope, nano_usd) select $1, scope, 0 from unnest($2) scope order by scope \
                            on conflict (day, scope) do nothing";
                client.query_typed(make, of_scopes).await?;
                let hold = "select scope, nano_usd from fanout.spent where day = $1 and scope = any($2) \
                            order by scope for update";
                let mut spent: HashMap<String, u64> = HashMap::new();
                for row in client.query_typed(hold, of_scopes).await? {
                    spent.insert(row.try_get(0)?, row.try_get::<_, i64>(1)?.unsigned_abs());
                }
                let known = |scope: &str| spent.get(&plain(scope)).copied().unwrap_or_default();
                if let Some(room) = full(&caps, nano_usd, known) {
                    return Ok(Err(room));
                }
                let add = "update fanout.spent set nano_usd = nano_usd + $3 where day = $1 and scope = any($2)";
                let values: &[Param<'_>] =
                    &[(&day, Type::INT8), (&scopes, Type::TEXT_ARRAY), (&amount, Type::INT8)];
                client.query_typed(add, values).await?;
                Ok(Ok(()))
            });
            added.await
        })
    }

    fn give_back(&self, day: u64, scopes: Vec<Arc<str>>, nano_usd: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let scopes: Vec<String> = scopes.iter().map(|scope| plain(scope)).collect();
            let (day, amount) = (number(day), number(nano_usd));
            let update = "update fanout.spent set nano_usd = greatest(0, nano_usd - $3) where n in \
                          (select n from fanout.spent where day = $1 and scope = any($2) order by scope for update)";
            let given = self.writer.transact(async |client| {
                let values: &[Param<'_>] = &[(&day, Type::INT8), (&scopes, Type::TEXT_ARRAY), (&amount, Type::INT8)];
                client.query_typed(update, values).await
            });
            given.await.map(drop)
        })
    }
}
