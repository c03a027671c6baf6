//! What a client is answered: who we are, which tools there are, and what its calls came to.
//!
//! From the transports: one [`Server`] for each session, or for each request that has none. To [`session`](super::session):
//! calls.
//!
//! A tool that failed is a result like any other; an error of the protocol is only what no tool can answer.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use fanout_core::call::ToolName;
use fanout_core::outcome::Outcome;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ErrorData, Implementation, ListToolsResult, PaginatedRequestParams,
    ProgressNotificationParam, ProgressToken, ServerCapabilities, ServerConfig,
};
use rmcp::service::{NotificationContext, Peer, RequestContext};
use rmcp::transport::common::http_header::HEADER_SESSION_ID;
use rmcp::{RoleServer, ServerHandler};
use serde_json::Value;

use super::describe;
use super::offered::Telling;
use super::session::{Handed, Place, Session, Shared, Step};
use super::sessions::{Busy, Sessions};
use crate::keys::Caller;

/// What clients may tell their model.
const INSTRUCTIONS: &str = "Calls that do not depend on each other's results can be sent together: those that touch different \
    things run at once, and those that touch the same things run in the order in which they were sent.";

/// A call that has arrived, as the transport marks it. Whoever takes the place first has it.
#[derive(Clone)]
pub(super) struct Arrived(Arc<Mutex<Option<Place>>>);

impl Arrived {
    pub(super) fn new(place: Place) -> Self {
        Self(Arc::new(Mutex::new(Some(place))))
    }

    fn take(&self) -> Option<Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// One session of the protocol.
pub(super) struct Server {
    shared: Shared,
    telling: OnceLock<Telling>,
    /// Whoever asked first; the session is nobody else's.
    caller: OnceLock<Caller>,
    session: OnceLock<Arc<Session>>,
    /// The sessions that this may be one of. Over standard streams there is one, which is never idle.
    sessions: Option<Arc<Sessions>>,
}

impl Server {
    pub(super) fn new(shared: Shared, sessions: Arc<Sessions>) -> Self {
        Self {
            shared,
            telling: OnceLock::new(),
            caller: OnceLock::new(),
            session: OnceLock::new(),
            sessions: Some(sessions),
        }
    }

    /// A server whose session has begun.
    pub(super) fn with_session(shared: Shared, session: Arc<Session>) -> Self {
        Self {
            shared,
            telling: OnceLock::new(),
            caller: OnceLock::new(),
            session: OnceLock::from(session),
            sessions: None,
        }
    }

    /// Keeps the session, if the request names one, for as long as its call runs. A client that lost its connection may come
    /// back for the answer.
    fn busy(&self, context: &RequestContext<RoleServer>) -> Option<Busy> {
        let parts = context.extensions.get::<http::request::Parts>()?;
        self.sessions.as_ref()?.busy(parts.headers.get(HEADER_SESSION_ID)?.to_str().ok()?)
    }

    /// Lets the one in whose session this is.
    fn enter(&self, context: &RequestContext<RoleServer>) -> Result<&Caller, ErrorData> {
        let parts = context.extensions.get::<http::request::Parts>();
        // Standard streams belong to whoever started the process.
        let asks = parts.and_then(|parts| parts.extensions.get::<Caller>()).cloned().unwrap_or_else(Caller::local);
        let owner = self.caller.get_or_init(|| asks.clone());
        if *owner != asks {
            return Err(ErrorData::invalid_request(
                "the session was begun with another key or another user's token: begin one anew",
                None,
            ));
        }
        Ok(owner)
    }

    fn hand_over(
        &self,
        request: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<Handed, ErrorData> {
        let caller = self.enter(context)?;
        let tool = ToolName::from(&*request.name);
        if self.shared.offered(caller.project.as_deref()).toolbox.get(&tool).is_none() {
            return Err(ErrorData::invalid_params(format!("Unknown tool: {tool}"), None));
        }
        if let Some(reason) = self.shared.closing.reason() {
            return Err(ErrorData::internal_error(reason, None));
        }
        let session = self.session.get_or_init(|| Arc::new(Session::start(&self.shared, caller.clone())));
        let arrived = context.extensions.get::<Arrived>().and_then(Arrived::take);
        let place = arrived.unwrap_or_else(|| session.place());
        Ok(place.fill(tool, Value::Object(request.arguments.unwrap_or_default())))
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build())
            .with_server_info(Implementation::new("fanout", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        let _ = self.telling.set(Telling::start(self.shared.offered.clone(), context.peer));
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let caller = self.enter(&context)?;
        Ok(ListToolsResult::with_all_items(self.shared.offered(caller.project.as_deref()).tools.clone()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let _busy = self.busy(&context);
        let handed = self.hand_over(request, &context)?;
        let says_end = context.extensions.get::<http::request::Parts>().is_some();
        let progress = context.meta.get_progress_token();
        let progress = progress.map(|token| Progress { token, peer: context.peer.clone(), says_end });
        tokio::select! {
            biased;
            // Nobody reads the answer to a cancelled call. What was handed over is dropped here, which cancels it.
            () = context.ct.cancelled() => Err(ErrorData::internal_error("the call was cancelled", None)),
            outcome = ended(handed, progress) => outcome.map(|outcome| describe::result(&outcome).into()),
        }
    }
}

/// Who wants to know how far a call is.
struct Progress {
    token: ProgressToken,
    peer: Peer<RoleServer>,
    /// Whether the end is told too, right before the result. Not over standard streams: there both are read in one piece, and
    /// the protocol's TypeScript SDK, which handles a result at once and a notification a moment later, reports an error.
    says_end: bool,
}

impl Progress {
    /// `step` is 0 when the call was taken and may have to wait, between 1 and 2 while it runs, and 2 at the end.
    async fn say(&self, step: f64, message: Option<&str>) {
        let mut param = ProgressNotificationParam::new(self.token.clone(), step).with_total(2.0);
        param.message = message.map(str::to_owned);
        // Who cannot be told is gone, and its call is cancelled elsewhere.
        let _ = self.peer.notify_progress(param).await;
    }

    /// Says each step until the call has ended. By the protocol, each is further than the one before.
    async fn say_all(&self, handed: &mut Handed) {
        let mut said = 0.0;
        self.say(said, Some("waiting")).await;
        while let Some(taken) = handed.steps.recv().await {
            let (step, message) = match &taken {
                Step::Started => (1.0, Some("started")),
                Step::Progressed(progress) => (1.0 + share(progress), progress.message.as_deref()),
            };
            if step > said && step < 2.0 {
                said = step;
                self.say(step, message).await;
            }
        }
    }
}

/// How much of a call is done, between 0 and 1; of what has no known end, ever less is added.
fn share(progress: &fanout_core::tool::Progress) -> f64 {
    let done = progress.done.max(0.0);
    let share = match progress.total {
        Some(total) if total > 0.0 => done / total,
        _ => done / (done + 1.0),
    };
    share.clamp(0.0, 1.0)
}

/// Waits for the outcome, and says on the way how far the call is.
async fn ended(mut handed: Handed, progress: Option<Progress>) -> Result<Arc<Outcome>, ErrorData> {
    if let Some(progress) = &progress {
        progress.say_all(&mut handed).await;
    }
    let outcome = (&mut handed.outcome).await;
    let outcome = outcome.map_err(|_| ErrorData::internal_error("the session ended before the call did", None))?;
    if let Some(progress) = progress.filter(|progress| progress.says_end) {
        progress.say(2.0, Some(outcome.error_code().map_or("ok", |code| code.as_str()))).await;
    }
    Ok(outcome)
}
