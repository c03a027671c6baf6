//! Random scripts, random faults, random bounds, and a stop at a random moment: what holds always.
//!
//! A failure prints its seed; `FANOUT_SEED` runs that one alone, `FANOUT_SCHEDULES` sets how many are run.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use fanout_agent::{Report, Status};
use fanout_script::{Block, Fault, Turn};

use crate::stage::{Stage, call, end_of, told};

/// So many cases where the environment names no number.
const CASES: u64 = 150;

/// Numbers that depend on the seed alone.
struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        let mut hasher = DefaultHasher::new();
        (self.seed, self.thrown).hash(&mut hasher);
        self.thrown += 1;
        usize::try_from(hasher.finish() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn of<'a>(&mut self, among: &[&'a str]) -> &'a str {
        among[self.below(among.len())]
    }
}

fn block(dice: &mut Dice, id: &str) -> Block {
    match dice.below(13) {
        0 => Block::text("I look."),
        1 => Block::thinking("hm", "sig"),
        2 => Block::redacted_thinking("x+/="),
        3 => Block::raw(r#"{"type":"thing_of_tomorrow","x":1.0}"#),
        4 => Block::tool_use("write", r#"{"id":7}"#).with_id(id),
        5 => Block::tool_use(dice.of(&["read", "write"]), dice.of(&[r#"{"id":"#, "", "[1, 2, 3]", "not json"]))
            .with_id(id),
        6 => call("nobody", id),
        7 => call(dice.of(&["fail", "grumble", "panic"]), id),
        8..10 => call("read", id),
        // Some share a key, so that they wait for one another.
        10 => Block::tool_use("read", r#"{"id":"shared"}"#).with_id(id),
        11 => Block::tool_use("write", format!(r#"{{"id":"{id}","at":"shared"}}"#)).with_id(id),
        _ => call("write", id),
    }
}

fn fault(dice: &mut Dice) -> Fault {
    let (events, bytes) = (dice.below(24), dice.below(900));
    match dice.below(12) {
        0 => Fault::overloaded(),
        1 => Fault::html(502),
        2 => Fault::rate_limited(0),
        3 => Fault::Reset,
        4 => Fault::error_event(events),
        5 => Fault::CutAfterEvents { events },
        6 => Fault::EndAfterEvents { events },
        7 => Fault::CutAfterBytes { bytes },
        8 => Fault::cut_off(dice.below(6)),
        9 => Fault::Refusal { after_blocks: dice.below(4) },
        10 => Fault::status(dice.of(&["400", "429", "500"]).parse().unwrap()),
        _ => Fault::Together { faults: vec![Fault::UnknownEvents, Fault::UnknownFields] },
    }
}

fn turn(dice: &mut Dice, number: usize) -> Turn {
    let mut turn = Turn::new((0..dice.below(6)).map(|at| block(dice, &format!("c{number}_{at}"))));
    if dice.below(4) == 0 {
        turn = turn.stop(dice.of(&["end_turn", "tool_use", "pause_turn", "stop_sequence", "tomorrow"]));
    }
    if dice.below(8) == 0 {
        // Text, because only the fault `cut_off` lets the server forget a block that is no JSON.
        turn = turn.block(Block::text("so")).stop(dice.of(&["max_tokens", "model_context_window_exceeded"]));
    }
    (0..dice.below(3)).fold(turn, |turn, _| turn.fault(fault(dice)))
}

/// Runs one case, checks what must hold, and tells how it ended.
async fn case(seed: u64) -> Status {
    let mut dice = Dice { seed, thrown: 0 };
    let turns: Vec<Turn> = (0..=dice.below(4)).map(|number| turn(&mut dice, number)).collect();
    let stage = Stage::open(turns).streaming(dice.below(3) > 0).with(|options| {
        options.early_start = dice.below(4) > 0;
        options.limits.turns_max = [1, 3, 50][dice.below(3)];
        options.limits.calls_max = [2, 6, 500][dice.below(3)];
        options.limits.batch_max = [1, 3, 256][dice.below(3)];
        options.limits.tokens_max = [5_000, 2_000_000][dice.below(2)];
    });
    let settings = stage.settings();
    let (cancel, log, lines) = (settings.cancel.clone(), stage.log.clone(), dice.below(60));
    let stop = tokio::spawn(async move {
        log.until_lines(lines).await;
        cancel.cancel("chance");
    });
    // Shown only if a check fails, here or in the stage.
    eprintln!("seed {seed}");
    let report = stage.run_as(settings).await;
    stop.abort();
    stage.log.nobody_is_alive().await;
    holds(&stage, &report, seed);
    report.status
}

#[track_caller]
fn holds(stage: &Stage, report: &Report, seed: u64) {
    let lines = stage.log.lines();
    let context = format!("seed {seed}: {}\n{}\n{lines:?}", end_of(report), told(&report.conversation));
    let mut works: HashMap<String, usize> = HashMap::new();
    stage.log.work().into_iter().for_each(|work| *works.entry(work).or_default() += 1);
    assert!(works.iter().all(|(work, times)| !work.starts_with("write") || *times == 1), "{works:?} {context}");
    // Every call that arrived has ended before it arrives again, and at the end nothing is open.
    let mut open: Vec<&str> = Vec::new();
    for line in &lines {
        match line.split_once(' ').unwrap() {
            ("call", id) => {
                assert!(!open.contains(&id), "{id} {context}");
                open.push(id);
            }
            (id, _) if id.starts_with('c') => {
                let at = open.iter().position(|known| *known == id);
                open.remove(at.unwrap_or_else(|| panic!("{id} ended twice; {context}")));
            }
            _ => {}
        }
    }
    assert_eq!(open, Vec::<&str>::new(), "{context}");
    assert_eq!(lines.last(), Some(&format!("run {}", report.status.as_str())), "{context}");
    let answered = told(&report.conversation).matches(['=', '!']).count();
    assert_eq!(u32::try_from(answered).unwrap(), report.calls, "{context}");
    assert_eq!(report.reason.is_none(), matches!(report.status, Status::Done | Status::Refused), "{context}");
}

#[tokio::test]
async fn whatever_happens_every_call_has_one_outcome_and_the_conversation_stands() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("FANOUT_SEED") {
        case(seed).await;
        return;
    }
    let mut ends: HashMap<Status, usize> = HashMap::new();
    for seed in 0..number("FANOUT_SCHEDULES").unwrap_or(CASES) {
        *ends.entry(case(seed).await).or_default() += 1;
    }
    assert_eq!(ends.len(), 5, "every final state was reached: {ends:?}");
}
