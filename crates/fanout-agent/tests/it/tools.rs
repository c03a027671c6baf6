//! Tools that tell what they did.
//!
//! From the stage. To the log: one line of work per attempt that came to its end, written where a real tool would have
//! changed something.

use std::sync::Arc;
use std::time::Duration;

use fanout_core::approval::Approval;
use fanout_core::effects::{EffectsSpec, Source, Template};
use fanout_core::outcome::Output;
use fanout_core::tool::{Attempt, BoxFuture, Tool, ToolError, ToolSpec};
use fanout_core::toolbox::Toolbox;
use serde_json::json;

use crate::stage::Log;

/// All of them. `read` and `peek` only read `k/{id}`, all others write it; `peek` and `stay` wait for the gate, and people are asked
/// about `pay`.
const NAMES: [&str; 9] = ["read", "write", "pay", "fail", "grumble", "panic", "hang", "stay", "peek"];

struct Hand {
    name: &'static str,
    log: Arc<Log>,
}

pub(crate) fn toolbox(log: &Arc<Log>) -> Arc<Toolbox> {
    let mut toolbox = Toolbox::new();
    for name in NAMES {
        toolbox.add(Hand { name, log: Arc::clone(log) }).unwrap();
    }
    Arc::new(toolbox)
}

/// Counts the attempts that are alive, also when one is dropped half-way.
struct Alive(Arc<Log>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive(-1);
    }
}

impl Tool for Hand {
    fn spec(&self) -> ToolSpec {
        let mut spec = ToolSpec::new(self.name, Source::function());
        spec.description = format!("The tool `{}`.", self.name);
        spec.input_schema = json!({"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]});
        let key = || Some(vec![Template::parse("k/{id}").unwrap()]);
        spec.effects = match self.name {
            "read" | "peek" => EffectsSpec { reads: key(), writes: Some(Vec::new()), ..spec.effects },
            _ => EffectsSpec { writes: key(), ..spec.effects },
        };
        if self.name == "write" {
            // As long as can be said: no clock can count to it.
            (spec.policy.timeout, spec.policy.deadline) = (Duration::MAX, Duration::MAX);
        }
        if self.name == "pay" {
            spec.policy.approval = Approval::Always;
        }
        if self.name == "hang" {
            spec.policy.timeout = Duration::from_millis(20);
        }
        spec
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        let (name, log) = (self.name, Arc::clone(&self.log));
        log.alive(1);
        let alive = Alive(Arc::clone(&log));
        Box::pin(async move {
            let _alive = alive;
            tokio::task::yield_now().await;
            match name {
                "fail" => return Err(ToolError::Failed("no such thing".to_owned())),
                "grumble" => return Ok(Output { is_error: true, ..Output::text("not today") }),
                "panic" => panic!("boom"),
                "hang" => std::future::pending::<()>().await,
                "stay" | "peek" => log.gate().await,
                _ => {}
            }
            let id = attempt.input["id"].as_str().unwrap_or_default().to_owned();
            log.did(format!("{name} {id}"));
            Ok(Output::text(format!("{name} {id}: fine")))
        })
    }
}
