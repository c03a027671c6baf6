//! Bundles: calls that stand for others, their parts, and are answered when all of those are.
//!
//! From the driver: the parts, as they become known. To [`Step::Gather`](super::Step::Gather), once the last is answered.

use std::sync::Arc;
use std::time::Duration;

use super::terms::{NewPart, Step, Treatment};
use super::{Phase, Schedule};
use crate::call::{CallId, ToolName};
use crate::effects::{Effects, Source};
use crate::graph::{Ix, Opened};
use crate::outcome::{CallError, Output};

impl Schedule {
    /// A bundle whose parts come next, each by [`Schedule::arrive_in`] or [`Schedule::refuse`]; [`Schedule::whole`] when all
    /// of them are there. Nobody waits for it.
    pub fn bundle(&mut self, call: CallId, tool: ToolName) -> Ix {
        let treatment = Treatment::inert(call, tool, Arc::clone(&self.unlimited));
        self.push(treatment, Phase::Open, true, None);
        let call = self.graph.add(Effects::none(Source::function()), true, Vec::new(), &mut Vec::new());
        self.items[call].parts_open = 1;
        call
    }

    /// All parts of this bundle are there.
    pub fn whole(&mut self, bundle: Ix) {
        self.part_answered(bundle);
    }

    /// The answer to [`Step::Prepare`] for a call that is a bundle: these are its parts, in program order, or there can be
    /// none of them. A part that cannot run is answered at once with its error.
    pub fn opened(&mut self, call: Ix, parts: Result<Vec<NewPart>, CallError>, now: Duration) -> Opened {
        if self.items[call].phase != Phase::Waiting {
            return Opened::default();
        }
        let (mut changes, mut opened, mut refused) = (Vec::new(), Opened::default(), Vec::new());
        match parts {
            Ok(new) => {
                self.items[call].phase = Phase::Open;
                // It is not whole before all of them are there.
                self.items[call].parts_open = 1;
                let mut parts = Vec::with_capacity(new.len());
                for NewPart { treatment, part, error } in new {
                    refused.extend(error.map(|error| (self.items.len(), error)));
                    self.push(treatment, Phase::Waiting, part.settled, Some(call));
                    parts.push(part);
                }
                opened = self.graph.open(call, parts, &mut changes);
                for (part, error) in refused {
                    self.bypass(part, error, &mut changes);
                }
                let new = self.graph.parts(call).map(<[Ix]>::to_vec).unwrap_or_default();
                self.apply(changes, now);
                for part in new {
                    self.ask_beside(part, now);
                }
                self.part_answered(call);
            }
            Err(error) => {
                self.bypass(call, error, &mut changes);
                self.apply(changes, now);
            }
        }
        opened
    }

    /// The parts of a bundle, once they are known.
    pub fn parts(&self, bundle: Ix) -> Option<&[Ix]> {
        self.graph.parts(bundle)
    }

    /// The answer to [`Step::Gather`]: what the bundle came to. Nobody waits for it any longer.
    pub fn gathered(&mut self, bundle: Ix, result: Result<Output, CallError>, now: Duration) {
        if self.items[bundle].phase != Phase::Open {
            return;
        }
        let ok = matches!(&result, Ok(output) if !output.is_error);
        self.items[bundle].phase = Phase::Done;
        let mut changes = Vec::new();
        self.is_answered(bundle, result.map(Arc::new));
        self.graph.answer(bundle, ok, &mut changes);
        self.graph.leave(bundle, &mut changes);
        self.apply(changes, now);
    }

    pub(super) fn part_answered(&mut self, bundle: Ix) {
        let item = &mut self.items[bundle];
        item.parts_open -= 1;
        if item.parts_open == 0 {
            self.steps.push_back(Step::Gather(bundle));
        }
    }
}
