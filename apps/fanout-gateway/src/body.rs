//! The body of a request as text, within bounds of size and time.
//!
//! From the connection. To the routes, which read the JSON in it: the text is kept as it came.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use bytes::BytesMut;
use futures_util::StreamExt;
use serde::Deserialize;

use crate::error::ApiError;

/// The most bytes of a body: the API itself takes no larger request.
pub(crate) const BODY_MAX: usize = 32 * 1024 * 1024;

/// The longest that no byte of a body may arrive. A client that sends nothing holds a connection and memory.
const BODY_SILENCE_MAX: Duration = Duration::from_secs(30);

/// A whole body as text.
pub(crate) struct Text(pub(crate) String);

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let mut stream = request.into_body().into_data_stream();
        let mut body = BytesMut::new();
        loop {
            let next = tokio::time::timeout(BODY_SILENCE_MAX, stream.next()).await;
            let Some(piece) = next.map_err(|_| too_slow())? else { break };
            let piece = piece.map_err(|_| ApiError::invalid("the body broke off"))?;
            if body.len() + piece.len() > BODY_MAX {
                return Err(too_large());
            }
            body.extend_from_slice(&piece);
        }
        String::from_utf8(body.into()).map(Self).map_err(|_| ApiError::invalid("the body is not UTF-8 text"))
    }
}

impl Text {
    /// The text as what a route asks for.
    ///
    /// # Errors
    /// 400, with the place where it is something else.
    pub(crate) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        serde_json::from_str(&self.0).map_err(|error| ApiError::invalid(format!("the body is not right: {error}")))
    }
}

pub(crate) fn too_large() -> ApiError {
    let message = format!("the body is more than {BODY_MAX} bytes");
    ApiError::new(http::StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}

fn too_slow() -> ApiError {
    let message = format!("not one byte of the body for {} s", BODY_SILENCE_MAX.as_secs());
    ApiError::new(http::StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
}
