//! The graph against the definition: what waits for what, whatever order things come in.
//!
//! The oracle compares every pair by the rules' text; the graph keeps an index and only the nearest edges.

use std::collections::BTreeSet;

use fanout_core::graph::Graph;
use fanout_testing::seed::{Rng, each_seed};
use fanout_testing::touches::{Touch, Touches, covers, overlap};

/// Which earlier calls the last of these waits for, as `1 2`.
#[track_caller]
fn check(calls: &str, waits_for: &str) {
    let mut graph = Graph::default();
    let calls: Vec<&str> = calls.split(", ").collect();
    for call in &calls {
        let keys = call.split(' ').map(|word| {
            let (mode, key) = word.split_once(':').unwrap();
            Touch { key: key.to_owned(), write: mode == "w", declared: true }
        });
        let touches = Touches { keys: keys.collect(), ..Touches::nothing() };
        graph.add(touches.effects(), true, Vec::new(), &mut Vec::new());
    }
    let on: BTreeSet<usize> = graph.edges(calls.len() - 1).iter().map(|edge| edge.on + 1).collect();
    let on: Vec<String> = on.iter().map(ToString::to_string).collect();
    assert_eq!(on.join(" "), waits_for, "{calls:?}");
}

#[test]
fn a_writer_of_a_subtree_is_remembered_when_it_stands_for_all_below() {
    check("w:orders/7, w:orders/*, w:orders/8", "2");
    check("w:orders/7, w:orders/*, w:x/1", "");
    check("w:orders/7, w:orders/*, w:x/1, w:orders/8", "2");
    check("w:orders/7/items, w:orders/*, r:orders/7/items", "2");
    check("w:orders/7, w:orders/* r:orders/7, w:orders/7", "2");
    check("w:orders/7/a/b, w:orders/*, w:x/1/2, w:x/3/4, r:orders/7", "2");
}

/// Every pair (later, earlier) that is reachable.
fn closure(pairs: &BTreeSet<(usize, usize)>, len: usize) -> BTreeSet<(usize, usize)> {
    let mut reach: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); len];
    for later in 0..len {
        for earlier in pairs.iter().filter(|pair| pair.0 == later).map(|pair| pair.1) {
            let further = reach[earlier].clone();
            reach[later].extend(further);
            reach[later].insert(earlier);
        }
    }
    (0..len).flat_map(|later| reach[later].iter().map(move |earlier| (later, *earlier)).collect::<Vec<_>>()).collect()
}

#[test]
fn the_edges_reach_exactly_the_pairs_that_clash_by_definition() {
    each_seed(300, |seed| {
        let mut rng = Rng::new(seed);
        let calls: Vec<Touches> = (0..2 + rng.below(14)).map(|_| Touches::random(&mut rng)).collect();
        let mut graph = Graph::default();
        let (mut edges, mut clashes) = (BTreeSet::new(), BTreeSet::new());
        for (later, call) in calls.iter().enumerate() {
            graph.add(call.effects(), true, Vec::new(), &mut Vec::new());
            for edge in graph.edges(later) {
                assert!(edge.on < later, "an edge points forward: {later} to {}", edge.on);
                assert!(call.clash(&calls[edge.on]), "{later} and {} do not clash: {calls:#?}", edge.on);
                edges.insert((later, edge.on));
            }
            clashes.extend((0..later).filter(|earlier| call.clash(&calls[*earlier])).map(|earlier| (later, earlier)));
        }
        assert_eq!(closure(&edges, calls.len()), closure(&clashes, calls.len()), "{calls:#?}");
    });
}

#[test]
fn only_the_nearest_conflicts_are_edges() {
    each_seed(100, |seed| {
        let mut rng = Rng::new(seed);
        let calls: Vec<Touches> = (0..2 + rng.below(14)).map(|_| Touches::random(&mut rng)).collect();
        let mut graph = Graph::default();
        for (later, call) in calls.iter().enumerate() {
            graph.add(call.effects(), true, Vec::new(), &mut Vec::new());
            for edge in graph.edges(later) {
                let key = edge.key.as_ref().unwrap().to_string();
                let nearest = calls[edge.on].keys.iter().any(|touch| {
                    overlap(&touch.key, &key)
                        && !calls[edge.on + 1..later].iter().any(|between| stands_for(between, &calls[edge.on], touch))
                });
                assert!(nearest, "{later} waits on {key} for {}, which a later writer stands for: {calls:#?}", edge.on);
            }
        }
    });
}

/// Whether whoever clashes with `earlier` on `touch` clashes with `between` as well, and that with `earlier`.
fn stands_for(between: &Touches, earlier: &Touches, touch: &Touch) -> bool {
    between.source == earlier.source
        && between.keys.iter().any(|own| {
            let by_author = between.declared && own.declared && earlier.declared && touch.declared;
            let inferred = !between.declared && !own.declared && !touch.declared;
            own.write && (by_author || inferred) && covers(&own.key, &touch.key)
        })
}

/// A call of a random story, as the oracle sees it.
struct Told {
    now: Touches,
    narrow: Option<Touches>,
    answered: bool,
    bypassed: bool,
    gone: bool,
}

#[test]
fn a_call_is_free_exactly_when_nothing_before_it_that_is_left_clashes_with_it() {
    each_seed(300, |seed| {
        let mut rng = Rng::new(seed);
        let (mut graph, mut told) = (Graph::default(), Vec::<Told>::new());
        let len = 2 + rng.below(12);
        while told.len() < len || told.iter().any(|call| !call.gone) {
            step(&mut rng, &mut graph, &mut told, len);
            settle(&mut told);
            for at in (0..told.len()).filter(|at| !told[*at].gone) {
                let oracle = !blocked(&told, at);
                let story: Vec<_> = told.iter().map(|call| (&call.now, call.bypassed, call.gone)).collect();
                assert_eq!(graph.is_free(at), oracle, "call {at} of {story:#?}");
            }
        }
    });
}

fn step(rng: &mut Rng, graph: &mut Graph, told: &mut Vec<Told>, len: usize) {
    let mut changes = Vec::new();
    if told.len() < len && rng.percent(50) {
        let touches = Touches::random(rng);
        let wide = rng.percent(35).then(|| touches.widened(rng));
        let now = wide.clone().unwrap_or_else(|| touches.clone());
        graph.add(now.effects(), wide.is_none(), Vec::new(), &mut changes);
        told.push(Told { now, narrow: wide.map(|_| touches), answered: false, bypassed: false, gone: false });
        return;
    }
    let Some(at) = (!told.is_empty()).then(|| rng.below(told.len())) else { return };
    let free = !blocked(told, at);
    let call = &mut told[at];
    if call.gone || call.bypassed {
        return;
    }
    if let Some(narrow) = call.narrow.take_if(|_| !call.answered) {
        if rng.percent(15) {
            graph.bypass(at, &mut changes);
            (call.answered, call.bypassed) = (true, true);
        } else {
            graph.narrow(at, narrow.effects(), &mut changes);
            call.now = narrow;
        }
    } else if call.answered {
        graph.leave(at, &mut changes);
        call.gone = true;
    } else if rng.percent(15) {
        graph.bypass(at, &mut changes);
        (call.answered, call.bypassed) = (true, true);
    } else if free {
        graph.answer(at, rng.percent(70), &mut changes);
        call.answered = true;
    }
}

fn blocked(told: &[Told], at: usize) -> bool {
    told[..at].iter().any(|earlier| !earlier.gone && earlier.now.clash(&told[at].now))
}

/// A call that was answered without having run is gone once nothing before it holds it back.
fn settle(told: &mut [Told]) {
    for at in 0..told.len() {
        if told[at].bypassed && !told[at].gone {
            told[at].gone = !blocked(told, at);
        }
    }
}
