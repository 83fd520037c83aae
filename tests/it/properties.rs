//! Properties over generated plans: the same digest twice, and every graph runs in an order that keeps it.

use std::collections::HashMap;
use std::fmt::Write as _;

use async_trait::async_trait;
use clawd::exec::journal::{Journal, Record};
use clawd::exec::observer::Recording;
use clawd::exec::{Event, Interrupt, Options, apply, decide};
use clawd::plan::file;
use clawd::providers::ProviderError;
use clawd::providers::sim::{Faults, Settings};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::{evaluate, simulator};

/// A journal that keeps nothing.
struct NoJournal;

#[async_trait]
impl Journal for NoJournal {
    async fn durable(&self, _: &Record) -> Result<(), ProviderError> {
        Ok(())
    }

    fn append(&self, _: &Record) -> Result<(), ProviderError> {
        Ok(())
    }

    fn parts(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
}

/// A script of images and AMIs: each AMI takes an earlier image, and steps wait for earlier ones.
fn script(steps: &[(bool, Index, Vec<Index>)]) -> String {
    let mut text = String::new();
    let mut images = Vec::new();
    for (number, (wants_image, image, after)) in steps.iter().enumerate() {
        let list: Vec<String> = if number == 0 {
            vec![]
        } else {
            after.iter().map(|at| format!("s{}", at.index(number))).collect()
        };
        let after = format!("after: [{}]", list.join(", "));
        if *wants_image || images.is_empty() {
            images.push(number);
            let _ = writeln!(
                text,
                "let s{number} = build_image(\"n{number}\", #{{ flake: \".#i{number}\", realise: true, {after} }});"
            );
        } else {
            let from = images[image.index(images.len())];
            let _ = writeln!(
                text,
                "let s{number} = import_ami(\"n{number}\", #{{ image: s{from}, name_prefix: \"ami{number}\", {after} }});"
            );
        }
    }
    text
}

fn any_steps() -> impl Strategy<Value = Vec<(bool, Index, Vec<Index>)>> {
    prop::collection::vec((any::<bool>(), any::<Index>(), prop::collection::vec(any::<Index>(), 0..3)), 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_same_script_gives_the_same_plan(steps in any_steps()) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("plan.rhai"), script(&steps)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let plan = || {
            let recorded = evaluate(dir.path(), "plan.rhai", &[]).unwrap();
            runtime.block_on(decide(recorded, &simulator(dir.path(), Settings::default())))
        };
        let (first, second) = (plan(), plan());
        prop_assert_eq!(file::to_file(&first), file::to_file(&second));
        prop_assert_eq!(file::from_file(&file::to_file(&first)).unwrap(), first);
    }

    #[test]
    fn every_graph_runs_in_an_order_that_keeps_it(steps in any_steps(), seed in any::<u64>(), parallelism in 1usize..9) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("plan.rhai"), script(&steps)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let settings = Settings { faults: Faults { seed, rate: 0.05 }, time_scale: 0.0 };
        let providers = simulator(dir.path(), settings);
        let recorded = evaluate(dir.path(), "plan.rhai", &[]).unwrap();
        let plan = runtime.block_on(decide(recorded, &providers));
        let observer = Recording::default();
        let (_sender, interrupt) = tokio::sync::watch::channel(Interrupt::None);
        let options = Options { run: "r".into(), parallelism, per_port: Default::default(), fail_fast: false, spent: vec![] };
        let applied = runtime.block_on(apply(&plan, &providers, &NoJournal, &observer, interrupt, &options)).unwrap();
        prop_assert_eq!(applied.failures().count(), 0, "{:?}", applied.results);
        let mut running = 0usize;
        for event in observer.events() {
            match event {
                Event::StepStarted { .. } => running += 1,
                Event::StepDone { .. } | Event::StepFailed { .. } => running -= 1,
                _ => {}
            }
            prop_assert!(running <= parallelism, "{} steps at once, at most {} allowed", running, parallelism);
        }
        let mut done_at = HashMap::new();
        let mut started_at = HashMap::new();
        for (at, event) in observer.events().into_iter().enumerate() {
            match event {
                Event::StepStarted { step, .. } => { prop_assert!(started_at.insert(step, at).is_none()); }
                Event::StepDone { step, .. } => { prop_assert!(done_at.insert(step, at).is_none()); }
                _ => {}
            }
        }
        for (_, step) in plan.ids() {
            let Some(started) = started_at.get(&step.address) else { continue };
            for dependency in &step.depends_on {
                let before = &plan.step(*dependency).address;
                prop_assert!(done_at[before] < *started, "{} started before {} was done", step.address, before);
            }
        }
        // A second plan of the same world has nothing left to do.
        let again = evaluate(dir.path(), "plan.rhai", &[]).unwrap();
        let again = runtime.block_on(decide(again, &simulator(dir.path(), Settings::default())));
        prop_assert!(!again.summary().has_changes());
    }
}
