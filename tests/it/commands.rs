//! Whole commands as a user sees them.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use crate::support::{Project, stable};

#[test]
fn events_are_json_lines() {
    let project = Project::with_plans();
    let out =
        project.expect(0, &["run", "plans/spawn.rhai", "--yes", "--format", "jsonl", "--parallelism", "1"]);
    for line in out.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(event["event"].is_string(), "{line}");
    }
    insta::assert_snapshot!("events", stable(&out));
}

#[test]
fn runs_and_their_reports() {
    let project = Project::with_plans();
    insta::assert_snapshot!("runs-none", project.block(&["runs"]));
    project.expect(0, &["run", "plans/spawn.rhai", "--yes", "--parallelism", "1"]);
    insta::assert_snapshot!("runs-one", project.block(&["runs"]));
    let runs: serde_json::Value =
        serde_json::from_str(&project.expect(0, &["runs", "--format", "json"])).unwrap();
    let id = runs[0]["run"].as_str().unwrap();
    insta::assert_snapshot!("show-run", project.block(&["show", id]));
    let records: serde_json::Value =
        serde_json::from_str(&project.expect(0, &["show", id, "--format", "json"])).unwrap();
    assert_eq!(records[0]["record"], "run_started");
}

#[test]
fn the_simulated_world_is_shown_and_emptied() {
    let project = Project::with_plans();
    insta::assert_snapshot!("sim-empty", project.block(&["sim", "show"]));
    project.expect(0, &["run", "plans/spawn.rhai", "--yes", "--parallelism", "1"]);
    assert_eq!(project.count("instance"), 2);
    insta::assert_snapshot!("sim-reset", project.block(&["sim", "reset"]));
    assert!(project.world().is_empty());
    assert_eq!(project.read(".clawd/.gitignore"), "*\n");
}

#[test]
fn failures_that_pass_are_tried_again_and_others_skip_what_depends() {
    let project = Project::with_plans();
    let config = |rate: &str| {
        format!("fleet = \"f\"\n[profiles.sim]\nadapters = \"sim\"\nfaults = {{ seed = 3, rate = {rate} }}\n")
    };
    project.write("clawd.toml", &config("0.1"));
    let out =
        project.expect(0, &["run", "plans/spawn.rhai", "--yes", "--format", "jsonl", "--parallelism", "1"]);
    assert!(out.contains("step_retried"), "{out}");
    assert_eq!((project.count("image"), project.count("snapshot"), project.count("volume")), (1, 1, 2));
    // Everything fails: the plan itself cannot be made, and says so.
    let project = Project::with_plans();
    project.write("clawd.toml", &config("1.0"));
    insta::assert_snapshot!("everything-fails", project.block(&["plan", "plans/teardown.rhai"]));
}

#[test]
fn a_failed_step_skips_its_dependants_and_leaves_the_others() {
    let project = Project::new();
    let script = r#"
let bad = tofu_apply("bad", #{ dir: "tofu/fleet", workspace: "bad", vars: #{ instances: #{ a: #{ type: "t3.large", zone: "z", ami: "ami-00000000000000000" } } } });
mount_volume("a", #{ host: "a", instance: bad.outputs.instance_ids.a, path: "/data", size_gib: 1 });
build_image("other", #{ flake: ".#other", realise: true });
"#;
    project.write("plans/mixed.rhai", script);
    insta::assert_snapshot!(
        "mixed",
        project.block(&["run", "plans/mixed.rhai", "--yes", "--parallelism", "1"])
    );
    assert_eq!(project.count("store"), 1, "the independent step was done");
    insta::assert_snapshot!(
        "fail-fast",
        project.block(&["run", "plans/mixed.rhai", "--yes", "--parallelism", "1", "--fail-fast"])
    );
}

#[test]
fn a_step_that_takes_too_long_is_told() {
    let project = Project::new();
    project.write("plans/slow.rhai", "let image = build_image(\"a\", #{ flake: \".#a\" });\nimport_ami(\"a\", #{ image: image, name_prefix: \"abc\", timeout: \"20s\" });");
    insta::assert_snapshot!(
        "timeout",
        project.block(&["run", "plans/slow.rhai", "--yes", "--parallelism", "1"])
    );
    // What was begun is gone on with.
    project.write("plans/slow.rhai", "let image = build_image(\"a\", #{ flake: \".#a\" });\nimport_ami(\"a\", #{ image: image, name_prefix: \"abc\" });");
    project.expect(0, &["run", "plans/slow.rhai", "--yes"]);
    assert_eq!((project.count("image"), project.count("snapshot")), (1, 1));
}

#[test]
fn warnings_prints_and_unknown_steps() {
    let project = Project::new();
    let script = r#"
warn("the fleet is small");
print("hello");
let image = build_image("a", #{ flake: ".#a" });
build_image("b", #{ flake: `.#${image.sha256}` });
tofu_apply("counted", #{ dir: "tofu/counted", vars: #{ count: image.size_bytes } });
"#;
    project.write("tofu/counted/sim.rhai", "fn resources(vars) { let out = #{}; for i in 0..vars.count { out[`r[${i}]`] = #{ type: \"terraform_data\" }; } out }\nfn outputs(vars, resources) { #{} }");
    project.write("plans/notes.rhai", script);
    insta::assert_snapshot!("notes", project.block(&["plan", "plans/notes.rhai"]));
}

/// A run that waits in real time on its first build, with its events.
fn slow_run(project: &Project) -> (Child, impl Iterator<Item = String>) {
    project.write("clawd.toml", "fleet = \"f\"\n[profiles.sim]\nadapters = \"sim\"\ntime_scale = 0.02\n");
    let mut child = project
        .command(&["run", "plans/spawn.rhai", "--yes", "--format", "jsonl"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    (child, lines)
}

fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
}

#[test]
fn one_interrupt_finishes_what_runs_and_resume_goes_on() {
    let project = Project::with_plans();
    let (child, mut lines) = slow_run(&project);
    lines.find(|line| line.contains("step_started")).unwrap();
    interrupt(&child);
    let rest: Vec<String> = lines.collect();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(rest.iter().any(|line| line.contains("step_done")), "what runs is finished: {rest:?}");
    assert!(rest.last().unwrap().contains("interrupted"), "{rest:?}");
    insta::assert_snapshot!("interrupted", stable(&String::from_utf8(output.stderr).unwrap()));
    project.write("clawd.toml", "fleet = \"f\"\n");
    assert!(project.expect(0, &["runs"]).contains("interrupted"));
    project.expect(0, &["resume"]);
    assert!(project.expect(0, &["runs"]).contains("done"));
    assert!(project.expect(0, &["run", "plans/spawn.rhai", "--dry-run"]).contains("No changes."));
}

#[test]
fn two_interrupts_stop_at_once() {
    let project = Project::with_plans();
    let (child, mut lines) = slow_run(&project);
    lines.find(|line| line.contains("step_progress")).unwrap();
    interrupt(&child);
    // The second comes after the first was seen; until then the process goes on either way.
    let mut status = None;
    let mut child = child;
    while status.is_none() {
        interrupt_if_running(&child);
        status = child.try_wait().unwrap();
        std::thread::yield_now();
    }
    let rest: Vec<String> = lines.collect();
    assert_eq!(status.unwrap().code(), Some(130), "{rest:?}");
    project.write("clawd.toml", "fleet = \"f\"\n");
    project.expect(0, &["resume"]);
    assert!(project.expect(0, &["run", "plans/spawn.rhai", "--dry-run"]).contains("No changes."));
}

fn interrupt_if_running(child: &Child) {
    // The process may be gone between the look and the signal; it is not reaped yet, so the id is still its own.
    let _ = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
}
