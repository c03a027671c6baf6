//! OpenAPI documents that a configuration names by address.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Redirect, Response};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::binary::Desk;

const DOCUMENT: &str = r#"{"openapi":"3.1.0","info":{"title":"t","version":"1"},"servers":[{"url":"http://127.0.0.1:9"}],
    "paths":{"/orders":{"get":{"operationId":"list","responses":{"200":{"description":"d"}}}}}}"#;

/// Whoever has documents, and how often it was asked.
struct Shelf {
    url: String,
    asked: Arc<AtomicUsize>,
    served: JoinHandle<()>,
}

impl Shelf {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let app = Router::new().fallback(answer).with_state(Arc::clone(&asked));
        let served = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, asked, served }
    }
}

async fn answer(State(asked): State<Arc<AtomicUsize>>, uri: Uri) -> Response {
    asked.fetch_add(1, Ordering::Relaxed);
    match uri.path() {
        "/moved" => Redirect::temporary("/openapi.json").into_response(),
        "/round" => Redirect::temporary("/round").into_response(),
        "/out" => Redirect::temporary("http://192.0.2.1/openapi.json").into_response(),
        "/openapi.json" => DOCUMENT.into_response(),
        "/long" => vec![b' '; 64 * 1024 * 1024 + 1].into_response(),
        "/page" => "<html>sign in</html>".into_response(),
        _ => axum::http::StatusCode::NOT_FOUND.into_response(),
    }
}

fn config(spec: &str) -> String {
    format!("[openapi.shop]\nspec = \"{spec}\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_at_an_address_is_downloaded_once_and_kept() {
    let shelf = Shelf::open().await;
    let desk = Desk::with(&config(&format!("{}/moved", shelf.url)));
    let unread = desk.run(&["keys", "list"], "").await.code(2);
    assert!(unread.err.contains("fanout.toml:2:8: the document at `http://127.0.0.1:"), "{}", unread.err);
    assert!(unread.err.contains("is not downloaded yet: `fanout check` does it once"), "{}", unread.err);
    let first = desk.run(&["check"], "").await.code(0);
    assert!(first.err.contains("downloaded the document of [openapi.shop] to "), "{}", first.err);
    assert!(first.out.contains("\nshop__list (http/127.0.0.1:9, repeatable)\n"), "{}", first.out);
    assert_eq!(shelf.asked.load(Ordering::Relaxed), 2);
    shelf.served.abort();
    let again = desk.run(&["check"], "").await.code(0);
    assert_eq!((again.out, again.err.contains("downloaded")), (first.out, false));
    let ignored = std::fs::read_to_string(desk.folder().join(".fanout/openapi/.gitignore")).unwrap();
    assert_eq!(ignored, "*\n");
    // Another address is another document.
    desk.write("fanout.toml", &config(&format!("{}/other", shelf.url)));
    assert!(desk.run(&["check"], "").await.code(2).err.contains("cannot be downloaded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_document_says_so_and_leaves_nothing_behind() {
    let shelf = Shelf::open().await;
    for (spec, why) in [
        (format!("{}/absent", shelf.url), "answered 404"),
        (format!("{}/round", shelf.url), "leads on and on, or nowhere"),
        (format!("{}/out", shelf.url), "`http://192.0.2.1/openapi.json` is not encrypted"),
        (format!("{}/long", shelf.url), "is longer than 67108864 bytes"),
        ("http://example.com/openapi.json".to_owned(), "is not encrypted"),
        ("ftp://example.com/openapi.json".to_owned(), "is no address such as"),
        ("http://127.0.0.1:9/openapi.json".to_owned(), "cannot be had: "),
        ("http://127.0.0.1:9/openapi.json".to_owned(), "Connection refused"),
    ] {
        let desk = Desk::with(&config(&spec));
        let came = desk.run(&["check"], "").await.code(2);
        assert!(came.err.contains("the document of [openapi.shop] cannot be downloaded: "), "{}", came.err);
        assert_eq!(came.err.matches(why).count(), 1, "{}", came.err);
        assert!(!desk.folder().join(".fanout").exists(), "{spec}");
    }
    let desk = Desk::with(&config(&format!("{}/page", shelf.url)));
    let came = desk.run(&["check"], "").await.code(2);
    assert!(came.err.contains("fanout.toml:2:8: ") && came.err.contains(".fanout/openapi/shop_"), "{}", came.err);
}
