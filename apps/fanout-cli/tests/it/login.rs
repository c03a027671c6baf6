//! MCP servers that demand OAuth, through the binary: the login, the calls after it, and what is said when there is none.

use serde_json::{Value, json};

use crate::binary::{Came, Desk, content, ended};
use crate::tracker::{Tracker, address_of, browse};

const CALL: [(&str, &str, &str); 1] = [("a", "tracker__whoami", "{}")];

/// Logs in; `there` makes of the address that the browser is sent back to the one that it goes to.
async fn log_in(desk: &Desk, there: impl Fn(String) -> String) -> (Came, String) {
    let mut child = desk.start(&["login", "tracker", "--json"], "");
    let (child, url) = tokio::task::spawn_blocking(move || {
        let url = address_of(&mut child);
        (child, url)
    })
    .await
    .unwrap();
    let back = browse(&url).await;
    // Browsers ask for more than they are told to.
    let door = back.split("/callback").next().unwrap();
    assert_eq!(browse(&format!("{door}/favicon.ico")).await, "Nothing is here.");
    let page = browse(&there(back)).await;
    (ended(child).await, page)
}

async fn logged_in(tracker: &Tracker) -> Desk {
    let desk = Desk::with(&tracker.config("true")).set("RUST_LOG", "trace");
    let (came, page) = log_in(&desk, |back| back).await;
    assert_eq!(page, "You are logged in. This page can be closed.");
    came.code(0);
    desk
}

fn tokens(desk: &Desk) -> Value {
    serde_json::from_str(&std::fs::read_to_string(desk.folder().join(".fanout/mcp/tracker.json")).unwrap()).unwrap()
}

/// What came has no token in it, and the server saw nothing that it must not see.
#[track_caller]
fn is_clean(came: Came, tracker: &Tracker) -> Came {
    for text in [&came.out, &came.err] {
        assert!(!text.contains("access-token-") && !text.contains("refresh-token-"), "{text}");
        assert!(!text.contains("robot-secret"), "{text}");
    }
    assert_eq!(tracker.known().wrong, Vec::<String>::new());
    came
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_logs_in_once_and_every_call_after_it_is_let_in() {
    let tracker = Tracker::start(1).await;
    let desk = logged_in(&tracker).await;
    for _ in 0..2 {
        let came = is_clean(desk.run(&["call"], &content(&CALL)).await.code(0), &tracker);
        assert_eq!(came.results()[0].2, "you are [redacted token of mcp/tracker]");
    }
    assert_eq!(tracker.known().refreshes, 0);
    assert_eq!(std::fs::read_to_string(desk.folder().join(".fanout/mcp/.gitignore")).unwrap(), "*\n");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(desk.folder().join(".fanout/mcp/tracker.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let came = desk.run(&["login", "tracker", "--forget", "--json"], "").await.code(0);
    assert_eq!(came.json(), json!({ "server": "tracker", "logged_in": false, "forgotten": true }));
    let came = is_clean(desk.run(&["check"], "").await.code(2), &tracker);
    assert!(came.err.contains("its tools are missing: it demands a login: run `fanout login tracker`"), "{}", came.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_fifty_calls_find_expired_is_renewed_once() {
    let tracker = Tracker::start(50).await;
    let desk = logged_in(&tracker).await;
    tracker.known().revokes_first = true;
    let ids: Vec<String> = (0..50).map(|at| format!("c{at}")).collect();
    let calls: Vec<_> = ids.iter().map(|id| (id.as_str(), "tracker__whoami", "{}")).collect();
    let came = is_clean(desk.run(&["call"], &content(&calls)).await.code(0), &tracker);
    let results = came.results();
    let all = "you are [redacted token of mcp/tracker]";
    assert!(results.len() == 50 && results.iter().all(|(_, is_error, text)| !is_error && text == all), "{results:?}");
    assert_eq!(tracker.known().refreshes, 1);
    assert_eq!(
        (&tokens(&desk)["access_token"], &tokens(&desk)["refresh_token"]),
        (&json!("access-token-2"), &json!("refresh-token-2"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_too_old_is_renewed_before_it_is_sent() {
    let tracker = Tracker::start(1).await;
    let desk = logged_in(&tracker).await;
    let mut old = tokens(&desk);
    old["received_at"] = json!(1000);
    desk.write(".fanout/mcp/tracker.json", &old.to_string());
    tracker.known().tokens.clear();
    is_clean(desk.run(&["call"], &content(&CALL)).await.code(0), &tracker);
    is_clean(desk.run(&["call"], &content(&CALL)).await.code(0), &tracker);
    assert_eq!((tracker.known().refreshes, &tokens(&desk)["access_token"]), (1, &json!("access-token-2")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_is_refused_says_who_must_do_what() {
    let tracker = Tracker::start(1).await;
    let desk = logged_in(&tracker).await;
    tracker.known().refuses_refresh = true;
    tracker.known().tokens.clear();
    let came = is_clean(desk.run(&["call"], &content(&CALL)).await.code(0), &tracker);
    assert!(came.err.contains("the login does not hold any more (Server returned error response: invalid_grant): run `fanout login tracker`"), "{}", came.err);
    assert!(came.results()[0].2.contains("unknown_tool"), "{came:?}");
    // Whoever logs in again is let in again.
    tracker.known().refuses_refresh = false;
    log_in(&desk, |back| back).await.0.code(0);
    assert!(!desk.run(&["call"], &content(&CALL)).await.code(0).results()[0].1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_that_is_missing_is_named() {
    let tracker = Tracker::start(1).await;
    let desk = logged_in(&tracker).await;
    tracker.known().wants = Some("admin");
    let came = is_clean(desk.run(&["call"], &content(&CALL)).await.code(0), &tracker);
    let says =
        "it demands more than was asked for: `admin`; add it to `scopes` in `oauth`, and run `fanout login tracker`";
    assert!(came.results()[0].2.contains(says), "{came:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_is_taken_only_as_the_answer_to_this_login() {
    let elsewhere: fn(String) -> String = |back| back.replace("&state=", "&state=x");
    let other: fn(String) -> String = |back| back.replace("&iss=http://", "&iss=https://");
    let denied: fn(String) -> String = |back| back.replace("?code=", "?error=access_denied&error_description=no&x=");
    for (there, says) in [
        (elsewhere, "what came back from the browser does not answer this login (its `state` is another)"),
        (other, "the login to `tracker` was refused: Authorization server issuer mismatch"),
        (denied, "the login to `tracker` was refused: access_denied: no"),
    ] {
        let tracker = Tracker::start(1).await;
        let desk = Desk::with(&tracker.config("true"));
        let (came, page) = log_in(&desk, there).await;
        let came = is_clean(came.code(1), &tracker);
        assert!(came.err.contains(says), "{}", came.err);
        assert_eq!(page, "The login did not come about; the terminal says why.");
        assert!(tracker.known().tokens.is_empty() && !desk.folder().join(".fanout/mcp/tracker.json").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_speaks_for_itself_needs_no_login() {
    let tracker = Tracker::start(1).await;
    let oauth =
        "{ client_id = \"robot\", client_secret = \"${SECRET}\", scopes = [\"read\"], client_credentials = true }";
    let desk = Desk::with(&tracker.config(oauth)).set("SECRET", "robot-secret").set("RUST_LOG", "trace");
    let came = is_clean(desk.run(&["call"], &content(&CALL)).await.code(0), &tracker);
    assert_eq!(came.results()[0].2, "you are [redacted token of mcp/tracker]");
    assert!(!desk.folder().join(".fanout/oauth").exists(), "no token is kept");
    let came = desk.run(&["login", "tracker"], "").await.code(2);
    assert!(came.err.contains("needs no login: `client_credentials` in `oauth` is enough"), "{}", came.err);
    let wrong = Desk::with(&tracker.config(oauth)).set("SECRET", "another-secret");
    let came = wrong.run(&["check"], "").await.code(2);
    assert!(came.err.contains("refuses the `client_id` or the `client_secret`"), "{}", came.err);
    assert!(!came.err.contains("another-secret"), "{}", came.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_cannot_begin_says_why() {
    let tracker = Tracker::start(1).await;
    tracker.known().publishes_nothing = true;
    let bare = format!("[mcp_servers.tracker]\nurl = \"{}/mcp\"\n", tracker.base);
    let clear = "[mcp_servers.tracker]\nurl = \"http://tracker.example/mcp\"\noauth = true\n".to_owned();
    for (config, name, says) in [
        (tracker.config("true"), "tracker", "offers no login that can be used: it publishes no OAuth metadata"),
        (tracker.config("true"), "traker", "there is no [mcp_servers.traker]; did you mean `tracker`?"),
        (bare, "tracker", "does not say `oauth = true`"),
        (clear, "tracker", "`oauth` needs a `url` that begins with https://"),
    ] {
        let came = Desk::with(&config).run(&["login", name], "").await.code(2);
        assert!(came.err.contains(says), "{}", came.err);
    }
}
