//! A model whose failures are told as they happen.
//!
//! From the client of the model. To the agent, unchanged; and to people, who would otherwise look at a still screen while
//! the API asks for a minute's patience.

use std::sync::Arc;

use fanout_anthropic::{Again, BoxFuture, Model, ModelError, Part, Request, Response};

use super::print::{first_line, say};
use super::{QUIET, styled, time};

/// Says each failed request that may go again on standard error; those that end the run are said at its end.
pub struct Told(pub Arc<dyn Model>);

impl Model for Told {
    fn respond<'a>(
        &'a self,
        request: &'a Request,
        on_part: &'a mut (dyn FnMut(Part<'_>) + Send),
    ) -> BoxFuture<'a, Result<Response, ModelError>> {
        Box::pin(async move {
            let answered = self.0.respond(request, on_part).await;
            if let Err(error) = &answered {
                let wait = match error.again() {
                    Again::Never => return answered,
                    Again::After(wait) => format!("; it asks for a wait of {}", time(wait)),
                    Again::Backoff => String::new(),
                };
                say(format!("{:10}{}{wait}", "", styled(QUIET, first_line(&error.to_string()))));
            }
            answered
        })
    }
}
