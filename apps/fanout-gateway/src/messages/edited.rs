//! Histories as clients send them back: cut, edited, printed anew. Whatever the client itself could have sent to the API, what goes
//! upstream is valid too; and what was not edited is what was said, byte for byte.
//!
//! What is valid is judged here by the rules of the API alone, and what was said is known to who made it up.

use std::cell::Cell;
use std::time::Duration;

use fanout_agent::{Handed, Handover};
use fanout_anthropic::{Block, Message, Raw};
use fanout_testing::seed::{Rng, each_seed};
use serde_json::{Value, json};

use super::canonical::{self, Digest};
use super::history::restore;
use super::standin::{Returned, Standins};

const KEPT: Duration = Duration::from_secs(60);

/// What the client was shown and said, and what was really said.
#[derive(Default)]
struct Chat {
    shown: Vec<Value>,
    said: Vec<Value>,
    before: Digest,
    /// Calls of the client's that wait for it, and our results beside them, in order.
    waits: Vec<(String, Option<Value>)>,
    ids: usize,
}

fn message(value: &Value) -> Message {
    Message::parse(Raw::parse(value.to_string()).unwrap()).unwrap()
}

fn result(id: &str, by: &str) -> Value {
    json!({"type": "tool_result", "tool_use_id": id, "content": format!("{id} by {by}")})
}

impl Chat {
    fn id(&mut self) -> String {
        self.ids += 1;
        format!("toolu_{}", self.ids)
    }

    /// The client answers what waits for it, and says something.
    fn ask(&mut self, rng: &mut Rng) {
        let text = json!({"type": "text", "text": format!("question {}", rng.below(3))});
        let waits = std::mem::take(&mut self.waits);
        let theirs: Vec<Value> =
            waits.iter().filter(|(_, ours)| ours.is_none()).map(|(id, _)| result(id, "them")).collect();
        let all = waits.iter().map(|(id, ours)| ours.clone().unwrap_or_else(|| result(id, "them")));
        let more = (theirs.is_empty() || rng.percent(30)).then_some(text);
        let shown: Vec<Value> = theirs.iter().cloned().chain(more.clone()).collect();
        let shown = json!({"role": "user", "content": shown});
        // Where none of the calls was ours the client's own message says it all.
        let is_merged = waits.iter().any(|(_, ours)| ours.is_some());
        let said = json!({"role": "user", "content": all.chain(more).collect::<Vec<_>>()});
        self.before = canonical::then_message(self.before, &message(&shown));
        self.said.push(if is_merged { said } else { shown.clone() });
        self.shown.push(shown);
    }

    /// The model answers in some turns, of which the client sees one message.
    async fn answer(&mut self, rng: &mut Rng, standins: &Standins) {
        let (mut visible, mut behind) = (Vec::new(), Vec::new());
        for _ in 0..rng.below(3) {
            let mut blocks = thoughts(rng);
            visible.extend(blocks.clone());
            let ids: Vec<String> = (0..=rng.below(2)).map(|_| self.id()).collect();
            blocks.extend(ids.iter().map(|id| call("ours", id)));
            behind.push(json!({"role": "assistant", "content": blocks}));
            let results: Vec<Value> = ids.iter().map(|id| result(id, "us")).collect();
            behind.push(json!({"role": "user", "content": results}));
        }
        let mut last = thoughts(rng);
        if rng.percent(50) {
            for _ in 0..=rng.below(3) {
                let (id, is_ours) = (self.id(), rng.percent(50));
                last.push(call(if is_ours { "ours" } else { "mine" }, &id));
                self.waits.push((id.clone(), is_ours.then(|| result(&id, "us"))));
            }
        }
        if self.waits.iter().all(|(_, ours)| ours.is_some()) {
            // A turn of calls that are all ours would have gone on.
            self.waits.clear();
            last = vec![json!({"type": "text", "text": format!("answer {}", rng.below(3))})];
        }
        visible.extend(last.iter().filter(|block| block["name"] != "ours").cloned());
        behind.push(json!({"role": "assistant", "content": last}));
        let shown = json!({"role": "assistant", "content": visible});
        let blocks = message(&shown).blocks().unwrap();
        let content = canonical::of_content(&blocks);
        let block = |value: &Value| Block::parse(Raw::parse(value.to_string()).unwrap()).unwrap();
        let calls = self.waits.iter().map(|(id, ours)| match ours {
            Some(result) => Handed::Answered(block(result)),
            None => Handed::Theirs(id.clone()),
        });
        let returned = Returned {
            before: self.before,
            content,
            is_unique: canonical::is_unique(&blocks),
            id: format!("msg_{}", self.shown.len()),
            has_hidden: behind.len() > 1 || self.waits.iter().any(|(_, ours)| ours.is_some()),
            ..Returned::default()
        };
        self.before = returned.after();
        let handover = Handover { calls: calls.collect() };
        standins.keep(&"me".into(), returned, behind.iter().map(message).collect(), handover, false).await;
        self.said.extend(behind);
        self.shown.push(shown);
    }
}

fn call(name: &str, id: &str) -> Value {
    json!({"type": "tool_use", "id": id, "name": name, "input": {"a": [1, null, 2.5]}})
}

fn thoughts(rng: &mut Rng) -> Vec<Value> {
    let mut blocks = Vec::new();
    if rng.percent(40) {
        blocks.push(json!({"type": "thinking", "thinking": "hm", "signature": format!("s{}", rng.below(1000))}));
    }
    blocks.push(json!({"type": "text", "text": format!("word {}", rng.below(4))}));
    blocks
}

/// The same, printed by another client.
fn respelled(mut messages: Vec<Value>, rng: &mut Rng) -> Vec<Value> {
    for message in &mut messages {
        let Some(block) = message["content"].as_array_mut().and_then(|blocks| blocks.last_mut()) else { continue };
        if rng.percent(50) {
            block["cache_control"] = json!({"type": "ephemeral"});
        }
        if block["type"] == "text" && rng.percent(50) {
            block["citations"] = Value::Null;
        }
        if block["type"] == "tool_use" {
            block["input"] = json!({"a": [1.0, null, 2.5]});
        }
    }
    messages
}

/// What a client may do to its history.
fn edited(mut messages: Vec<Value>, rng: &mut Rng) -> Vec<Value> {
    match rng.below(6) {
        0 => drop(messages.drain(..rng.below(messages.len() / 2 + 1) * 2)),
        1 => messages.truncate(rng.below(messages.len()) / 2 * 2 + 1),
        2 => {
            let at = rng.below(messages.len());
            let pair = messages.drain(at..(at + 2).min(messages.len())).collect::<Vec<_>>();
            if rng.percent(30) {
                messages.extend(pair);
            }
        }
        3 => {
            for message in &mut messages {
                if let Some(blocks) = message["content"].as_array_mut() {
                    blocks.retain(|block| block["type"] != "thinking");
                }
            }
        }
        4 => {
            let at = rng.below(messages.len());
            let blocks = messages[at]["content"].as_array_mut().unwrap();
            let block = blocks.iter_mut().find(|block| block["type"] == "text");
            block.into_iter().for_each(|block| block["text"] = json!("edited"));
        }
        _ => {
            let at = rng.below(messages.len());
            let again: Vec<Value> = messages[at..(at + 2).min(messages.len())].to_vec();
            messages.splice(at..at, again);
        }
    }
    messages
}

/// Whether the API would take it: roles in turn, and each call answered in the next message, results first, nothing else answered.
fn is_valid(messages: &[Value]) -> bool {
    let of_kind = |message: &Value, kind: &str, field: &str| -> Vec<String> {
        let blocks = message["content"].as_array().into_iter().flatten();
        let ids = blocks.filter(|block| block["type"] == kind).map(|block| block[field].as_str().unwrap().to_owned());
        ids.collect()
    };
    let mut open: Vec<String> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let role = if at % 2 == 0 { "user" } else { "assistant" };
        let blocks = message["content"].as_array().unwrap();
        if message["role"] != role || blocks.is_empty() {
            return false;
        }
        let mut answered = of_kind(message, "tool_result", "tool_use_id");
        let is_first = blocks.iter().take(answered.len()).all(|block| block["type"] == "tool_result");
        answered.sort();
        if answered != open || !is_first {
            return false;
        }
        open = of_kind(message, "tool_use", "id");
        open.sort();
    }
    open.is_empty() && messages.len() % 2 == 1
}

/// The content as blocks, whoever printed it.
fn values(messages: &[Message]) -> Vec<Value> {
    messages.iter().map(|message| serde_json::from_str(message.raw().as_str()).unwrap()).collect()
}

#[test]
fn whatever_a_client_does_to_its_history_what_goes_upstream_is_valid() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (edits, taken) = (Cell::new(0), Cell::new(0));
    each_seed(100, |seed| {
        let rng = &mut Rng::new(seed);
        let (was_edited, was_taken) = runtime.block_on(async {
            let standins = Standins::new(KEPT, None);
            let mut chat = Chat::default();
            let expires = rng.percent(20);
            for _ in 0..=rng.below(4) {
                chat.ask(rng);
                chat.answer(rng, &standins).await;
                if expires && rng.percent(50) {
                    tokio::time::advance(KEPT).await;
                }
            }
            chat.ask(rng);
            let is_edited = rng.percent(70);
            let mut sent = chat.shown.clone();
            if is_edited {
                sent = edited(sent, rng);
            }
            let sent = respelled(sent, rng);
            if !is_valid(&sent) {
                return (is_edited, false);
            }
            let messages: Vec<Message> = sent.iter().map(message).collect();
            let history = restore(&standins, &"me".into(), &messages, None, None).await.unwrap();
            let got = values(&history.messages);
            assert!(is_valid(&got), "{}\n{}", json!(sent), json!(got));
            if !is_edited && !expires {
                let assistants = |all: &[Value]| -> Vec<Value> {
                    all.iter().filter(|message| message["role"] == "assistant").cloned().collect()
                };
                assert_eq!(assistants(&got), assistants(&chat.said));
                assert_eq!(got.len(), chat.said.len());
            }
            (is_edited, true)
        });
        edits.set(edits.get() + usize::from(was_edited && was_taken));
        taken.set(taken.get() + usize::from(was_taken));
    });
    let (edits, taken) = (edits.get(), taken.get());
    let is_one = std::env::var_os("FANOUT_SEED").is_some();
    assert!(is_one || edits > 0 && taken > edits, "{edits} edited ones of {taken} were such as the API takes");
}
