//! A line that breaks while COMMIT is under way: whether it was kept is found out, and never guessed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanout_core::tool::ToolError;
use fanout_tools::sql::{Database, DatabaseOptions, SqlTool};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{call, one, postgres};

/// What becomes of the line when COMMIT comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The server gets it, and its answer is lost.
    Behind,
    /// The server never gets it.
    Before,
    /// The server gets it, its answer is lost, and nobody gets through any more.
    Off,
}

/// A way to the server that is cut at the first COMMIT. Answers its port, and how many lines there were.
async fn cut_line(server: u16, cut: Cut) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, lines) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&lines);
    tokio::spawn(async move {
        let mut is_cut = false;
        while let Ok((client, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            if is_cut && cut == Cut::Off {
                continue;
            }
            let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
            if is_cut {
                tokio::spawn(async move { carry(client, server, None).await });
            } else {
                is_cut = carry(client, server, Some(cut)).await;
            }
        }
    });
    (port, lines)
}

/// Carries bytes both ways; answers whether the line was cut.
async fn carry(mut client: TcpStream, mut server: TcpStream, cut: Option<Cut>) -> bool {
    let (mut from_client, mut from_server) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let bytes = match read { Ok(0) | Err(_) => return false, Ok(n) => &from_client[..n] };
                let is_commit = bytes.windows(6).any(|window| window == b"COMMIT");
                if let Some(cut) = cut.filter(|_| is_commit) {
                    if cut != Cut::Before {
                        server.write_all(bytes).await.unwrap();
                        // It is carried out once the server answers.
                        assert!(server.read(&mut from_server).await.unwrap() > 0);
                    }
                    return true;
                }
                server.write_all(bytes).await.unwrap();
            }
            read = server.read(&mut from_server) => match read {
                Ok(0) | Err(_) => return false,
                Ok(n) => client.write_all(&from_server[..n]).await.unwrap(),
            }
        }
    }
}

/// The URL of a server by way of a line that is cut, and how many lines there were.
pub(super) async fn through_cut_line(url: &str, cut: Cut) -> (String, Arc<AtomicUsize>) {
    let port = url.rsplit_once(':').unwrap().1.split('/').next().unwrap().parse().unwrap();
    let (cut_port, lines) = cut_line(port, cut).await;
    (format!("{}?sslmode=disable", url.replace(&format!(":{port}/"), &format!(":{cut_port}/"))), lines)
}

async fn check(cut: Cut) -> (Result<serde_json::Value, ToolError>, serde_json::Value, usize) {
    let (place, direct) = postgres("create table log (n int)").await;
    let (url, lines) = through_cut_line(&place.user_url(), cut).await;
    let database = Database::new("shop", DatabaseOptions::new(url)).unwrap();
    let write =
        SqlTool::builder("log", &database).statement("insert into log values (:n) returning n").build().unwrap();
    let ended = call(&write, json!({"n": 7})).await;
    (ended, one(&direct, "select count(*) from log", json!({})).await, lines.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_commit_that_was_carried_out_and_not_answered_is_known_to_be_kept() {
    let (ended, kept, lines) = check(Cut::Behind).await;
    assert_eq!(ended.unwrap()["rows"], json!([{"n": 7}]));
    assert_eq!((kept, lines), (json!(1), 2), "the server was asked on a second line");
}

#[tokio::test]
async fn a_commit_that_never_arrived_has_kept_nothing_and_may_go_again() {
    let (ended, kept, lines) = check(Cut::Before).await;
    let error = ended.unwrap_err();
    assert!(matches!(&error, ToolError::NotSent(told) if told.contains("before anything was kept")), "{error:?}");
    assert_eq!((kept, lines), (json!(0), 2), "the server was asked on a second line");
}

#[tokio::test]
async fn a_commit_whose_fate_nobody_can_tell_is_of_unknown_outcome() {
    let (ended, kept, lines) = check(Cut::Off).await;
    let error = ended.unwrap_err();
    assert!(matches!(&error, ToolError::Broken(_)), "{error:?}");
    assert_eq!(kept, json!(1), "it was kept, and nobody could know");
    assert!(lines > 2, "it was asked for, {lines} lines");
}
