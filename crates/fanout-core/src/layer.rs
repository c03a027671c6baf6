//! One attempt as a `tower` service, so that a program can put its own layers around it.
//!
//! From [`toolbox`](crate::toolbox), which builds the stack. To [`run`](crate::run), which calls it once per attempt.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use crate::outcome::Output;
use crate::tool::{Attempt, BoxFuture, Tool, ToolError};

type Answer = BoxFuture<'static, Result<Output, ToolError>>;

/// A tool with the layers around it. Cloning copies a pointer.
#[derive(Clone)]
pub struct ToolService(Arc<dyn Run>);

/// Something that runs one attempt, whatever it is made of.
trait Run: Send + Sync {
    fn run(&self, attempt: Attempt) -> Answer;
}

struct Bare(Arc<dyn Tool>);

impl Run for Bare {
    fn run(&self, attempt: Attempt) -> Answer {
        self.0.call(attempt)
    }
}

struct Wrapped<S>(S);

impl<S> Run for Wrapped<S>
where
    S: Service<Attempt, Response = Output, Error = ToolError> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    fn run(&self, attempt: Attempt) -> Answer {
        let mut service = self.0.clone();
        Box::pin(async move {
            std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(attempt).await
        })
    }
}

impl ToolService {
    pub(crate) fn new(tool: Arc<dyn Tool>) -> Self {
        Self(Arc::new(Bare(tool)))
    }

    pub(crate) fn wrap<S>(service: S) -> Self
    where
        S: Service<Attempt, Response = Output, Error = ToolError> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        Self(Arc::new(Wrapped(service)))
    }

    pub(crate) fn run(&self, attempt: Attempt) -> Answer {
        self.0.run(attempt)
    }
}

impl Service<Attempt> for ToolService {
    type Response = Output;
    type Error = ToolError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ToolError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Answer {
        self.run(attempt)
    }
}

impl fmt::Debug for ToolService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ToolService")
    }
}
