//! In whose name a transaction runs.
//!
//! From an attempt: the claims of the end user's verified token. To `postgres`, which sets them in the transaction.
//!
//! Nothing is verified here: a token has claims only once somebody has verified it.

use std::time::SystemTime;

use fanout_core::tool::{Attempt, ToolError};
use serde_json::{Map, Value};

/// The end user in whose name a transaction runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    /// The database's role.
    pub(super) role: String,
    /// The verified claims, as JSON.
    pub(super) claims: String,
}

/// Who the attempt is for.
///
/// # Errors
/// [`ToolError::NotPermitted`] without a verified token that still holds and names a role.
pub(super) fn user(attempt: &Attempt) -> Result<User, ToolError> {
    let tool = &attempt.tool;
    let refused = |why: &str| {
        ToolError::NotPermitted(format!("`{tool}` acts in the name of an end user, and {why}. Nothing was done"))
    };
    let Some(token) = &attempt.caller_token else {
        return Err(refused(
            "this run has no end user's token (the header `fanout-user-token` of a request to the gateway): go on without \
             it, or have the user sign in",
        ));
    };
    let Some(claims) = token.claims() else {
        return Err(refused("the token of this run was not verified: [server] needs `jwt`"));
    };
    if token.is_expired(SystemTime::now()) {
        return Err(refused("the token of this run has expired: the user must sign in again"));
    }
    let Some(role) = role(claims) else {
        return Err(refused("the token of this run names no `role` of the database"));
    };
    Ok(User { role: role.to_owned(), claims: Value::Object(Map::clone(claims)).to_string() })
}

fn role(claims: &Map<String, Value>) -> Option<&str> {
    let role = claims.get("role")?.as_str()?;
    // `none` is no role: it stands for the one that the connection was opened with.
    let is_one = !role.is_empty() && !role.contains('\0') && !role.eq_ignore_ascii_case("none");
    is_one.then_some(role)
}
