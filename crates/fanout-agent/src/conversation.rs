//! The history; the only place that appends to it.
//!
//! From the loop: what the model said, and the one reply to it. To every request.
//! Nothing is ever changed or taken away: newer models refuse a history whose beginning was edited.

use fanout_anthropic::{Block, Message};

/// The messages of a run, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    messages: Vec<Message>,
}

impl From<&str> for Conversation {
    fn from(prompt: &str) -> Self {
        Self::from_prompt(prompt)
    }
}

impl Conversation {
    /// A conversation that begins with these messages.
    pub fn new(messages: Vec<Message>) -> Self {
        Self { messages }
    }

    /// A conversation that begins with a person's words.
    pub fn from_prompt(prompt: &str) -> Self {
        Self::new(vec![Message::user_text(prompt)])
    }

    /// All messages.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// What the model said, byte for byte. No blocks make no message: the API takes no empty content.
    pub(crate) fn append_answer(&mut self, blocks: &[Block]) -> Option<&Message> {
        if blocks.is_empty() {
            return None;
        }
        self.messages.push(Message::assistant(blocks));
        self.messages.last()
    }

    /// The one user message that answers all calls of the message before.
    pub(crate) fn append_reply(&mut self, reply: Message) {
        self.messages.push(reply);
    }

    /// How many bytes the messages take in a request.
    pub(crate) fn bytes(&self) -> usize {
        self.messages.iter().map(|message| message.raw().as_str().len()).sum()
    }
}
