//! What makes a document a good trace, and its numbers the events' own; both written here a second time.
//!
//! From events and the document made of them. The fields are judged by `format.json`, written down from the published "Trace Event Format"
//! document; what a schema cannot say (pairs, order, nesting) stands below.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use fanout_core::call::CallId;
use fanout_core::event::{Event, What};
use fanout_host::trace::trace;
use serde_json::Value;

/// The document of these events, which keeps every rule of the format and tells every number of the events.
#[track_caller]
pub fn judged(events: &[Event]) -> Value {
    let document = trace(events);
    // It must survive being printed, whatever stands in it.
    let printed: Value = serde_json::from_str(&document.to_string()).unwrap();
    assert_eq!(printed, document);
    let schema: Value = serde_json::from_str(include_str!("format.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let broken: Vec<String> = schema.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    let entries = document["traceEvents"].as_array().unwrap();
    arrows_are_paired(entries);
    slices_nest(entries);
    tracks_have_names(entries);
    numbers_are_the_events(events, entries);
    document
}

/// The entries of one kind.
pub fn of<'d>(document: &'d Value, ph: &str, cat: &str) -> Vec<&'d Value> {
    let entries = document["traceEvents"].as_array().unwrap().iter();
    entries.filter(|entry| entry["ph"] == ph && (cat.is_empty() || entry["cat"] == cat)).collect()
}

/// Nanoseconds, so that sums are exact.
pub fn nanos(micros: &Value) -> i64 {
    (micros.as_f64().unwrap() * 1_000.0).round() as i64
}

fn span(slice: &Value) -> (i64, i64) {
    (nanos(&slice["ts"]), nanos(&slice["ts"]) + nanos(&slice["dur"]))
}

fn track(entry: &Value) -> (u64, u64) {
    (entry["pid"].as_u64().unwrap(), entry["tid"].as_u64().unwrap())
}

fn arrows_are_paired(entries: &[Value]) {
    let mut open: HashMap<String, &Value> = HashMap::new();
    for entry in entries {
        match entry["ph"].as_str().unwrap() {
            "s" => assert!(open.insert(entry["id"].to_string(), entry).is_none(), "begun twice: {entry}"),
            "f" => {
                let start = open.remove(&entry["id"].to_string()).unwrap_or_else(|| panic!("not begun: {entry}"));
                assert!(nanos(&start["ts"]) <= nanos(&entry["ts"]), "ends before it begins: {start} {entry}");
                assert_eq!(
                    (&start["cat"], &start["name"], &start["pid"]),
                    (&entry["cat"], &entry["name"], &entry["pid"])
                );
                for end in [start, entry] {
                    let inside = |slice: &&Value| {
                        let ((from, until), at) = (span(slice), nanos(&end["ts"]));
                        from == at || from < at && at < until
                    };
                    let mut slices = entries.iter().filter(|slice| slice["ph"] == "X" && track(slice) == track(end));
                    assert!(slices.any(|slice| inside(&slice)), "binds to nothing: {end}");
                }
            }
            _ => {}
        }
    }
    assert!(open.is_empty(), "never ended: {open:?}");
}

fn slices_nest(entries: &[Value]) {
    let mut tracks: BTreeMap<(u64, u64), Vec<&Value>> = BTreeMap::new();
    for slice in entries.iter().filter(|entry| entry["ph"] == "X") {
        tracks.entry(track(slice)).or_default().push(slice);
    }
    for slices in tracks.into_values() {
        for (at, a) in slices.iter().enumerate() {
            for b in &slices[at + 1..] {
                let ((a_from, a_until), (b_from, b_until)) = (span(a), span(b));
                let apart = a_until <= b_from || b_until <= a_from;
                let nested = a_from <= b_from && b_until <= a_until || b_from <= a_from && a_until <= b_until;
                assert!(apart || nested, "overlap: {a} {b}");
            }
        }
    }
}

fn tracks_have_names(entries: &[Value]) {
    let named = |what: &str, of: (u64, u64)| {
        entries.iter().filter(|entry| entry["ph"] == "M" && entry["name"] == what && track(entry) == of).count()
    };
    for entry in entries {
        let (pid, tid) = track(entry);
        assert_eq!((named("process_name", (pid, 1)), named("thread_name", (pid, tid))), (1, 1), "{entry}");
    }
}

/// What the events of one call say, read off one by one.
#[derive(Debug, Default)]
struct Read {
    arrived: i64,
    asked: Option<i64>,
    decided: Option<i64>,
    ready: Option<i64>,
    locked: Option<i64>,
    started: Vec<i64>,
    gone: Vec<i64>,
    backoffs: Vec<i64>,
    ended: Option<(i64, &'static str)>,
    waits: usize,
}

fn at(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap()
}

fn note(calls: &mut BTreeMap<String, Read>, call: &CallId, note: impl FnOnce(&mut Read)) {
    if let Some(read) = calls.get_mut(call.as_str()) {
        note(read);
    }
}

fn read(events: &[Event]) -> (BTreeMap<String, Read>, Vec<(i64, i64)>) {
    let (mut calls, mut turns): (BTreeMap<String, Read>, BTreeMap<u32, (i64, i64)>) = Default::default();
    let mut present: Vec<String> = Vec::new();
    for event in events {
        let now = at(event.at);
        match &event.what {
            What::TurnStarted { turn } => {
                turns.entry(*turn).or_insert((now, -1));
                present.clear();
            }
            What::ModelEnded { turn, .. } => turns.get_mut(turn).unwrap().1 = now,
            What::TurnDiscarded { .. } => calls.retain(|call, _| !present.contains(call)),
            What::CallArrived { call, waits, .. } | What::BundleArrived { call, waits, .. } => {
                present.push(call.to_string());
                calls.insert(call.to_string(), Read { arrived: now, waits: waits.len(), ..Read::default() });
            }
            What::CallWaits { call, waits } => note(&mut calls, call, |read| read.waits = waits.len()),
            What::ApprovalAsked { call, .. } => note(&mut calls, call, |read| read.asked = Some(now)),
            What::ApprovalDecided { call, .. } => note(&mut calls, call, |read| read.decided = Some(now)),
            What::CallReady { call, .. } => note(&mut calls, call, |read| read.ready = Some(now)),
            What::CallLocked { call } => note(&mut calls, call, |read| read.locked = Some(now)),
            What::AttemptStarted { call, .. } => note(&mut calls, call, |read| read.started.push(now)),
            What::AttemptEnded { call, .. } => note(&mut calls, call, |read| read.gone.push(now)),
            What::CallBackoff { call, .. } => note(&mut calls, call, |read| read.backoffs.push(now)),
            What::CallEnded { outcome } | What::BundleEnded { outcome } => {
                let word = outcome.error_code().map_or("ok", |code| code.as_str());
                note(&mut calls, &outcome.call, |read| read.ended = Some((now, word)));
            }
            _ => {}
        }
    }
    (calls, turns.into_values().filter(|(_, answered)| *answered >= 0).collect())
}

/// Every call and every model response of the events is a slice with its times, and nothing else is.
fn numbers_are_the_events(events: &[Event], entries: &[Value]) {
    let (calls, turns) = read(events);
    let slices =
        |cat: &str| entries.iter().filter(|entry| entry["ph"] == "X" && entry["cat"] == cat).collect::<Vec<_>>();
    let answered = slices("model").into_iter().filter(|slice| slice["args"]["answered"] == true);
    assert_eq!(answered.map(span).collect::<Vec<_>>(), turns);
    let drawn: Vec<&Value> = slices("call").into_iter().chain(slices("bundle")).collect();
    assert_eq!(drawn.len(), calls.len());
    let mut attempts = 0;
    for slice in drawn {
        let id = slice["args"]["call"].as_str().unwrap();
        let (read, (from, until)) = (&calls[id], span(slice));
        assert_eq!(from, read.arrived, "{id}");
        assert_eq!(slice["args"]["waits"].as_array().unwrap().len(), read.waits, "{id}");
        match read.ended {
            Some((ended, word)) => assert_eq!((until, slice["args"]["outcome"].as_str()), (ended, Some(word)), "{id}"),
            None => assert!(slice["args"]["outcome"].is_null(), "{id}"),
        }
        if slice["cat"] == "bundle" {
            continue;
        }
        let pieces: Vec<&Value> = entries
            .iter()
            .filter(|piece| piece["ph"] == "X" && (piece["cat"] == "wait" || piece["cat"] == "attempt"))
            .filter(|piece| track(piece) == track(slice) && from <= span(piece).0 && span(piece).1 <= until)
            .filter(|piece| nanos(&piece["dur"]) > 0 || piece["args"]["call"] == id)
            .collect();
        let all = |name: &str| -> i64 {
            pieces.iter().filter(|piece| piece["name"] == name).map(|piece| nanos(&piece["dur"])).sum()
        };
        let total: i64 = pieces.iter().map(|piece| nanos(&piece["dur"])).sum();
        if read.ended.is_some() && !read.started.is_empty() {
            // One that ends in backoff is in it until its end.
            let is_over = read.gone.len() == read.started.len() && read.backoffs.len() < read.started.len();
            let tail = if is_over { until - read.gone.last().unwrap().min(&until) } else { 0 };
            assert_eq!(total, until - from - tail, "{id}: its pieces fill it: {read:?} {pieces:#?}");
        }
        if let (Some(ready), Some(locked)) = (read.ready, read.locked) {
            assert_eq!(all("lock"), locked - ready, "{id}");
        }
        if let (Some(ready), Some(first)) = (read.ready, read.started.first()) {
            let queued = read.locked.unwrap_or(ready);
            let asked = read.asked.zip(read.decided).map_or(0, |(asked, decided)| decided - asked);
            assert_eq!(all("approval"), asked, "{id}");
            assert_eq!(all("response") + all("batch"), ready - from - asked, "{id}");
            assert!(all("permit") >= first - queued, "{id}");
            if read.backoffs.is_empty() {
                assert_eq!(all("permit"), first - queued, "{id}");
            }
        }
        let tried: Vec<&&Value> = pieces.iter().filter(|piece| piece["cat"] == "attempt").collect();
        assert_eq!(tried.iter().map(|piece| span(piece).0).collect::<Vec<_>>(), read.started, "{id}");
        for (at, piece) in tried.iter().enumerate() {
            let answered = read.backoffs.get(at).or(read.gone.get(at)).copied().unwrap_or(until);
            assert_eq!(span(piece).1, answered.min(until), "{id} attempt {}", at + 1);
        }
        attempts += tried.len();
    }
    assert_eq!(slices("attempt").len(), attempts);
}
