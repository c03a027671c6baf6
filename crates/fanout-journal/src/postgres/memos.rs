//! What is remembered for callers, in the database.

use std::collections::HashMap;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::NOW_MS;
use super::append::{number, plain};
use super::link::Param;
use crate::memo::{BYTES_MAX, COUNT_MAX, Memo, Remembered, is_time_to_add_up};

/// Adds memos, each in the place of those of which it has all keys, and lets go of what is over or too much.
pub(super) async fn add<'m>(client: &Client, memos: impl IntoIterator<Item = &'m Memo>) -> Result<(), Error> {
    let mut added: Option<(u64, u64)> = None;
    for memo in memos {
        let n = add_one(client, memo).await?.unsigned_abs();
        added = Some((added.map_or(n - 1, |(before, _)| before), n));
    }
    match added {
        Some((before, last)) => bound(client, before, last).await,
        None => Ok(()),
    }
}

/// Answers its number.
async fn add_one(client: &Client, memo: &Memo) -> Result<i64, Error> {
    let insert = format!(
        "insert into fanout.memo (caller, text, bytes, until_ms) values ($1, $2, $3, {NOW_MS} + $4) returning n"
    );
    let (caller, text) = (plain(&memo.caller), plain(&memo.text));
    let (bytes, keep) = (number(memo.bytes() as u64), number(memo.keep_ms()));
    let values: &[Param<'_>] = &[(&caller, Type::TEXT), (&text, Type::TEXT), (&bytes, Type::INT8), (&keep, Type::INT8)];
    let inserted = client.query_typed(&insert, values).await?;
    // It is one row.
    let n = inserted.iter().map(|row| row.try_get::<_, i64>(0)).sum::<Result<_, Error>>()?;
    // In one order, so that two who add at once do not wait for each other.
    let mut keys: Vec<String> = memo.keys.iter().map(|key| plain(key)).collect();
    keys.sort_unstable();
    keys.dedup();
    let of_keys: &[Param<'_>] = &[(&caller, Type::TEXT), (&keys, Type::TEXT_ARRAY)];
    let hold = "select memo from fanout.memo_key where caller = $1 and key = any($2) order by key for update";
    let old: Result<Vec<i64>, Error> =
        client.query_typed(hold, of_keys).await?.iter().map(|row| row.try_get(0)).collect();
    let upsert = "insert into fanout.memo_key (caller, key, memo) select $1, key, $3 from unnest($2) key order by key \
                  on conflict (caller, key) do update set memo = excluded.memo";
    client.query_typed(upsert, &[(&caller, Type::TEXT), (&keys, Type::TEXT_ARRAY), (&n, Type::INT8)]).await?;
    let replaced = "delete from fanout.memo m where n = any($1) \
                    and not exists (select from fanout.memo_key k where k.memo = m.n)";
    client.query_typed(replaced, &[(&old?, Type::INT8_ARRAY)]).await?;
    Ok(n)
}

async fn bound(client: &Client, before: u64, last: u64) -> Result<(), Error> {
    // Who is at work on these rows already does the same.
    let over = format!(
        "update fanout.memo set text = null, bytes = 0 where n in (select n from fanout.memo where text is not null \
         and until_ms <= {NOW_MS} for update skip locked)"
    );
    client.query_typed(&over, &[]).await?;
    let first = number(last.saturating_sub(COUNT_MAX));
    let old = "delete from fanout.memo where n in (select n from fanout.memo where n <= $1 for update skip locked)";
    client.query_typed(old, &[(&first, Type::INT8)]).await?;
    if is_time_to_add_up(before, last) {
        let cut = "update fanout.memo set text = null, bytes = 0 where n in (select n from fanout.memo where text is not null \
                   and n <= (select n from (select n, sum(bytes) over (order by n desc) as total from fanout.memo \
                   where text is not null) summed where total > $1 order by n desc limit 1) for update skip locked)";
        client.query_typed(cut, &[(&number(BYTES_MAX), Type::INT8)]).await?;
    }
    Ok(())
}

/// What finds these keys of this caller; its values are the caller and the keys.
pub(super) fn select() -> String {
    format!(
        "select k.key, case when m.until_ms > {NOW_MS} then m.text end from fanout.memo_key k \
         join fanout.memo m on m.n = k.memo where k.caller = $1 and k.key = any($2)"
    )
}

/// For each of these lists what is remembered under the first of its keys that is known.
pub(super) fn sorted(rows: &[tokio_postgres::Row], wanted: &[Vec<String>]) -> Result<Vec<Option<Remembered>>, Error> {
    let mut known: HashMap<String, Option<String>> = HashMap::new();
    for row in rows {
        known.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let of_keys = |keys: &Vec<String>| {
        let text = keys.iter().find_map(|key| known.get(&plain(key)))?;
        Some(Remembered { text: text.clone() })
    };
    Ok(wanted.iter().map(of_keys).collect())
}
