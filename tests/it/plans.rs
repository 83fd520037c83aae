//! The plans that come with clawd, end to end in rehearsal.

use crate::support::{Project, stable};

const DRY: [&str; 2] = ["--dry-run", "--detailed-exitcode"];

fn dry<'a>(plan: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    ["run", plan].into_iter().chain(DRY).chain(more.iter().copied()).collect()
}

#[test]
fn spawn_plans_applies_and_then_changes_nothing() {
    let project = Project::with_plans();
    insta::assert_snapshot!("spawn-first", project.block(&dry("plans/spawn.rhai", &[])));
    insta::assert_snapshot!(
        "spawn-apply",
        project.block(&["run", "plans/spawn.rhai", "--yes", "--parallelism", "1"])
    );
    insta::assert_snapshot!("spawn-second", project.block(&dry("plans/spawn.rhai", &[])));
    insta::assert_snapshot!(
        "spawn-three-hosts",
        project.block(&dry("plans/spawn.rhai", &["--param", "count=3"]))
    );
    project.expect(0, &["run", "plans/spawn.rhai", "--yes"]);
    assert_eq!(project.count("volume"), 2);
}

#[test]
fn a_plan_is_the_same_bytes_twice_in_every_format() {
    let project = Project::with_plans();
    for format in ["human", "json", "markdown", "mermaid"] {
        let args = ["plan", "plans/spawn.rhai", "--format", format];
        let first = project.expect(0, &args);
        assert_eq!(first, project.expect(0, &args), "{format}");
        insta::assert_snapshot!(format!("spawn-{format}"), stable(&first));
    }
    assert!(!project.path().join(".clawd").exists(), "planning writes nothing");
}

#[test]
fn rolling_one_host_leaves_the_others_alone() {
    let project = Project::with_plans();
    project.expect(0, &["run", "plans/spawn.rhai", "--yes"]);
    let before = instances(&project);
    insta::assert_snapshot!("roll", project.block(&dry("plans/roll.rhai", &[])));
    project.expect(0, &["run", "plans/roll.rhai", "--yes"]);
    assert!(project.expect(0, &dry("plans/roll.rhai", &[])).contains("No changes."));
    let after = instances(&project);
    assert_ne!(before["CLAWDINATOR-1"], after["CLAWDINATOR-1"], "the rolled host is another instance");
    assert_eq!(before["CLAWDINATOR-2"], after["CLAWDINATOR-2"], "the other host is the same instance");
    assert_eq!(project.count("volume"), 2, "the rolled host keeps its volume");
}

/// The plan builds the AMI of the other hosts only where nothing else says what they run, and never moves them to a new one.
#[test]
fn a_flake_that_moved_on_does_not_take_the_other_hosts_along() {
    let project = Project::with_plans();
    project.expect(0, &["run", "plans/spawn.rhai", "--yes"]);
    let (_, current) = project.world().into_iter().find(|(kind, _)| kind == "image").unwrap();
    project.write("flake.nix", "{ }");
    insta::assert_snapshot!("roll-moves-others", project.block(&["run", "plans/roll.rhai", "--yes"]));
    let told = format!("current={current}");
    let before = instances(&project);
    project.expect(0, &["run", "plans/roll.rhai", "--yes", "--param", &told]);
    let after = instances(&project);
    assert_ne!(before["CLAWDINATOR-1"], after["CLAWDINATOR-1"]);
    assert_eq!(before["CLAWDINATOR-2"], after["CLAWDINATOR-2"]);
}

fn instances(project: &Project) -> serde_json::Value {
    let log = project.read(".clawd/sim/world/world.log");
    let line = log.lines().rev().find(|line| line.contains("\"table\":\"stack\"")).unwrap();
    let transaction: serde_json::Value = serde_json::from_str(line.split_once(' ').unwrap().1).unwrap();
    let puts = transaction["puts"].as_array().unwrap();
    puts.iter().find(|put| put["table"] == "stack").unwrap()["row"]["outputs"]["instance_ids"].clone()
}

#[test]
fn tearing_down_destroys_hosts_and_keeps_data() {
    let project = Project::with_plans();
    project.expect(0, &["run", "plans/spawn.rhai", "--yes", "--parallelism", "1"]);
    insta::assert_snapshot!("teardown", project.block(&dry("plans/teardown.rhai", &[])));
    project.expect(0, &["run", "plans/teardown.rhai", "--yes", "--parallelism", "1"]);
    insta::assert_snapshot!("teardown-again", project.block(&dry("plans/teardown.rhai", &[])));
    assert_eq!(project.count("volume"), 2);
    // A fleet that is spawned again finds its volumes.
    project.expect(0, &["run", "plans/spawn.rhai", "--yes", "--parallelism", "1"]);
    assert!(project.expect(0, &dry("plans/spawn.rhai", &[])).contains("No changes."));
    assert_eq!(project.count("volume"), 2);
}

#[test]
fn an_empty_store_does_not_rebuild_the_image_of_an_ami_that_exists() {
    let project = Project::with_plans();
    project.expect(0, &["run", "plans/spawn.rhai", "--yes"]);
    let path = project.path().join(".clawd/sim/world/world.log");
    let log = std::fs::read_to_string(&path).unwrap();
    let kept: String =
        log.split_inclusive('\n').filter(|line| !line.contains("\"table\":\"store\"")).collect();
    assert!(kept.len() < log.len(), "the store was in the world");
    std::fs::write(&path, kept).unwrap();
    let plan = project.expect(0, &["plan", "plans/spawn.rhai", "--format", "json", "--detailed-exitcode"]);
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let steps = plan["steps"].as_array().unwrap();
    let image = steps.iter().find(|step| step["address"] == "build_image.base").unwrap();
    assert_eq!(image["reason"], "not needed: no step that acts uses it");
    assert_eq!(plan["summary"]["no_op"], 8);
}

#[test]
fn a_changed_flake_makes_another_image() {
    let project = Project::with_plans();
    project.expect(0, &["run", "plans/spawn.rhai", "--yes"]);
    project.write("flake.nix", "{ }");
    insta::assert_snapshot!("spawn-new-image", project.block(&dry("plans/spawn.rhai", &[])));
}

#[test]
fn the_standard_modules_say_what_they_say() {
    let project = Project::new();
    project.write(
        "plans/std.rhai",
        r#"
import "std/fleet" as fleet;
let hosts = fleet::hosts(read_toml("fleet.toml"), 3);
output("all", fleet::hosts(read_toml("fleet.toml"), 0).keys());
output("hosts", hosts);
output("pinned", fleet::pin(hosts, "CLAWDINATOR-2", "ami-0123456789abcdef0"));
output("instances", fleet::instances(fleet::pin(hosts, "CLAWDINATOR-2", "ami-0123456789abcdef0"), #{ base: "ami-1" }));
output("pins", fleet::pins(fleet::pin(hosts, "CLAWDINATOR-2", "ami-0123456789abcdef0")));
output("named", fleet::named(hosts));
output("zones", fleet::zones(read_toml("fleet.toml")));
output("layout", fleet::layout());
output("note", fleet::daily_note("2026-11-22", fleet::name(1)));
"#,
    );
    let plan = project.expect(0, &["plan", "plans/std.rhai", "--format", "json"]);
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    insta::assert_snapshot!("std", serde_json::to_string_pretty(&plan["outputs"]).unwrap());
    for (name, script) in [
        (
            "std-unknown-host",
            "fleet::pin(fleet::hosts(read_toml(\"fleet.toml\"), 0), \"CLAWDINATOR-9\", \"x\")",
        ),
        (
            "std-unknown-pin",
            "fleet::instances(fleet::hosts(read_toml(\"fleet.toml\"), 0), #{ other: \"ami-1\" })",
        ),
    ] {
        insta::assert_snapshot!(
            name,
            project.check(&format!("import \"std/fleet\" as fleet;\nlet x = {script};"))
        );
    }
    project.write(
        "fleet.toml",
        "[hosts.CLAWDINATOR-1]\ntype = \"t3.large\"\nzone = \"a\"\nami = \"base\"\nsize = 3\n",
    );
    let script = "import \"std/fleet\" as fleet;\nlet x = fleet::hosts(read_toml(\"fleet.toml\"), 0);";
    insta::assert_snapshot!("std-unknown-key", project.check(script));
    let host = "[hosts.CLAWDINATOR-1]\ntype = \"t3.large\"\nzone = \"eu-central-1c\"\nami = \"base\"\n";
    let script = "import \"std/fleet\" as fleet;\nlet x = fleet::zones(read_toml(\"fleet.toml\"));";
    project.write("fleet.toml", host);
    insta::assert_snapshot!("std-no-zones", project.check(script));
    project.write("fleet.toml", &format!("[network]\nzones = [\"eu-central-1a\"]\n{host}"));
    insta::assert_snapshot!("std-other-zone", project.check(script));
}
