//! What one transaction carries out: a call, or all calls of an atomic plan.
//!
//! From the tool: an attempt. To `postgres` and `sqlite`: the members in their order, each with its input once those before it
//! are done; and back to the plan what each came to. A call by itself is a unit of one member.
//!
//! No database is known here.

use std::sync::Arc;
use std::time::Duration;

use fanout_core::outcome::Output;
use fanout_core::plan::{Atomic, AtomicPart};
use fanout_core::tool::{Attempt, ToolError};
use serde::Serialize;
use serde_json::Value;

use super::once::OutcomeRow;
use super::tool::Part;
use super::transaction::{Rows, Transaction};

/// All of it is kept, or nothing.
#[derive(Debug)]
pub(super) struct Unit {
    /// What it is called in messages.
    pub(super) who: String,
    /// At least one.
    pub(super) members: Vec<Member>,
    /// What keeps it from being carried out twice; nothing that only reads has one.
    pub(super) row: Option<OutcomeRow>,
    given: Given,
}

/// One call.
#[derive(Debug)]
pub(super) struct Member {
    /// What it is called in messages.
    pub(super) who: String,
    pub(super) transaction: Arc<Transaction>,
}

#[derive(Debug)]
enum Given {
    /// The input of the one call.
    Input(Arc<Value>),
    /// What fills the inputs of the members.
    Plan(Arc<Atomic>),
}

impl Unit {
    /// What an attempt at a call of this part is to carry out.
    ///
    /// # Errors
    /// [`ToolError::Failed`] for members that do not share their connections. Nothing was sent.
    pub(super) fn of(part: &Part, attempt: &Attempt) -> Result<Self, ToolError> {
        let who = format!("`{}`", attempt.tool);
        let Some(atomic) = attempt.atomic() else {
            let member = Member { who: who.clone(), transaction: Arc::clone(&part.transaction) };
            return Ok(Self::new(who, vec![member], Given::Input(Arc::clone(&attempt.input)), attempt));
        };
        let mut members = Vec::with_capacity(atomic.members().len());
        for (at, member) in atomic.members().iter().enumerate() {
            let who = format!("`{}` (`{}`)", member.label, member.tool());
            let its = atomic.part(at).and_then(|AtomicPart(its)| its.downcast_ref::<Part>());
            let Some(its) = its.filter(|its| its.database.is_same(&part.database)) else {
                return Err(ToolError::Failed(format!(
                    "{who} has other connections than the first call of the plan, so they cannot be one transaction. \
                     Nothing was done: send them in plans of their own"
                )));
            };
            members.push(Member { who, transaction: Arc::clone(&its.transaction) });
        }
        Ok(Self::new(who, members, Given::Plan(Arc::clone(atomic)), attempt))
    }

    fn new(who: String, members: Vec<Member>, given: Given, attempt: &Attempt) -> Self {
        let unit = Self { who, members, row: None, given };
        let row = if unit.reads_only() { None } else { OutcomeRow::of(attempt) };
        Self { row, ..unit }
    }

    /// The input of a member. Those before it have answered.
    pub(super) fn input(&self, member: usize) -> Result<Arc<Value>, ToolError> {
        match &self.given {
            Given::Input(input) => Ok(Arc::clone(input)),
            Given::Plan(atomic) => atomic.input(member),
        }
    }

    /// What the next member came to, also for those that refer to it.
    pub(super) fn answered(&self, rows: &[Rows]) -> Result<Output, ToolError> {
        let output = output(rows)?;
        self.tell(&output);
        Ok(output)
    }

    /// What all members came to in an attempt before this one, by the text of their row.
    pub(super) fn before(&self, row: &OutcomeRow, text: &str) -> Result<Vec<Output>, ToolError> {
        let outputs = row.outputs(&self.who, text, self.members.len())?;
        outputs.iter().for_each(|output| self.tell(output));
        Ok(outputs)
    }

    fn tell(&self, output: &Output) {
        if let Given::Plan(atomic) = &self.given {
            atomic.answer(output.clone());
        }
    }

    /// The database itself refuses every write.
    pub(super) fn reads_only(&self) -> bool {
        self.members.iter().all(|member| member.transaction.reads_only)
    }

    /// What the database locks is all that was read: no stricter isolation is needed. What is safe by itself is not yet so beside
    /// others: a row that it did not find is not locked, and may be there when the next one looks.
    pub(super) fn locks_what_it_reads(&self) -> bool {
        match self.members.as_slice() {
            [one] => one.transaction.is_one_row || one.transaction.finds_each,
            all => all.iter().all(|member| member.transaction.finds_each),
        }
    }

    /// How many statements it has in all.
    pub(super) fn statements(&self) -> usize {
        self.transactions().map(|transaction| transaction.steps.len()).sum()
    }

    pub(super) fn transactions(&self) -> impl Iterator<Item = &Transaction> {
        self.members.iter().map(|member| &*member.transaction)
    }

    /// So long it may take until it has begun: what is given up by then was never sent.
    pub(super) fn begin_max(&self) -> Duration {
        self.transactions().map(|transaction| transaction.begin_max).min().unwrap_or_default()
    }

    /// It could not begin in time.
    pub(super) fn not_begun(&self, what: &str) -> ToolError {
        ToolError::NotSent(format!("{} had {what} its database within {:?}", self.who, self.begin_max()))
    }
}

/// More bytes than this of one call's rows are not kept. The number is the design's, for any output.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// More than this of all rows of one unit are not kept: four of the largest answers.
const ANSWERS_MAX: usize = 4 * ANSWER_MAX;

/// The bytes of the rows that are kept until the unit has ended.
#[derive(Debug, Default)]
pub(super) struct Kept {
    of_call: usize,
    of_all: usize,
}

impl Kept {
    /// What comes is another call's.
    pub(super) fn next(&mut self) {
        self.of_call = 0;
    }

    /// # Errors
    /// [`ToolError::TooLarge`]: what was done must be undone.
    pub(super) fn add(&mut self, who: &str, bytes: usize) -> Result<(), ToolError> {
        self.of_call += bytes;
        self.of_all += bytes;
        let too_large = |whose: &str, most: usize| {
            let most = most / 1024 / 1024;
            Err(ToolError::TooLarge(format!(
                "{whose} answered with more than {most} MiB; nothing was kept. Ask for fewer rows, or for fewer columns"
            )))
        };
        if self.of_call > ANSWER_MAX {
            return too_large(&format!("{who} was"), ANSWER_MAX);
        }
        if self.of_all > ANSWERS_MAX {
            return too_large(&format!("with {who} all calls of the plan together were"), ANSWERS_MAX);
        }
        Ok(())
    }
}

/// One statement's answer stands by itself; those of several in a list, in their order.
fn output(answers: &[Rows]) -> Result<Output, ToolError> {
    match answers {
        [one] => shown(one),
        all => shown(&Results { results: all }),
    }
}

/// As text, whose columns keep their order, and as data.
fn shown(answer: &impl Serialize) -> Result<Output, ToolError> {
    let both = serde_json::to_string(answer).and_then(|text| Ok((text, serde_json::to_value(answer)?)));
    // It cannot fail: every value is JSON already.
    let (text, structured) = both.map_err(|error| ToolError::Panicked(error.to_string()))?;
    Ok(Output { structured: Some(structured), ..Output::text(text) })
}

#[derive(Serialize)]
struct Results<'a> {
    results: &'a [Rows],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_bound_and_all_together_have_theirs() {
        let mut kept = Kept::default();
        for _ in 0..4 {
            assert_eq!(kept.add("`a`", ANSWER_MAX), Ok(()));
            kept.next();
        }
        let Err(ToolError::TooLarge(told)) = kept.add("`b` (`read`)", 1) else { panic!("it was kept") };
        assert!(told.starts_with("with `b` (`read`) all calls of the plan together were answered"), "{told}");
        let Err(ToolError::TooLarge(told)) = Kept::default().add("`a`", ANSWER_MAX + 1) else { panic!("it was kept") };
        assert!(told.starts_with("`a` was answered with more than 16 MiB"), "{told}");
    }
}
