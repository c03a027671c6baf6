//! What people are shown: progress while it runs, a picture and the figures at the end.
//!
//! From the events of a run, and nothing else. To standard error, or as JSON lines to standard output.

mod closing;
mod print;
mod progress;
mod waits;
mod waterfall;

pub use closing::{advise, figures};
pub use print::{Unwritten, give, give_answer, give_styled, plain, print_line, say};
pub use progress::Watcher;
pub use waits::details;
pub use waterfall::waterfall;

use std::time::Duration;

use anstyle::{AnsiColor, Color, Style};
use tracing_subscriber::EnvFilter;

/// Something failed.
pub const ERROR: Style = Style::new().bold().fg_color(Some(Color::Ansi(AnsiColor::Red)));
/// Something went well.
pub const FINE: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Green)));
/// The model's part.
pub const MODEL: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Blue)));
/// Waiting, and what is said beside the point.
pub const QUIET: Style = Style::new().dimmed();
/// What matters most.
pub const STRONG: Style = Style::new().bold();

/// A text in a style. Colours are dropped when they are printed to anything but a terminal, or under `NO_COLOR`.
pub fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{}{text}{}", style.render(), style.render_reset())
}

/// A time for people: `85 ms`, `1.24 s`, `2 m 05 s`.
pub fn time(time: Duration) -> String {
    let ms = time.as_millis();
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.2} s", time.as_secs_f64()),
        _ => format!("{} m {:02} s", ms / 60_000, ms / 1_000 % 60),
    }
}

/// Sends log lines to standard error, as `RUST_LOG` says; warnings and errors if it says nothing.
pub fn log() {
    tracing_subscriber::fmt().with_env_filter(filter("warn")).with_writer(std::io::stderr).init();
}

/// What is logged: what `RUST_LOG` says, else `usual`. The library that speaks MCP prints whole messages from `debug` on, with
/// what calls are given and give back, so it is not heard below `warn` whatever is said; and of servers that it cannot reach
/// we say ourselves what it prints with their headers.
pub fn filter(usual: &str) -> EnvFilter {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let quiet = ["rmcp=warn", "rmcp::transport::worker=off", "rmcp::transport::streamable_http_client=off"];
    quiet.into_iter().filter_map(|directive| directive.parse().ok()).fold(filter, EnvFilter::add_directive)
}
