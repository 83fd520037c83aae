//! `clawd memory` on one machine: what agents call, what is refused, and that no acknowledged line is lost, whoever is killed when.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::support::block;

/// A memory in a directory of its own, and a directory beside it.
struct Home {
    dir: TempDir,
}

impl Home {
    fn new() -> Self {
        let home = Self { dir: TempDir::new().unwrap() };
        home.expect(0, &["init", "--host", "H-1"], "");
        home
    }

    fn memory(&self) -> PathBuf {
        self.dir.path().join("memory")
    }

    fn file(&self, path: &str) -> PathBuf {
        self.memory().join(path)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clawd"));
        command.arg("memory").args(args).env_clear().env("CLAWD_MEMORY_DIR", self.memory());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, args: &[&str], input: &str) -> Child {
        let mut child = self.command(args).spawn().unwrap();
        // A command that reads nothing may have ended.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child
    }

    fn run(&self, args: &[&str], input: &str) -> Output {
        self.start(args, input).wait_with_output().unwrap()
    }

    #[track_caller]
    fn expect(&self, exit: i32, args: &[&str], input: &str) -> String {
        let output = self.run(args, input);
        assert_eq!(output.status.code(), Some(exit), "{}", block(args, &output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Commands with what they are given, as readable blocks.
    fn session(&self, commands: &[(&[&str], &str)]) -> String {
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

    fn version(&self, path: &str) -> String {
        let json: Json = serde_json::from_str(&self.expect(0, &["read", path, "--json"], "")).unwrap();
        json["version"].as_str().unwrap().to_owned()
    }
}

#[test]
fn an_agent_reads_and_writes() {
    let home = Home::new();
    insta::assert_snapshot!(
        "memory-session",
        home.session(&[
            (&["init", "--host", "H-1"], ""),
            (&["write", "goals.md"], "# Goals\n\ncount: 1\n"),
            (&["read", "goals.md"], ""),
            (&["read", "goals.md", "--json"], ""),
            (&["edit", "goals.md", "--old", "count: 1", "--new", "count: 2"], ""),
            (&["edit", "goals.md", "--old", "count: 2", "--new", "count: 3", "--json"], ""),
            (&["append", "2026-11-26_H-1.md"], "no end"),
            (&["append", "2026-11-26_H-1.md"], "a line\n"),
            (&["append", "ideas/x.md", "--json"], ""),
            (&["read", "2026-11-26_H-1.md"], ""),
            (&["status"], ""),
            (&["status", "--json"], ""),
            (&["log"], ""),
            (&["rm", "ideas/x.md"], ""),
            (&["log", "ideas/x.md", "--json"], ""),
        ])
    );
    // What was overwritten is kept, and a line is never joined to another.
    assert_eq!(fs::read_to_string(home.file("2026-11-26_H-1.md")).unwrap(), "no end\na line\n");
    let blobs = fs::read_dir(home.dir.path().join("memory.clawd/blobs")).unwrap();
    let texts: Vec<String> = blobs.map(|blob| fs::read_to_string(blob.unwrap().path()).unwrap()).collect();
    assert!(texts.contains(&"# Goals\n\ncount: 1\n".to_owned()), "{texts:?}");
}

#[test]
fn a_lost_race_says_what_is_there() {
    let home = Home::new();
    home.expect(0, &["write", "goals.md"], "one\ntwo\n");
    let first = home.version("goals.md");
    home.expect(0, &["edit", "goals.md", "--old", "two", "--new", "three"], "");
    insta::assert_snapshot!(
        "memory-lost-race",
        home.session(&[
            (&["write", "goals.md"], "mine\n"),
            (&["write", "goals.md", "--if-version", &first], "mine\n"),
            (&["write", "goals.md", "--if-version", &first, "--json"], "mine\n"),
            (&["edit", "goals.md", "--old", "one", "--new", "1", "--if-version", &first, "--json"], ""),
            (&["rm", "goals.md", "--if-version", &first], ""),
            (&["write", "gone.md", "--if-version", &first], "mine\n"),
        ])
    );
    assert_eq!(fs::read_to_string(home.file("goals.md")).unwrap(), "one\nthree\n");
}

#[test]
fn bad_input_is_refused() {
    let home = Home::new();
    home.expect(0, &["write", "goals.md"], "one\ntwo\none\n");
    fs::write(home.file("bytes.bin"), b"\xff\x00").unwrap();
    fs::create_dir(home.file("dir")).unwrap();
    symlink("/etc/hostname", home.file("link.md")).unwrap();
    symlink("/etc", home.file("etc")).unwrap();
    fs::write(home.file("two-names.md"), "x").unwrap();
    fs::hard_link(home.file("two-names.md"), home.file("second-name.md")).unwrap();
    fs::write(home.file("line\nbreak.md"), "x").unwrap();
    let stone = format!("clawd-memory-tombstone-v1 {}\n", "0".repeat(64));
    let long = "a".repeat(300);
    insta::assert_snapshot!(
        "memory-bad-input",
        home.session(&[
            (&["read", "gaols.md"], ""),
            (&["read", "nothing-like-it"], ""),
            (&["read", "../outside.md"], ""),
            (&["read", "/etc/hostname"], ""),
            (&["read", "link.md"], ""),
            (&["append", "etc/passwd-of-mine"], "x\n"),
            (&["read", "dir"], ""),
            (&["append", "two-names.md"], "x\n"),
            (&["append", ".clawd-memory.json"], "x\n"),
            (&["append", &long], "x\n"),
            (&["read", "bytes.bin", "--json"], ""),
            (&["edit", "goals.md", "--old", "none", "--new", "x"], ""),
            (&["edit", "goals.md", "--old", "one", "--new", "x", "--json"], ""),
            (&["edit", "goals.md", "--old", "", "--new", "x"], ""),
            (&["write", "goals.md", "--if-version", "latest"], "x\n"),
            (&["write", "stone.md"], &stone),
            (&["edit", "goals.md", "--old", "one\ntwo\none\n", "--new", ""], ""),
            (&["rm", "goals.md"], ""),
            (&["init", "--host", "no host"], ""),
            (&["init", "--host", "H-1", "--ignore", "a["], ""),
            (&["init", "--host", "H-1", "--canonical", "../x"], ""),
            (&["status"], ""),
        ])
    );
    assert_eq!(fs::read_to_string(home.file("goals.md")).unwrap(), "one\ntwo\none\n");
    assert!(!Path::new("/etc/passwd-of-mine").exists());
    home.expect(0, &["rm", "goals.md", "--allow-shrink"], "");
    assert_eq!(home.run(&["read", "bytes.bin"], "").stdout, b"\xff\x00");
}

/// A directory that is not mounted is empty, and everything in it would seem to be deleted.
#[test]
fn an_unmounted_directory_is_no_memory() {
    let home = Home::new();
    home.expect(0, &["write", "goals.md"], "one\n");
    fs::rename(home.memory(), home.dir.path().join("elsewhere")).unwrap();
    insta::assert_snapshot!(
        "memory-unmounted",
        home.session(&[(&["status"], ""), (&["append", "goals.md", "--json"], "x\n")])
    );
    fs::create_dir(home.memory()).unwrap();
    home.expect(1, &["append", "goals.md"], "x\n");
    assert_eq!(fs::read_dir(home.memory()).unwrap().count(), 0, "nothing was written");
    fs::write(home.file(".clawd-memory.json"), "{ \"format\": 9 }").unwrap();
    home.expect(1, &["status"], "");
}

/// Finding 6: of 40 increments by two writers, 22 were left.
#[test]
fn finding_6_no_increment_is_lost() {
    let home = Home::new();
    home.expect(0, &["write", "count.md"], "count: 0\n");
    let (agents, increments) = (4, 10);
    std::thread::scope(|scope| {
        for _ in 0..agents {
            scope.spawn(|| {
                for _ in 0..increments {
                    while !increment(&home) {}
                }
            });
        }
    });
    let wanted = format!("count: {}\n", agents * increments);
    assert_eq!(fs::read_to_string(home.file("count.md")).unwrap(), wanted);
}

/// Reads, adds one, writes; false when somebody else was first.
fn increment(home: &Home) -> bool {
    let json: Json = serde_json::from_str(&home.expect(0, &["read", "count.md", "--json"], "")).unwrap();
    let (text, version) = (json["content"].as_str().unwrap(), json["version"].as_str().unwrap());
    let old = text.trim();
    let count: u32 = old.strip_prefix("count: ").unwrap().parse().unwrap();
    let new = format!("count: {}", count + 1);
    let args = ["edit", "count.md", "--old", old, "--new", &new, "--if-version", version];
    let output = home.run(&args, "");
    match output.status.code() {
        Some(0) => true,
        Some(3) => false,
        _ => panic!("{}", block(&args, &output)),
    }
}

/// Four writers at a time, each killed at some moment or not: a line that was acknowledged is there once, one that was not is
/// there once or not at all, and the file is always whole.
#[test]
#[allow(clippy::print_stdout)] // the seed of a failure, and the count
fn killed_writers_lose_nothing_that_was_acknowledged() {
    let seed =
        std::env::var("CLAWD_TEST_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    let rounds = std::env::var("CLAWD_TEST_ROUNDS").map_or(50, |rounds| rounds.parse().unwrap());
    println!("CLAWD_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let home = Home::new();
    home.expect(0, &["write", "notes.md"], "first\n");
    let (mut acknowledged, mut killed) = (Vec::new(), 0);
    for round in 0..rounds {
        let mut writers: Vec<(String, Child, u32)> = (0..4)
            .map(|writer| {
                let line = format!("round {round} writer {writer}");
                let child = home.start(&["append", "notes.md"], &format!("{line}\n"));
                (line, child, random.u32(0..4000))
            })
            .collect();
        while !writers.is_empty() {
            writers.retain_mut(|(line, child, left)| match child.try_wait().unwrap() {
                Some(status) => {
                    match status.code() {
                        Some(0) => acknowledged.push(line.clone()),
                        code => assert_eq!(code, None, "{line}: killed or done, nothing else"),
                    }
                    false
                }
                None => {
                    *left = left.saturating_sub(1);
                    if *left == 0 {
                        child.kill().unwrap();
                        killed += 1;
                    }
                    true
                }
            });
        }
        let text = fs::read_to_string(home.file("notes.md")).unwrap();
        assert!(text.starts_with("first\n") && text.ends_with('\n'), "round {round}: the file is whole");
    }
    let text = fs::read_to_string(home.file("notes.md")).unwrap();
    let lost: Vec<&String> =
        acknowledged.iter().filter(|line| text.lines().filter(|it| it == line).count() != 1).collect();
    println!("{} acknowledged, {killed} killed, {} lost", acknowledged.len(), lost.len());
    assert!(lost.is_empty(), "{lost:?}");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let all = lines.len();
    lines.dedup();
    assert_eq!(lines.len(), all, "no line is there twice");
    // Who was killed left no lock, and nothing that is taken for a file.
    let status: Json = serde_json::from_str(&home.expect(0, &["status", "--json"], "")).unwrap();
    assert_eq!(status["files"].as_array().unwrap().len(), 1, "{status}");
}
