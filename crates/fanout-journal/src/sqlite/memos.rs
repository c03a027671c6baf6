//! What is remembered for callers, in the file.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::now_ms;
use crate::memo::{BYTES_MAX, COUNT_MAX, Memo, Remembered, is_time_to_add_up};

/// Adds memos, each in the place of those of which it has all keys, and lets go of what is over or too much.
pub(super) fn add<'m>(
    transaction: &Transaction<'_>,
    memos: impl IntoIterator<Item = &'m Memo>,
) -> rusqlite::Result<()> {
    let mut added: Option<(u64, u64)> = None;
    for memo in memos {
        let n = add_one(transaction, memo)?;
        added = Some((added.map_or(n - 1, |(before, _)| before), n));
    }
    added.map_or(Ok(()), |(before, last)| bound(transaction, before, last))
}

/// Answers its number.
fn add_one(transaction: &Transaction<'_>, memo: &Memo) -> rusqlite::Result<u64> {
    let until = now_ms().saturating_add(memo.keep_ms());
    let insert = "insert into fanout_memo (caller, text, bytes, until_ms) values (?, ?, ?, ?)";
    transaction.prepare_cached(insert)?.execute(params![memo.caller, memo.text, memo.bytes(), until])?;
    let n = transaction.last_insert_rowid();
    for key in &memo.keys {
        let sql = "select memo from fanout_memo_key where caller = ? and key = ?";
        let old: Option<i64> =
            transaction.prepare_cached(sql)?.query_row(params![memo.caller, key], |row| row.get(0)).optional()?;
        let sql = "insert into fanout_memo_key (caller, key, memo) values (?, ?, ?) \
                   on conflict (caller, key) do update set memo = excluded.memo";
        transaction.prepare_cached(sql)?.execute(params![memo.caller, key, n])?;
        let sql = "delete from fanout_memo where n = ? and not exists (select 1 from fanout_memo_key where memo = n)";
        transaction.prepare_cached(sql)?.execute([old])?;
    }
    Ok(n.unsigned_abs())
}

fn bound(transaction: &Transaction<'_>, before: u64, last: u64) -> rusqlite::Result<()> {
    let is_over = "update fanout_memo set text = null, bytes = 0 where text is not null and until_ms <= ?";
    transaction.prepare_cached(is_over)?.execute([now_ms()])?;
    transaction.prepare_cached("delete from fanout_memo where n <= ?")?.execute([last.saturating_sub(COUNT_MAX)])?;
    if is_time_to_add_up(before, last) {
        let cut = "update fanout_memo set text = null, bytes = 0 where text is not null and n <= ( \
                   select n from (select n, sum(bytes) over (order by n desc) as total from fanout_memo \
                   where text is not null) where total > ? order by n desc limit 1)";
        transaction.prepare_cached(cut)?.execute([BYTES_MAX])?;
    }
    Ok(())
}

/// For each of these lists what is remembered under the first of its keys that is known.
pub(super) fn recall(
    connection: &Connection,
    caller: &str,
    wanted: &[Vec<String>],
) -> rusqlite::Result<Vec<Option<Remembered>>> {
    let sql = "select case when until_ms > ? then text end from fanout_memo_key k join fanout_memo on n = k.memo \
               where k.caller = ? and k.key = ?";
    let (mut select, now) = (connection.prepare_cached(sql)?, now_ms());
    let mut of_keys = |keys: &Vec<String>| {
        for key in keys {
            let text = select.query_row(params![now, caller, key], |row| row.get(0)).optional()?;
            if let Some(text) = text {
                return Ok(Some(Remembered { text }));
            }
        }
        Ok(None)
    };
    wanted.iter().map(&mut of_keys).collect()
}
