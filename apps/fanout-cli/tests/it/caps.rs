//! What a team may spend in a day, through processes that are killed.
#![cfg(unix)]

use fanout_script::{Server, ServerOptions, Turn, Usage};
use serde_json::json;

use crate::process::{Served, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_is_spent_is_spent_after_a_crash_too() {
    let usage = Usage { input_tokens: 100, output_tokens: 1_000, ..Usage::default() };
    let claude = Server::start(ServerOptions::responder(move |_| Turn::text("done").usage(usage))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[model]\nbase_url = \"{}\"\napi_key = \"scripted\"\n[prices.\"claude-test\"]\ninput = 3.0\noutput = 15.0\n\
         cache_read = 0.3\ncache_write = 3.75\n[project.support]\nmax_cost_usd_per_day = 0.1\n",
        claude.base_url()
    );
    std::fs::write(folder.path().join("fanout.toml"), config).unwrap();
    let came = run(folder.path(), &[], &["keys", "add", "--project", "support"]);
    let key = String::from_utf8(came.stdout).unwrap().trim().to_owned();
    let body = json!({"model": "claude-test", "max_tokens": 1_000, "messages": [{"role": "user", "content": "go"}]});
    let (mut answered, mut starts) = (0, 0);
    let refused = loop {
        // Each process answers one, and is killed.
        let served = Served::start(folder.path(), &[("FANOUT_SERVER__LISTEN", "127.0.0.1:0")], &[]);
        starts += 1;
        let (status, text) = served.send(
            "POST",
            "/v1/messages",
            &[("x-api-key", &key), ("anthropic-version", "2023-06-01")],
            &body.to_string(),
        );
        served.stop(rustix::process::Signal::KILL);
        if status != 200 {
            break (status, text);
        }
        answered += 1;
    };
    // Output alone costs 1.5 cents a thousand tokens; what a killed process had not given back stays spent.
    assert!((2..=6).contains(&answered) && starts == answered + 1, "{answered} {refused:?}");
    assert!(refused.0 == 429 && refused.1.contains("`max_cost_usd_per_day` of [project.support]"), "{refused:?}");
    assert_eq!(claude.requests().len(), answered);
}
