//! `fanout check --write`: what it adds, and what it leaves alone.

use std::path::Path;

use serde_json::{Value, json};

use crate::api::Api;
use crate::binary::Desk;

const MARK: &str = "# proposed by fanout check: review";

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The files in a folder; nothing may be left behind.
fn files(desk: &Desk) -> Vec<String> {
    let mut names: Vec<String> =
        desk.folder().read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every tool without what is proposed for it.
async fn proposed(desk: &Desk) -> Vec<Value> {
    let lines = desk.run(&["check", "--json"], "").await.lines();
    lines.into_iter().filter(|line| !line["proposed"].is_null() || line["type"] == "warning").collect()
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_lines_are_added_once_and_all_else_stays() {
    use std::os::unix::fs::PermissionsExt;

    let api = Api::open().await;
    let desk = Desk::new();
    let get = api.tool("get_order", "GET", "ok/orders/{id}", "# by id");
    let text = format!("# my shop\n{get}{}", api.tool("add_note", "POST", "ok/notes/{id}", ""));
    let real = desk.write("shop.toml", &text);
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("shop.toml", desk.folder().join("fanout.toml")).unwrap();
    assert_eq!(proposed(&desk).await.len(), 2);
    let came = desk.run(&["check", "--write"], "").await.code(0);
    let expected =
        text.replace("# by id", &format!("{MARK}\nreads = [\"order/{{id}}\"]\n# by id")).trim_end().to_owned()
            + &format!("\n{MARK}\nwrites = [\"note/{{id}}\"]\n\n\n");
    assert_eq!(read(&real), expected);
    let shown: Vec<&str> = came.out.lines().skip(1).collect();
    assert!(came.out.contains("fanout.toml: 2 declarations added; review them\n"), "{}", came.out);
    assert_eq!(shown[0], "    6 + # proposed by fanout check: review", "{shown:?}");
    assert_eq!(shown[1], "    7 + reads = [\"order/{id}\"]");
    assert_eq!((shown.len(), shown.iter().any(|line| line.contains(" - "))), (4, false), "{shown:?}");
    assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(desk.folder().join("fanout.toml").is_symlink());
    assert_eq!(files(&desk), ["fanout.toml", "shop.toml"]);
    assert_eq!(proposed(&desk).await, [] as [Value; 0]);
    let again = desk.run(&["check", "--write"], "").await.code(0);
    assert!(again.out.ends_with("fanout.toml: nothing to add\n"), "{}", again.out);
    assert_eq!(read(&real), expected);
    assert_eq!(api.all(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declaration_that_shows_another_to_be_missing_brings_it_along() {
    let (shop, mail) = (Api::open().await, Api::open().await);
    let config = [
        shop.tool("get_order", "GET", "ok/orders/{id}", "reads = [\"order/{id}\"]"),
        shop.tool("list_prices", "GET", "ok/prices", ""),
        mail.tool("send_order", "POST", "ok/send/{id}", ""),
        mail.tool("get_mail", "GET", "ok/mail/{id}", ""),
    ];
    let desk = Desk::with(&config.concat());
    // Nobody misses anything of `list_prices` until the mail's tools say that they use orders.
    assert_eq!(proposed(&desk).await.len(), 2);
    let lines = desk.run(&["check", "--write", "--json"], "").await.code(0).lines();
    let written = lines.last().unwrap();
    assert_eq!((&written["type"], &written["added"]), (&json!("written"), &json!(3)), "{lines:?}");
    assert_eq!(lines[0], json!({"type": "declared", "tool": "list_prices", "line": "reads = [\"price/*\"]"}));
    assert_eq!(proposed(&desk).await, [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_and_tools_of_servers_are_declared_in_their_sections() {
    let text = format!(
        "[openapi.shop]\nspec = \"shop.yaml\" # the shop's\n\n[mcp_servers.notes]\ncommand = {:?}\nargs = [\"mcp\", \"--config\", \"notes.toml\"]\n",
        env!("CARGO_BIN_EXE_fanout")
    );
    let desk = Desk::with(&text);
    desk.write(
        "shop.yaml",
        "openapi: 3.1.0\nservers: [{ url: 'https://shop.example' }]\npaths:\n  /orders: { get: { operationId: orders/list }, post: { operationId: orders/create } }\n  \
         /orders/{id}: { parameters: [{ name: id, in: path, required: true, schema: {} }], delete: {} }\n",
    );
    let note = "[run]\nplan = false\n[[tool]]\nname = \"edit_note\"\ninput = { id = { type = \"string\" } }\ncommand = { program = \"cat\" }\n";
    desk.write("notes.toml", note);
    desk.run(&["check", "--write"], "").await.code(0);
    let written = read(desk.folder().join("fanout.toml"));
    let expected = text
        .replace(
            "# the shop's\n",
            &format!(
                "# the shop's\n{MARK}\ntools.\"orders/list\" = {{ reads = [\"orders/*\"] }}\n{MARK}\ntools.\"orders/create\" = {{ writes = [\"orders/*\"] }}\n\
                 {MARK}\ntools.\"DELETE /orders/{{id}}\" = {{ writes = [\"orders/{{id}}/*\"] }}\n"
            ),
        )
        + &format!("{MARK}\ntools.edit_note = {{ writes = [\"note/{{id}}\"] }}\n");
    assert_eq!(written, expected);
    assert_eq!(proposed(&desk).await, [] as [Value; 0]);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_meanwhile_is_left_alone() {
    let api = Api::open().await;
    // It changes while its servers are asked.
    let changes = "[mcp_servers.changes]\ncommand = \"sh\"\nargs = [\"-c\", \"echo '# mine' >> fanout.toml\"]\n";
    let desk = Desk::with(&(api.tool("add_note", "POST", "ok/notes/{id}", "") + changes));
    let before = read(desk.folder().join("fanout.toml"));
    let came = desk.run(&["check", "--write"], "").await.code(2);
    assert!(
        came.err.contains("nothing was written") && came.err.contains("changed meanwhile; run it again"),
        "{}",
        came.err
    );
    let after = read(desk.folder().join("fanout.toml"));
    assert!(after.starts_with(&format!("{before}# mine\n")) && !after.contains(MARK), "{after}");
    assert_eq!(files(&desk), ["fanout.toml"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_file_there_is_nothing_to_write_to() {
    let came = Desk::new().run(&["check", "--write"], "").await.code(2);
    assert!(came.err.contains("`fanout init` makes one"), "{}", came.err);
}
