//! What each mistake is answered, as people read it: the answers stand beside the mistakes in `mistakes.txt`.
//!
//! With `FANOUT_RENEW` set, the answers are written anew, to be read before they are kept.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use fanout_host::config::{Config, ConfigError};
use fanout_host::environment::Environment;

const SNAPSHOTS: &str = include_str!("mistakes.txt");

/// A title, a text and the lines that answer it.
fn cases() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    SNAPSHOTS.split("\n=== ").skip(1).map(|case| {
        let (title, rest) = case.split_once('\n').unwrap();
        let (text, answer) = rest.split_once("\n---\n").unwrap();
        (title, text, answer.trim_end())
    })
}

/// The folder of the mistakes: files that they name are there, or are wrong.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let document = "openapi: 3.1.0\nservers: [{ url: 'https://shop.example' }]\ncomponents: { securitySchemes: { key: { type: apiKey, in: header, name: x } } }\n\
                    paths: { /orders: { get: { operationId: orders/list }, post: { operationId: orders/create } } }\n";
    for (name, text) in [
        ("shop.yaml", document),
        ("nowhere.yaml", "openapi: 3.1.0\npaths: { /orders: { get: { operationId: orders/list } } }\n"),
        ("old.json", r#"{"swagger":"2.0"}"#),
        ("text.json", "hello"),
        ("servers.json", r#"{"servers":{}}"#),
        ("wrong.json", "{\"mcpServers\": {\n  \"a\": {},\n  \"b\": {\"command\": \"x\", \"args\": \"y\"}\n}}"),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn answer(folder: &Path, text: &str) -> String {
    let told = match Config::parse("fanout.toml", text, folder, &Environment::default()) {
        Err(errors) => errors.to_string(),
        Ok(config) => config.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect(),
    };
    told.replace(&format!("{}/", folder.display()), "").trim_end().to_owned()
}

#[test]
fn every_mistake_is_answered_as_it_was() {
    let folder = folder();
    if std::env::var_os("FANOUT_RENEW").is_some() {
        let mut renewed = SNAPSHOTS.split("\n=== ").next().unwrap().to_owned();
        for (title, text, _) in cases() {
            let _ = write!(renewed, "\n=== {title}\n{text}\n---\n{}\n", answer(folder.path(), text));
        }
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/mistakes.txt"), renewed).unwrap();
        return;
    }
    let mut count = 0;
    for (title, text, expected) in cases() {
        let came = answer(folder.path(), text);
        assert_eq!(
            came, expected,
            "{title}:\n{text}\n(`FANOUT_RENEW=1 cargo test -p fanout-host every_mistake` renews them)"
        );
        assert!(!came.is_empty(), "{title}: it is no mistake");
        for line in came.lines() {
            let place = line.trim_start_matches("warning: ").split(": ").next().unwrap();
            let mut parts = place.rsplitn(3, ':').map(|part| part.parse::<usize>().ok());
            assert!(
                matches!((parts.next(), parts.next()), (Some(Some(1..)), Some(Some(1..)))),
                "{title}: no place in {line}"
            );
        }
        count += 1;
    }
    assert!(count >= 60, "{count}");
}

/// What a file of these bytes is answered.
fn loaded(bytes: &[u8]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fanout.toml");
    std::fs::write(&path, bytes).unwrap();
    let shown = |error: ConfigError| error.to_string().replace(&format!("{}/", folder.path().display()), "");
    Config::load(&path, &Environment::default()).map_err(shown)
}

#[track_caller]
fn check(bytes: &[u8], answer: &str) {
    assert_eq!(loaded(bytes).unwrap_err(), answer);
}

#[test]
fn a_file_that_is_no_text_is_said_to_be_so() {
    check(b"# caf\xe9\n", "fanout.toml:1:6: the byte 0xe9 is no UTF-8; save the file as UTF-8");
    check(
        "a = 'é'\n# é".as_bytes().get(..12).unwrap(),
        "fanout.toml:2:3: the byte 0xc3 is no UTF-8; save the file as UTF-8",
    );
    let utf16: Vec<u8> = "\u{feff}[run]\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    check(&utf16, "fanout.toml:1:1: this is UTF-16; save the file as UTF-8");
    check(
        b"[run]\rmax_turns = 1\r",
        "fanout.toml:1:7: lines must end in LF or CRLF, not in CR alone; save the file with the line ends of Unix or Windows",
    );
}

#[test]
fn an_empty_file_a_byte_order_mark_and_the_line_ends_of_windows_are_no_mistakes() {
    assert_eq!(loaded(b"").unwrap().run, Config::default().run);
    assert_eq!(loaded(b"\n# nothing yet\n").unwrap().run, Config::default().run);
    assert_eq!(loaded("\u{feff}[run]\r\nmax_turns = 3\r\n".as_bytes()).unwrap().run.max_turns, 3);
    check(
        "\u{feff}[run]\r\nmax_turn = 3\r\n".as_bytes(),
        "fanout.toml:2:1: unknown key `max_turn` in [run]; did you mean `max_turns`?",
    );
}

#[test]
fn what_is_no_file_or_no_configuration_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let named = folder.path().join("fanout.toml");
    std::fs::create_dir(&named).unwrap();
    for found in [Config::load(&named, &Environment::default()), Config::find(folder.path(), &Environment::default())] {
        let message = format!("{} is a folder; name the file in it", named.display());
        assert_eq!(found.unwrap_err().to_string(), message);
    }
    let large = vec![b'#'; (16 << 20) + 1];
    check(&large, "fanout.toml is larger than 16 MiB, and surely no configuration");
    assert!(loaded(&large[1..]).is_ok());
    #[cfg(unix)]
    {
        let endless = Config::load(&PathBuf::from("/dev/zero"), &Environment::default()).unwrap_err();
        assert_eq!(endless.to_string(), "/dev/zero is larger than 16 MiB, and surely no configuration");
    }
}
