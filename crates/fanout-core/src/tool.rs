//! What a tool is: a name, a schema, effects, a policy, and something that runs.
//!
//! From `fanout-tools` and from programs that bring their own.
//! To [`toolbox`](crate::toolbox), which finds tools by name, and to [`run`](crate::run), which runs one attempt.
//!
//! A tool decides nothing about other calls: it gets one attempt and answers it.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::approval::Approval;
use crate::call::{CallId, CallerId, GroupName, RunId, ToolName};
use crate::effects::{EffectsSpec, Source};
use crate::once::Once;
use crate::outcome::{CallError, Output};
use crate::plan::{Atomic, AtomicPart};
use crate::secrets::Secrets;

/// A future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something that a model can call.
pub trait Tool: Send + Sync + 'static {
    /// What the tool is. Asked once, when it is put into a [`Toolbox`](crate::toolbox::Toolbox).
    fn spec(&self) -> ToolSpec;

    /// Runs one attempt. The input fits the schema.
    ///
    /// # Errors
    /// [`ToolError`] says above all whether the work may have been carried out.
    ///
    /// # Cancellation
    /// Dropping the future stops the attempt, at a time-out or when the run is stopped. Work that goes on regardless (a
    /// blocking thread, a child process that is still dying) keeps [`Attempt::hold`], and with it the call's locks.
    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>>;
}

/// What a tool says of itself.
#[derive(Clone, Debug)]
pub struct ToolSpec {
    /// Its name: `^[a-zA-Z0-9_-]{1,128}$`, as the Messages API asks.
    pub name: ToolName,
    /// What the model reads of it.
    pub description: String,
    /// The JSON Schema of its input.
    pub input_schema: Value,
    /// Where it comes from, for comparing effects.
    pub source: Source,
    /// What it reads and writes.
    pub effects: EffectsSpec,
    /// Whether the source itself guarantees that running it again does no harm: HTTP GET and HEAD, SQL in a `READ ONLY`
    /// transaction. A hint is no guarantee.
    pub safe: bool,
    /// How calls of it are treated.
    pub policy: Policy,
    /// The package by whose review its effects are declared, if they are from a catalogue; nothing acts on it.
    pub catalogue: Option<&'static str>,
    /// What a declaration of it could say; nothing acts on it.
    pub proposal: Option<Proposal>,
    /// Why its effects are inferred as they are, a sentence each, where its source can say; nothing acts on it.
    pub reasons: Vec<String>,
    /// Its calls can be carried out together with those of other tools of its source, all or none: this is what those need
    /// of it. The attempt at such a plan is given to the tool of its first call: [`Attempt::atomic`].
    pub atomic: Option<AtomicPart>,
    /// The database that its calls change, in transactions that can hold their outcomes too, by the one name of it: see
    /// [`Once`].
    pub database: Option<Arc<str>>,
}

/// A declaration that a source proposes for a person to review, and where it would stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The section of the configuration that describes its source, such as `[openapi.shop]`.
    pub section: String,
    /// What that section calls it, such as `orders/create`.
    pub tool: String,
    /// The template of the key that it touches; `None`: nothing finer than its whole source is known.
    pub key: Option<String>,
}

impl ToolSpec {
    /// A tool that takes any object, writes all of its source, and is not repeatable.
    pub fn new(name: impl Into<ToolName>, source: Source) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            input_schema: serde_json::json!({ "type": "object" }),
            effects: EffectsSpec::writes_all_of(&source),
            source,
            safe: false,
            policy: Policy::default(),
            catalogue: None,
            proposal: None,
            reasons: Vec::new(),
            atomic: None,
            database: None,
        }
    }

    /// Whether running a call again does no harm. Retry, early start and recovery ask this one question and no other.
    pub fn repeatable(&self) -> bool {
        self.safe || self.policy.idempotent || self.effects.declares_no_writes()
    }
}

/// How calls of a tool are treated. The defaults are the configuration's.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The longest that one attempt may take.
    pub timeout: Duration,
    /// The longest that a call may take, from the end of its waits on calls and people.
    pub deadline: Duration,
    /// The most bytes of a result that the model is shown.
    pub result_max: usize,
    /// The limit group that its attempts need permits of; `None` is that of its source, if it has one.
    pub limit: Option<GroupName>,
    /// In a batch it follows the earlier calls of these tools; order only.
    pub after: Vec<ToolName>,
    /// Running it again does no harm, says its author.
    pub idempotent: bool,
    /// It runs calls itself: no locks and no permits of its own.
    pub nested: bool,
    /// Whether a person has to agree before a call of it runs.
    pub approval: Approval,
    /// In a batch it follows the earlier calls of its source, and is skipped once one of them failed.
    pub stop_on_failure: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            deadline: Duration::from_secs(120),
            result_max: 64 * 1024,
            limit: None,
            after: Vec::new(),
            idempotent: false,
            nested: false,
            approval: Approval::Never,
            stop_on_failure: false,
        }
    }
}

/// One try at a call: what a tool is given.
#[derive(Clone)]
pub struct Attempt {
    /// The run that it belongs to.
    pub run: RunId,
    /// Who began the run.
    pub caller: CallerId,
    /// The call.
    pub call: CallId,
    /// The tool's name.
    pub tool: ToolName,
    /// The input: references filled, fits the schema.
    pub input: Arc<Value>,
    /// Which try this is; the first is 1.
    pub number: u32,
    /// The same for every attempt at this call, on any process: for the far side to recognise a repeat.
    pub idempotency_key: Arc<str>,
    /// The end user's token, if the run has one: what a tool that acts in the user's name sends along.
    pub caller_token: Option<CallerToken>,
    /// What is hidden in all that the attempt comes to, without the tool's doing. A tool that shows only a part of a text
    /// hides it before it cuts.
    pub secrets: Arc<Secrets>,
    /// Where its outcome is to be kept by the tool itself, in the transaction that does the work. Only tools of that
    /// [`ToolSpec::database`] are given it.
    pub once: Option<Arc<Once>>,
    /// What keeps the call's locks while work goes on.
    pub(crate) hold: Hold,
    /// The limit group of the attempt's permit, if it has one.
    pub(crate) limit: Option<Arc<dyn PauseLimit>>,
    /// The calls of an atomic plan.
    pub(crate) atomic: Option<Arc<Atomic>>,
}

/// How far an attempt is, as its tool tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// What is done, in the tool's own measure. Finite, and more each time.
    pub done: f64,
    /// What it will be in the end, where that is known.
    pub total: Option<f64>,
    /// What is being done, in words.
    pub message: Option<Arc<str>>,
}

/// What stands behind an attempt while it is worked on.
pub(crate) trait Backing: Send + Sync {
    fn progressed(&self, progress: Progress);
}

/// Where an attempt tells its limit group what the far side said.
pub(crate) trait PauseLimit: Send + Sync {
    fn pause(&self, wait: Duration);
}

impl Attempt {
    /// An attempt outside of any scheduler, for trying a tool by itself.
    pub fn detached(tool: impl Into<ToolName>, input: Value) -> Self {
        Self {
            run: "detached".into(),
            caller: "detached".into(),
            call: "detached".into(),
            tool: tool.into(),
            input: Arc::new(input),
            number: 1,
            idempotency_key: "detached/detached".into(),
            caller_token: None,
            secrets: Arc::default(),
            once: None,
            hold: Hold(None),
            limit: None,
            atomic: None,
        }
    }

    /// The calls that this attempt is to carry out as one, if it is at an atomic plan: then they stand in the place of its
    /// input, and what each comes to is told to them. Only tools with [`ToolSpec::atomic`] are given such an attempt. If it
    /// fails, nothing of it may be kept.
    pub fn atomic(&self) -> Option<&Arc<Atomic>> {
        self.atomic.as_ref()
    }

    /// The far side asked everyone to wait for so long, without refusing this attempt: `x-ratelimit-remaining: 0`, say.
    /// Nothing more starts in the tool's limit group until then. Waits in a [`ToolError`] need not be told here.
    pub fn pause_limit(&self, wait: Duration) {
        if let Some(limit) = &self.limit {
            limit.pause(wait);
        }
    }

    /// Says how far the attempt is, to whoever watches the run. It moves no time-out. At most ten a second are passed on, and
    /// none of an attempt whose call has ended.
    pub fn progress(&self, progress: Progress) {
        if let Some(backing) = &self.hold.0 {
            let message = progress.message.map(|message| self.secrets.hide(&message).into());
            backing.progressed(Progress { message, ..progress });
        }
    }

    /// A guard for work that goes on when the attempt's future is dropped. While it lives, the call's locks are kept and
    /// the calls that conflict with it wait, at most the scheduler's `stray_hold`.
    pub fn hold(&self) -> Hold {
        self.hold.clone()
    }
}

impl fmt::Debug for Attempt {
    // The input may hold what nobody should read in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("run", &self.run)
            .field("call", &self.call)
            .field("tool", &self.tool)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// The token of the end user in whose name a run acts. It is printed nowhere.
///
/// Made of a text it is as it came: whom it is sent to must verify it. Once it was verified, it has claims.
#[derive(Clone, PartialEq, Eq)]
pub struct CallerToken {
    text: Arc<str>,
    verified: Option<Verified>,
}

#[derive(Clone, PartialEq, Eq)]
struct Verified {
    claims: Arc<Map<String, Value>>,
    good_until: SystemTime,
}

impl CallerToken {
    /// A token whose signature, issuer and audience were checked, with what it says. From `good_until` on it is expired.
    pub fn verified(text: impl Into<Arc<str>>, claims: Map<String, Value>, good_until: SystemTime) -> Self {
        Self { text: text.into(), verified: Some(Verified { claims: Arc::new(claims), good_until }) }
    }

    /// The token as it came.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What it says; `None`: nobody has verified it, and nothing may be decided by it. Who acts by the claims asks
    /// [`CallerToken::is_expired`] at the time of the attempt: a run may outlive the token that it began with.
    pub fn claims(&self) -> Option<&Arc<Map<String, Value>>> {
        self.verified.as_ref().map(|verified| &verified.claims)
    }

    /// Whether it was verified and has expired by then.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.verified.as_ref().is_some_and(|verified| now >= verified.good_until)
    }
}

impl<T: Into<Arc<str>>> From<T> for CallerToken {
    fn from(token: T) -> Self {
        Self { text: token.into(), verified: None }
    }
}

impl fmt::Debug for CallerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerToken")
    }
}

/// Keeps a call's locks while work that nobody can stop goes on. Dropping the last one gives them up.
#[derive(Clone)]
pub struct Hold(pub(crate) Option<Arc<dyn Backing>>);

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}

/// Why one attempt failed. The variant says what is known of the work; the message is for the model.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ToolError {
    /// The tool answered, and the answer is an error: a 4xx, an exit status, a function's `Err`. Final.
    #[error("{0}")]
    Failed(String),
    /// The far side is in trouble: a 5xx, a lost connection, an answer cut short. It may have done the work.
    #[error("{0}")]
    Broken(String),
    /// It was never sent, or the far side says that it did nothing: a refused connection.
    #[error("{0}")]
    NotSent(String),
    /// The far side did nothing and asks to come back later: a 429.
    #[error("{message}")]
    Busy {
        /// What the far side said.
        message: String,
        /// From when another attempt makes sense, if it said so.
        retry_after: Option<Duration>,
    },
    /// The far side says that it cannot keep up: a 503. It may have done the work.
    #[error("{message}")]
    Overloaded {
        /// What the far side said.
        message: String,
        /// From when another attempt makes sense, if it said so.
        retry_after: Option<Duration>,
    },
    /// The far side undid all of it, since it met others at the same state: a serialization failure, a deadlock. The same
    /// again is likely to go through.
    #[error("{0}")]
    RolledBack(String),
    /// Somebody else changed the state first; nothing was written.
    #[error("{0}")]
    Conflict(String),
    /// The answer is larger than we keep. The work was done.
    #[error("{0}")]
    TooLarge(String),
    /// The input is wrong in a way that the schema cannot say.
    #[error("{0}")]
    BadInput(String),
    /// That it begins could not be written down, so nothing was sent: after a crash nobody would have known of it.
    #[error("{0}")]
    NotKept(String),
    /// Who began the run may not do this, or did not say in whose name. Nothing was sent.
    #[error("{0}")]
    NotPermitted(String),
    /// A panic in the tool. The message is for the log.
    #[error("the tool panicked: {0}")]
    Panicked(String),
    /// What the whole call came to is known from before, word for word: whoever answers with what was recorded says this. Final.
    #[error("{0}")]
    Recorded(Box<CallError>),
    /// The attempt was stopped before it could answer.
    #[error("the attempt was stopped")]
    Stopped,
}

impl ToolError {
    /// The wait that the far side asked for. The whole limit group keeps it.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } | Self::Overloaded { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The message with a name in the place of each secret.
    pub(crate) fn hiding(mut self, secrets: &Secrets) -> Self {
        let message = match &mut self {
            Self::Failed(message)
            | Self::Broken(message)
            | Self::NotSent(message)
            | Self::Busy { message, .. }
            | Self::Overloaded { message, .. }
            | Self::RolledBack(message)
            | Self::Conflict(message)
            | Self::TooLarge(message)
            | Self::BadInput(message)
            | Self::NotPermitted(message)
            | Self::NotKept(message)
            | Self::Panicked(message) => message,
            Self::Recorded(error) => &mut error.message,
            Self::Stopped => return self,
        };
        if let Cow::Owned(hidden) = secrets.hide(message) {
            *message = hidden;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_something_once_it_was_verified_and_until_it_expires() {
        let as_it_came = CallerToken::from("t0ken");
        assert!(as_it_came.claims().is_none() && !as_it_came.is_expired(SystemTime::now()));
        let (claims, end) = (Map::from_iter([("sub".to_owned(), "alice".into())]), SystemTime::now());
        let verified = CallerToken::verified("t0ken", claims, end);
        assert_eq!(verified.claims().unwrap()["sub"], "alice");
        assert!(!verified.is_expired(end - Duration::from_nanos(1)) && verified.is_expired(end));
        assert_ne!(verified, as_it_came);
        assert_eq!(format!("{verified:?}"), "CallerToken");
    }
}
