//! Nix's `internal-json` log: what is being built, how much is left, and what a failed builder said last.
//!
//! The numbers are those of nix's `ActivityType` and `ResultType` (`src/libutil/logging.hh`); they have not changed since
//! 2.0. A line that is not understood is passed over: the log is for people, the outcome is the exit status.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;
use serde_json::Value as Json;

use super::plain;

/// Activity: all builds. Result on it: done, expected, running, failed.
const BUILDS: u64 = 104;
/// Activity: one build.
const BUILD: u64 = 105;
/// Result: a line of a build's log.
const LOG_LINE: u64 = 101;
/// Result: a build's phase.
const PHASE: u64 = 104;
/// Result: progress.
const PROGRESS: u64 = 105;

/// Lines of each build's log that are kept.
const KEPT: usize = 20;

#[derive(Debug, Deserialize)]
struct Line {
    action: String,
    #[serde(default)]
    id: u64,
    #[serde(default, rename = "type")]
    kind: u64,
    #[serde(default)]
    level: u64,
    #[serde(default)]
    fields: Vec<Json>,
    #[serde(default)]
    msg: Option<String>,
    #[serde(default)]
    raw_msg: Option<String>,
}

#[derive(Debug, Default)]
struct Build {
    derivation: String,
    phase: Option<String>,
    log: VecDeque<String>,
}

/// What the log has said so far.
#[derive(Debug, Default)]
pub(super) struct BuildLog {
    builds: HashMap<u64, Build>,
    /// The activity that counts builds.
    counter: Option<u64>,
    done: u64,
    expected: u64,
    current: Option<u64>,
    /// What people were told last.
    told: String,
    errors: Vec<String>,
}

impl BuildLog {
    /// Takes a line; returns what there is to tell people, when it changed.
    pub(super) fn line(&mut self, line: &str) -> Option<String> {
        let Some(json) = line.strip_prefix("@nix ") else {
            // What nix says before its logger stands.
            if line.starts_with("error:") {
                self.errors.push(plain(line.trim_start_matches("error:").trim()));
            }
            return None;
        };
        let line: Line = serde_json::from_str(json).ok()?;
        let text = |at: usize| line.fields.get(at).and_then(Json::as_str).map(plain);
        let number = |at: usize| line.fields.get(at).and_then(Json::as_u64);
        match (line.action.as_str(), line.kind) {
            ("start", BUILDS) => {
                self.counter = Some(line.id);
                None
            }
            ("start", BUILD) => {
                let derivation = text(0).unwrap_or_default();
                self.builds.insert(line.id, Build { derivation, ..Build::default() });
                self.current = Some(line.id);
                self.tell()
            }
            ("result", PROGRESS) if self.counter == Some(line.id) => {
                let (done, expected) = (number(0)?, number(1)?);
                let changed = (done, expected) != (self.done, self.expected);
                (self.done, self.expected) = (done, expected);
                if changed { self.tell() } else { None }
            }
            ("result", PHASE) => {
                self.builds.get_mut(&line.id)?.phase = text(0);
                self.current = Some(line.id);
                self.tell()
            }
            ("result", LOG_LINE) => {
                let log = &mut self.builds.get_mut(&line.id)?.log;
                if log.len() == KEPT {
                    log.pop_front();
                }
                log.push_back(text(0)?);
                None
            }
            ("msg", _) if line.level == 0 => {
                let message = line.raw_msg.or(line.msg)?;
                self.errors.push(plain(&message).trim_start_matches("error:").trim().to_owned());
                None
            }
            _ => None,
        }
    }

    fn tell(&mut self) -> Option<String> {
        let build = self.builds.get(&self.current?)?;
        let phase = build.phase.as_deref().map_or_else(String::new, |phase| format!(", {phase}"));
        let number = (self.done + 1).min(self.expected.max(1));
        let text =
            format!("building {number} of {}: {}{phase}", self.expected.max(1), name(&build.derivation));
        if text == self.told {
            return None;
        }
        self.told.clone_from(&text);
        Some(text)
    }

    /// Why it failed: nix's own words, and the last lines of the build that failed.
    pub(super) fn failure(&self) -> String {
        let mut message =
            if self.errors.is_empty() { "nix gave no reason".to_owned() } else { self.errors.join("\n") };
        let failed = self.builds.values().find(|build| {
            !build.log.is_empty() && !build.derivation.is_empty() && message.contains(&build.derivation)
        });
        if let Some(build) = failed {
            message.push_str(&format!("\nthe last lines of {}:", name(&build.derivation)));
            for line in &build.log {
                message.push_str("\n  | ");
                message.push_str(line);
            }
        }
        message
    }
}

/// The name in a derivation's store path.
pub(super) fn name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".drv");
    file.split_once('-').map_or(file, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_phase_and_failure_are_read() {
        let drv = "/nix/store/abc-image.drv";
        let mut log = BuildLog::default();
        let mut told = Vec::new();
        for line in [
            r#"@nix {"action":"start","id":1,"level":0,"text":"","type":104}"#.to_owned(),
            r#"@nix {"action":"result","fields":[0,2,0,0],"id":1,"type":105}"#.to_owned(),
            format!(
                r#"@nix {{"action":"start","fields":["{drv}","",1,1],"id":7,"level":3,"text":"","type":105}}"#
            ),
            r#"@nix {"action":"result","fields":["unpackPhase"],"id":7,"type":104}"#.to_owned(),
            r#"@nix {"action":"result","fields":[1,2,1,0],"id":1,"type":105}"#.to_owned(),
            "@nix not json".to_owned(),
            "a line of something else".to_owned(),
        ] {
            told.extend(log.line(&line));
        }
        assert_eq!(
            told,
            [
                "building 1 of 2: image",
                "building 1 of 2: image, unpackPhase",
                "building 2 of 2: image, unpackPhase"
            ]
        );
        for number in 0..30 {
            log.line(&format!(r#"@nix {{"action":"result","fields":["line {number}"],"id":7,"type":101}}"#));
        }
        log.line(&format!(
            r#"@nix {{"action":"msg","level":0,"msg":"x","raw_msg":"builder for '\u001b[35;1m{drv}\u001b[0m' failed"}}"#
        ));
        let failure = log.failure();
        assert!(
            failure
                .starts_with(&format!("builder for '{drv}' failed\nthe last lines of image:\n  | line 10\n"))
        );
        assert!(failure.ends_with("  | line 29"));
    }
}
