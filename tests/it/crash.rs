//! Kills at any moment: running again, or resuming, ends with the world as the plan says and nothing doubled.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use clawd::exec::journal::{FileJournal, Journal, Record};
use clawd::exec::observer::Recording;
use clawd::exec::{Interrupt, Options, apply, decide};
use clawd::providers::ProviderError;
use clawd::providers::sim::{Faults, Settings, World};
use tokio::sync::Notify;

use crate::support::{Project, evaluate, simulator};

/// A journal that dies at its n-th record, before or after writing it.
struct Dying {
    inner: FileJournal,
    left: AtomicUsize,
    before: bool,
    dead: Notify,
}

impl Dying {
    /// Whether the process lives on after this record.
    fn lives(&self) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        if left <= 1 {
            self.dead.notify_one();
        }
        left > 1
    }
}

#[async_trait]
impl Journal for Dying {
    async fn durable(&self, record: &Record) -> Result<(), ProviderError> {
        let lives = self.lives();
        if lives || !self.before {
            self.inner.durable(record).await?;
        }
        if !lives {
            // The process is gone: the call that follows is never made.
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    fn append(&self, record: &Record) -> Result<(), ProviderError> {
        if self.lives() || !self.before { self.inner.append(record) } else { Ok(()) }
    }

    fn parts(&self, of: &str) -> Vec<String> {
        self.inner.parts(of)
    }
}

/// One process's life: plans, applies, dies at the n-th record. Returns whether it came to its end.
async fn live(root: &Path, script: &str, records: usize, before: bool, faults: Faults) -> bool {
    let providers = simulator(root, Settings { faults, time_scale: 0.0 });
    let recorded = evaluate(root, script, &[]).unwrap();
    let plan = decide(recorded, &providers).await;
    assert!(plan.phase.problems.is_empty(), "{:?}", plan.phase.problems);
    let journal = Dying {
        inner: FileJournal::open(&root.join("run")).unwrap(),
        left: AtomicUsize::new(records),
        before,
        dead: Notify::new(),
    };
    let observer = Recording::default();
    let (_sender, interrupt) = tokio::sync::watch::channel(Interrupt::None);
    let options = Options {
        run: "r".into(),
        parallelism: 4,
        per_port: Default::default(),
        fail_fast: false,
        spent: vec![],
    };
    tokio::select! {
        biased;
        () = journal.dead.notified() => false,
        applied = apply(&plan, &providers, &journal, &observer, interrupt, &options) => {
            let applied = applied.expect("what was just planned is not stale");
            assert_eq!(applied.failures().count(), 0, "{:?}", applied.results);
            true
        }
    }
}

fn counts(root: &Path) -> Vec<(&'static str, usize)> {
    let world = World::open(root.join(".world")).unwrap();
    let rows = world.describe();
    ["image", "snapshot", "instance", "volume", "mount", "memory", "stack", "store"]
        .into_iter()
        .map(|kind| (kind, rows.iter().filter(|(found, _, _)| found == kind).count()))
        .collect()
}

const SPAWN: &str = "plans/spawn.rhai";

const WHOLE: [(&str, usize); 8] = [
    ("image", 1),
    ("snapshot", 1),
    ("instance", 2),
    ("volume", 2),
    ("mount", 2),
    ("memory", 2),
    ("stack", 2),
    ("store", 1),
];

/// Volumes that leave their hosts: one is released with a snapshot and deleted, one makes room for one from a snapshot.
#[test]
fn a_kill_while_volumes_move_doubles_and_loses_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let host = "let stack = tofu_apply(\"fleet\", #{ dir: \"tofu/fleet\", vars: #{ instances: #{\n\
                a: #{ type: \"t3.large\", zone: \"eu-central-1a\", ami: \"ami-0123456789abcdef0\" } } } });\n";
    let mount = |name: &str, more: &str| {
        format!(
            "mount_volume(\"{name}\", #{{ host: \"h\", instance: stack.outputs.instance_ids.a, path: \"/{name}\", size_gib: 10{more} }});\n"
        )
    };
    let release =
        |more: &str| format!("release_volume(\"one\", #{{ host: \"h\", path: \"/one\"{more} }});\n");
    let allow = "allow(#{ destroy: [\"*\"], replace: [\"*\"] });\n";
    for seed in 0..2u64 {
        let faults = Faults { seed, rate: if seed == 0 { 0.0 } else { 0.06 } };
        for before in [true, false] {
            let mut records = 1;
            loop {
                let project = Project::new();
                let apply = |script: &str, records: usize, faults: Faults| {
                    project.write("plans/case.rhai", script);
                    runtime.block_on(live(project.path(), "plans/case.rhai", records, before, faults))
                };
                let quiet = Faults { seed: 0, rate: 0.0 };
                let both = format!("{host}{}{}", mount("one", ""), mount("two", ""));
                assert!(apply(&both, usize::MAX, quiet));
                assert!(apply(&format!("{host}{}{}", release(""), mount("two", "")), usize::MAX, quiet));
                assert!(apply(&both, usize::MAX, quiet), "it is mounted once more");
                let rows = World::open(project.path().join(".world")).unwrap().describe();
                let snapshot = rows.iter().find(|(kind, _, _)| *kind == "snapshot").unwrap().1.clone();
                let restored = mount("two", &format!(", snapshot: \"{snapshot}\""));
                let moves = format!("{allow}{host}{}{restored}", release(", delete: true"));
                let ended = apply(&moves, records, faults);
                if !ended {
                    assert!(apply(&moves, usize::MAX, Faults { seed: seed + 1000, ..faults }));
                }
                let of =
                    |kind: &str| counts(project.path()).into_iter().find(|(it, _)| *it == kind).unwrap().1;
                let found = (of("volume"), of("mount"), of("snapshot"));
                assert_eq!(found, (2, 1, 2), "seed {seed}, record {records}, before {before}");
                let rest = runtime.block_on(async {
                    let recorded = evaluate(project.path(), "plans/case.rhai", &[]).unwrap();
                    decide(recorded, &simulator(project.path(), Settings::default())).await
                });
                assert!(!rest.summary().has_changes(), "seed {seed}, record {records}, before {before}");
                if ended {
                    break;
                }
                records += 1;
            }
            assert!(records > 15, "the run writes many records, it was killed at {records}");
        }
    }
}

#[test]
fn a_kill_at_every_journal_record_doubles_and_loses_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for seed in 0..6u64 {
        let faults = Faults { seed, rate: if seed == 0 { 0.0 } else { 0.06 } };
        for before in [true, false] {
            let mut records = 1;
            loop {
                let project = Project::with_plans();
                let ended = runtime.block_on(live(project.path(), SPAWN, records, before, faults));
                // The next process knows nothing of the first but what is on disk.
                let again = Faults { seed: seed + 1000, ..faults };
                if !ended {
                    assert!(runtime.block_on(live(project.path(), SPAWN, usize::MAX, before, again)));
                }
                assert_eq!(counts(project.path()), WHOLE, "seed {seed}, record {records}, before {before}");
                let rest = runtime.block_on(async {
                    let recorded = evaluate(project.path(), SPAWN, &[]).unwrap();
                    decide(recorded, &simulator(project.path(), Settings::default())).await
                });
                assert!(!rest.summary().has_changes(), "seed {seed}, record {records}, before {before}");
                if ended {
                    break;
                }
                records += 1;
            }
            assert!(records > 20, "the run writes many records, it was killed at {records}");
        }
    }
}

/// The number of the signal that cannot be caught.
const SIGKILL: i32 = 9;

/// Real processes, SIGKILL after a random number of events, over and over until one comes through.
#[test]
fn a_hundred_sigkills_at_random_moments() {
    let seed = 0x5eed_c1a3;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut kills = 0;
    while kills < 100 {
        let project = Project::with_plans();
        for _ in 0..4 {
            let mut child = project
                .command(&["run", "plans/spawn.rhai", "--yes", "--format", "jsonl"])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let events = random.usize(0..32);
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            lines.take(events).for_each(drop);
            // Spin a random while, so that kills fall between events too.
            for _ in 0..random.u32(0..200_000) {
                std::hint::spin_loop();
            }
            child.kill().unwrap();
            // A process that had come to its end was not killed.
            kills += usize::from(child.wait().unwrap().signal() == Some(SIGKILL));
        }
        let resume = random.bool() && project.path().join(".clawd/sim/runs").exists();
        if resume {
            let output = project.run(&["resume"]);
            // Nothing to resume is a fine answer when every killed run had ended.
            assert!(
                matches!(output.status.code(), Some(0 | 1 | 3)),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        project.expect(0, &["run", "plans/spawn.rhai", "--yes"]);
        let dry = project.expect(0, &["run", "plans/spawn.rhai", "--dry-run", "--detailed-exitcode"]);
        assert!(dry.contains("No changes."), "seed {seed}, after {kills} kills:\n{dry}");
        for (kind, count) in WHOLE {
            assert_eq!(project.count(kind), count, "{kind}, seed {seed}, after {kills} kills");
        }
    }
}
