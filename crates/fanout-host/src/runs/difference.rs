//! What two runs of one thing differ in.
//!
//! From the events of both, in order. To whoever shows it: one [`Difference`] for each thing, turn by turn and in program
//! order. Ids are not compared, nor times: another model's run has other ids, and times are what the figures say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fanout_anthropic::{Message, Raw, Role, View};
use fanout_core::call::{CallId, Position, ToolName};
use fanout_core::event::What;
use fanout_core::outcome::{Content, Outcome};
use serde_json::{Value, json};

use crate::lines::content_json;

/// A run as it is compared. Take the events of one, in order.
#[derive(Debug, Default)]
pub struct Story {
    turns: Vec<Turn>,
    /// The turn and the place of each call; of several with one id, the latest.
    places: BTreeMap<CallId, (usize, Position)>,
    answer: String,
    state: Option<&'static str>,
}

#[derive(Debug, Default)]
struct Turn {
    /// Counted from 1; a batch is turn 0. One that asked for more of an answer in vain has the number of the next.
    number: u32,
    /// Something was said in it.
    is_said: bool,
    calls: BTreeMap<Position, Told>,
}

#[derive(Debug)]
struct Told {
    tool: ToolName,
    input: Arc<Value>,
    outcome: Option<Arc<Outcome>>,
}

/// One thing that is not the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// What: `call` (only one of them has it), `tool`, `input`, `result`, `answer` or `state`.
    pub what: &'static str,
    /// In which turn, and where in its program order, if it is of a call; a batch is turn 0.
    pub at: Option<(u32, Position)>,
    /// How it was; nothing where there was none.
    pub then: Value,
    /// How it is.
    pub now: Value,
}

impl Story {
    /// Takes the next event.
    pub fn take(&mut self, what: &What) {
        match what {
            // Of a turn that was asked for again, only the last time counts.
            What::TurnStarted { turn } => {
                self.turns.pop_if(|last| last.number == *turn && !last.is_said);
                self.turns.push(Turn { number: *turn, ..Turn::default() });
            }
            What::TurnDiscarded { .. } => self.current().calls.clear(),
            What::CallArrived { call, tool, position, input, .. } => self.arrive(call, tool, position, input),
            What::BundleArrived { call, tool, position, .. } => self.arrive(call, tool, position, &Arc::default()),
            What::CallReady { call, filled: Some(filled) } => self.mark(call, |told| told.input = Arc::clone(filled)),
            What::CallEnded { outcome } | What::BundleEnded { outcome } => {
                self.mark(&outcome.call, |told| told.outcome = Some(Arc::clone(outcome)));
            }
            What::Appended { message } => {
                let message = Raw::parse(&**message).and_then(Message::parse).ok();
                if let Some(message) = message.filter(|message| message.role() == Role::Assistant) {
                    self.answer = text_of(&message);
                    self.current().is_said = true;
                }
            }
            What::RunEnded { status, .. } => self.state = Some(status),
            _ => {}
        }
    }

    /// How many turns and calls there were; a plan counts, and so does each of its calls.
    pub fn size(&self) -> (usize, usize) {
        let turns = self.turns.iter().filter(|turn| turn.number > 0).count();
        (turns, self.turns.iter().map(|turn| turn.calls.len()).sum())
    }

    /// The turn that is under way; that of a batch begins by itself.
    fn current(&mut self) -> &mut Turn {
        if self.turns.is_empty() {
            self.turns.push(Turn::default());
        }
        let last = self.turns.len() - 1;
        &mut self.turns[last]
    }

    fn arrive(&mut self, call: &CallId, tool: &ToolName, position: &Position, input: &Arc<Value>) {
        let told = Told { tool: tool.clone(), input: Arc::clone(input), outcome: None };
        self.current().calls.insert(position.clone(), told);
        self.places.insert(call.clone(), (self.turns.len() - 1, position.clone()));
    }

    fn mark(&mut self, call: &CallId, mark: impl FnOnce(&mut Told)) {
        if let Some((turn, position)) = self.places.get(call)
            && let Some(told) = self.turns.get_mut(*turn).and_then(|turn| turn.calls.get_mut(position))
        {
            mark(told);
        }
    }
}

/// What differs between a run and the same once more, in order; last the answer and how they ended.
pub fn differences(then: &Story, now: &Story) -> Vec<Difference> {
    let mut found = Vec::new();
    let empty = Turn::default();
    for at in 0..then.turns.len().max(now.turns.len()) {
        let (a, b) = (then.turns.get(at), now.turns.get(at));
        let turn = a.or(b).map_or(0, |turn| turn.number);
        let (a, b) = (&a.unwrap_or(&empty).calls, &b.unwrap_or(&empty).calls);
        for position in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
            let mut differ = |what, then, now| {
                found.push(Difference { what, at: Some((turn, position.clone())), then, now });
            };
            match (a.get(position), b.get(position)) {
                (Some(then), Some(now)) => {
                    if then.tool != now.tool {
                        differ("tool", json!(then.tool.as_str()), json!(now.tool.as_str()));
                    }
                    if then.input != now.input {
                        differ("input", (*then.input).clone(), (*now.input).clone());
                    }
                    if then.came() != now.came() {
                        differ("result", then.result(), now.result());
                    }
                }
                (then, now) => {
                    let call = |told: Option<&Told>| told.map_or(Value::Null, Told::call);
                    differ("call", call(then), call(now));
                }
            }
        }
    }
    if then.answer != now.answer {
        found.push(Difference { what: "answer", at: None, then: json!(then.answer), now: json!(now.answer) });
    }
    if then.state != now.state {
        found.push(Difference { what: "state", at: None, then: json!(then.state), now: json!(now.state) });
    }
    found
}

impl Difference {
    /// As JSON: what `--json` prints, but for the run.
    pub fn json(&self) -> Value {
        let place = self.at.as_ref().map(|(turn, position)| (*turn, position.to_string()));
        let (turn, position) = place.unzip();
        json!({
            "type": "difference", "what": self.what, "turn": turn, "position": position, "then": self.then, "now": self.now,
        })
    }
}

impl Told {
    fn call(&self) -> Value {
        json!({ "tool": self.tool.as_str(), "input": *self.input })
    }

    /// What the model was told.
    fn came(&self) -> Option<(bool, &[Content])> {
        self.outcome.as_ref().map(|outcome| (outcome.is_error(), &*outcome.shown))
    }

    fn result(&self) -> Value {
        self.outcome.as_ref().map_or(
            Value::Null,
            |outcome| json!({ "is_error": outcome.is_error(), "content": content_json(&outcome.shown) }),
        )
    }
}

fn text_of(message: &Message) -> String {
    let blocks = message.blocks().unwrap_or_default();
    let texts = blocks.iter().filter_map(|block| match block.view() {
        View::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}
