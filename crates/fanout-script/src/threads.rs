//! Conversations that the server holds, so that a client sends only what is new.
//!
//! From requests with a `thread` field. To the same conversation in full, and to the errors that make a client replay.
//! A thread is known by the id of its last message; each can be continued once, and by one request at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::check;
use crate::conversation::{Message, Reading, ThreadField};
use crate::refusal::{Refusal, Rule};

/// What no thread can be combined with.
const UNSUPPORTED: [&str; 3] = ["context_management", "fallbacks", "thinking"];

#[derive(Debug)]
struct Thread {
    messages: Vec<Message>,
    fingerprint: u64,
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
    let field = UNSUPPORTED.into_iter().find(|name| reading.body.has(name));
    let marker = check::has_marker(&reading.body, &reading.conversation).then_some("cache_control");
    match field.or(marker) {
        Some(name) => Err(Refusal::invalid(Rule::Thread, format!("thread: `{name}` is not supported in a thread"))
            .code("thread_unsupported_request")),
        None => Ok(()),
    }
}

impl Threads {
    /// Puts the messages that the thread holds before those of the request.
    ///
    /// `fingerprint` stands for what must not change. A new thread, or no thread, holds nothing.
    pub(crate) fn resolve(
        self: &Arc<Self>,
        field: Option<&ThreadField>,
        messages: &mut Vec<Message>,
        fingerprint: u64,
    ) -> Result<Option<Continuation>, Refusal> {
        let Some(ThreadField::Continue(previous)) = field else { return Ok(None) };
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(thread) = threads.get_mut(previous) else {
            let text = format!("thread: no thread ends with `{previous}`");
            return Err(Refusal::of_status(Rule::Thread, 404, text).code("thread_not_found"));
        };
        let refuse = |status, code, text: &str| {
            Err(Refusal::of_status(Rule::Thread, status, format!("thread: `{previous}` {text}")).code(code))
        };
        match thread.state {
            State::Continued => return refuse(400, "thread_already_continued", "was already continued"),
            State::InFlight => {
                return refuse(409, "thread_continue_in_flight", "is being continued by another request");
            }
            State::Open => {}
        }
        if thread.fingerprint != fingerprint {
            return refuse(400, "thread_fingerprint_mismatch", "was begun with another `model`, `system` or `tools`");
        }
        thread.state = State::InFlight;
        let mut whole = thread.messages.clone();
        whole.append(messages);
        *messages = whole;
        Ok(Some(Continuation { threads: Arc::clone(self), previous: previous.clone(), done: false }))
    }

    /// Keeps a conversation that ends with the message `id`.
    pub(crate) fn keep(&self, id: String, messages: Vec<Message>, fingerprint: u64) {
        let thread = Thread { messages, fingerprint, state: State::Open };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, thread);
    }

    fn set(&self, id: &str, state: State) {
        if let Some(thread) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(id) {
            thread.state = state;
        }
    }
}
