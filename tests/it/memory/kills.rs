//! Processes that are killed at any moment.

use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tempfile::TempDir;

use super::Home;
use crate::support::walk;

/// A process that is killed at a moment, unless it has ended by then, with the line that it is to write.
struct Doomed {
    child: Child,
    at: Instant,
    line: Option<String>,
}

/// A moment in the life of one of several processes, each of which takes this long alone; for some it is after their end.
fn moment(random: &mut fastrand::Rng, took: Duration) -> Instant {
    Instant::now() + took.mul_f64(random.f64() * 5.0)
}

/// Waits for all, killing each when its time has come. The lines of those that ended well, and how many were killed.
fn wait_or_kill(mut running: Vec<Doomed>) -> (Vec<String>, u32) {
    let (mut acknowledged, mut killed) = (Vec::new(), 0);
    while !running.is_empty() {
        std::thread::yield_now();
        running.retain_mut(|it| match it.child.try_wait().unwrap() {
            Some(status) => {
                let ended = matches!(status.code(), None | Some(0)) || it.line.is_none();
                assert!(ended, "{:?}: killed or done, nothing else", it.line);
                acknowledged.extend(it.line.take().filter(|_| status.success()));
                false
            }
            None if it.at <= Instant::now() => {
                it.child.kill().unwrap();
                it.child.wait().unwrap();
                killed += 1;
                false
            }
            None => true,
        });
    }
    (acknowledged, killed)
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
    let start = Instant::now();
    home.expect(0, &["write", "notes.md"], "first\n");
    let took = start.elapsed();
    let (mut acknowledged, mut killed) = (Vec::new(), 0);
    for round in 0..rounds {
        let writers = (0..4).map(|writer| {
            let line = format!("round {round} writer {writer}");
            let child = home.start(&["append", "notes.md"], &format!("{line}\n"));
            Doomed { child, at: moment(&mut random, took), line: Some(line) }
        });
        let (done, gone) = wait_or_kill(writers.collect());
        acknowledged.extend(done);
        killed += gone;
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

/// Hosts whose processes are killed in the middle of anything.
#[test]
#[allow(clippy::print_stdout)] // the seed of a failure, and the count
fn killed_rounds_lose_nothing_that_was_acknowledged() {
    let seed =
        std::env::var("CLAWD_TEST_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    let rounds = std::env::var("CLAWD_TEST_ROUNDS").map_or(50, |rounds| rounds.parse().unwrap());
    println!("CLAWD_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let shared = TempDir::new().unwrap();
    let remote = format!("file://{}/hive", shared.path().display());
    let start = Instant::now();
    let homes: Vec<Home> = (1..=4)
        .map(|host| {
            let home = Home { dir: TempDir::new().unwrap() };
            home.expect(0, &["init", "--host", &format!("H-{host}")], "");
            home
        })
        .collect();
    let took = start.elapsed() / 2;
    let (mut acknowledged, mut killed) = (Vec::new(), 0);
    for round in 0..rounds {
        let mut running = Vec::new();
        for (host, home) in homes.iter().enumerate() {
            let line = format!("round {round} host {host}");
            let file = if random.bool() { "goals.md" } else { "shared.md" };
            let child = home.start(&["append", file], &format!("{line}\n"));
            running.push(Doomed { child, at: moment(&mut random, took), line: Some(line) });
            let child = home.start(&["sync", "--remote", &remote], "");
            running.push(Doomed { child, at: moment(&mut random, took), line: None });
        }
        let (done, gone) = wait_or_kill(running);
        acknowledged.extend(done);
        killed += gone;
    }
    for _ in 0..2 {
        for home in &homes {
            let code = home.run(&["sync", "--remote", &remote], "").status.code();
            assert!(matches!(code, Some(0 | 3)), "{code:?}");
        }
    }
    let mut all = String::new();
    for entry in walk(&shared.path().join("hive")) {
        all.push_str(&fs::read_to_string(entry).unwrap());
    }
    let lines: std::collections::BTreeSet<&str> = all.lines().collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|line| !lines.contains(line.as_str())).collect();
    println!("{} acknowledged, {killed} killed, {} lost", acknowledged.len(), lost.len());
    assert!(lost.is_empty(), "{lost:?}");
    for file in ["goals.md", "shared.md"] {
        let texts: std::collections::BTreeSet<String> =
            homes.iter().map(|home| fs::read_to_string(home.file(file)).unwrap()).collect();
        assert_eq!(texts.len(), 1, "{file}: two quiet rounds converge");
    }
}
