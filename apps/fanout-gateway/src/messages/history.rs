//! A client's history as the upstream must see it.
//!
//! From a request: what its client was shown and what it answered. From [`standin`](super::standin): what stands behind that.
//! To the run: the messages to ask with, each call answered once.

use std::sync::Arc;

use fanout_agent::{Agent, RunSettings};
use fanout_anthropic::{Block, Message, Request, Role, Thread, View};
use fanout_core::call::{CallerId, RunId};
use fanout_journal::store::StoreError;

use super::canonical::{self, Digest};
use super::standin::{Standin, Standins, Wanted};

/// What runs the calls that waited for the client, where that is allowed here.
pub(super) struct Settler<'a> {
    pub(super) agent: &'a Agent,
    pub(super) settings: &'a RunSettings,
    pub(super) run: &'a RunId,
}

/// A history put right.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) messages: Vec<Message>,
    /// What the client knows of it.
    pub(super) before: Digest,
}

/// The message that a request continues a server-held thread from, if it was returned from here.
pub(super) async fn continued(
    standins: &Standins,
    caller: &CallerId,
    request: &Request,
) -> Result<Option<Arc<Standin>>, StoreError> {
    match &request.thread {
        Some(Thread::Continue { previous_message_id }) => standins.by_id(caller, previous_message_id).await,
        Some(Thread::Create) | None => Ok(None),
    }
}

/// The request as it continues the thread upstream, where the last message has an id that the client may not know.
pub(super) fn continue_from(request: &Request, continued: Option<&Standin>) -> Request {
    let mut request = request.clone();
    if let Some(standin) = continued {
        request.thread = Some(Thread::Continue { previous_message_id: standin.returned.last_id.clone() });
    }
    request
}

/// Puts back what stands behind the messages that were returned from here, and our results beside the client's.
///
/// Without a `settler` calls that wait for the client's answers stay unanswered.
///
/// # Errors
/// [`StoreError`]: what stands behind them cannot be known now.
pub(super) async fn restore(
    standins: &Standins,
    caller: &CallerId,
    messages: &[Message],
    continued: Option<&Arc<Standin>>,
    settler: Option<Settler<'_>>,
) -> Result<History, StoreError> {
    let mut history = History::default();
    // What the client's next message answers.
    let mut behind = None;
    if let Some(standin) = continued {
        history.before = standin.returned.after();
        behind = Some(Arc::clone(standin));
    }
    standins.fetch(caller, wanted(messages, history.before)).await?;
    for message in messages {
        let blocks = message.blocks().ok();
        let answered = behind.take();
        match (&blocks, message.role()) {
            (Some(blocks), Role::Assistant) => {
                behind = standins.by_content(caller, canonical::of_content(blocks), history.before);
                match &behind {
                    Some(standin) => put_back(standin, message, blocks, &mut history.messages),
                    None => history.messages.push(message.clone()),
                }
            }
            (Some(blocks), Role::User) if let Some(standin) = answered => {
                let merged = merge(standins, caller, &standin, blocks, settler.as_ref()).await?;
                history.messages.push(merged.unwrap_or_else(|| message.clone()));
            }
            _ => history.messages.push(message.clone()),
        }
        history.before = canonical::then_message(history.before, message);
    }
    Ok(history)
}

fn put_back(standin: &Standin, message: &Message, blocks: &[Block], into: &mut Vec<Message>) {
    match standin.messages() {
        Some(behind) => into.extend(behind.iter().cloned()),
        None if standin.returned.has_hidden => {
            // Its thinking was thought after what is lost now: it would not be believed.
            let kept: Vec<Block> =
                blocks.iter().filter(|block| !matches!(block.view(), View::Thinking)).cloned().collect();
            into.push(if kept.is_empty() { message.clone() } else { Message::assistant(&kept) });
        }
        None => into.push(message.clone()),
    }
}

/// What may have been returned from here, of these messages after this history.
fn wanted(messages: &[Message], mut before: Digest) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for message in messages {
        if message.role() == Role::Assistant
            && let Ok(blocks) = message.blocks()
        {
            wanted.push(Wanted::said(canonical::of_content(&blocks), before));
        }
        before = canonical::then_message(before, message);
    }
    wanted
}

/// The one message that answers all calls behind a returned message; `None` where the client's own does.
async fn merge(
    standins: &Standins,
    caller: &CallerId,
    standin: &Standin,
    theirs: &[Block],
    settler: Option<&Settler<'_>>,
) -> Result<Option<Message>, StoreError> {
    let mut pending = standin.pending.lock().await;
    if let Some(Settler { agent, settings, run }) = settler
        && pending.handover.is_answered_by(theirs)
        && !pending.handover.waiting().is_empty()
    {
        let past = standins.catch_up(caller, standin, &mut pending, run).await?;
        // Should it break off, whoever comes next knows where to look for what was done.
        pending.settled_by = Some((*run).clone());
        standins.record(caller, standin, &pending);
        agent.settle(&mut pending.handover, settings, past).await;
        pending.settled_by = None;
        standins.record(caller, standin, &pending);
        standins.recorded().await;
    }
    Ok(pending.handover.merge(theirs))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fanout_agent::Handover;
    use fanout_anthropic::Raw;

    use super::super::standin::Returned;
    use super::*;

    fn message(role: &str, content: &str) -> Message {
        Message::parse(Raw::parse(format!(r#"{{"role":"{role}","content":{content}}}"#)).unwrap()).unwrap()
    }

    const SHOWN: &str = r#"[{"type":"thinking","thinking":"a","signature":"b"},{"type":"text","text":"done"}]"#;

    /// What becomes of a returned message after so long, if there was more behind it or not.
    async fn check(age_s: u64, has_hidden: bool, want: &str) {
        let standins = Standins::new(Duration::from_secs(60), None);
        let question = message("user", r#""go""#);
        let before = canonical::then_message(Digest::default(), &question);
        let content = canonical::of_content(&message("assistant", SHOWN).blocks().unwrap());
        let returned = Returned {
            before,
            content,
            id: "msg_1".to_owned(),
            last_id: "msg_2".to_owned(),
            has_hidden,
            ..Returned::default()
        };
        let behind = vec![message("assistant", r#""behind""#)];
        standins.keep(&"me".into(), returned, behind, Handover::default(), false).await;
        tokio::time::advance(Duration::from_secs(age_s)).await;
        let said = [question, message("assistant", SHOWN), message("user", r#""and?""#)];
        let history = restore(&standins, &"me".into(), &said, None, None).await.unwrap();
        assert_eq!(history.messages.len(), 3);
        assert_eq!(history.messages[1], message("assistant", want));
    }

    #[tokio::test(start_paused = true)]
    async fn what_stands_behind_a_message_is_put_back_while_it_is_known() {
        check(1, true, r#""behind""#).await;
        check(1, false, r#""behind""#).await;
    }

    #[tokio::test(start_paused = true)]
    async fn of_an_expired_message_goes_what_the_client_saw_without_thinking_that_had_more_before_it() {
        check(61, true, r#"[{"type":"text","text":"done"}]"#).await;
        check(61, false, SHOWN).await;
    }
}
