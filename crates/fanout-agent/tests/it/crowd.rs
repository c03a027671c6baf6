//! Many runs at once.

use std::sync::Arc;

use fanout_agent::{Conversation, RunSettings, Status};
use fanout_script::{ServerOptions, Turn};
use serde_json::json;

use crate::stage::Stage;

/// So many runs that anything quadratic, or a connection each, would show.
const RUNS: usize = 500;

#[tokio::test]
async fn five_hundred_runs_at_once_end_well() {
    let stage = Stage::serve(
        ServerOptions::responder(|conversation| match conversation.assistant_turns() {
            turn @ 0..2 => {
                let own = conversation.first_user_texts().next().unwrap_or_default().to_owned();
                Turn::calls([
                    ("read", json!({"id": format!("{own}-{turn}")})),
                    ("write", json!({"id": own})),
                    ("write", json!({"id": "shared"})),
                    ("read", json!({"id": own})),
                    ("fail", json!({"id": own})),
                ])
            }
            _ => Turn::text("ok"),
        })
        .keep_requests(false),
    );
    let agent = Arc::new(stage.agent());
    let runs: Vec<_> = (0..RUNS)
        .map(|at| {
            let agent = Arc::clone(&agent);
            tokio::spawn(async move {
                agent.run(Conversation::from_prompt(&format!("run {at}")), RunSettings::default()).await
            })
        })
        .collect();
    for run in runs {
        let report = run.await.unwrap();
        assert_eq!((report.status, report.turns, report.calls), (Status::Done, 3, 10), "{:?}", report.reason);
    }
    assert_eq!(stage.log.times("write shared"), 2 * RUNS);
}
