//! `fanout init`: a commented configuration and a starter.
//!
//! From the templates, which are part of the binary. To a folder; nothing that is there is touched, and either all files
//! are written or none.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::json;

use crate::args::{Common, Init, Template};
use crate::exit::Ended;
use crate::show::give;

/// A file of a template: its path in the folder, and its text.
type File = (&'static str, &'static str);

/// What a template makes, and what to do then.
struct Starter {
    files: &'static [File],
    next: &'static [&'static str],
}

/// Embeds the files of a template.
macro_rules! files {
    ($template:literal: $($file:literal),+) => {
        &[$(($file, include_str!(concat!("../templates/", $template, "/", $file)))),+]
    };
}

fn starter(template: Option<Template>) -> Starter {
    match template {
        None => Starter {
            files: files!("notes": "fanout.toml", "assistant.json", "notes/home.txt", "notes/work.txt"),
            next: &[
                "fanout check                                    # the tools and what they touch",
                "fanout explain < assistant.json                 # what would wait for what",
                "fanout call < assistant.json                    # run it",
                "fanout run \"What is left to do at work?\"        # ask the model; needs ANTHROPIC_API_KEY",
            ],
        },
        Some(Template::Python) => Starter {
            files: files!("python": "fanout.toml", "shop.py", "ask.py", "requirements.txt"),
            next: &[
                "fanout check                                    # the tools and what they touch",
                "pip install -r requirements.txt",
                "fanout serve                                    # in a terminal of its own",
                "python3 ask.py                                  # needs ANTHROPIC_API_KEY",
            ],
        },
        Some(Template::Mcp) => Starter {
            files: files!("mcp": "fanout.toml", "notes_server.py", "assistant.json", ".mcp.json"),
            next: &[
                "fanout check                                    # starts the server and lists its tools",
                "fanout call < assistant.json                    # run some calls",
                "fanout mcp --print-config claude-code           # the entry for a client; .mcp.json holds one",
            ],
        },
        Some(Template::NextjsSupabase) => Starter {
            files: files!(
                "nextjs-supabase": "fanout.toml", "package.json", "tsconfig.json", ".gitignore", "app/layout.tsx",
                "app/page.tsx", "app/api/ask/route.ts"
            ),
            next: &[
                "fanout check                                    # the tools and what they touch",
                "npm install",
                "SUPABASE_URL=… SUPABASE_KEY=… fanout serve      # in a terminal of its own",
                "npm run dev                                     # needs ANTHROPIC_API_KEY",
            ],
        },
    }
}

/// Writes the files of a template and says what to do next.
pub fn init(common: &Common, args: &Init) -> anyhow::Result<Ended> {
    let Starter { files, next } = starter(args.template);
    let folder = args.folder.as_path();
    let there: Vec<&str> =
        files.iter().map(|(name, _)| *name).filter(|name| folder.join(name).symlink_metadata().is_ok()).collect();
    ensure!(
        there.is_empty(),
        "already in {1}, and nothing was written: {0}; name another folder: fanout init … FOLDER",
        there.join(", "),
        folder.display()
    );
    for (name, text) in files {
        write(&folder.join(name), text)?;
    }
    tell(common, folder, files, next)?;
    Ok(Ended::Done)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let wrong = || format!("{} cannot be written", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(wrong)?;
    }
    // Somebody may have made it since.
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path).with_context(wrong)?;
    file.write_all(text.as_bytes()).with_context(wrong)
}

fn tell(common: &Common, folder: &Path, files: &[File], next: &[&str]) -> anyhow::Result<()> {
    if common.json {
        for (name, _) in files {
            give(&json!({ "type": "made", "file": folder.join(name).display().to_string() }).to_string())?;
        }
        return Ok(());
    }
    let mut text = "made\n".to_owned();
    for (name, _) in files {
        let _ =
            writeln!(text, "  {}", Path::new("").join(folder.strip_prefix(".").unwrap_or(folder)).join(name).display());
    }
    text.push_str("\nnext\n");
    if folder != Path::new(".") {
        let _ = writeln!(text, "  cd {}", folder.display());
    }
    for line in next {
        let _ = writeln!(text, "  {line}");
    }
    Ok(give(text.trim_end())?)
}
