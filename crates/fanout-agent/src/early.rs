//! The batch of a response that may still stream.
//!
//! From [`running`](crate::running): blocks as they arrive, then the whole response. To the batch: each call once, in the
//! order of the response, or its refusal if there is no budget for it.
//!
//! What comes in while a response streams counts only once the response is whole: until then it can all be thrown away.

use std::sync::Arc;

use fanout_anthropic::Block;
use fanout_core::call::Call;
use fanout_core::event::What;
use fanout_core::outcome::CallError;
use fanout_core::run::{Batch, BatchError, Bounds};
use fanout_core::toolbox::Toolbox;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::client::{Place, Sorter};
use crate::turn::call_of;

/// A batch that takes calls while their response still streams.
pub(crate) struct Early<'run> {
    batch: Batch<'run>,
    turn: u32,
    sorter: Sorter<'run>,
    /// How many calls came, whoever runs them.
    seen: u32,
    given: Vec<Call>,
}

impl<'run> Early<'run> {
    pub(crate) fn open(mut batch: Batch<'run>, turn: u32, bounds: Bounds, sorter: Sorter<'run>) -> Self {
        batch.set_bounds(bounds);
        Self { batch, turn, sorter, seen: 0, given: Vec::new() }
    }

    /// The tools of the run.
    pub(crate) fn toolbox(&self) -> &Arc<Toolbox> {
        self.batch.run().toolbox()
    }

    /// Records something of the run.
    pub(crate) fn record(&self, what: impl FnOnce() -> What) {
        self.batch.run().record(what);
    }

    /// The next call that arrives, or the next thing that happens to one that runs.
    pub(crate) async fn progress(&mut self, arrived: &mut UnboundedReceiver<Block>) {
        tokio::select! {
            biased;
            Some(block) = arrived.recv() => self.take(&block),
            () = self.batch.progress() => {}
        }
    }

    fn take(&mut self, block: &Block) {
        let Some(call) = call_of(self.seen, block) else { return };
        self.seen = self.seen.saturating_add(1);
        if self.sorter.place(&call) == Place::Run {
            // A second call of one id is found again when the response is whole, and reported there.
            let _ = self.give(call);
        }
    }

    fn give(&mut self, call: Call) -> Result<(), BatchError> {
        self.batch.call(call.clone())?;
        self.given.push(call);
        Ok(())
    }

    /// The response is whole, and these are its calls to run: gives the batch those that it does not have yet.
    ///
    /// # Errors
    /// [`BatchError`] for calls that cannot stand in one batch; nothing but repeatable reads can have started.
    pub(crate) fn complete(&mut self, calls: &[Call]) -> Result<(), BatchError> {
        if !calls.starts_with(&self.given) {
            self.start_over("the blocks came in another order than the response has");
        }
        calls[self.given.len()..].iter().try_for_each(|call| self.give(call.clone()))
    }

    /// None of these calls runs: each is answered with this error, and what came in early is thrown away.
    ///
    /// # Errors
    /// [`BatchError`] for calls that cannot stand in one batch.
    pub(crate) fn refuse(&mut self, calls: &[Call], error: &CallError) -> Result<(), BatchError> {
        self.start_over(&error.message);
        calls.iter().try_for_each(|call| self.batch.refuse(call, error.clone()))
    }

    /// What came in counts: the calls may run.
    pub(crate) fn commit(self) -> Batch<'run> {
        let mut batch = self.batch;
        batch.commit();
        batch
    }

    /// Throws all outcomes away, and begins anew without a call.
    fn start_over(&mut self, reason: &str) {
        if !self.given.is_empty() {
            self.batch.restart(reason);
            self.tell_discarded(reason);
            self.given.clear();
        }
    }

    /// Throws all outcomes away.
    pub(crate) fn discard(mut self, reason: &str) {
        self.batch.cancel(reason);
        if !self.given.is_empty() {
            self.tell_discarded(reason);
        }
        self.batch.discard(reason);
    }

    fn tell_discarded(&self, reason: &str) {
        let turn = self.turn;
        self.record(|| What::TurnDiscarded { turn, reason: reason.to_owned() });
    }
}
