//! A memory that is kept in step all the time.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use clawd::host::memory::Watch;
use serde_json::Value as Json;
use tempfile::TempDir;

use super::Home;

/// `clawd memory sync --watch`, which ends with the test.
struct Watcher {
    child: Child,
    lines: Receiver<String>,
}

impl Watcher {
    fn new(home: &Home, remote: &str, period: &str) -> Self {
        let mut child = home
            .command(&["sync", "--remote", remote, "--watch", "--period", period, "--json"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    /// What it says next. An event that is lost would be waited for until the next period.
    fn says(&mut self) -> Json {
        let line = self.lines.recv_timeout(Duration::from_secs(60)).expect("the watcher says something");
        serde_json::from_str(&line).unwrap()
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_changes_on_one_host_comes_to_the_other() {
    let homes = [Home::new(), Home::new()];
    homes[1].expect(0, &["init", "--host", "H-2"], "");
    let shared = TempDir::new().unwrap();
    let remote = format!("file://{}/hive", shared.path().display());
    homes[0].expect(0, &["write", "goals.md"], "one\n");
    // Only the kernel tells of changes: the period is longer than any test.
    let mut first = Watcher::new(&homes[0], &remote, "1h");
    assert_eq!(first.says()["pushed"][0], "goals.md");
    // A change in a directory that is made while it watches, by a program that knows nothing of clawd.
    fs::create_dir_all(homes[0].file("ideas/deep")).unwrap();
    fs::write(homes[0].file("ideas/deep/x.md"), "x\n").unwrap();
    assert_eq!(first.says()["pushed"][0], "ideas/deep/x.md");
    // Many changes at once are one round, or a few.
    for n in 0..50 {
        fs::write(homes[0].file(&format!("ideas/{n}.md")), "x\n").unwrap();
    }
    let mut pushed = 0;
    let mut rounds = 0;
    while pushed < 50 {
        pushed += first.says()["pushed"].as_array().unwrap().len();
        rounds += 1;
    }
    assert!(pushed == 50 && rounds < 25, "{rounds} rounds");
    // The other host looks every second.
    let mut second = Watcher::new(&homes[1], &remote, "1s");
    assert_eq!(second.says()["pulled"].as_array().unwrap().len(), 52);
    homes[0].expect(0, &["append", "goals.md"], "two\n");
    assert_eq!(first.says()["pushed"][0], "goals.md");
    assert_eq!(second.says()["pulled"][0], "goals.md");
    for watcher in [&mut first, &mut second] {
        watcher.signal("-TERM");
        assert_eq!(watcher.says()["stopped"], true);
        assert_eq!(watcher.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_directory_that_goes_and_comes_is_watched_again() {
    let home = Home::new();
    let shared = TempDir::new().unwrap();
    let remote = format!("file://{}/hive", shared.path().display());
    home.expect(0, &["write", "goals.md"], "one\n");
    let mut watcher = Watcher::new(&home, &remote, "1s");
    assert_eq!(watcher.says()["pushed"][0], "goals.md");
    // As an unmount leaves it: an empty directory in the memory's place. Nothing of it is taken for a deletion.
    fs::rename(home.memory(), home.dir.path().join("away")).unwrap();
    fs::create_dir(home.memory()).unwrap();
    assert_eq!(watcher.says()["error"]["code"], "memory.none");
    fs::remove_dir(home.memory()).unwrap();
    fs::rename(home.dir.path().join("away"), home.memory()).unwrap();
    fs::write(home.file("goals.md"), "one\ntwo\n").unwrap();
    let pushed = loop {
        let said = watcher.says();
        if said.get("error").is_none() && said.get("blind").is_none() {
            break said;
        }
    };
    assert_eq!(pushed["pushed"][0], "goals.md");
    assert_eq!(fs::read_to_string(shared.path().join("hive/goals.md")).unwrap(), "one\ntwo\n");
    watcher.signal("-INT");
    while watcher.says().get("stopped").is_none() {}
    assert_eq!(watcher.child.wait().unwrap().code(), Some(0));
}

/// A file that can never be synced is no reason not to watch the others.
#[test]
fn one_file_that_fails_does_not_stop_the_watching() {
    let home = Home::new();
    let shared = TempDir::new().unwrap();
    let remote = format!("file://{}/hive", shared.path().display());
    // There it is a directory.
    fs::create_dir_all(shared.path().join("hive/ideas")).unwrap();
    fs::write(shared.path().join("hive/ideas/x.md"), "x\n").unwrap();
    home.expect(0, &["write", "ideas"], "a file\n");
    let mut watcher = Watcher::new(&home, &remote, "1d");
    assert!(!watcher.says()["failed"].as_array().unwrap().is_empty());
    home.expect(0, &["write", "goals.md"], "one\n");
    loop {
        let said = watcher.says();
        if said["pushed"].as_array().unwrap().iter().any(|path| path == "goals.md") {
            break;
        }
    }
}

#[tokio::test]
async fn files_on_their_way_are_no_change() {
    let home = Home::new();
    let mut watch = Watch::of(&home.memory()).unwrap();
    home.expect(0, &["init", "--host", "H-1", "--ignore", "*.swp"], "");
    fs::write(home.file(".clawd-new-0"), "x").unwrap();
    fs::write(home.file("a.md"), "x").unwrap();
    // The file is made, and closed after it was written. `timeout` ends the test if that is not told.
    for _ in 0..2 {
        tokio::time::timeout(Duration::from_secs(60), watch.changed()).await.unwrap().unwrap();
    }
    let nothing = tokio::time::timeout(Duration::ZERO, watch.changed()).await;
    assert!(nothing.is_err(), "the sentinel and what is unfinished are clawd's own");
}
