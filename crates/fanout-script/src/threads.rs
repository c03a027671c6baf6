//! Conversations that the server holds, so that a client sends only what is new.
//!
//! From requests with a `thread` field. To the same conversation in full, and to the errors that make a client replay.
//! A thread is known by the id of its last message; each can be continued once, and by one request at a time. `system` and
//! `tools` are given when it is created: a continuation takes them from the thread and must not repeat them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use crate::check;
use crate::conversation::{Conversation, Reading, ThreadField};
use crate::refusal::{Refusal, Rule};

/// What no thread can be combined with.
const UNSUPPORTED: [&str; 3] = ["context_management", "fallbacks", "thinking"];

#[derive(Debug)]
struct Thread {
    /// The conversation so far, the last reply included.
    conversation: Conversation,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    InFlight,
    Continued,
}

/// All threads of one server.
#[derive(Debug, Default)]
pub(crate) struct Threads(Mutex<HashMap<String, Thread>>);

/// One continuation under way. Dropped before it is [done](Self::done), it leaves the thread open for another try.
#[derive(Debug)]
pub(crate) struct Continuation {
    threads: Arc<Threads>,
    previous: String,
    done: bool,
}

impl Continuation {
    /// The answer has been given: the thread can't be continued from here again.
    pub(crate) fn done(&mut self) {
        self.done = true;
    }
}

impl Drop for Continuation {
    fn drop(&mut self) {
        let state = if self.done { State::Continued } else { State::Open };
        self.threads.set(&self.previous, state);
    }
}

/// Refuses what cannot stand beside a `thread`, and a `thread` that the headers don't ask for.
pub(crate) fn check_request(reading: &Reading<'_>, asked_for: bool) -> Result<(), Refusal> {
    if reading.thread.is_none() {
        return Ok(());
    }
    if !asked_for {
        return Err(Refusal::invalid(Rule::Thread, "thread: Extra inputs are not permitted"));
    }
    let fields = UNSUPPORTED.into_iter().filter(|name| reading.body.has(name));
    let marker = check::has_marker(&reading.body, &reading.conversation).then_some("cache_control");
    let unsupported: Vec<&str> = fields.chain(marker).collect();
    if unsupported.is_empty() {
        return Ok(());
    }
    let text = format!("thread: not supported in a thread: {}", unsupported.join(", "));
    let mut refusal = Refusal::invalid(Rule::Thread, text);
    refusal.details = Some(json!({"error_code": "thread_unsupported_request", "unsupported": unsupported}));
    Err(refusal)
}

impl Threads {
    /// Completes a continuation with what the thread holds: earlier messages, `system` and `tools`.
    ///
    /// A new thread, or no thread, holds nothing.
    pub(crate) fn resolve(
        self: &Arc<Self>,
        field: Option<&ThreadField>,
        conversation: &mut Conversation,
    ) -> Result<Option<Continuation>, Refusal> {
        let Some(ThreadField::Continue(previous)) = field else { return Ok(None) };
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(thread) = threads.get_mut(previous) else {
            let text = format!("thread: no usable thread ends with `{previous}`");
            return Err(Refusal::of_status(Rule::Thread, 404, text).code("thread_not_found"));
        };
        let refuse =
            |code, text: &str| Err(Refusal::invalid(Rule::Thread, format!("thread: `{previous}` {text}")).code(code));
        match thread.state {
            State::Continued => return refuse("thread_already_continued", "was already continued"),
            State::InFlight => return refuse("thread_continue_in_flight", "is being continued by another request"),
            State::Open => {}
        }
        thread.definitions_fit(conversation)?;
        thread.state = State::InFlight;
        let held = &thread.conversation;
        conversation.system.clone_from(&held.system);
        conversation.tools.clone_from(&held.tools);
        conversation.messages.splice(0..0, held.messages.iter().cloned());
        Ok(Some(Continuation { threads: Arc::clone(self), previous: previous.clone(), done: false }))
    }

    /// Keeps a conversation that ends with the message `id`.
    pub(crate) fn keep(&self, id: String, conversation: Conversation) {
        let thread = Thread { conversation, state: State::Open };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, thread);
    }

    fn set(&self, id: &str, state: State) {
        if let Some(thread) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(id) {
            thread.state = state;
        }
    }
}

impl Thread {
    /// Refuses a continuation that changes what the thread was created with, or repeats it.
    fn definitions_fit(&self, given: &Conversation) -> Result<(), Refusal> {
        let held = &self.conversation;
        let fields = [("system", &held.system, &given.system), ("tools", &held.tools, &given.tools)];
        let differs = |given: &Option<String>, held: &Option<String>| given.is_some() && given != held;
        let mut changed: Vec<&str> =
            fields.iter().filter(|(_, held, given)| differs(given, held)).map(|(name, ..)| *name).collect();
        if held.model != given.model {
            changed.push("model");
        }
        if !changed.is_empty() {
            let text = format!("thread: not as the thread was created: {}", changed.join(", "));
            return Err(Refusal::invalid(Rule::Thread, text).code("thread_fingerprint_mismatch"));
        }
        match fields.iter().find(|(.., given)| given.is_some()) {
            Some((name, ..)) => {
                let text = format!("{name}: a continuation takes it from the thread and must not repeat it");
                Err(Refusal::invalid(Rule::Thread, text))
            }
            None => Ok(()),
        }
    }
}
