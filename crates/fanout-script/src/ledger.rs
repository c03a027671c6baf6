//! What the server received and what it refused, in order.
//!
//! From [`server`](crate::server). To tests, through [`Server::requests`](crate::Server::requests) and
//! [`Server::violations`](crate::Server::violations). It decides nothing but one thing: whether a body that got a 400 came again.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use crate::raw;
use crate::refusal::Rule;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its number, from 0, in order of arrival.
    pub index: usize,
    /// The path.
    pub path: String,
    /// The headers in order; the values of `x-api-key` and `authorization` are `[redacted]`.
    pub headers: Vec<(String, String)>,
    /// The body, byte for byte; empty when the server was told not to keep bodies.
    pub body: Bytes,
    /// When its head had arrived, since the start of the server.
    pub at: Duration,
}

impl Received {
    /// The first value of the header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// One rule broken by one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The request's [`Received::index`].
    pub request: usize,
    /// The rule.
    pub rule: Rule,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The message of the answer.
    pub message: String,
}

/// The two lists, and the bodies that got a 400.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) received: Vec<Received>,
    pub(crate) violations: Vec<Violation>,
    arrived: usize,
    refused: HashSet<u64>,
}

impl Ledger {
    /// Enters a request and returns its number.
    pub(crate) fn enter(&mut self, path: &str, headers: &HeaderMap, body: &Bytes, at: Duration, keep: bool) -> usize {
        let index = self.arrived;
        self.arrived += 1;
        if keep {
            let headers = headers
                .iter()
                .map(|(name, value)| {
                    let secret = name == "x-api-key" || name == "authorization";
                    let value = if secret { "[redacted]".into() } else { String::from_utf8_lossy(value.as_bytes()) };
                    (name.as_str().to_owned(), value.into_owned())
                })
                .collect();
            self.received.push(Received { index, path: path.to_owned(), headers, body: body.clone(), at });
        }
        index
    }

    /// Remembers that this body got a 400.
    pub(crate) fn refused(&mut self, path: &str, body: &[u8]) {
        self.refused.insert(raw::hash((path, body)));
    }

    /// Whether this body has got a 400 before.
    pub(crate) fn was_refused(&self, path: &str, body: &[u8]) -> bool {
        !self.refused.is_empty() && self.refused.contains(&raw::hash((path, body)))
    }
}
