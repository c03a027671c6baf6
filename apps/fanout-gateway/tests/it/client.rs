//! A client that can be rude: it sends exactly what it is told, and hangs up when it likes.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Checks that it is an error in the API's shape, and gives its status, type and code.
    #[track_caller]
    pub fn error(&self) -> (u16, String, String) {
        let json = self.json();
        assert_eq!(json["type"], "error", "{json}");
        assert_eq!(json["request_id"].as_str(), self.header("request-id"), "{json}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        let message = json["error"]["message"].as_str().unwrap();
        assert!(!message.is_empty() && !message.ends_with('.'), "{message}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (self.status, text(&json["error"]["type"]), text(&json["error"]["details"]["error_code"]))
    }

    /// The events of a stream: names and data.
    pub fn events(&self) -> Vec<(String, Value)> {
        let field = |event: &str, name: &str| {
            event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
        };
        let events = self.body.split("\n\n").filter_map(|event| Some((field(event, "event")?, field(event, "data")?)));
        events.map(|(name, data)| (name, serde_json::from_str(&data).unwrap())).collect()
    }
}

/// A request of any kind. `host` is right unless the headers say otherwise.
pub async fn send(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream = begin(address, method, path, headers, body).await;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    parse(&bytes)
}

/// Sends a request and leaves the answer to be read, or not.
pub async fn begin(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
    let has = |name: &str| headers.iter().any(|(key, _)| *key == name);
    let mut text = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if !has("host") {
        text += &format!("host: {address}\r\n");
    }
    if !body.is_empty() && !has("content-length") && !has("transfer-encoding") {
        text += &format!("content-length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{text}\r\n{body}").as_bytes()).await.unwrap();
    stream
}

fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let pair = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
    let headers: Vec<_> = lines.filter_map(pair).collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if chunked { whole(body) } else { body.to_owned() };
    Answer { status, headers, body }
}

fn whole(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body += &rest[..size];
        chunks = rest.get(size + 2..).unwrap_or_default();
    }
    body
}
