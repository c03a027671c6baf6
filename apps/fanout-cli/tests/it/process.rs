//! The binary as a process: what it prints, what it answers, how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// The binary in a folder, with these variables and no others of ours.
pub fn fanout(folder: &Path, variables: &[(&str, &str)], args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanout"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FANOUT_") || name.starts_with("ANTHROPIC_"))
    {
        command.env_remove(name);
    }
    command.env_remove("PORT").env_remove("RUST_LOG").env("NO_COLOR", "1").current_dir(folder).args(args);
    command.envs(variables.iter().copied());
    command
}

/// Runs it to its end.
pub fn run(folder: &Path, variables: &[(&str, &str)], args: &[&str]) -> Output {
    fanout(folder, variables, args).output().unwrap()
}

/// `fanout serve`, up and listening.
pub struct Served {
    child: Child,
    /// What it printed first.
    pub said: String,
    address: String,
    log: Receiver<String>,
}

impl Served {
    pub fn start(folder: &Path, variables: &[(&str, &str)], args: &[&str]) -> Self {
        Self::wait(fanout(folder, variables, &[&["serve"], args].concat()))
    }

    /// The same, by a command that becomes it.
    pub fn wait(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (sender, log) = channel();
        let errors = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || errors.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut said = String::new();
        // The lines are printed at once: when the last that is wanted is there, all are.
        while !said.contains("/fanout/v1/tool_calls") {
            let read = out.read_line(&mut said).unwrap();
            assert!(read > 0, "it ended: {said} {:?}", log.iter().collect::<Vec<_>>());
        }
        let address = said.split("http://").nth(1).unwrap();
        let address = address.split(|c: char| c.is_whitespace() || "\"/".contains(c)).next().unwrap().to_owned();
        Self { child, said, address, log }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a request and gives the status and the body.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        read(&mut self.begin(method, path, headers, body))
    }

    /// Sends a request and leaves the answer to be read.
    pub fn begin(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
        let mut text = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
            self.address,
            body.len()
        );
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(format!("{text}\r\n{body}").as_bytes()).unwrap();
        stream
    }

    /// Waits for a line of the log that holds this text.
    pub fn logged(&self, wanted: &str) -> String {
        let line = self.log.iter().find(|line| line.contains(wanted));
        line.unwrap_or_else(|| panic!("the log ended without `{wanted}`"))
    }

    /// Sends a signal, waits for the end, and gives the exit code and what of the log was not read yet.
    pub fn stop(mut self, signal: rustix::process::Signal) -> (Option<i32>, String) {
        self.signal(signal);
        let status = self.child.wait().unwrap();
        let log: Vec<String> = self.log.iter().collect();
        (status.code(), log.join("\n"))
    }

    /// Waits for the end, and gives the exit code.
    pub fn ended(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // One that has ended is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads an answer to its end.
pub fn read(stream: &mut TcpStream) -> (u16, String) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if is_chunked { whole(body) } else { body.to_owned() };
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
}

/// A body that came in chunks.
fn whole(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, more)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body += &more[..size];
        rest = more[size..].trim_start_matches("\r\n");
    }
    body
}
