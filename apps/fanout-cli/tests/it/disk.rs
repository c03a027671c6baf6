//! A journal whose disk takes nothing any more, under a process that serves.
//!
//! No user can turn a disk read-only under an open file, but each may forbid a process of its own to write any: the limit on
//! the size of files, taken down to nothing and given back.

use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use crate::api::Api;
use crate::binary::{code_of, results};
use crate::process::{Served, fanout};

/// Lets the process write files of at most so many bytes.
fn let_write(served: &Served, most: Option<u64>) {
    let pid = i32::try_from(served.id()).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::Fsize, Rlimit { current: most, maximum: None }).unwrap();
}

/// One read and one write at once; each result as it came.
fn ask(served: &Served) -> Vec<(bool, String)> {
    let call = |id: &str| json!({"type": "tool_use", "id": id, "name": id, "input": {}});
    let body = json!({"content": [call("get"), call("pay")]}).to_string();
    let (status, body) = served.send("POST", "/fanout/v1/tool_calls", &[], &body);
    assert_eq!(status, 200, "{body}");
    let reply: Value = serde_json::from_str(&body).unwrap();
    results(&reply).into_iter().map(|(_, is_error, text)| (is_error, text)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_happen_twice_waits_for_the_disk_and_reads_go_on() {
    let api = Api::open().await;
    let folder = tempfile::TempDir::new().unwrap();
    let config = api.tool("get", "GET", "ok/a", "") + &api.tool("pay", "POST", "ok/pay", "");
    std::fs::write(folder.path().join("fanout.toml"), config).unwrap();
    // Without a signal for it, a write beyond the limit is an error like any other.
    let serve = fanout(folder.path(), &[("FANOUT_SERVER__LISTEN", "127.0.0.1:0")], &["serve"]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" serve"]).arg(serve.get_program()).current_dir(folder.path());
    for (name, value) in serve.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let served = Served::wait(command);
    let ran = ask(&served);
    assert!(ran.iter().all(|(is_error, _)| !is_error), "{ran:?}");
    assert_eq!(api.all(), 2);

    let_write(&served, Some(0));
    for asked in 1..=3 {
        let ran = ask(&served);
        assert!(!ran[0].0, "reads go on: {ran:?}");
        assert_eq!((ran[1].0, code_of(&ran[1].1).as_str()), (true, "internal"));
        let file = folder.path().join(".fanout/fanout.db").canonicalize().unwrap();
        let said =
            format!("not run: the journal at {} cannot be used: disk I/O error: look at its disk", file.display());
        assert!(ran[1].1.contains(&said) && ran[1].1.contains("Nothing was carried out"), "{ran:?}");
        assert_eq!(api.all(), 2 + asked, "only the read was sent");
    }
    let (status, body) = served.send("POST", "/fanout/v1/runs", &[], r#"{"prompt":"hi"}"#);
    assert_eq!(status, 503, "nothing is promised that is not kept: {body}");
    let (status, list) = served.send("GET", "/fanout/v1/runs", &[], "");
    assert_eq!(status, 200, "{list}");

    let_write(&served, None);
    // What waited is written as soon as it can be; until then the next write is refused.
    while ask(&served)[1].0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let journal = rusqlite::Connection::open(folder.path().join(".fanout/fanout.db")).unwrap();
    let sound: String = journal.query_row("pragma integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let refused = "select count(*) from fanout_run where state = 'done' and calls = 2 and failed = 1";
    let refused: u64 = journal.query_row(refused, [], |row| row.get(0)).unwrap();
    assert!(refused >= 3, "nothing that was said is lost: {refused}");
}
