//! A server as small as a test needs: it reads each request whole and writes the bytes it was told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

/// One thing the server does with a connection on which a request has come.
#[derive(Clone)]
pub(crate) enum Step {
    /// Writes these bytes.
    Write(Vec<u8>),
    /// Writes these bytes one at a time.
    Drip(Vec<u8>),
    /// Waits until the test says so.
    Wait(Arc<Notify>),
    /// Closes the connection.
    Close,
    /// Does nothing until the client is gone.
    Hang,
}

/// Requests and connections, as the server saw them.
#[derive(Default)]
pub(crate) struct Seen {
    /// Each request's head and body.
    pub(crate) requests: Vec<(String, Vec<u8>)>,
    pub(crate) connections: usize,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Seen>>,
    /// Told each time a client closed its connection.
    pub(crate) gone: mpsc::UnboundedReceiver<()>,
}

impl Server {
    /// Answers each request by the next of `answers`, on whatever connection it comes; the last one answers all that follow.
    pub(crate) async fn start(answers: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let (tell_gone, gone) = mpsc::unbounded_channel();
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.lock().unwrap().connections += 1;
                let (answers, shared, tell_gone) = (answers.clone(), Arc::clone(&shared), tell_gone.clone());
                tokio::spawn(async move {
                    serve(stream, &answers, &shared).await;
                    let _ = tell_gone.send(());
                });
            }
        });
        Self { address, seen, gone }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn serve(mut stream: TcpStream, answers: &[Vec<Step>], seen: &Mutex<Seen>) {
    stream.set_nodelay(true).unwrap();
    while let Some(request) = read_request(&mut stream).await {
        let answer = {
            let mut seen = seen.lock().unwrap();
            seen.requests.push(request);
            &answers[(seen.requests.len() - 1).min(answers.len() - 1)]
        };
        for step in answer {
            match step {
                Step::Write(bytes) => drop(stream.write_all(bytes).await),
                Step::Drip(bytes) => {
                    for byte in bytes {
                        let _ = stream.write_all(&[*byte]).await;
                        tokio::task::yield_now().await;
                    }
                }
                Step::Wait(notify) => notify.notified().await,
                Step::Close => return,
                Step::Hang => {
                    let _ = stream.read_u8().await;
                    return;
                }
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

/// An answer with a body of known length.
pub(crate) fn whole(status: &str, headers: &str, body: &str) -> Vec<Step> {
    vec![Step::Write(
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes(),
    )]
}

/// The head of an answer that streams events.
pub(crate) const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
     request-id: req_1\r\ntransfer-encoding: chunked\r\n\r\n";

/// One chunk of a chunked body; no bytes end it.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}
