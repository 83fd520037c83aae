//! Rounds between hosts, over stores that lose answers and hosts that write meanwhile.

use std::fs;

use clawd::host::memory::{Expected, Memory, Report, Shrinking};
use clawd::memory::MemoryPath;
use clawd::providers::ports::{Answer, Condition, Listed, MemoryStore, Put, Stored};
use clawd::providers::process::memory_store;
use clawd::providers::{ErrorKind, ProviderError};
use serde_json::Value as Json;
use tempfile::TempDir;

use super::{Home, of};

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
    async fn list(&self, known: &[&str]) -> Answer<Vec<Listed>> {
        if self.breaks() == Some(0) { lost() } else { self.store.list(known).await }
    }

    async fn get(&self, key: &str) -> Answer<Option<Stored>> {
        if self.breaks() == Some(0) { lost() } else { self.store.get(key).await }
    }

    async fn keeps_versions(&self) -> Answer<Option<bool>> {
        self.store.keeps_versions().await
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

/// A store that does what it is asked, and loses the answer.
struct Silent(std::sync::Arc<dyn MemoryStore>);

#[async_trait::async_trait]
impl MemoryStore for Silent {
    async fn list(&self, known: &[&str]) -> Answer<Vec<Listed>> {
        self.0.list(known).await
    }

    async fn get(&self, key: &str) -> Answer<Option<Stored>> {
        self.0.get(key).await
    }

    async fn keeps_versions(&self) -> Answer<Option<bool>> {
        self.0.keeps_versions().await
    }

    async fn put(&self, key: &str, content: &[u8], condition: Condition<'_>) -> Answer<Put> {
        self.0.put(key, content, condition).await?;
        lost()
    }
}

/// A file that was removed before anybody shared it is none that another host makes later, of the same content.
#[test]
fn a_removal_is_of_what_was_shared() {
    let home = TempDir::new().unwrap();
    let store = memory_store(&home.path().join("shared")).unwrap();
    let memory = |host: &str| Memory::init(&home.path().join(host), of(host)).unwrap().0;
    let (first, second) = (memory("H-1"), memory("H-2"));
    let path: MemoryPath = "scratch.md".parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let round = |memory: &Memory| runtime.block_on(memory.sync(&*store, "test", Shrinking::Refused)).unwrap();
    first.append(&path, b"").unwrap();
    first.remove(&path, &Expected::Any, Shrinking::Refused).unwrap();
    second.append(&path, b"").unwrap();
    for memory in [&first, &second, &first, &second] {
        round(memory);
    }
    assert!(first.read(&path).is_ok() && second.read(&path).is_ok());
    // The note is settled: should the file go without `rm`, it comes back.
    fs::remove_file(home.path().join("H-1/scratch.md")).unwrap();
    assert_eq!(round(&first).restored, std::slice::from_ref(&path));
    // A program that knows nothing of notes brings back what was removed.
    first.remove(&path, &Expected::Any, Shrinking::Refused).unwrap();
    fs::write(home.path().join("H-1/scratch.md"), "").unwrap();
    round(&first);
    fs::remove_file(home.path().join("H-1/scratch.md")).unwrap();
    assert_eq!(round(&first).restored, std::slice::from_ref(&path));
    // Notes of others are theirs to remove.
    let note: MemoryPath = "2026-11-27_H-1.md".parse().unwrap();
    first.append(&note, b"x\n").unwrap();
    for memory in [&first, &second] {
        round(memory);
    }
    assert!(second.remove(&note, &Expected::Any, Shrinking::Refused).is_err());
    first.append(&note, b"y\n").unwrap();
    first.remove(&note, &Expected::Any, Shrinking::Refused).unwrap();
    for memory in [&first, &second] {
        round(memory);
    }
    assert!(second.read(&note).is_err(), "whose note it was removed it");
}

/// A store that goes away in the middle of a round is not asked for each of ten thousand files.
#[test]
fn a_store_that_goes_away_ends_the_round() {
    let home = TempDir::new().unwrap();
    let store = memory_store(&home.path().join("shared")).unwrap();
    let memory = Memory::init(&home.path().join("memory"), of("H-1")).unwrap().0;
    for n in 0..200 {
        memory.append(&format!("{n}.md").parse().unwrap(), b"x\n").unwrap();
    }
    let gone = Gone { store, asked: 0.into() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let report = runtime.block_on(memory.sync(&gone, "test", Shrinking::Refused)).unwrap();
    assert_eq!(report.failed.len(), 200);
    assert!(gone.asked.into_inner() < 100, "each that was tried is asked to be written, and read back");
    assert!(report.failed.iter().any(|(_, why)| why.contains("not tried")), "{:?}", report.failed);
}

/// A host's role lets it write its own notes and refuses the rest, however much that is.
#[test]
fn files_that_a_role_refuses_keep_no_others_back() {
    let home = TempDir::new().unwrap();
    let store = memory_store(&home.path().join("shared")).unwrap();
    let memory = Memory::init(&home.path().join("memory"), of("H-1")).unwrap().0;
    for n in 0..100 {
        memory.append(&format!("idea-{n}.md").parse().unwrap(), b"x\n").unwrap();
    }
    let note: MemoryPath = "zone/2026-11-27_H-1.md".parse().unwrap();
    memory.append(&note, b"x\n").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let report = runtime.block_on(memory.sync(&Strict(store), "test", Shrinking::Refused)).unwrap();
    assert_eq!(report.pushed, [note]);
    assert_eq!(report.failed.len(), 100);
    assert!(report.failed.iter().all(|(_, why)| why.contains("AccessDenied")), "{:?}", report.failed);
}

/// A store that takes one host's notes and nothing else.
struct Strict(std::sync::Arc<dyn MemoryStore>);

#[async_trait::async_trait]
impl MemoryStore for Strict {
    async fn list(&self, known: &[&str]) -> Answer<Vec<Listed>> {
        self.0.list(known).await
    }

    async fn get(&self, key: &str) -> Answer<Option<Stored>> {
        self.0.get(key).await
    }

    async fn keeps_versions(&self) -> Answer<Option<bool>> {
        self.0.keeps_versions().await
    }

    async fn put(&self, key: &str, content: &[u8], condition: Condition<'_>) -> Answer<Put> {
        match key.contains("_H-1.md") {
            true => self.0.put(key, content, condition).await,
            false => Err(ProviderError::permanent("s3 PutObject", "AccessDenied")),
        }
    }
}

/// A store that can be listed and does not answer otherwise.
struct Gone {
    store: std::sync::Arc<dyn MemoryStore>,
    asked: std::sync::atomic::AtomicUsize,
}

impl Gone {
    fn gone<T>(&self) -> Answer<T> {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        lost()
    }
}

#[async_trait::async_trait]
impl MemoryStore for Gone {
    async fn list(&self, known: &[&str]) -> Answer<Vec<Listed>> {
        self.store.list(known).await
    }

    async fn get(&self, _: &str) -> Answer<Option<Stored>> {
        self.gone()
    }

    async fn keeps_versions(&self) -> Answer<Option<bool>> {
        self.gone()
    }

    async fn put(&self, _: &str, _: &[u8], _: Condition<'_>) -> Answer<Put> {
        self.gone()
    }
}

/// What was asked is read back where the answer is lost: it is there, and the round is in step.
#[test]
fn a_lost_answer_to_a_write_that_was_done_is_no_failure() {
    let home = TempDir::new().unwrap();
    let store = memory_store(&home.path().join("shared")).unwrap();
    let memory = Memory::init(&home.path().join("memory"), of("H-1")).unwrap().0;
    let path: MemoryPath = "goals.md".parse().unwrap();
    memory.append(&path, b"x\n").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let report = runtime.block_on(memory.sync(&Silent(store), "test", Shrinking::Refused)).unwrap();
    assert_eq!(report, Report { pushed: vec![path], ..Report::default() });
}

/// A store in whose listing a file is removed here, as an agent does it while a round runs.
struct Meanwhile<'a> {
    store: std::sync::Arc<dyn MemoryStore>,
    memory: &'a Memory,
    path: MemoryPath,
}

#[async_trait::async_trait]
impl MemoryStore for Meanwhile<'_> {
    async fn list(&self, known: &[&str]) -> Answer<Vec<Listed>> {
        let listed = self.store.list(known).await;
        self.memory.remove(&self.path, &Expected::Any, Shrinking::Refused).unwrap();
        listed
    }

    async fn get(&self, key: &str) -> Answer<Option<Stored>> {
        self.store.get(key).await
    }

    async fn keeps_versions(&self) -> Answer<Option<bool>> {
        self.store.keeps_versions().await
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
#[allow(clippy::print_stdout)] // the seed of a failure
fn hosts_that_write_at_once_lose_no_line() {
    let seed =
        std::env::var("CLAWD_TEST_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    let cases = std::env::var("CLAWD_TEST_CASES").map_or(20, |cases| cases.parse().unwrap());
    println!("CLAWD_TEST_SEED={seed}");
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
            6 => {
                // A file is removed: its lines go with the version that held them, and with no other.
                let Ok(found) = memory.read(&file) else { continue };
                if memory.remove(&file, &Expected::Any, Shrinking::Allowed).is_ok() {
                    let text = String::from_utf8(found.content).unwrap();
                    replaced.extend(text.lines().map(str::to_owned));
                }
            }
            _ => {
                // What went wrong goes right later.
                let _ = runtime.block_on(memory.sync(&flaky, "test", Shrinking::Refused));
            }
        }
    }
    // Many files may be removed by now, which was meant.
    let round = |memory: &Memory| runtime.block_on(memory.sync(&*store, "test", Shrinking::Allowed)).unwrap();
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
