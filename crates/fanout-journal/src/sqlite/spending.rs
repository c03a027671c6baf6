//! What was spent, in the file.
//!
//! From [`SpendingStore`]. To `fanout_spent`, a row for each day and scope.

use std::collections::HashMap;
use std::sync::Arc;

use fanout_core::tool::BoxFuture;
use rusqlite::{OptionalExtension, params};

use super::{SqliteStore, begin};
use crate::spending::{Cap, NoRoom, SpendingStore, full};
use crate::store::StoreError;

impl SpendingStore for SqliteStore {
    fn add(&self, day: u64, caps: Vec<Cap>, nano_usd: u64) -> BoxFuture<'_, Result<Result<(), NoRoom>, StoreError>> {
        self.writer.ask(move |connection| {
            let transaction = begin(connection)?;
            let mut spent: HashMap<&str, u64> = HashMap::new();
            for cap in &caps {
                let sql = "select nano_usd from fanout_spent where day = ? and scope = ?";
                let known = transaction.prepare_cached(sql)?.query_row(params![day, &*cap.scope], |row| row.get(0));
                spent.insert(&cap.scope, known.optional()?.unwrap_or_default());
            }
            if let Some(room) = full(&caps, nano_usd, |scope| spent[scope]) {
                return Ok(Err(room));
            }
            let sql = "insert into fanout_spent values (?, ?, ?) \
                       on conflict (day, scope) do update set nano_usd = nano_usd + excluded.nano_usd";
            for cap in &caps {
                transaction.prepare_cached(sql)?.execute(params![day, &*cap.scope, nano_usd])?;
            }
            transaction.commit()?;
            Ok(Ok(()))
        })
    }

    fn give_back(&self, day: u64, scopes: Vec<Arc<str>>, nano_usd: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        self.writer.ask(move |connection| {
            let transaction = begin(connection)?;
            let sql = "update fanout_spent set nano_usd = max(0, nano_usd - ?) where day = ? and scope = ?";
            for scope in &scopes {
                transaction.prepare_cached(sql)?.execute(params![nano_usd, day, &**scope])?;
            }
            transaction.commit()
        })
    }
}
