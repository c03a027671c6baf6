//! The routes: one file per noun.
//!
//! From the door. To the rest of the gateway; nothing here runs a call or reads a key.
//!
//! Every route is put in through [`Routes`], which remembers its name: `/openapi.json` is held against that list.

mod approvals;
mod controls;
mod health;
mod openapi;
mod reload;
mod runs;
mod status;
mod tool_calls;
mod tools;

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, get, post};
use http::{Method, StatusCode, Uri};

use crate::error::ApiError;
use crate::gateway::Shared;

pub(crate) use runs::unkept;

/// A router that knows its routes by name.
pub(crate) struct Routes {
    pub(crate) router: Router<Arc<Shared>>,
    pub(crate) names: Vec<(Method, &'static str)>,
}

impl Routes {
    fn with(mut self, method: Method, path: &'static str, route: MethodRouter<Arc<Shared>>) -> Self {
        self.names.push((method, path));
        self.router = self.router.route(path, route);
        self
    }

    /// Another method of a route that is there.
    fn named(mut self, method: Method, path: &'static str) -> Self {
        self.names.push((method, path));
        self
    }
}

/// Every route that is ours alone.
pub(crate) fn routes() -> Routes {
    Routes { router: Router::new(), names: Vec::new() }
        .with(Method::POST, "/fanout/v1/tool_calls", post(tool_calls::run))
        .with(Method::POST, "/fanout/v1/tool_calls/explain", post(tool_calls::explain))
        .with(Method::GET, "/fanout/v1/tools", get(tools::list))
        .with(Method::POST, "/fanout/v1/runs", post(runs::submit).get(runs::list))
        .named(Method::GET, "/fanout/v1/runs")
        .with(Method::GET, "/fanout/v1/runs/{id}", get(runs::one))
        .with(Method::GET, "/fanout/v1/runs/{id}/events", get(runs::events))
        .with(Method::POST, "/fanout/v1/runs/{id}/decision", post(runs::decide))
        .with(Method::POST, "/fanout/v1/runs/{id}/cancel", post(runs::cancel))
        .with(Method::GET, "/fanout/v1/approvals", get(approvals::list))
        .with(Method::GET, "/fanout/v1/approvals/{id}", get(approvals::get))
        .with(Method::POST, "/fanout/v1/approvals/{id}", post(approvals::decide))
        .with(Method::POST, "/fanout/v1/controls", post(controls::order).get(controls::standing))
        .named(Method::GET, "/fanout/v1/controls")
        .with(Method::GET, "/fanout/v1/audit", get(controls::audit))
        .with(Method::GET, "/fanout/v1/status", get(status::status))
        .with(Method::POST, "/fanout/v1/reload", post(reload::reload))
        .with(Method::GET, "/livez", get(health::live))
        .with(Method::GET, "/readyz", get(health::ready))
        .with(Method::GET, "/metrics", get(health::metrics))
        .with(Method::GET, "/openapi.json", get(openapi::document))
}

/// No route is called so.
pub(crate) async fn unknown_path(uri: Uri) -> ApiError {
    let message = format!("there is no `{}` here; `GET /openapi.json` lists what there is", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, "unknown_path", message)
}

/// A route is called so, with another method.
pub(crate) async fn unknown_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("`{}` does not take {method}; `GET /openapi.json` lists what there is", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "unknown_method", message)
}
