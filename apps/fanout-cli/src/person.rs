//! The person at the terminal, asked about calls that need their approval.
//!
//! From `fanout run` and its kin. To standard error, and back from standard input, one question at a time.
//! Where no person sits, calls wait as they do elsewhere, and are denied.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::Arc;

use fanout_core::approval::{Approver, Asked, Question};
use fanout_core::call::ApprovalId;
use fanout_core::tool::BoxFuture;
use fanout_host::approvals::Approvals;
use fanout_journal::approvals::{Approval, Viewer, now_ms};
use tokio::sync::Mutex;

use crate::loaded::Loaded;
use crate::show::{STRONG, say, styled};

/// Who decides here, as records name them.
const BY: &str = "terminal";

/// What asks for calls that came by standard input, which is no person's then.
pub fn waiting(loaded: &Loaded) -> Arc<dyn Approver> {
    loaded.approvals().approver(None, Some(loaded.config.run.approval_wait))
}

/// What asks for a run whose prompt is on the command line.
pub fn approver(loaded: &Loaded) -> Arc<dyn Approver> {
    if !sits() {
        return waiting(loaded);
    }
    let approvals = loaded.approvals();
    Arc::new(Person { asker: approvals.approver(None, None), approvals, listens: Arc::default() })
}

/// Whether somebody sits there who can be asked.
pub fn sits() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Whoever may use the machine's own files may decide all.
pub fn at_terminal() -> Viewer {
    Viewer { caller: BY.into(), project: None, is_admin: true, may_approve: true }
}

/// Somebody who reads one question at a time. Others may decide it too, where it is kept: the first decision counts.
struct Person {
    approvals: Approvals,
    asker: Arc<dyn Approver>,
    listens: Arc<Mutex<()>>,
}

impl Approver for Person {
    fn ask(&self, question: Question) -> BoxFuture<'static, Result<Asked, String>> {
        let (approvals, listens) = (self.approvals.clone(), Arc::clone(&self.listens));
        let text = format!("\n{} {}", styled(STRONG, format!("may `{}` run with", question.tool)), question.input);
        let asked = self.asker.ask(question);
        Box::pin(async move {
            let asked = asked.await?;
            tokio::spawn(put(approvals, asked.approval.clone(), text, listens));
            Ok(asked)
        })
    }
}

/// Shows a question once its turn has come, and keeps what is typed.
async fn put(approvals: Approvals, id: ApprovalId, text: String, listens: Arc<Mutex<()>>) {
    let turn = listens.lock_owned().await;
    let is_open = |found: Approval| found.state(now_ms()) == "open";
    if !approvals.get(&id, &at_terminal()).await.is_ok_and(is_open) {
        return;
    }
    // The thread keeps its turn: what is typed belongs to the question on the screen, even if its call is over.
    let answer = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        say(text);
        answered(&mut std::io::stdin().lock())
    });
    let Ok((is_approved, words)) = answer.await else { return };
    if let Err(error) = approvals.decide(&id, &at_terminal(), is_approved, words).await {
        say(error);
    }
}

/// Reads lines until one says yes or no; words may stand behind it. The end of the input is a no.
fn answered(input: &mut impl BufRead) -> (bool, Option<String>) {
    loop {
        let _ = write!(std::io::stderr(), "y or n, and words for the model if you like: ");
        let mut line = String::new();
        match input.read_line(&mut line) {
            Ok(0) | Err(_) => return (false, None),
            Ok(_) => {}
        }
        let line = line.trim();
        let (word, words) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let words = Some(words.trim().to_owned()).filter(|words| !words.is_empty());
        match word.trim_end_matches([',', ':', '.']).to_ascii_lowercase().as_str() {
            "y" | "yes" => return (true, words),
            "n" | "no" => return (false, words),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(typed: &str, is_approved: bool, words: Option<&str>) {
        assert_eq!(answered(&mut typed.as_bytes()), (is_approved, words.map(str::to_owned)));
    }

    #[test]
    fn a_line_says_yes_or_no_and_what_follows_are_words_for_the_model() {
        check("y\n", true, None);
        check("Yes, but only once\n", true, Some("but only once"));
        check("n too much\n", false, Some("too much"));
    }

    #[test]
    fn what_is_neither_is_asked_again_and_the_end_is_a_no() {
        check("maybe\n\nyep\nno\n", false, None);
        check("", false, None);
    }
}
