//! Adds a group of entries in one transaction.
//!
//! From the store: entries of many runs, in order. To the database: rows, a statement for each kind and not for each entry.

use std::collections::HashMap;

use fanout_core::call::RunId;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::link::Param;
use super::{NOW_MS, memos};
use crate::record::{FORM, micros};
use crate::store::{Entry, NewRun, RunState};

/// The places of runs by id and fence: those that may be written.
type Places = HashMap<(RunId, u64), i64>;

/// A number as the database counts. None of ours comes near the end.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A text as the database takes it: it has no character of the number 0.
pub(super) fn plain(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Adds the entries of those runs that are this owner's, under their fence; answers the other runs.
pub(super) async fn append(client: &Client, entries: &[Entry], owner: &str) -> Result<Vec<RunId>, Error> {
    let mut places = Places::new();
    let begun: Vec<&NewRun> =
        entries.iter().filter_map(|entry| if let Entry::Begin(new) = entry { Some(new) } else { None }).collect();
    begin(client, &begun, owner, &mut places).await?;
    find(client, entries, owner, &mut places).await?;
    let mut lost: Vec<RunId> = Vec::new();
    let (mut runs, mut at, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries.iter().filter(|entry| !matches!(entry, Entry::Begin(_))) {
        let Some(run) = entry.run() else { continue };
        match (places.get(&(run.clone(), entry.fence())), entry) {
            (None, _) if lost.contains(run) => {}
            (None, _) => lost.push(run.clone()),
            (Some(run), Entry::Event { at_us, text, .. } | Entry::End { at_us, text, .. }) => {
                runs.push(*run);
                at.push(number(*at_us));
                texts.push(text.as_str());
            }
            (Some(_), Entry::Begin(_) | Entry::Memo(_)) => {}
        }
    }
    let form = i32::try_from(FORM).unwrap_or(i32::MAX);
    let values: &[Param<'_>] =
        &[(&runs, Type::INT8_ARRAY), (&at, Type::INT8_ARRAY), (&form, Type::INT4), (&texts, Type::TEXT_ARRAY)];
    let insert = "insert into fanout.event (run, at_us, form, text) \
                  select run, at_us, $3, text from unnest($1, $2, $4) with ordinality as e (run, at_us, text, place) \
                  order by place";
    if !runs.is_empty() {
        client.query_typed(insert, values).await?;
    }
    for entry in entries {
        end(client, entry, &places).await?;
    }
    memos::add(client, entries.iter().filter_map(Entry::memo)).await?;
    Ok(lost)
}

async fn begin(client: &Client, begun: &[&NewRun], owner: &str, places: &mut Places) -> Result<(), Error> {
    let insert = format!(
        "insert into fanout.run (id, kind, state, caller, project, title, began_ms, owner) \
         values ($1, $2, $3, $4, $5, $6, {NOW_MS}, $7) on conflict (id) do nothing returning n"
    );
    for new in begun {
        let owner = (new.state == RunState::Running).then_some(owner);
        let (caller, title) = (plain(&new.caller), plain(&new.title));
        let project = new.project.as_deref().map(plain);
        let values: &[Param<'_>] = &[
            (&new.run.as_str(), Type::TEXT),
            (&new.kind.as_str(), Type::TEXT),
            (&new.state.as_str(), Type::TEXT),
            (&caller, Type::TEXT),
            (&project, Type::TEXT),
            (&title, Type::TEXT),
            (&owner, Type::TEXT),
        ];
        if let Some(row) = client.query_typed(&insert, values).await?.first() {
            // Its first events are written with it, whoever goes on with it.
            places.insert((new.run.clone(), 0), row.try_get(0)?);
        }
    }
    Ok(())
}

/// Finds the runs that this owner may write to, and keeps others from taking them over meanwhile.
async fn find(client: &Client, entries: &[Entry], owner: &str, places: &mut Places) -> Result<(), Error> {
    let mut keys: Vec<(RunId, u64)> =
        entries.iter().filter_map(|entry| Some((entry.run()?.clone(), entry.fence()))).collect();
    keys.retain(|key| !places.contains_key(key));
    keys.sort();
    keys.dedup();
    let ids: Vec<&str> = keys.iter().map(|(run, _)| run.as_str()).collect();
    let fences: Vec<i64> = keys.iter().map(|(_, fence)| number(*fence)).collect();
    let select = "select r.id, r.fence, r.n from fanout.run r join unnest($1, $2) as k (id, fence) using (id, fence) \
                  where r.owner = $3 and r.state = 'running' order by r.n for no key update of r";
    if keys.is_empty() {
        return Ok(());
    }
    let values: &[Param<'_>] = &[(&ids, Type::TEXT_ARRAY), (&fences, Type::INT8_ARRAY), (&owner, Type::TEXT)];
    for row in client.query_typed(select, values).await? {
        let fence: i64 = row.try_get(1)?;
        places.insert((RunId::from(row.try_get::<_, String>(0)?), fence.unsigned_abs()), row.try_get(2)?);
    }
    Ok(())
}

async fn end(client: &Client, entry: &Entry, places: &Places) -> Result<(), Error> {
    let Entry::End { run, fence, state, reason, used, .. } = entry else { return Ok(()) };
    let Some(place) = places.get(&(run.clone(), *fence)) else { return Ok(()) };
    let update = format!(
        "update fanout.run set state = $1, reason = $2, ended_ms = {NOW_MS}, owner = null, stop = null, turns = $3, \
         calls = $4, failed = $5, tokens = $6, cost_usd = $7, took_us = $8 where n = $9"
    );
    let reason = reason.as_deref().map(plain);
    let count = [used.turns, used.calls, used.failed, used.tokens, micros(used.elapsed)].map(number);
    let values: &[Param<'_>] = &[
        (&state.as_str(), Type::TEXT),
        (&reason, Type::TEXT),
        (&count[0], Type::INT8),
        (&count[1], Type::INT8),
        (&count[2], Type::INT8),
        (&count[3], Type::INT8),
        (&used.cost_usd, Type::FLOAT8),
        (&count[4], Type::INT8),
        (place, Type::INT8),
    ];
    client.query_typed(&update, values).await.map(drop)
}
