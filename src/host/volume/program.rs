//! The programs of the system: a list of arguments, no shell, an environment of nothing but a path and a language.
//! Never reads the environment itself: whoever calls says where programs are.

use std::process::{Command, Output, Stdio};

use super::{Result, failed};

/// Where NixOS, and others, have their programs.
const PATH: &str = "/run/current-system/sw/bin:/run/wrappers/bin:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// Where programs are.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// A search path that goes before the system's own. A unit may have one, in which Nix put exactly what is needed.
    pub path: String,
}

impl Programs {
    /// An empty part of a search path would be the current directory.
    fn search(&self) -> String {
        match self.path.is_empty() {
            true => PATH.to_owned(),
            false => format!("{}:{PATH}", self.path),
        }
    }

    /// Runs a program to its end, whatever that is.
    pub(in crate::host) fn output(&self, program: &str, args: &[&str]) -> Result<Output> {
        let run = Command::new(program)
            .args(args)
            .env_clear()
            .env("PATH", self.search())
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output();
        run.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => failed(format!("there is no `{program}` on this host"))
                .help("the host's configuration must bring it: util-linux, e2fsprogs and xfsprogs"),
            _ => failed(format!("{program} cannot be started: {error}")),
        })
    }

    /// Runs a program that must succeed; what it wrote to stdout.
    pub(super) fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let said = self.output(program, args)?;
        match said.status.success() {
            true => Ok(String::from_utf8_lossy(&said.stdout).into_owned()),
            false => Err(failed(format!("{program} {}: {}", args.join(" "), complaint(&said)))
                .help("look at what it says, and at `dmesg`; run again once it is mended")),
        }
    }

    /// The id of a user or a group; `database` is `passwd` or `group`.
    pub(super) fn id_of(&self, database: &str, name: &str) -> Result<u32> {
        let wrong = || {
            let what = if database == "passwd" { "user" } else { "group" };
            failed(format!("this host has no {what} `{}`", name.escape_debug()))
                .help("name one that the host's configuration declares")
        };
        // A number would be told by its name, and differ in every plan.
        if name.is_empty() || name.starts_with('-') || name.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let said = self.output("getent", &[database, name])?;
        let text = String::from_utf8_lossy(&said.stdout);
        text.trim_end().split(':').nth(2).and_then(|id| id.parse().ok()).ok_or_else(wrong)
    }

    /// The name of a user or a group; its number where it has no name.
    pub(super) fn name_of(&self, database: &str, id: u32) -> Result<String> {
        let said = self.output("getent", &[database, &id.to_string()])?;
        let text = String::from_utf8_lossy(&said.stdout);
        Ok(text
            .split(':')
            .next()
            .filter(|name| !name.is_empty())
            .map_or_else(|| id.to_string(), str::to_owned))
    }
}

/// What a program complained of, in one line.
pub(in crate::host) fn complaint(said: &Output) -> String {
    let text = String::from_utf8_lossy(&said.stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.is_empty() {
        true => said.status.to_string(),
        false => lines.join("; "),
    }
}
