//! Webhooks to a real HTTP server: signed, tried again, never in anybody's way.
//!
//! Signatures are verified by the example in `docs/notify.md`, run by Python, which shares no code with ours.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanout_core::event::{Event, Recorder, What};
use fanout_core::retry::Backoff;
use fanout_host::config::Config;
use fanout_host::environment::Environment;
use fanout_host::notify::{HookError, Notice, NoticeCounts, NoticeKind, Notices, hooks};
use fanout_tools::http::HttpClient;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SOON: Backoff = Backoff { attempts: 4, base: Duration::from_millis(5), max: Duration::from_millis(20) };
const LONG: Duration = Duration::from_secs(60);

/// A request as it came: its headers in lower case, and its body.
#[derive(Clone, Debug)]
struct Came {
    head: String,
    body: String,
}

impl Came {
    fn header(&self, name: &str) -> &str {
        let start = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(start.as_str())).unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// How a receiver answers the last of these requests; `None`: never.
type Answers = dyn Fn(&[Came]) -> Option<&'static str> + Send + Sync;

/// A receiver that keeps what comes.
struct Receiver {
    base: String,
    came: Arc<Mutex<Vec<Came>>>,
    count: watch::Receiver<usize>,
}

impl Receiver {
    /// One that answers by the number of a request, the first being 0.
    async fn start(answers: impl Fn(usize) -> Option<&'static str> + Send + Sync + 'static) -> Self {
        Self::start_by(move |came| answers(came.len() - 1)).await
    }

    async fn start_by(answers: impl Fn(&[Came]) -> Option<&'static str> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (came, answers): (Arc<Mutex<Vec<Came>>>, Arc<Answers>) = (Arc::default(), Arc::new(answers));
        let (counted, count) = watch::channel(0);
        let (kept, counted) = (Arc::clone(&came), Arc::new(counted));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&kept), Arc::clone(&answers), Arc::clone(&counted)));
            }
        });
        Self { base, came, count }
    }

    fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }

    /// Waits until so many requests have come.
    async fn until(&self, many: usize) {
        self.count.clone().wait_for(|count| *count >= many).await.unwrap();
    }
}

/// Answers the requests of one connection, one after another.
async fn converse(
    mut stream: TcpStream,
    kept: Arc<Mutex<Vec<Came>>>,
    answers: Arc<Answers>,
    counted: Arc<watch::Sender<usize>>,
) {
    let mut bytes = Vec::new();
    loop {
        let whole = |bytes: &[u8]| -> Option<(Came, usize)> {
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
            let head = String::from_utf8_lossy(&bytes[..end]).to_string();
            let length =
                head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let until = end + length.unwrap_or(0);
            let body = String::from_utf8_lossy(bytes.get(end..until)?).to_string();
            Some((Came { head, body }, until))
        };
        let Some((came, until)) = whole(&bytes) else {
            match stream.read_buf(&mut bytes).await {
                Ok(1..) => continue,
                _ => return,
            }
        };
        bytes.drain(..until);
        let answer = {
            let mut kept = kept.lock().unwrap();
            kept.push(came);
            answers(&kept)
        };
        counted.send_modify(|count| *count += 1);
        match answer {
            None => std::future::pending().await,
            Some("closed") => return,
            Some(status) => {
                let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nlocation: http://127.0.0.1:9/\r\n\r\n");
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn config(tables: &str) -> Config {
    Config::parse("fanout.toml", tables, Path::new("."), &Environment::default())
        .unwrap_or_else(|error| panic!("{error}"))
}

fn table(base: &str, events: &str) -> String {
    format!("[[notify]]\nurl = \"{base}/hook/s3cret-path\"\nsecret = \"{SECRET}\"\nevents = {events}\n")
}

fn start(tables: &str, queue_max: usize) -> Notices {
    let hooks = hooks(&config(tables), &Environment::default()).unwrap();
    Notices::start_with(hooks, &HttpClient::direct(), SOON, queue_max)
}

fn ended(run: &str, status: &'static str) -> Event {
    let what = What::RunEnded { status, reason: Some("the \"reason\"\n".into()) };
    Event { run: run.into(), at: Duration::from_secs(3), what }
}

const ALL: &str = r#"["run_ended", "budget", "breaker_open", "approval"]"#;

fn counts(delivered: u64, failed: u64, dropped: u64) -> NoticeCounts {
    NoticeCounts { delivered, failed, dropped }
}

/// Whether the example of the page takes this request for genuine.
fn python_verifies(secret: &str, came: &Came) -> bool {
    let page = include_str!("../../../../docs/notify.md");
    let example = page.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let asked = json!({
        "secret": secret, "body": came.body,
        "headers": {
            "webhook-id": came.header("webhook-id"), "webhook-timestamp": came.header("webhook-timestamp"),
            "webhook-signature": came.header("webhook-signature"),
        },
    });
    let ask = "import json, sys\nasked = json.load(sys.stdin)\n\
               print(verify(asked['secret'], asked['headers'], asked['body'].encode()))\n";
    let mut python = Command::new("python3")
        .args(["-c", &format!("{example}\n{ask}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3, to run the example of docs/notify.md");
    python.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let said = python.wait_with_output().unwrap();
    assert!(said.status.success());
    String::from_utf8(said.stdout).unwrap().trim() == "True"
}

#[tokio::test]
async fn a_notice_is_signed_so_that_others_can_verify_it() {
    let receiver = Receiver::start(|_| Some("204 No Content")).await;
    let notices = start(&table(&receiver.base, ALL), 10);
    notices.record(&ended("run_1", "done"));
    notices.close(LONG).await;
    let came = &receiver.came()[0];
    assert!(came.head.starts_with("POST /hook/s3cret-path HTTP/1.1"), "{}", came.head);
    assert_eq!(came.header("content-type"), "application/json");
    let said = came.json();
    assert_eq!((&said["type"], &said["run"], &said["status"]), (&json!("run_ended"), &json!("run_1"), &json!("done")));
    assert_eq!(said["id"], came.header("webhook-id"));
    assert!(chrono::DateTime::parse_from_rfc3339(said["at"].as_str().unwrap()).is_ok(), "{said}");
    assert!(python_verifies(SECRET, came));
    assert!(!python_verifies("whsec_AAAA", came), "by another secret");
    let forged = Came { body: came.body.replace("done", "failed"), ..came.clone() };
    assert!(!python_verifies(SECRET, &forged), "another body");
    assert_eq!(notices.counts(), counts(1, 0, 0));
}

#[tokio::test]
async fn an_address_is_told_what_it_asked_for_and_nothing_else() {
    let receiver = Receiver::start(|_| Some("200 OK")).await;
    let other = Receiver::start(|_| Some("200 OK")).await;
    let tables = table(&receiver.base, r#"["budget", "breaker_open"]"#) + &table(&other.base, r#"["approval"]"#);
    let notices = start(&tables, 10);
    notices.record(&ended("run_1", "done"));
    notices.record(&ended("run_2", "budget"));
    let what = What::BreakerOpened { group: "payments".into(), wait: Duration::from_secs(30) };
    notices.record(&Event { run: "run_3".into(), at: Duration::ZERO, what });
    notices.record(&Event { run: "run_3".into(), at: Duration::ZERO, what: What::RunResumed });
    let what = What::ApprovalAsked { call: "toolu_1".into(), tool: "charge".into(), approval: "apr_1".into() };
    notices.record(&Event { run: "run_4".into(), at: Duration::ZERO, what });
    notices.close(LONG).await;
    let said: BTreeSet<String> = receiver.came().iter().map(|came| came.json()["type"].to_string()).collect();
    assert_eq!(said, ["\"breaker_open\"", "\"budget\""].map(str::to_owned).into());
    let approval = &other.came()[0].json();
    let said = ["run", "approval", "call", "tool"].map(|name| approval[name].as_str().unwrap());
    assert_eq!(said, ["run_4", "apr_1", "toolu_1", "charge"]);
    assert_eq!((receiver.came().len(), other.came().len()), (2, 1));
}

#[tokio::test]
async fn what_may_be_mended_by_waiting_is_tried_again_under_one_id() {
    let trouble = ["500 Oh", "503 Busy", "closed", "429 Slow"];
    let receiver =
        Receiver::start(move |number| Some(if number % 4 < 3 { trouble[number % 4] } else { "200 OK" })).await;
    let notices = start(&table(&receiver.base, ALL), 10);
    notices.record(&ended("run_1", "done"));
    notices.close(LONG).await;
    let came = receiver.came();
    assert_eq!((came.len(), notices.counts()), (4, counts(1, 0, 0)));
    assert!(
        came.iter().all(|one| one.header("webhook-id") == came[0].header("webhook-id") && one.body == came[0].body)
    );
}

#[tokio::test]
async fn what_waiting_does_not_mend_is_given_up() {
    for (status, tries) in [("400 Bad", 1), ("404 No", 1), ("302 Found", 1), ("429 Slow", 4), ("500 Oh", 4)] {
        let receiver = Receiver::start(move |_| Some(status)).await;
        let notices = start(&table(&receiver.base, ALL), 10);
        notices.record(&ended("run_1", "done"));
        notices.close(LONG).await;
        assert_eq!((receiver.came().len(), notices.counts()), (tries, counts(0, 1, 0)), "{status}");
    }
}

#[tokio::test]
async fn a_thousand_runs_that_end_at_once_are_all_told() {
    // Of every tenth no try is taken but the last.
    let answer = |came: &[Came]| {
        let id = came.last().unwrap().header("webhook-id");
        let tries = came.iter().filter(|came| came.header("webhook-id") == id).count();
        let is_tenth = came.last().unwrap().json()["run"].as_str().unwrap().ends_with('0');
        Some(if is_tenth && tries < 4 { "500 Oh" } else { "200 OK" })
    };
    let receiver = Receiver::start_by(answer).await;
    let notices = start(&table(&receiver.base, ALL), 1_000);
    for run in 0..1_000 {
        notices.record(&ended(&format!("run_{run}"), "done"));
    }
    notices.close(LONG).await;
    assert_eq!(notices.counts(), counts(1_000, 0, 0));
    let ids: BTreeSet<String> = receiver.came().iter().map(|came| came.header("webhook-id").to_owned()).collect();
    assert_eq!((ids.len(), receiver.came().len()), (1_000, 1_300));
}

#[tokio::test]
async fn an_address_that_is_down_delays_nobody_and_what_it_cannot_take_is_counted() {
    let (silent, well) = (Receiver::start(|_| None).await, Receiver::start(|_| Some("200 OK")).await);
    let notices = start(&(table(&silent.base, ALL) + &table(&well.base, ALL)), 50);
    notices.record(&ended("run_first", "done"));
    silent.until(1).await;
    for run in 0..50 {
        notices.record(&ended(&format!("run_{run}"), "done"));
        // The other address is not behind.
        well.until(run + 1).await;
    }
    well.until(51).await;
    // Eight are on their way, one is in hand and fifty wait: the rest does not fit.
    silent.until(8).await;
    for run in 50..100 {
        notices.record(&ended(&format!("run_{run}"), "done"));
        well.until(run + 2).await;
    }
    let dropped = notices.counts().dropped;
    assert!((101 - 8 - 1 - 50..=101 - 50).contains(&(dropped as usize)), "{dropped}");
    notices.close(Duration::from_millis(1)).await;
    let counts = notices.counts();
    assert_eq!(counts.delivered + counts.failed + counts.dropped, 2 * 101, "{counts:?}");
    notices.record(&ended("run_late", "done"));
    assert_eq!(notices.counts(), counts, "once it is closed nothing is taken");
}

#[test]
fn an_id_is_the_event_s_own() {
    let at = std::time::SystemTime::UNIX_EPOCH;
    let id = |kind, run: &str, which: &str| Notice::new(kind, &run.into(), which, at, Map::new()).id;
    let one = id(NoticeKind::Approval, "run_1", "a");
    assert_eq!(
        one,
        Notice::new(NoticeKind::Approval, &"run_1".into(), "a", std::time::SystemTime::now(), Map::new()).id
    );
    let others = [
        id(NoticeKind::Budget, "run_1", "a"),
        id(NoticeKind::Approval, "run_2", "a"),
        id(NoticeKind::Approval, "run_1", "b"),
        id(NoticeKind::Approval, "run_", "1a"),
    ];
    let all: BTreeSet<String> = others.into_iter().chain([one]).collect();
    assert_eq!(all.len(), 5);
    assert!(all.iter().all(|id| id.len() == 4 + 32 && id.starts_with("msg_")), "{all:?}");
}

#[test]
fn an_address_that_cannot_be_used_is_told_before_anything_runs() {
    let said = |url: &str, secret: &str, variables: &[(&str, &str)]| {
        let text = format!("[[notify]]\nurl = \"{url}\"\nsecret = \"{secret}\"\n");
        let environment: Environment = variables.iter().copied().collect();
        let config = Config::parse("fanout.toml", &text, Path::new("."), &environment).unwrap();
        hooks(&config, &environment).err().map(|error: HookError| error.to_string()).unwrap_or_default()
    };
    let url = "https://a.example";
    assert_eq!(said(url, "${SECRET}", &[("SECRET", "s3cret")]), "");
    assert!(said(url, "${SECRET}", &[]).contains("SECRET"));
    assert_eq!(
        said("${URL}", "x", &[("URL", "a.example/s3cret")]),
        "`url` of [[notify]] number 1 is no address such as \"https://example.com/hook\""
    );
    assert_eq!(
        said(url, "whsec_s3cret!", &[]),
        "`secret` of [[notify]] number 1 begins with `whsec_`, and what follows is not base64"
    );
    assert_eq!(said(url, "whsec_", &[]), "`secret` of [[notify]] number 1 is empty");
}
