//! `clawd memory` on one machine: what agents call, what is refused, and that no acknowledged line is lost, whoever is killed when.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use clawd::host::memory::{Expected, Memory, Report, Shrinking, Wanted};
use clawd::memory::MemoryPath;
use clawd::providers::ports::{Answer, Condition, Listed, MemoryStore, Put, Stored};
use clawd::providers::process::memory_store;
use clawd::providers::{ErrorKind, ProviderError};
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::support::{block, walk};

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
    let outside = home.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "x").unwrap();
    symlink(outside.join("file"), home.file("link.md")).unwrap();
    symlink(&outside, home.file("etc")).unwrap();
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
            (&["append", "etc/mine.md"], "x\n"),
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
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "nothing was written outside");
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

/// A store whose answers get lost: before the effect, after it, or with a refusal that one's own earlier try caused.
struct Flaky {
    store: std::sync::Arc<dyn MemoryStore>,
    random: std::sync::Mutex<fastrand::Rng>,
    /// Calls in a hundred that go wrong.
    rate: u32,
}

impl Flaky {
    fn breaks(&self) -> Option<u32> {
        let mut random = self.random.lock().unwrap();
        (random.u32(0..100) < self.rate).then(|| random.u32(0..3))
    }
}

fn lost<T>() -> Answer<T> {
    Err(ProviderError::new(ErrorKind::Transient, "store", "the answer is lost"))
}

#[async_trait::async_trait]
impl MemoryStore for Flaky {
    async fn list(&self) -> Answer<Vec<Listed>> {
        if self.breaks() == Some(0) { lost() } else { self.store.list().await }
    }

    async fn get(&self, key: &str) -> Answer<Option<Stored>> {
        if self.breaks() == Some(0) { lost() } else { self.store.get(key).await }
    }

    async fn put(&self, key: &str, content: &[u8], condition: Condition<'_>) -> Answer<Put> {
        match self.breaks() {
            Some(0) => lost(),
            Some(1) => {
                let _ = self.store.put(key, content, condition).await;
                lost()
            }
            Some(_) => {
                let _ = self.store.put(key, content, condition).await;
                self.store.put(key, content, condition).await
            }
            None => self.store.put(key, content, condition).await,
        }
    }
}

/// A memory of a host, and nothing else said.
fn of(host: &str) -> Wanted {
    Wanted { host: host.to_owned(), ..Wanted::default() }
}

/// A store in whose listing a file is removed here, as an agent does it while a round runs.
struct Meanwhile<'a> {
    store: std::sync::Arc<dyn MemoryStore>,
    memory: &'a Memory,
    path: MemoryPath,
}

#[async_trait::async_trait]
impl MemoryStore for Meanwhile<'_> {
    async fn list(&self) -> Answer<Vec<Listed>> {
        let listed = self.store.list().await;
        self.memory.remove(&self.path, &Expected::Any, Shrinking::Refused).unwrap();
        listed
    }

    async fn get(&self, key: &str) -> Answer<Option<Stored>> {
        self.store.get(key).await
    }

    async fn put(&self, key: &str, content: &[u8], condition: Condition<'_>) -> Answer<Put> {
        self.store.put(key, content, condition).await
    }
}

#[test]
fn what_is_removed_during_a_round_is_removed() {
    let home = TempDir::new().unwrap();
    let store = memory_store(&home.path().join("shared")).unwrap();
    let memory = Memory::init(&home.path().join("memory"), of("H-1")).unwrap().0;
    let path: MemoryPath = "ideas/x.md".parse().unwrap();
    memory.append(&path, b"x\n").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let round = |store: &dyn MemoryStore| runtime.block_on(memory.sync(store, "test", Shrinking::Refused));
    round(&*store).unwrap();
    let meanwhile = Meanwhile { store: store.clone(), memory: &memory, path: path.clone() };
    assert_eq!(round(&meanwhile).unwrap(), Report { removed: vec![path.clone()], ..Report::default() });
    assert_eq!(memory.read(&path).unwrap_err().kind, clawd::host::memory::ErrorKind::Missing);
    // The note is settled: should the file come and go again without `rm`, it was not removed.
    assert_eq!(fs::read_to_string(home.path().join("memory.clawd/removed.json")).unwrap(), "{}");
}

/// Several hosts that write, edit and sync in any order over a store that loses answers. In the end, two quiet rounds bring all to
/// the same files, and each line that somebody wrote is in one of them: in its file, or put aside.
#[test]
fn hosts_that_write_at_once_lose_no_line() {
    let seed =
        std::env::var("CLAWD_TEST_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    let cases = std::env::var("CLAWD_TEST_CASES").map_or(20, |cases| cases.parse().unwrap());
    let mut seeds = fastrand::Rng::with_seed(seed);
    for _ in 0..cases {
        let case = seeds.u64(..);
        write_and_sync(case);
    }
}

fn write_and_sync(case: u64) {
    let mut random = fastrand::Rng::with_seed(case);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let home = TempDir::new().unwrap();
    let store = memory_store(&home.path().join("shared")).unwrap();
    let rate = random.u32(0..40);
    let flaky = Flaky { store: store.clone(), random: random.fork().into(), rate };
    let hosts: Vec<Memory> = (0..random.usize(2..=5))
        .map(|host| {
            let dir = home.path().join(format!("host-{host}"));
            Memory::init(&dir, of(&format!("H-{host}"))).unwrap().0
        })
        .collect();
    let (mut written, mut replaced) = (Vec::new(), Vec::new());
    for step in 0..random.u32(10..60) {
        let host = random.usize(0..hosts.len());
        let memory = &hosts[host];
        let file: MemoryPath = match random.u32(0..4) {
            0 => "goals.md".to_owned(),
            1 => format!("2026-11-26_H-{host}.md"),
            // A foreign note, which is not this host's to write.
            2 => format!("2026-11-26_H-{}.md", (host + 1) % hosts.len()),
            _ => "ideas/shared.md".to_owned(),
        }
        .parse()
        .unwrap();
        match random.u32(0..10) {
            0..5 => {
                let line = format!("line {step} of host {host}");
                memory.append(&file, format!("{line}\n").as_bytes()).unwrap();
                written.push(line);
            }
            5 => {
                // One line becomes another: the old one is replaced by somebody who saw it.
                let Ok(found) = memory.read(&file) else { continue };
                let text = String::from_utf8(found.content).unwrap();
                let Some(old) =
                    text.lines().next().filter(|old| text.matches(&format!("{old}\n")).count() == 1)
                else {
                    continue;
                };
                let line = format!("edit {step} of host {host}");
                let edit = memory.edit(
                    &file,
                    &format!("{old}\n"),
                    &format!("{line}\n"),
                    &Expected::Any,
                    Shrinking::Refused,
                );
                edit.unwrap();
                replaced.push(old.to_owned());
                written.push(line);
            }
            _ => {
                // What went wrong goes right later.
                let _ = runtime.block_on(memory.sync(&flaky, "test", Shrinking::Refused));
            }
        }
    }
    let round = |memory: &Memory| runtime.block_on(memory.sync(&*store, "test", Shrinking::Refused)).unwrap();
    for _ in 0..2 {
        for memory in &hosts {
            round(memory);
        }
    }
    let files = |memory: &Memory| -> Vec<(MemoryPath, String)> {
        let (paths, _) = memory.list().unwrap();
        let read = |path: MemoryPath| {
            let file = memory.read(&path).unwrap();
            (path, String::from_utf8(file.content).unwrap())
        };
        paths.into_iter().map(read).collect()
    };
    let first = files(&hosts[0]);
    for memory in &hosts {
        assert_eq!(files(memory), first, "case {case}: two quiet rounds converge");
        let report = round(memory);
        assert_eq!(report, Report::default(), "case {case}: in step, and a round more does nothing");
    }
    let all: Vec<&str> = first.iter().flat_map(|(_, text)| text.lines()).collect();
    for line in written.iter().filter(|line| !replaced.contains(line)) {
        assert!(all.contains(&line.as_str()), "case {case}: `{line}` is lost\n{first:#?}");
    }
    for (path, text) in &first {
        assert!(!text.contains("<<<<<<<"), "case {case}: {path} has no markers");
    }
}

#[test]
fn rounds_between_two_hosts() {
    let homes = [Home::new(), Home::new()];
    homes[1].expect(0, &["init", "--host", "H-2"], "");
    let shared = TempDir::new().unwrap();
    let remote = format!("file://{}/hive", shared.path().display());
    let sync = |host: usize| {
        let text = homes[host].session(&[(&["sync", "--remote", &remote], "")]);
        text.replace(shared.path().to_str().unwrap(), "[shared]")
    };
    let put = |host: usize, args: &[&str], input: &str| {
        homes[host].expect(0, args, input);
    };
    let mut told = String::new();
    let mut tell = |what: &str, text: String| {
        told.push_str(&format!("# {what}\n{text}\n"));
    };
    put(0, &["write", "goals.md"], "one\ntwo\nthree\n");
    put(0, &["append", "2026-11-26_H-1.md"], "mine\n");
    tell("the first host pushes", sync(0));
    tell("the second pulls", sync(1));
    tell("nothing is left to do", sync(1));
    put(0, &["append", "goals.md"], "from the first\n");
    put(1, &["append", "goals.md"], "from the second\n");
    sync(0);
    tell("both appended", sync(1));
    put(0, &["edit", "goals.md", "--old", "two", "--new", "TWO"], "");
    put(1, &["edit", "goals.md", "--old", "two", "--new", "zwei"], "");
    sync(0);
    tell("both edited one line", sync(1));
    put(1, &["append", "2026-11-26_H-1.md"], "not mine\n");
    tell("a note of somebody else's", sync(1));
    put(1, &["write", "x.md"], "x\n");
    sync(1);
    sync(0);
    put(0, &["rm", "x.md"], "");
    tell("removed here", sync(0));
    tell("removed there", sync(1));
    fs::remove_file(homes[0].file("goals.md")).unwrap();
    tell("gone, not removed", sync(0));
    fs::write(homes[0].file("goals.md"), "").unwrap();
    tell("emptied by a program that knows nothing of guards", sync(0));
    sync(1);
    for n in 0..8 {
        put(1, &["write", &format!("many/{n}.md")], "x\n");
    }
    sync(1);
    for n in 0..8 {
        put(1, &["rm", &format!("many/{n}.md")], "");
    }
    tell("many files at once", sync(1));
    insta::assert_snapshot!("memory-rounds", told);
    insta::assert_snapshot!(
        "memory-sync-wrong",
        homes[0].session(&[
            (&["sync", "--remote", "s3://No_Bucket/hive"], ""),
            (&["sync", "--remote", "file://hive"], ""),
            (&["sync", "--remote", "file:///proc/hive"], ""),
            (&["sync", "--remote", "file:///tmp", "--host", "H-9"], ""),
        ])
    );
}

/// An index that is lost or damaged makes no line go, and a key that would leave the directory is no file.
#[test]
fn a_lost_index_and_wild_keys_do_no_harm() {
    let home = Home::new();
    let shared = home.dir.path().join("shared");
    let remote = format!("file://{}", shared.display());
    let sync = ["sync", "--remote", &remote, "--json"];
    home.expect(0, &["write", "goals.md"], "one\ntwo\n");
    home.expect(0, &sync, "");
    for damage in ["", "{ \"format\": 1", "{}"] {
        fs::write(home.dir.path().join("memory.clawd/index.json"), damage).unwrap();
        // Without a base, a line that is missing on one side was not removed.
        fs::write(home.file("goals.md"), "one\nlocal\n").unwrap();
        fs::write(shared.join("goals.md"), "one\ntwo\nremote\n").unwrap();
        home.expect(0, &sync, "");
        assert_eq!(
            fs::read_to_string(home.file("goals.md")).unwrap(),
            "one\ntwo\nremote\nlocal\n",
            "{damage}"
        );
    }
    fs::write(shared.join("back\\slash.md"), "x").unwrap();
    fs::write(shared.join("con\u{7}trol.md"), "x").unwrap();
    let said: Json = serde_json::from_str(&home.expect(0, &sync, "")).unwrap();
    assert_eq!(said["skipped"].as_array().unwrap().len(), 2, "{said}");
    assert_eq!(said["in_step"], true);
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
