//! The person at the terminal, asked about calls that need their approval.
//!
//! From `fanout run` and its kin. To standard error, and back from standard input, one question at a time.
//! Where no person sits, calls wait as they do elsewhere, and are denied.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::Arc;

use fanout_core::approval::{Approver, Asked, Decision, Question, Said};
use fanout_core::tool::BoxFuture;
use fanout_host::approvals::{Approvals, hash};
use fanout_host::config::Config;
use tokio::sync::Mutex;

use crate::show::{STRONG, say, styled};

/// Who decides here, as records name them.
const BY: &str = "terminal";

/// What asks for calls that came by standard input, which is no person's then.
pub fn waiting(config: &Config) -> Arc<dyn Approver> {
    Approvals::in_memory().approver(None, Some(config.run.approval_wait))
}

/// What asks for a run whose prompt is on the command line.
pub fn approver(config: &Config) -> Arc<dyn Approver> {
    if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        return Arc::new(Person::default());
    }
    waiting(config)
}

/// Somebody who reads one question at a time.
#[derive(Default)]
struct Person {
    listens: Arc<Mutex<()>>,
}

impl Approver for Person {
    fn ask(&self, question: Question) -> BoxFuture<'static, Result<Asked, String>> {
        let listens = Arc::clone(&self.listens);
        Box::pin(async move {
            let approval = format!("apr_{}", &hash(&question.tool, &question.input)[..24]).into();
            let decision = async move {
                let turn = listens.lock_owned().await;
                // The thread keeps its turn: what is typed belongs to the question on the screen, even if its call is over.
                let answer = tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    say(format!(
                        "\n{} {}",
                        styled(STRONG, format!("may `{}` run with", question.tool)),
                        question.input
                    ));
                    answered(&mut std::io::stdin().lock())
                });
                answer.await.unwrap_or(Decision::Expired)
            };
            Ok(Asked { approval, decision: Box::pin(decision) })
        })
    }
}

/// Reads lines until one says yes or no; words may stand behind it. The end of the input is a no.
fn answered(input: &mut impl BufRead) -> Decision {
    loop {
        let _ = write!(std::io::stderr(), "y or n, and words for the model if you like: ");
        let mut line = String::new();
        let said = |words: &str| {
            let words = words.trim();
            Said { by: Some(BY.into()), words: (!words.is_empty()).then(|| words.into()) }
        };
        match input.read_line(&mut line) {
            Ok(0) | Err(_) => return Decision::Denied(said("")),
            Ok(_) => {}
        }
        let line = line.trim();
        let (word, words) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match word.trim_end_matches([',', ':', '.']).to_ascii_lowercase().as_str() {
            "y" | "yes" => return Decision::Approved(said(words)),
            "n" | "no" => return Decision::Denied(said(words)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(typed: &str, decision: &str, words: Option<&str>) {
        let came = answered(&mut typed.as_bytes());
        let said = came.said().unwrap();
        assert_eq!((came.as_str(), said.words.as_deref(), said.by.as_deref()), (decision, words, Some("terminal")));
    }

    #[test]
    fn a_line_says_yes_or_no_and_what_follows_are_words_for_the_model() {
        check("y\n", "approved", None);
        check("Yes, but only once\n", "approved", Some("but only once"));
        check("n too much\n", "denied", Some("too much"));
    }

    #[test]
    fn what_is_neither_is_asked_again_and_the_end_is_a_no() {
        check("maybe\n\nyep\nno\n", "denied", None);
        check("", "denied", None);
    }
}
