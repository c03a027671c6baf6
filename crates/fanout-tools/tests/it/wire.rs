//! A server that keeps to a script, byte by byte, and counts what it saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// One thing that the server does. When all is done, it hangs up.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Reads a whole request.
    Read,
    /// Waits for the first byte of a request and reads nothing.
    Notice,
    /// Writes this.
    Write(Vec<u8>),
    /// Writes this byte by byte, with a pause after each, and its last byte for ever.
    Drip(&'static [u8]),
    /// Writes this again and again.
    Repeat(Vec<u8>),
    /// Says that it will write no more, and reads until the client has hung up too.
    HalfClose,
    /// Does nothing until the client hangs up.
    Hang,
    /// Hangs up without a good-bye.
    Reset,
}

pub(crate) use Act::{Drip, HalfClose, Hang, Notice, Read, Repeat, Reset};

/// Writes this text.
pub(crate) fn write(text: &str) -> Act {
    Act::Write(text.as_bytes().to_vec())
}

/// A running server; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) base: String,
    saw: Arc<Saw>,
}

struct Saw {
    connections: AtomicUsize,
    requests: AtomicUsize,
    over: watch::Sender<usize>,
}

impl Wire {
    /// Does this on every connection.
    pub(crate) async fn start(script: impl IntoIterator<Item = Act>) -> Self {
        let script: Vec<Act> = script.into_iter().collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let saw = Saw { connections: AtomicUsize::new(0), requests: AtomicUsize::new(0), over: watch::Sender::new(0) };
        let wire = Self { base, saw: Arc::new(saw) };
        let saw = Arc::clone(&wire.saw);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                saw.connections.fetch_add(1, Ordering::SeqCst);
                let (script, saw) = (script.clone(), Arc::clone(&saw));
                tokio::spawn(async move {
                    play(stream, script, &saw).await;
                    saw.over.send_modify(|over| *over += 1);
                });
            }
        });
        wire
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.saw.connections.load(Ordering::SeqCst)
    }

    /// How many requests came, also those that were not read.
    pub(crate) fn requests(&self) -> usize {
        self.saw.requests.load(Ordering::SeqCst)
    }

    /// Waits until every connection has ended.
    pub(crate) async fn quiet(&self) {
        let connections = self.connections();
        self.saw.over.subscribe().wait_for(|over| *over >= connections).await.unwrap();
    }
}

/// Plays until the end, or until the client has hung up.
async fn play(mut stream: TcpStream, script: Vec<Act>, saw: &Saw) {
    stream.set_nodelay(true).unwrap();
    for act in script {
        let went_on = match act {
            Act::Read => {
                let read = read_request(&mut stream).await;
                saw.requests.fetch_add(usize::from(read), Ordering::SeqCst);
                read
            }
            Act::Notice => {
                let came = matches!(stream.peek(&mut [0]).await, Ok(1));
                saw.requests.fetch_add(usize::from(came), Ordering::SeqCst);
                came
            }
            Act::Write(bytes) => stream.write_all(&bytes).await.is_ok(),
            Act::Drip(bytes) => drip(&mut stream, bytes).await,
            Act::Repeat(bytes) => {
                while stream.write_all(&bytes).await.is_ok() {}
                false
            }
            Act::HalfClose => {
                let _ = stream.shutdown().await;
                drain(&mut stream).await
            }
            Act::Hang => drain(&mut stream).await,
            Act::Reset => {
                stream.set_zero_linger().unwrap();
                false
            }
        };
        if !went_on {
            return;
        }
    }
}

async fn drip(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    for byte in bytes.iter().chain(std::iter::repeat(&bytes[bytes.len() - 1])) {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    false
}

async fn drain(stream: &mut TcpStream) -> bool {
    let mut rest = [0; 4096];
    while matches!(stream.read(&mut rest).await, Ok(length) if length > 0) {}
    false
}

/// Whether a whole request came.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut read = Vec::new();
    loop {
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(length) if length > 0 => read.extend_from_slice(&piece[..length]),
            _ => return false,
        }
        let text = String::from_utf8_lossy(&read).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        if body.len() >= length.unwrap_or(0) {
            return true;
        }
    }
}
