//! Call graphs: recorded ones from a folder of JSON Lines, and ones of our own making.
//!
//! `FANOUT_WORKLOADS` names the folder with `bfcl_multi_turn.open.jsonl` and its like: other people's data, read where it
//! lies and never kept here. To tests that replay them on the real scheduler. The critical path is the oracle's own.

use std::path::PathBuf;

use serde_json::Value;

use crate::seed::Rng;
use crate::touches::overlap;

/// One case: calls in program order.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// Its calls.
    pub calls: Vec<Recorded>,
    /// What its answer is made of, in the words of the inputs; `null` where that is not told.
    pub result: Value,
}

/// One recorded call.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What the others call it.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The input as text.
    pub input: String,
    /// The earlier calls whose output it needs.
    pub depends_on: Vec<usize>,
    /// The earlier calls that it does not commute with, where that was measured.
    pub conflicts_with: Option<Vec<usize>>,
    /// What it reads.
    pub reads: Vec<String>,
    /// What it writes.
    pub writes: Vec<String>,
}

/// The folder of recorded graphs, if `FANOUT_WORKLOADS` names one. Without it, a line that nobody overlooks is printed.
pub fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("FANOUT_WORKLOADS").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    if folder.is_none() {
        let bar = "!".repeat(100);
        eprintln!(
            "{bar}\n!!! FANOUT_WORKLOADS is not set: the RECORDED CALL GRAPHS WERE NOT TESTED, only our own\n{bar}"
        );
    }
    folder
}

/// The cases of a recorded set; `None` without the folder.
///
/// # Panics
/// When the folder is there and the set is not, or not as expected: a test over nothing must not pass.
pub fn load(stem: &str) -> Option<Vec<Case>> {
    let path = folder()?.join(format!("{stem}.open.jsonl"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let parse = |line: &str| -> Value { serde_json::from_str(line).unwrap_or_else(|error| panic!("{stem}: {error}")) };
    let cases: Vec<Case> = text.lines().map(|line| case(&parse(line))).collect();
    assert!(!cases.is_empty(), "{} holds no case", path.display());
    Some(cases)
}

fn case(value: &Value) -> Case {
    let calls = value["calls"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ids: Vec<&Value> = calls.iter().map(|call| &call["id"]).collect();
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let places = |list: &Value| -> Option<Vec<usize>> {
        let place = |id: &Value| ids.iter().position(|other| *other == id).expect("an edge to a call of the case");
        Some(list.as_array()?.iter().map(place).collect())
    };
    let call = |call: &Value| Recorded {
        id: call["id"].as_str().unwrap_or_default().to_owned(),
        name: call["name"].as_str().unwrap_or_default().replace(|letter: char| !letter.is_ascii_alphanumeric(), "_"),
        input: call["input"].to_string(),
        depends_on: places(&call["depends_on"]).unwrap_or_default(),
        conflicts_with: places(&call["conflicts_with"]),
        reads: texts(&call["reads"]),
        writes: texts(&call["writes"]),
    };
    Case {
        id: value["id"].as_str().unwrap_or_default().to_owned(),
        calls: calls.iter().map(call).collect(),
        result: value["result"].clone(),
    }
}

/// A case of our own: a few tables, scans among the reads, and some data edges.
pub fn own(rng: &mut Rng) -> Case {
    let key = |rng: &mut Rng, scans: usize| {
        let table = *rng.pick(&["users", "orders", "stock"]);
        if rng.percent(scans) { format!("{table}/*") } else { format!("{table}/{}", rng.below(4)) }
    };
    let calls = (0..2 + rng.below(12)).map(|at| Recorded {
        id: at.to_string(),
        name: format!("tool{}", rng.below(6)),
        input: rng.below(1000).to_string(),
        depends_on: if at > 0 && rng.percent(30) { vec![rng.below(at)] } else { Vec::new() },
        conflicts_with: None,
        reads: (0..rng.below(3)).map(|_| key(rng, 20)).collect(),
        writes: (0..rng.below(3)).map(|_| key(rng, 8)).collect(),
    });
    let mut case = Case { id: "own".to_owned(), calls: calls.collect(), result: Value::Null };
    // A scan says nothing of tables that nobody names a key of; name one each.
    case.calls.push(Recorded {
        reads: ["users/0", "orders/0", "stock/0"].map(str::to_owned).to_vec(),
        ..case.calls[0].clone()
    });
    if let Some(last) = case.calls.last_mut() {
        (last.depends_on, last.writes) = (Vec::new(), Vec::new());
    }
    case
}

impl Case {
    /// For every call the earlier ones that it needs or whose footprint overlaps with its own.
    pub fn footprint_graph(&self) -> Vec<Vec<usize>> {
        let meet = |a: &[String], b: &[String]| a.iter().any(|mine| b.iter().any(|theirs| overlap(mine, theirs)));
        self.edges(|later, earlier| {
            let (a, b) = (&self.calls[later], &self.calls[earlier]);
            meet(&a.writes, &b.writes) || meet(&a.writes, &b.reads) || meet(&a.reads, &b.writes)
        })
    }

    /// For every call the earlier ones that it needs or is known not to commute with; `None` where that is not known.
    pub fn oracle_graph(&self) -> Option<Vec<Vec<usize>>> {
        self.calls.iter().all(|call| call.conflicts_with.is_some()).then(|| {
            self.edges(|later, earlier| self.calls[later].conflicts_with.iter().flatten().any(|on| *on == earlier))
        })
    }

    fn edges(&self, clash: impl Fn(usize, usize) -> bool) -> Vec<Vec<usize>> {
        let of = |later: usize| {
            (0..later)
                .filter(|earlier| self.calls[later].depends_on.contains(earlier) || clash(later, *earlier))
                .collect()
        };
        (0..self.calls.len()).map(of).collect()
    }
}

/// The length of the longest path, by how long each call takes.
pub fn critical_path(graph: &[Vec<usize>], takes: &[u64]) -> u64 {
    let mut ends: Vec<u64> = Vec::with_capacity(graph.len());
    for (call, on) in graph.iter().enumerate() {
        let starts = on.iter().map(|earlier| ends[*earlier]).max().unwrap_or_default();
        ends.push(starts + takes[call]);
    }
    ends.into_iter().max().unwrap_or_default()
}
