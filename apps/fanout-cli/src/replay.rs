//! `fanout runs replay`: a run of the journal once more, under a new id, and what came out otherwise.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use fanout_agent::{Cancel, Conversation, new_run_id};
use fanout_anthropic::{Message, Model, Raw};
use fanout_core::call::{Call, RunId};
use fanout_core::event::{Event, Recorder, RunKind};
use fanout_core::timeline::{Figures, Timeline};
use fanout_host::build::{Purpose, build_model};
use fanout_host::lines::{Used, run_ended};
use fanout_host::options::agent_options;
use fanout_host::runs::{Difference, Recording, Replayed, Story, differences};
use fanout_journal::Told;
use fanout_journal::store::{Row, RunState};
use serde_json::{Value, json};

use crate::args::{Common, RunsReplay};
use crate::call::run_calls;
use crate::content::Asked;
use crate::exit::Ended;
use crate::interrupt::on_interrupt;
use crate::loaded::{Loaded, NOTICES_MAX};
use crate::run::{Asking, ask};
use crate::runs::find;
use crate::show::{
    ERROR, FINE, STRONG, Watcher, figures, give, give_styled, plain, print_line, say, styled, waterfall,
};

/// How the run once more came out, beside what it is compared by.
struct Again {
    run: RunId,
    status: &'static str,
    reason: Option<String>,
    used: Used,
}

/// Keeps what a run is compared by.
#[derive(Default)]
struct Compared(Mutex<Story>);

impl Recorder for Compared {
    fn record(&self, event: &Event) {
        self.story().take(&event.what);
    }
}

impl Compared {
    fn story(&self) -> MutexGuard<'_, Story> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs it again, and shows the differences.
pub async fn replay(common: &Common, wanted: &RunsReplay) -> anyhow::Result<Ended> {
    // Without --live nothing is called, so no secret is needed.
    let mut loaded = Loaded::read(common, if wanted.live { Purpose::Run } else { Purpose::Look }).await?;
    loaded.open_journal().await?;
    let replayed = replay_from(common, &mut loaded, wanted).await;
    loaded.close_journal().await;
    replayed
}

async fn replay_from(common: &Common, loaded: &mut Loaded, wanted: &RunsReplay) -> anyhow::Result<Ended> {
    let journal = loaded.journal().context("nothing is kept: `url` of [store] is \"memory:\"")?;
    let row = find(journal, &wanted.run).await?;
    let told = journal.events(&row.run).await?;
    let Recording { given, answers } = Recording::read(&row, &told)?;
    let (watcher, compared, cancel) =
        (Arc::new(Watcher::new(common.json)), Arc::<Compared>::default(), Cancel::default());
    let recorder = (Arc::clone(&watcher), Arc::clone(&compared));
    let again = if wanted.live {
        let notices = loaded.notices()?;
        let again = go(loaded, &row, given, None, Arc::new((recorder, notices.clone())), &cancel).await;
        tokio::join!(loaded.gone(), notices.close(NOTICES_MAX));
        again?
    } else {
        let (model, toolbox) = answers.equipment(&loaded.toolbox, cancel.clone())?;
        loaded.toolbox = toolbox;
        go(loaded, &row, given, Some(model), Arc::new(recorder), &cancel).await?
    };
    let (then, before) = read(&row, &told);
    let found = differences(&then, &compared.story());
    let timeline = watcher.timeline();
    if common.json {
        for difference in &found {
            let mut line = difference.json();
            line["run"] = json!(again.run.as_str());
            print_line(&line);
        }
        let run = again.run.as_str();
        let mut line = run_ended(run, again.status, again.reason.as_deref(), timeline.figures(), &again.used);
        (line["replay_of"], line["differences"]) = (json!(row.run.as_str()), json!(found.len()));
        give(&line.to_string())?;
    } else {
        if timeline.turns().iter().any(|turn| !turn.bars.is_empty()) {
            say(format!("\n{}\n", waterfall(&timeline)));
            say(format!("then: {}", figures(&before)));
            say(format!("now:  {}\n", figures(&timeline.figures())));
        }
        give_styled(&in_words(&row.run, &again, &then, &found))?;
    }
    let is_interrupted = again.status == "cancelled" && row.state != RunState::Cancelled;
    Ok(match (is_interrupted, found.is_empty()) {
        (true, _) => Ended::Interrupted,
        (false, true) => Ended::Done,
        (false, false) => Ended::Failed,
    })
}

/// What a run is compared by, and its figures.
fn read(row: &Row, told: &[Told]) -> (Story, Figures) {
    let (mut story, mut timeline) = (Story::default(), Timeline::default());
    for told in told {
        story.take(&told.what);
        timeline.take(&Event { run: row.run.clone(), at: told.at, what: told.what.clone() });
    }
    (story, timeline.figures())
}

/// Runs it, with this model and the tools that are loaded; without a model with the one that is configured.
async fn go(
    loaded: &Loaded,
    row: &Row,
    given: Replayed,
    recorded: Option<Arc<dyn Model>>,
    told: Arc<dyn Recorder>,
    cancel: &Cancel,
) -> anyhow::Result<Again> {
    let kind = |live| if recorded.is_some() { RunKind::Replay } else { live };
    match given {
        Replayed::Batch(calls) => batch(loaded, calls, kind(RunKind::Batch), told, cancel).await,
        Replayed::Agent(given) => {
            let kind = kind(RunKind::Agent);
            let model = match recorded {
                Some(model) => model,
                None => Arc::new(
                    build_model(&loaded.config.model, &loaded.environment)
                        .context("there is no model to ask; without --live the recorded answers are taken")?,
                ),
            };
            let mut options = agent_options(&loaded.config, &given.model);
            (options.max_tokens, options.system) = (given.max_tokens, given.system);
            let messages = given.messages.iter().map(|raw| Raw::parse(raw.get()).and_then(Message::parse));
            let messages: Vec<Message> = messages.collect::<Result<_, _>>().context("what it was given")?;
            let asking = Asking { model, options, kind, title: &row.title, told, cancel: cancel.clone() };
            let (run, report) = ask(loaded, asking, Conversation::new(messages)).await?;
            let used =
                Used { turns: report.turns, calls: report.calls, usage: report.usage, cost_usd: report.cost_usd };
            Ok(Again { run, status: report.status.as_str(), reason: report.reason, used })
        }
    }
}

async fn batch(
    loaded: &Loaded,
    calls: Vec<Call>,
    kind: RunKind,
    told: Arc<dyn Recorder>,
    cancel: &Cancel,
) -> anyhow::Result<Again> {
    let (run, stopping) = (new_run_id(), cancel.clone());
    on_interrupt(&loaded.programs, move || stopping.cancel("interrupted"))?;
    let asked = Asked { calls, cut_off: None };
    let (_, calls, stopped) = run_calls(loaded, asked, (run.clone(), kind), told, cancel).await?;
    let used = Used { calls: u32::try_from(calls).unwrap_or(u32::MAX), ..Used::default() };
    let (status, reason) = stopped.map_or(("done", None), |stopped| (stopped.status, Some(stopped.reason)));
    Ok(Again { run, status, reason, used })
}

/// What differs, for people.
fn in_words(run: &RunId, again: &Again, then: &Story, found: &[Difference]) -> String {
    let mut text = String::new();
    for difference in found {
        let what = difference.what;
        let place = difference.at.as_ref().map(|(turn, position)| match turn {
            0 => format!("call {position}: "),
            _ => format!("turn {turn}, call {position}: "),
        });
        let (then, now) = excerpts(&words(&difference.then), &words(&difference.now));
        let place = place.unwrap_or_default();
        text += &format!("{}\n  then: {then}\n  now:  {now}\n", styled(STRONG, format!("{place}{what}")));
    }
    let (turns, calls) = then.size();
    let count = match found.len() {
        0 => styled(FINE, format!("no differences: {calls} calls, {turns} turns")),
        1 => styled(ERROR, "1 difference"),
        count => styled(ERROR, format!("{count} differences")),
    };
    let reason = again.reason.as_deref().map(|reason| format!(" ({})", plain(reason))).unwrap_or_default();
    text + &format!("{count}; {} is `{}` once more, and ended as `{}`{reason}\n", again.run, run, again.status)
}

/// A value for people: of a result its text.
fn words(value: &Value) -> String {
    let texts = |blocks: &Vec<Value>| -> Option<Vec<String>> {
        blocks.iter().map(|block| block["text"].as_str().map(str::to_owned)).collect()
    };
    match (value, value["content"].as_array().and_then(texts)) {
        (_, Some(texts)) if value["is_error"] == true => format!("error: {}", texts.join(" ")),
        (_, Some(texts)) => texts.join(" "),
        (Value::Null, None) => "nothing".to_owned(),
        (Value::String(text), None) => text.clone(),
        (other, None) => other.to_string(),
    }
}

/// Two texts on a line each, from a little before the place where they part.
fn excerpts(then: &str, now: &str) -> (String, String) {
    let same = then.chars().zip(now.chars()).take_while(|(a, b)| a == b).count();
    let skip = same.saturating_sub(BEFORE);
    let excerpt = |text: &str| {
        let line = plain(text).replace(['\n', '\t'], " ");
        let shown: String = line.chars().skip(skip).take(EXCERPT_MAX).collect();
        let more = line.chars().count() > skip + EXCERPT_MAX;
        format!("{}{shown}{}", if skip > 0 { "…" } else { "" }, if more { "…" } else { "" })
    };
    (excerpt(then), excerpt(now))
}

/// So many characters are shown of what is the same before a difference.
const BEFORE: usize = 40;

/// The most characters of one side of a difference in a line.
const EXCERPT_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_shown_where_it_is() {
        assert_eq!(excerpts("a\nb", "a\nc"), ("a b".to_owned(), "a c".to_owned()));
        let long = "x".repeat(100);
        let (then, now) = excerpts(&format!("{long}1"), &format!("{long}2{long}{long}{long}"));
        assert_eq!(then, format!("…{}1", "x".repeat(BEFORE)));
        assert_eq!((now.chars().count(), now.ends_with('…')), (EXCERPT_MAX + 2, true));
    }
}
