//! What became of a request that came before, where only the journal knows.
//!
//! From a run: under which request it began, and what it was answered with. To a repetition of that request after a restart, or
//! at another process: the same answer, or the run, to go on with.

use std::time::Duration;

use bytes::Bytes;
use fanout_core::call::{CallerId, RunId};
use fanout_host::runs::Reopened;
use fanout_journal::Journal;
use fanout_journal::memo::Memo;
use fanout_journal::store::StoreError;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::canonical::Digest;
use super::exchange::Head;
use super::repeated::Ticket;

/// So often it is looked whether another process has answered.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What became of it.
pub(super) enum Earlier {
    /// Nothing is known of it.
    None,
    /// Its key came with another body.
    OtherBody,
    /// It was answered.
    Answered(Head, Bytes),
    /// It began a run that broke off, and is this process's now.
    BrokenOff(Box<Reopened>),
}

#[derive(Serialize, Deserialize)]
struct Form {
    run: String,
    body: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// Where it is kept for one request.
pub(super) struct Entry<'a> {
    pub(super) journal: &'a Journal,
    pub(super) caller: &'a CallerId,
    pub(super) ticket: &'a Ticket,
    pub(super) body: Digest,
}

impl Entry<'_> {
    /// What became of the request.
    ///
    /// # Errors
    /// [`StoreError`]: then nobody knows whether it had begun what cannot be done twice.
    pub(super) async fn find(&self) -> Result<Earlier, StoreError> {
        loop {
            let found = self.journal.store().recall(self.caller.to_string(), vec![vec![self.key()]]).await?;
            let text = found.into_iter().flatten().find_map(|memo| memo.text);
            let Some(form) = text.and_then(|text| serde_json::from_str::<Form>(&text).ok()) else {
                return Ok(Earlier::None);
            };
            if form.body != self.body.to_hex() {
                return Ok(Earlier::OtherBody);
            }
            if let Some((head, body)) = form.answer.and_then(Answer::read) {
                return Ok(Earlier::Answered(head, body));
            }
            let run = RunId::from(form.run);
            if self.journal.run(&run).await?.is_none_or(|row| row.state.is_over()) {
                let reopened = Reopened::take(self.journal, &run, self.caller).await?;
                return Ok(reopened.map_or(Earlier::None, |reopened| Earlier::BrokenOff(Box::new(reopened))));
            }
            // Another process answers it.
            sleep(LOOK_EVERY).await;
        }
    }

    /// Says which run the request began: before anything happens in it.
    pub(super) fn begun(&self, run: &RunId, keep: Duration) {
        self.keep(run, None, keep);
    }

    /// Says what it was answered with.
    pub(super) fn answered(&self, run: &RunId, head: &Head, body: &[u8], keep: Duration) {
        // Our own headers and the API's are text; whatever is not would be lost on most clients.
        let text =
            |(name, value): (&HeaderName, &HeaderValue)| Some((name.to_string(), value.to_str().ok()?.to_owned()));
        let Ok(body) = std::str::from_utf8(body) else { return };
        let headers = head.headers.iter().filter_map(text).collect();
        self.keep(run, Some(Answer { status: head.status.as_u16(), headers, body: body.to_owned() }), keep);
    }

    /// Forgets it: who repeats it begins anew.
    pub(super) fn forget(&self, run: &RunId) {
        self.keep(run, None, Duration::ZERO);
    }

    fn keep(&self, run: &RunId, answer: Option<Answer>, keep: Duration) {
        let form = Form { run: run.to_string(), body: self.body.to_hex(), answer };
        let text = serde_json::to_string(&form).unwrap_or_default();
        self.journal.keep(Memo { caller: self.caller.to_string(), keys: vec![self.key()], text, keep });
    }

    fn key(&self) -> String {
        format!("request/{}", self.ticket.digest().to_hex())
    }
}

impl Answer {
    fn read(self) -> Option<(Head, Bytes)> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            headers.append(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
        }
        Some((Head { status: StatusCode::from_u16(self.status).ok()?, headers }, Bytes::from(self.body)))
    }
}
