//! Who may import whom, and what no file may hold: rules that a reviewer would otherwise have to remember.
//!
//! From `cargo metadata` and the files that git knows or would take. Each rule is one test, named by its sentence.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

/// Which crates of ours each crate may depend on: from lower levels only, never sideways. The one exception is the
/// command line, which serves the gateway.
const MAY_IMPORT: [(&str, &[&str]); 15] = [
    ("fanout-core", &[]),
    ("fanout-anthropic", &[]),
    ("fanout-tools", &["fanout-core", "fanout-anthropic"]),
    ("fanout-journal", &["fanout-core", "fanout-anthropic"]),
    ("fanout-script", &["fanout-core", "fanout-anthropic"]),
    ("fanout-agent", &["fanout-core", "fanout-anthropic"]),
    ("fanout-host", &["fanout-core", "fanout-anthropic", "fanout-tools", "fanout-journal", "fanout-agent"]),
    ("fanout", &["fanout-core", "fanout-anthropic", "fanout-tools", "fanout-journal", "fanout-agent"]),
    ("fanout-gateway", BELOW_THE_APPS),
    (
        "fanout-cli",
        &[
            "fanout-core",
            "fanout-anthropic",
            "fanout-tools",
            "fanout-journal",
            "fanout-script",
            "fanout-agent",
            "fanout-host",
            "fanout-gateway",
        ],
    ),
    ("fanout-testing", &["fanout-core"]),
    ("fanout-examples", &["fanout", "fanout-script"]),
    ("fanout-benches", BENCHES),
    // It starts the command line as people do, so it imports nothing of it.
    ("fanout-clients", &["fanout-script", "fanout-testing"]),
    ("xtask", &[]),
];

const BELOW_THE_APPS: &[&str] = match BENCHES.split_last() {
    Some((_testing, below)) => below,
    None => &[],
};

/// A bench starts a throw-away server.
const BENCHES: &[&str] = &[
    "fanout-core",
    "fanout-anthropic",
    "fanout-tools",
    "fanout-journal",
    "fanout-script",
    "fanout-agent",
    "fanout-host",
    "fanout",
    "fanout-testing",
];

/// Crates that speak HTTP, TLS or SQL; the scheduler's tree holds none of them.
const NETWORK: [&str; 22] = [
    "axum",
    "curl",
    "diesel",
    "h2",
    "http",
    "http-body",
    "hyper",
    "hyper-util",
    "libsqlite3-sys",
    "mysql",
    "native-tls",
    "openssl",
    "postgres",
    "quinn",
    "reqwest",
    "rusqlite",
    "rustls",
    "sqlx",
    "tokio-postgres",
    "tokio-rustls",
    "tower-http",
    "ureq",
];

/// More lines than this hold a second idea.
const LINES_MAX: usize = 700;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace's root")
}

fn metadata(with_dependencies: bool) -> Metadata {
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml"));
    if !with_dependencies {
        command.no_deps();
    }
    command.exec().expect("cargo metadata")
}

/// Every file of the project that ends in one of these, relative to the root, with its text.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    let known = known_files();
    let wanted = known.into_iter().filter(|path| endings.iter().any(|ending| path.ends_with(ending)));
    let read = |path: String| {
        let text = std::fs::read_to_string(root().join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        (path, text)
    };
    let files: Vec<_> = wanted.map(read).collect();
    assert!(!files.is_empty(), "no file ends in {endings:?}: this test looks in the wrong place");
    files
}

/// The files that git tracks or would take.
fn known_files() -> BTreeSet<String> {
    let args = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").args(args).current_dir(root()).output().expect("git, to list the project's files");
    assert!(listed.status.success(), "git cannot list the files: {}", String::from_utf8_lossy(&listed.stderr));
    let text = String::from_utf8_lossy(&listed.stdout);
    text.lines().filter(|path| root().join(path).is_file()).map(str::to_owned).collect()
}

/// Fails with one line for everything found.
#[track_caller]
fn none(found: impl IntoIterator<Item = String>) {
    let found: Vec<String> = found.into_iter().collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Every line of these files in which `is_bad` finds something, as `path:line: text`.
fn lines(files: &[(String, String)], is_bad: impl Fn(&str) -> bool) -> Vec<String> {
    let in_file = |(path, text): &(String, String)| -> Vec<String> {
        let numbered = text.lines().enumerate().filter(|(_, line)| is_bad(line));
        numbered.map(|(at, line)| format!("{path}:{}: {}", at + 1, line.trim())).collect()
    };
    files.iter().flat_map(in_file).collect()
}

#[test]
fn a_crate_imports_from_lower_levels_only() {
    let (table, metadata) = (BTreeMap::from(MAY_IMPORT), metadata(false));
    let ours: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let mut found = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let Some(allowed) = table.get(name) else {
            found.push(format!("{name}: no line of the table says whom it may import"));
            continue;
        };
        let edges = package.dependencies.iter().filter(|edge| edge.kind != DependencyKind::Development);
        let ours = edges.filter(|edge| ours.contains(edge.name.as_str()));
        found.extend(
            ours.filter(|edge| !allowed.contains(&edge.name.as_str()))
                .map(|edge| format!("{name} must not import {}", edge.name)),
        );
    }
    none(found);
}

#[test]
fn the_scheduler_has_no_network_and_no_database() {
    let metadata = metadata(true);
    let resolve = metadata.resolve.as_ref().expect("a resolved graph");
    let name = |id: &PackageId| metadata[id].name.to_string();
    let core = metadata.packages.iter().find(|package| package.name.as_str() == "fanout-core").expect("fanout-core");
    let (mut open, mut tree) = (vec![core.id.clone()], BTreeSet::new());
    while let Some(id) = open.pop() {
        let node = resolve.nodes.iter().find(|node| node.id == id).expect("every package is resolved");
        let normal =
            node.deps.iter().filter(|edge| edge.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
        open.extend(normal.filter(|edge| tree.insert(edge.pkg.clone())).map(|edge| edge.pkg.clone()));
    }
    assert!(tree.len() > 5, "the tree of fanout-core is too small to be true");
    none(
        tree.iter()
            .map(name)
            .filter(|name| NETWORK.contains(&name.as_str()))
            .map(|name| format!("fanout-core: {name}")),
    );
}

#[test]
fn in_the_scheduler_only_the_room_run_names_tokio() {
    let mut core = files(&[".rs"]);
    core.retain(|(path, _)| {
        path.starts_with("crates/fanout-core/src/") && !path.starts_with("crates/fanout-core/src/run/")
    });
    assert!(!core.is_empty(), "fanout-core has no sources");
    none(lines(&core, |line| line.contains("tokio")));
}

#[test]
fn features_are_chosen_in_the_file_lib_alone() {
    let mut sources = files(&[".rs"]);
    sources.retain(|(path, _)| !path.ends_with("/lib.rs"));
    none(lines(&sources, |line| line.contains(concat!("cfg(", "feature"))));
}

#[test]
fn the_architecture_page_names_only_what_is_there() {
    let path = root().join("ARCHITECTURE.md");
    let text =
        std::fs::read_to_string(path).expect("ARCHITECTURE.md at the root: the page that shows a newcomer around");
    let known = known_files();
    let is_there = |named: &str| {
        let named = named.trim_end_matches('/');
        let (inside, below) = (format!("/{named}"), format!("{named}/"));
        let folder = format!("/{below}");
        known
            .iter()
            .any(|path| path == named || path.ends_with(&inside) || path.starts_with(&below) || path.contains(&folder))
    };
    let in_ticks = text.split('`').skip(1).step_by(2).filter(|word| !word.contains(char::is_whitespace));
    let linked = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    let paths = in_ticks.filter(|word| word.contains('/') || word.ends_with(".rs") || word.ends_with(".md"));
    let paths = paths.chain(linked.filter(|link| !link.is_empty() && !link.contains("://")));
    none(
        paths.filter(|path| !is_there(path)).map(|path| format!("ARCHITECTURE.md names `{path}`, which is not there")),
    );
}

#[test]
fn no_text_names_a_place_on_somebodys_machine() {
    let texts = files(&[".md", ".rs", ".toml", ".txt", ".in", ".yml", ".mjs", ".ts", ".py", ".sh"]);
    let places = ["work", "root", "home", "opt"].map(|folder| format!("/{folder}/"));
    let names_a_place = |line: &str| {
        places.iter().any(|place| {
            let starts_a_path =
                |at: usize| !line[..at].ends_with(|before: char| before.is_alphanumeric() || "._-}*".contains(before));
            line.match_indices(place.as_str()).any(|(at, _)| starts_a_path(at))
        })
    };
    none(lines(&texts, names_a_place));
}

#[test]
fn every_source_says_first_what_it_is() {
    none(
        files(&[".rs"])
            .into_iter()
            .filter(|(_, text)| !text.starts_with("//!"))
            .map(|(path, _)| format!("{path}: no header")),
    );
}

#[test]
fn no_lint_is_silenced_without_a_reason_and_no_test_is_ignored() {
    let needles = ["allow(", "ignore"].map(|word| [format!("#[{word}"), format!("#![{word}")]).concat();
    none(lines(&files(&[".rs"]), |line| needles.iter().any(|needle| line.contains(needle.as_str()))));
}

#[test]
fn no_file_is_too_long_to_be_one_idea() {
    let long = |(path, text): (String, String)| {
        let count = text.lines().count();
        (count > LINES_MAX).then(|| format!("{path}: {count} lines, more than {LINES_MAX}"))
    };
    none(files(&[".rs"]).into_iter().filter_map(long));
}

/// Licences that may stand beside ours in one binary: they ask for no more than their notice.
const LICENCES: [&str; 11] = [
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn every_dependency_may_be_used_under_our_licence() {
    let packages = metadata(true).packages;
    assert!(packages.len() > 50, "cargo metadata knows the dependencies");
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| !package.license.as_deref().is_some_and(may_be_used))
        .map(|package| format!("{} {}: {:?}", package.name, package.version, package.license))
        .collect();
    assert!(refused.is_empty(), "no licence of these is in the list:\n{}", refused.join("\n"));
}

/// One alternative must be allowed in all its parts. Parentheses stand around alternatives only in expressions of parts.
fn may_be_used(expression: &str) -> bool {
    let allowed = |licence: &str| LICENCES.contains(&licence.trim().trim_matches(['(', ')']));
    let any = |alternatives: &str| alternatives.split(" OR ").flat_map(|part| part.split('/')).any(allowed);
    expression.split(" AND ").all(any)
}

#[test]
fn licences_are_read_as_they_are_meant() {
    for (expression, fine) in [
        ("MIT OR Apache-2.0", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0-only", false),
        ("MIT OR GPL-3.0-only", true),
        ("MIT AND GPL-3.0-only", false),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("Apache-2.0 AND ISC", true),
    ] {
        assert_eq!(may_be_used(expression), fine, "{expression}");
    }
}
