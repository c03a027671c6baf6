//! HTTP as bytes: one request a connection, and the answer as it came, broken or not.
//!
//! From a test's method, path, headers and body. To an [`Answer`]. No HTTP library stands in between, so that what a client
//! library would smooth over is seen.

use std::io;

use fanout_script::{Server, ServerOptions};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The sizes of the chunks, if it came in chunks.
    pub(crate) chunks: Vec<usize>,
    /// The connection ended before the body did.
    pub(crate) broken: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("the body is UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    pub(crate) fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or_default().to_owned()
    }

    /// The events of a stream with LF line ends: name and data.
    pub(crate) fn events(&self) -> Vec<(String, Value)> {
        let text = self.text();
        let events = text.split("\n\n").filter(|event| !event.is_empty());
        events
            .map(|event| {
                let (name, data) = event.split_once('\n').expect("an event has two lines");
                let name = name.strip_prefix("event: ").expect("the first line is the event's name");
                let data = data.strip_prefix("data: ").expect("the second line is the data");
                (name.to_owned(), serde_json::from_str(data).expect("the data is JSON"))
            })
            .collect()
    }

    pub(crate) fn event_names(&self) -> Vec<String> {
        self.events().into_iter().map(|(name, _)| name).collect()
    }
}

/// Sends one request and reads until the server closes.
pub(crate) async fn send(
    base_url: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let address = base_url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut came = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(n) => came.extend_from_slice(&buffer[..n]),
            Err(error) if came.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    parse(&came).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
}

fn parse(came: &[u8]) -> Option<Answer> {
    let end = came.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = String::from_utf8(came[..end].to_vec()).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let rest = &came[end + 4..];
    let mut answer = Answer { status, headers, body: Vec::new(), chunks: Vec::new(), broken: false };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.broken = !dechunk(rest, &mut answer);
    } else {
        let length: usize = answer.header("content-length")?.parse().ok()?;
        answer.broken = rest.len() < length;
        answer.body = rest.to_vec();
    }
    Some(answer)
}

/// Whether the last chunk, the empty one, has come.
fn dechunk(mut rest: &[u8], into: &mut Answer) -> bool {
    while let Some(at) = rest.windows(2).position(|bytes| bytes == b"\r\n") {
        let Some(size) = std::str::from_utf8(&rest[..at]).ok().and_then(|text| usize::from_str_radix(text, 16).ok())
        else {
            return false;
        };
        if size == 0 {
            return true;
        }
        rest = &rest[at + 2..];
        let whole = size.min(rest.len());
        into.body.extend_from_slice(&rest[..whole]);
        into.chunks.push(whole);
        rest = rest.get(size + 2..).unwrap_or_default();
    }
    false
}

/// A server and the headers that every client of it sends.
pub(crate) struct Desk {
    pub(crate) server: Server,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
}

impl Desk {
    pub(crate) fn open(options: ServerOptions) -> Self {
        let server = Server::start(options).expect("the server starts");
        Self { server, headers: vec![("anthropic-version", "2023-06-01"), ("content-type", "application/json")] }
    }

    /// Posts a body to `/v1/messages`.
    pub(crate) async fn post(&self, body: &str) -> Answer {
        self.try_post(body).await.expect("there is an answer")
    }

    pub(crate) async fn try_post(&self, body: &str) -> io::Result<Answer> {
        send(&self.server.base_url(), "POST", "/v1/messages", &self.headers, body.as_bytes()).await
    }

    /// Asks with these messages, streaming or not.
    pub(crate) async fn ask(&self, messages: &str, stream: bool) -> Answer {
        self.post(&request(messages, stream)).await
    }
}

/// A request with these messages (JSON text, kept as it is).
pub(crate) fn request(messages: &str, stream: bool) -> String {
    format!(
        r#"{{"model":"claude-sonnet-5-5","max_tokens":64,"stream":{stream},"tools":{TOOLS},"messages":{messages}}}"#
    )
}

pub(crate) const TOOLS: &str = r#"[{"name":"look","input_schema":{"type":"object"}}]"#;

/// A user message of one text, in one spelling: these texts are compared byte for byte.
pub(crate) fn user(text: &str) -> String {
    format!(r#"{{"role":"user","content":{}}}"#, Value::from(text))
}

/// A user message of one plain result for each id.
pub(crate) fn results(ids: &[&str]) -> String {
    let block = |id: &&str| format!(r#"{{"type":"tool_result","tool_use_id":"{id}","content":"ok"}}"#);
    format!(r#"{{"role":"user","content":[{}]}}"#, ids.iter().map(block).collect::<Vec<_>>().join(","))
}

/// The exact text of `content` in a whole message.
pub(crate) fn content_of(body: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Whole<'a> {
        #[serde(borrow)]
        content: &'a serde_json::value::RawValue,
    }
    serde_json::from_str::<Whole<'_>>(body).expect("a whole message").content.get().to_owned()
}

/// A request whose answer is read only as far as a test wants.
pub(crate) struct Opened(TcpStream);

impl Opened {
    pub(crate) async fn post(desk: &Desk, body: &str) -> Self {
        let base_url = desk.server.base_url();
        let mut stream = TcpStream::connect(base_url.trim_start_matches("http://")).await.expect("a connection");
        let mut head = format!("POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in &desk.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.expect("the request is sent");
        Self(stream)
    }

    /// Reads until the answer so far holds `words`.
    pub(crate) async fn read_until(&mut self, words: &str) {
        let mut came = Vec::new();
        while !String::from_utf8_lossy(&came).contains(words) {
            let mut buffer = [0; 4096];
            let n = self.0.read(&mut buffer).await.expect("the connection holds");
            assert!(n > 0, "the answer ended before `{words}`");
            came.extend_from_slice(&buffer[..n]);
        }
    }
}
