//! A store whose every key has a version, and a tool that reads and writes it: what shows that an order was kept.
//!
//! A call returns a hash of its name, its input and the versions of what it reads, taken when it starts; when it ends it
//! sets each key that it writes to a hash of that key's old version and of what it returned. So outputs and versions
//! equal those of the calls run one by one exactly if every pair that overlaps kept its order and did not overlap in
//! time. To tests that drive the real scheduler on a paused clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fanout_core::effects::{EffectsSpec, Source, Template};
use fanout_core::outcome::Output;
use fanout_core::tool::{Attempt, BoxFuture, Tool, ToolError, ToolSpec};
use serde_json::{Value, json};

use crate::touches::overlap;

/// Keys and their versions. A clone is another handle on the same store.
#[derive(Clone, Debug, Default)]
pub struct Store(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    versions: BTreeMap<String, u64>,
    begun: Vec<String>,
}

impl Store {
    /// A store of these keys, each at its first version. A key that ends in `/*` stands for a scan and is not kept.
    pub fn of<'k>(keys: impl IntoIterator<Item = &'k String>) -> Self {
        let versions = keys.into_iter().filter(|key| !key.ends_with('*')).map(|key| (key.clone(), 0));
        Self(Arc::new(Mutex::new(Held { versions: versions.collect(), begun: Vec::new() })))
    }

    /// What a call that starts now returns.
    pub fn begin(&self, name: &str, input: &str, reads: &[String]) -> u64 {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.begun.push(input.to_owned());
        let seen = held.versions.iter().filter(|(key, _)| reads.iter().any(|read| overlap(read, key)));
        seen.fold(mix(hash(name), hash(input)), |sum, (key, version)| mix(sum, mix(hash(key), *version)))
    }

    /// What a call that returned this leaves behind when it ends.
    pub fn end(&self, returned: u64, writes: &[String]) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, version) in held.versions.iter_mut().filter(|(key, _)| writes.iter().any(|write| overlap(write, key))) {
            *version = mix(*version, returned);
        }
    }

    /// Every key with its version.
    pub fn versions(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).versions.clone()
    }

    /// The inputs of all calls in the order in which they began.
    pub fn begun(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).begun.clone()
    }
}

/// A tool over stores. Its input says what one call does: `store` (which one), `what` (for the hash), `reads`, `writes`,
/// `read_trees`, `write_trees` (the same for whole subtrees, without `/*`), `ms` (how long it takes).
#[derive(Clone, Debug)]
pub struct StoreTool {
    name: String,
    stores: Arc<Mutex<Vec<Store>>>,
    declares: Declares,
}

/// What a [`StoreTool`] declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declares {
    /// Everything that its input says.
    All,
    /// What it reads, and that it writes nothing: it may enter early.
    Reads,
    /// That it touches nothing, true or not.
    Nothing,
}

impl StoreTool {
    /// A tool of this name.
    pub fn new(name: &str, stores: &Arc<Mutex<Vec<Store>>>, declares: Declares) -> Self {
        Self { name: name.to_owned(), stores: Arc::clone(stores), declares }
    }

    /// The input of one call.
    pub fn input(store: usize, what: &str, reads: &[String], writes: &[String], ms: u64) -> Value {
        let split = |keys: &[String]| -> (Vec<String>, Vec<String>) {
            let (trees, exact): (Vec<&String>, Vec<&String>) = keys.iter().partition(|key| key.ends_with("/*"));
            let trees = trees.into_iter().map(|key| key.trim_end_matches("/*").to_owned()).collect();
            (exact.into_iter().cloned().collect(), trees)
        };
        let ((reads, read_trees), (writes, write_trees)) = (split(reads), split(writes));
        json!({
            "store": store, "what": what, "ms": ms,
            "reads": reads, "read_trees": read_trees, "writes": writes, "write_trees": write_trees,
        })
    }
}

impl Tool for StoreTool {
    fn spec(&self) -> ToolSpec {
        let mut spec = ToolSpec::new(self.name.as_str(), Source::from("store"));
        // A generated tool's templates are constants; one that does not parse would declare nothing and fail every test.
        let parse = |texts: [&str; 2]| texts.iter().filter_map(|text| Template::parse(text).ok()).collect::<Vec<_>>();
        let reads = parse(["s{store}/{reads...}", "s{store}/{read_trees...}/*"]);
        let writes = parse(["s{store}/{writes...}", "s{store}/{write_trees...}/*"]);
        let (reads, writes) = match self.declares {
            Declares::All => (reads, writes),
            Declares::Reads => (reads, Vec::new()),
            Declares::Nothing => (Vec::new(), Vec::new()),
        };
        spec.effects = EffectsSpec { reads: Some(reads), writes: Some(writes), ..EffectsSpec::default() };
        spec.policy.timeout = Duration::from_secs(600);
        spec.policy.deadline = Duration::from_secs(600);
        spec
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        let (name, stores) = (self.name.clone(), Arc::clone(&self.stores));
        Box::pin(async move {
            let input = &attempt.input;
            let keys = |exact: &str, trees: &str| -> Vec<String> {
                let texts = |field: &str| input[field].as_array().into_iter().flatten().filter_map(Value::as_str);
                texts(exact).map(str::to_owned).chain(texts(trees).map(|tree| format!("{tree}/*"))).collect()
            };
            let at = input["store"].as_u64().unwrap_or_default() as usize;
            let store = stores.lock().unwrap_or_else(PoisonError::into_inner).get(at).cloned().unwrap_or_default();
            let what = input["what"].as_str().unwrap_or_default();
            let returned = store.begin(&name, what, &keys("reads", "read_trees"));
            tokio::time::sleep(Duration::from_millis(input["ms"].as_u64().unwrap_or_default())).await;
            store.end(returned, &keys("writes", "write_trees"));
            Ok(Output::json(json!(returned)))
        })
    }
}

fn hash(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

fn mix(a: u64, b: u64) -> u64 {
    crate::seed::Rng::new(a.rotate_left(17) ^ b).bits()
}
