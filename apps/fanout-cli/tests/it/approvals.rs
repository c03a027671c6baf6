//! A call that a person has to agree to, through a running gateway and the command that decides.

use std::path::Path;
use std::time::{Duration, Instant};

use fanout_script::{Server, ServerOptions, Turn};
use serde_json::{Value, json};

use crate::process::{Served, read, run};

const ANY_PORT: (&str, &str) = ("FANOUT_SERVER__LISTEN", "127.0.0.1:0");

/// The first example of the page.
fn example() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/approvals.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("```toml\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

struct Desk {
    folder: tempfile::TempDir,
    served: Served,
}

impl Desk {
    fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("fanout.toml"), format!("{more}{}", example())).unwrap();
        let served = Served::start(folder.path(), &[ANY_PORT, ("RUST_LOG", "fanout_gateway=info")], &[]);
        Self { folder, served }
    }

    /// What `fanout approvals` prints, and how it ends.
    fn approvals(&self, key: &str, args: &[&str]) -> (Option<i32>, String, String) {
        // Without a key it is the journal that is asked, else the gateway.
        let all = [("FANOUT_SERVER__LISTEN", self.served.address()), ("FANOUT_KEY", key)];
        let variables = if key.is_empty() { &all[..1] } else { &all[..] };
        let came = run(self.folder.path(), variables, &[&["approvals"], args].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (came.status.code(), text(&came.stdout), text(&came.stderr))
    }

    /// The approvals that wait, once there are some.
    fn waiting(&self, key: &str) -> Vec<Value> {
        loop {
            let (code, out, err) = self.approvals(key, &["list", "--json"]);
            assert_eq!(code, Some(0), "{err}");
            if !out.is_empty() {
                return out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            }
        }
    }

    fn key(&self, args: &[&str]) -> String {
        let came = run(self.folder.path(), &[], &[&["keys", "add"], args].concat());
        String::from_utf8(came.stdout).unwrap().trim().to_owned()
    }

    fn begin(&self, key: &str, amount: u32) -> std::net::TcpStream {
        let call =
            json!({ "type": "tool_use", "id": "c1", "name": "refund", "input": { "order": "o1", "amount": amount } });
        let headers = [("x-api-key", key)];
        let headers = if key.is_empty() { &headers[..0] } else { &headers[..] };
        self.served.begin("POST", "/fanout/v1/tool_calls", headers, &json!({ "content": [call] }).to_string())
    }
}

/// The texts of the one result.
fn texts(body: &str) -> Vec<String> {
    let body: Value = serde_json::from_str(body).unwrap();
    match &body["content"][0]["content"] {
        Value::String(text) => vec![text.trim().to_owned()],
        blocks => {
            blocks.as_array().unwrap().iter().map(|block| block["text"].as_str().unwrap().trim().to_owned()).collect()
        }
    }
}

#[test]
fn a_call_waits_for_a_person_who_approves_it_with_words() {
    let desk = Desk::new("");
    // The condition is not met: nobody is asked.
    assert_eq!(texts(&read(&mut desk.begin("", 100)).1), ["refunded o1 100"]);
    let mut running = desk.begin("", 250);
    let [asked] = &desk.waiting("")[..] else { panic!("one question") };
    assert_eq!((&asked["tool"], &asked["input"]), (&json!("refund"), &json!({"order": "o1", "amount": 250})));
    assert_eq!((&asked["state"], &asked["call"], &asked["decided"]), (&json!("open"), &json!("c1"), &Value::Null));
    let id = asked["id"].as_str().unwrap();
    let (code, out, err) = desk.approvals("", &["approve", id, "--words", "tell the customer"]);
    assert_eq!((code, out), (Some(0), format!("{id} (refund) is approved\n")), "{err}");
    assert_eq!(texts(&read(&mut running).1), ["refunded o1 250", "the reviewer says: tell the customer"]);
    let url = format!("http://{}", desk.served.address());
    let (_, out, err) = desk.approvals("", &["list", "--url", &url]);
    assert_eq!((out, err.trim()), (String::new(), "nothing waits for a person"));
    let (code, _, err) = desk.approvals("", &["approve", id, "--url", &url]);
    assert!(code == Some(2) && err.contains("was approved by terminal already"), "{err}");
    let (_, out, err) = desk.approvals("", &["list"]);
    assert_eq!((out, err.trim()), (String::new(), "nothing waits for a person"));
    let (_, out, _) = desk.approvals("", &["list", "--all"]);
    assert!(out.contains("approved by terminal: tell the customer"), "{out}");
}

#[test]
fn a_denial_reaches_the_model_and_the_first_decision_stays() {
    let desk = Desk::new("");
    let (kim, lee) = (desk.key(&["--admin"]), desk.key(&["--admin"]));
    let mut running = desk.begin("", 250);
    let id = desk.waiting(&kim)[0]["id"].as_str().unwrap().to_owned();
    let (code, _, err) = desk.approvals(&kim, &["deny", &id, "--words", "too much"]);
    assert_eq!(code, Some(0), "{err}");
    let (_, body) = read(&mut running);
    assert!(texts(&body)[0].contains(r#""code":"denied""#) && texts(&body)[0].contains("too much"), "{body}");
    assert_eq!(desk.approvals(&kim, &["deny", &id]).0, Some(0), "the same again is no conflict");
    let (code, _, err) = desk.approvals(&lee, &["approve", &id]);
    assert!(code == Some(2) && err.contains("was denied by") && err.contains("already, and that stays"), "{err}");
    let (code, _, err) = desk.approvals(&lee, &["approve", "apr_none"]);
    assert!(code == Some(2) && err.contains("there is no approval `apr_none`"), "{err}");
}

#[test]
fn who_may_not_decide_cannot_and_strangers_see_nothing() {
    let desk = Desk::new("");
    let shop = desk.key(&["--project", "shop"]);
    let (approver, stranger) =
        (desk.key(&["--project", "shop", "--approve"]), desk.key(&["--project", "bank", "--approve"]));
    let mut running = desk.begin(&shop, 250);
    let id = desk.waiting(&shop)[0]["id"].as_str().unwrap().to_owned();
    let (code, _, err) = desk.approvals(&shop, &["approve", &id]);
    assert!(code == Some(2) && err.contains("this key may not decide on approvals"), "{err}");
    assert_eq!(desk.approvals(&stranger, &["list", "--json"]).1, "");
    let (code, _, err) = desk.approvals(&stranger, &["approve", &id]);
    assert!(code == Some(2) && err.contains("there is no approval"), "{err}");
    assert_eq!(desk.approvals(&approver, &["approve", &id]).0, Some(0));
    assert_eq!(texts(&read(&mut running).1), ["refunded o1 250"]);
}

#[test]
fn who_waited_too_long_is_told_the_approval_and_can_make_the_call_again() {
    let desk = Desk::new("[run]\napproval_wait = \"50ms\"\n");
    let (_, body) = read(&mut desk.begin("", 250));
    let waiting = desk.waiting("");
    let id = waiting[0]["id"].as_str().unwrap();
    assert!(texts(&body)[0].contains(&format!("nobody has decided on approval {id} in time")), "{body}");
    assert_eq!(desk.approvals("", &["approve", id]).0, Some(0));
    assert_eq!(texts(&read(&mut desk.begin("", 250)).1), ["refunded o1 250"]);
    // It was used; the next one asks anew.
    let (_, body) = read(&mut desk.begin("", 250));
    assert!(texts(&body)[0].contains("nobody has decided") && !texts(&body)[0].contains(id), "{body}");
}

#[test]
fn a_page_of_approvals_goes_on_behind_its_last() {
    let desk = Desk::new("[run]\napproval_wait = \"50ms\"\n");
    for amount in [201, 202, 203] {
        read(&mut desk.begin("", amount));
    }
    let page = |query: &str| {
        let (status, body) = desk.served.send("GET", &format!("/fanout/v1/approvals{query}"), &[], "");
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    let amounts = |page: &Value| {
        page["data"].as_array().unwrap().iter().map(|one| one["input"]["amount"].clone()).collect::<Vec<_>>()
    };
    let (_, first) = page("?limit=2&state=open");
    assert_eq!((amounts(&first), &first["has_more"]), (vec![json!(203), json!(202)], &json!(true)));
    let (_, second) = page(&format!("?limit=2&after_id={}", first["last_id"].as_str().unwrap()));
    assert_eq!((amounts(&second), &second["has_more"]), (vec![json!(201)], &json!(false)));
    let one = first["last_id"].as_str().unwrap();
    assert_eq!(desk.served.send("GET", &format!("/fanout/v1/approvals/{one}"), &[], "").0, 200);
    for (query, says) in [
        ("?limit=0", "`limit` must be"),
        ("?state=closed", "`state` can be `open`"),
        ("?lmit=1", "unknown field"),
        ("?after_id=x", "no approval"),
    ] {
        let (status, body) = page(query);
        assert!(
            (400..500).contains(&status) && body["error"]["message"].as_str().unwrap().contains(says),
            "{query}: {body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_in_the_background_is_parked_and_can_be_decided_while_nobody_runs() {
    let claude = Server::start(ServerOptions::responder(|conversation| {
        let is_refund = conversation.first_user_texts().next().unwrap_or_default() == "refund";
        match (is_refund, conversation.assistant_turns()) {
            (true, 0) => Turn::calls([("refund", json!({"order": "o1", "amount": 250}))]),
            _ => Turn::text("all is done"),
        }
    }))
    .unwrap();
    let model = format!("[model]\nbase_url = \"{}\"\napi_key = \"scripted\"\n", claude.base_url());
    let worker = "[worker]\nconcurrency = 1\nwatchdog = \"300ms\"\n[run]\ndeadline = \"1s\"\n";
    let desk = Desk::new(&format!("{model}{worker}"));
    let submit = |prompt: &str| {
        let (status, body) = desk.served.send("POST", "/fanout/v1/runs", &[], &json!({"prompt": prompt}).to_string());
        assert_eq!(status, 202, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        body["id"].as_str().unwrap().to_owned()
    };
    let state = |served: &Served, id: &str| loop {
        let (_, body) = served.send("GET", &format!("/fanout/v1/runs/{id}"), &[], "");
        let run: Value = serde_json::from_str(&body).unwrap();
        if !["queued", "running"].contains(&run["state"].as_str().unwrap()) {
            return run["state"].as_str().unwrap().to_owned();
        }
    };
    let parked = submit("refund");
    let id = desk.waiting("")[0]["id"].as_str().unwrap().to_owned();
    // The one place is free for as long as it waits, and neither watchdog nor deadline comes.
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(1_200) {
        assert_eq!(state(&desk.served, &submit("something else")), "done");
    }
    let (_, body) = desk.served.send("GET", "/fanout/v1/status", &[], "");
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&status["runs"]["running"], &status["approvals_open"]), (&json!(1), &json!(1)), "{status}");
    assert_eq!((&status["here"]["running"], &status["here"]["parked"]), (&json!(1), &json!(1)), "{status}");
    assert_eq!(run(desk.folder.path(), &[], &["pause"]).status.code(), Some(0));
    let came = run(desk.folder.path(), &[], &["status"]);
    let said = "runs: 1 running, 0 queued, 0 proposed\npaused by terminal: no queued run begins until `fanout unpause`\n\
                1 call waits for a person: `fanout approvals list`\n";
    assert_eq!(String::from_utf8(came.stdout).unwrap(), said);
    assert_eq!(run(desk.folder.path(), &[], &["unpause"]).status.code(), Some(0));
    desk.served.signal(rustix::process::Signal::KILL);
    let (code, out, err) = desk.approvals("", &["approve", &id, "--words", "gladly"]);
    assert_eq!((code, out), (Some(0), format!("{id} (refund) is approved\n")), "{err}");
    let next = Served::start(desk.folder.path(), &[ANY_PORT], &[]);
    assert_eq!(state(&next, &parked), "done");
    let last: Value = serde_json::from_slice(&claude.requests().last().unwrap().body).unwrap();
    let result = last["messages"][2]["content"][0]["content"].to_string();
    assert!(result.contains("refunded o1 250") && result.contains("the reviewer says: gladly"), "{last}");
    assert_eq!(claude.violations(), []);
}
