//! A message on the wire: one JSON object, or a stream of server-sent events.
//!
//! From a [`Reply`] and the faults of this attempt. To [`delivery`](crate::delivery), which gives the pieces their times.
//! It knows the shape of every event and no clock.

use crate::fault::Fault;
use crate::raw::quoted;
use crate::refusal::error_body;
use crate::reply::{Delta, Reply};
use crate::script::Usage;

/// One event, as text without its line ends made special, and how many characters the model wrote for it.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) text: String,
    pub(crate) written: usize,
}

impl Event {
    fn new(name: &str, data: &str) -> Self {
        Self { text: format!("event: {name}\ndata: {data}\n\n"), written: 0 }
    }

    /// An event that says nothing.
    pub(crate) fn ping() -> Self {
        Self::new("ping", r#"{"type":"ping"}"#)
    }
}

/// The answer to a request that did not ask for a stream.
pub(crate) fn whole(reply: &Reply, faults: &[Fault]) -> String {
    let blocks: Vec<&str> = reply.blocks.iter().map(|block| block.whole.as_str()).collect();
    let reason = quoted(&reply.stop_reason);
    envelope(reply, &format!("[{}]", blocks.join(",")), &reason, reply.usage, new_field(faults))
}

/// The events of a stream. A paced stream has pieces of four characters, about a token; any other has long ones.
pub(crate) fn stream(reply: &Reply, faults: &[Fault], paced: bool, request_id: &str) -> Vec<Event> {
    let extra = new_field(faults);
    let mut events = Vec::new();
    let begun = Usage { output_tokens: 1, ..reply.usage };
    let message = envelope(reply, "[]", "null", begun, extra);
    events.push(Event::new("message_start", &format!(r#"{{"type":"message_start","message":{message}{extra}}}"#)));
    events.push(Event::ping());
    for (index, block) in reply.blocks.iter().enumerate() {
        let start =
            format!(r#"{{"type":"content_block_start","index":{index},"content_block":{}{extra}}}"#, block.start);
        events.push(Event::new("content_block_start", &start));
        for delta in &block.deltas {
            deltas(&mut events, index, delta, paced, extra);
        }
        let stop = format!(r#"{{"type":"content_block_stop","index":{index}{extra}}}"#);
        events.push(Event::new("content_block_stop", &stop));
    }
    let (reason, usage) = (quoted(&reply.stop_reason), usage(reply.usage, extra));
    events.push(Event::new(
        "message_delta",
        &format!(
            r#"{{"type":"message_delta","delta":{{"stop_reason":{reason},"stop_sequence":null{extra}}},"usage":{usage}}}"#
        ),
    ));
    events.push(Event::new("message_stop", r#"{"type":"message_stop"}"#));
    disturb(events, faults, request_id)
}

/// How many characters one delta of an unpaced stream carries.
const PIECE: usize = 64;

fn deltas(events: &mut Vec<Event>, index: usize, delta: &Delta, paced: bool, extra: &str) {
    let (kind, key) = match delta {
        Delta::Text(_) => ("text_delta", "text"),
        Delta::Thinking(_) => ("thinking_delta", "thinking"),
        Delta::Signature(_) => ("signature_delta", "signature"),
        Delta::Json(_) => ("input_json_delta", "partial_json"),
    };
    let whole = matches!(delta, Delta::Signature(_));
    let mut piece = |text: &str, written| {
        let text = quoted(text);
        let data = format!(
            r#"{{"type":"content_block_delta","index":{index},"delta":{{"type":"{kind}","{key}":{text}}}{extra}}}"#
        );
        events.push(Event { written, ..Event::new("content_block_delta", &data) });
    };
    if matches!(delta, Delta::Json(_)) {
        piece("", 0);
    }
    let step = if paced { 4 } else { PIECE };
    let mut rest = delta.text();
    while !rest.is_empty() {
        let at = if whole { rest.len() } else { rest.char_indices().nth(step).map_or(rest.len(), |(at, _)| at) };
        let (head, tail) = rest.split_at(at);
        piece(head, head.chars().count());
        rest = tail;
    }
}

fn envelope(reply: &Reply, content: &str, stop_reason: &str, tokens: Usage, extra: &str) -> String {
    let (id, model, usage) = (quoted(&reply.id), quoted(&reply.model), usage(tokens, extra));
    format!(
        r#"{{"id":{id},"type":"message","role":"assistant","model":{model},"content":{content},"stop_reason":{stop_reason},"stop_sequence":null,"usage":{usage}{extra}}}"#
    )
}

fn usage(tokens: Usage, extra: &str) -> String {
    let Usage { input_tokens, output_tokens, cache_creation_input_tokens, cache_read_input_tokens } = tokens;
    format!(
        r#"{{"input_tokens":{input_tokens},"cache_creation_input_tokens":{cache_creation_input_tokens},"cache_read_input_tokens":{cache_read_input_tokens},"output_tokens":{output_tokens},"service_tier":"standard"{extra}}}"#
    )
}

/// A field that no client can know, for [`Fault::UnknownFields`].
fn new_field(faults: &[Fault]) -> &'static str {
    if faults.contains(&Fault::UnknownFields) { r#","field_of_tomorrow":{"a":[1.0,null]}"# } else { "" }
}

/// What the faults do to a stream as a list of events.
fn disturb(mut events: Vec<Event>, faults: &[Fault], request_id: &str) -> Vec<Event> {
    for fault in faults {
        match fault {
            Fault::UnknownEvents => {
                let unknown = Event::new("event_of_tomorrow", r#"{"type":"event_of_tomorrow","index":0,"delta":{}}"#);
                events = events.into_iter().flat_map(|event| [unknown.clone(), event]).collect();
            }
            Fault::ErrorEvent { after_events, error_type } => {
                events.truncate(*after_events);
                events.push(Event::new("error", &error_body(error_type, "Overloaded", None, request_id)));
            }
            Fault::CutAfterEvents { events: count } | Fault::EndAfterEvents { events: count } => {
                events.truncate(*count);
            }
            _ => {}
        }
    }
    events
}
