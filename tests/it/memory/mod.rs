//! `clawd memory` on one machine: what agents call, what is refused, and that no acknowledged line is lost, whoever is killed when.

mod commands;
mod extremes;
mod kills;
mod publish;
mod rounds;
mod watch;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use clawd::host::memory::Wanted;
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::support::block;

/// A memory in a directory of its own, and a directory beside it.
pub(crate) struct Home {
    pub(crate) dir: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let home = Self { dir: TempDir::new().unwrap() };
        home.expect(0, &["init", "--host", "H-1"], "");
        home
    }

    pub(crate) fn memory(&self) -> PathBuf {
        self.dir.path().join("memory")
    }

    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.memory().join(path)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clawd"));
        command.arg("memory").args(args).env_clear().env("CLAWD_MEMORY_DIR", self.memory());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&self, args: &[&str], input: &str) -> Child {
        let mut child = self.command(args).spawn().unwrap();
        // A command that reads nothing may have ended.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child
    }

    pub(crate) fn run(&self, args: &[&str], input: &str) -> Output {
        self.start(args, input).wait_with_output().unwrap()
    }

    #[track_caller]
    pub(crate) fn expect(&self, exit: i32, args: &[&str], input: &str) -> String {
        let output = self.run(args, input);
        assert_eq!(output.status.code(), Some(exit), "{}", block(args, &output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Commands with what they are given, as readable blocks.
    pub(crate) fn session(&self, commands: &[(&[&str], &str)]) -> String {
        let mut text = String::new();
        for (args, input) in commands {
            for line in input.lines() {
                let _ = writeln!(text, "  | {line}");
            }
            let whole: Vec<&str> = ["memory"].iter().chain(*args).copied().collect();
            text.push_str(
                &block(&whole, &self.run(args, input)).replace(self.dir.path().to_str().unwrap(), "[home]"),
            );
        }
        // The log's times are finer than the runs'.
        regex_lite::Regex::new(r"\d{4}-\d\d-\d\dT[\d:.]+Z").unwrap().replace_all(&text, "[time]").into_owned()
    }

    pub(crate) fn version(&self, path: &str) -> String {
        let json: Json = serde_json::from_str(&self.expect(0, &["read", path, "--json"], "")).unwrap();
        json["version"].as_str().unwrap().to_owned()
    }
}

/// A memory of a host, and nothing else said.
pub(crate) fn of(host: &str) -> Wanted {
    Wanted { host: host.to_owned(), ..Wanted::default() }
}
