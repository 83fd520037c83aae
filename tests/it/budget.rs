//! Nothing is destroyed, replaced or formatted that was not allowed, and nothing is done that was not shown.

use crate::support::Project;

const REPLACES: &str = r#"
let zone = param("zone", #{ type: "string", default: "eu-central-1a" });
tofu_apply("fleet", #{ dir: "tofu/fleet", vars: #{ instances: #{
    a: #{ type: "t3.large", zone: zone, ami: "ami-0123456789abcdef0" },
    b: #{ type: "t3.large", zone: zone, ami: "ami-0123456789abcdef0" },
} } });
"#;

fn project() -> Project {
    let project = Project::new();
    project.write("plans/fleet.rhai", REPLACES);
    project.expect(0, &["run", "plans/fleet.rhai", "--yes"]);
    project
}

#[test]
fn over_budget_is_refused_with_a_line_that_mends_it() {
    let project = project();
    let args = ["run", "plans/fleet.rhai", "--yes", "--param", "zone=eu-central-1b"];
    insta::assert_snapshot!("over-budget", project.block(&args));
    let stderr = String::from_utf8(project.run(&args).stderr).unwrap();
    let line = stderr.lines().find(|line| line.contains("allow(#{")).unwrap().trim().to_owned();
    project.write("plans/fleet.rhai", &format!("{line}\n{REPLACES}"));
    project.expect(0, &args);
}

#[test]
fn the_profile_bounds_what_scripts_allow() {
    let project = project();
    project.write("plans/fleet.rhai", &format!("allow(#{{ replace: [\"*\"] }});\n{REPLACES}"));
    let config = "fleet = \"clawdinators\"\n[profiles.sim]\nadapters = \"sim\"\nbudget = { replace = [\"*\"], max_replace = 1 }\n";
    project.write("clawd.toml", config);
    insta::assert_snapshot!(
        "over-profile-budget",
        project.block(&["run", "plans/fleet.rhai", "--yes", "--param", "zone=eu-central-1b"])
    );
}

#[test]
fn a_world_that_moved_is_refused() {
    let project = Project::with_plans();
    project.expect(0, &["plan", "plans/spawn.rhai", "-o", "saved.json"]);
    project.expect(0, &["run", "plans/spawn.rhai", "--yes"]);
    // All that was planned exists by now: accepted, as nothing is left to do.
    project.expect(0, &["apply", "saved.json", "--yes"]);
    assert_eq!(project.count("volume"), 2);

    project.expect(0, &["plan", "plans/spawn.rhai", "--param", "count=3", "-o", "three.json"]);
    project.expect(0, &["run", "plans/teardown.rhai", "--yes"]);
    insta::assert_snapshot!("stale", project.block(&["apply", "three.json", "--yes"]));
}

#[test]
fn a_saved_plan_is_applied_exactly() {
    let project = Project::with_plans();
    project.expect(0, &["plan", "plans/spawn.rhai", "-o", "saved.json"]);
    // The script is not evaluated again.
    project.write("plans/spawn.rhai", "fail(\"evaluated again\");");
    project.expect(0, &["apply", "saved.json", "--yes"]);
    assert_eq!((project.count("image"), project.count("instance"), project.count("volume")), (1, 2, 2));
}

#[test]
fn what_is_not_approved_is_not_done() {
    let project = Project::with_plans();
    insta::assert_snapshot!("not-approved", project.block(&["run", "plans/teardown.rhai"]));
    insta::assert_snapshot!("not-approved-with-changes", tail(&project.block(&["run", "plans/spawn.rhai"])));
    project.expect(0, &["plan", "plans/spawn.rhai", "-o", "saved.json"]);
    project.expect(3, &["apply", "saved.json"]);
    assert!(!project.path().join(".clawd/sim/world").exists(), "nothing was done");
}

/// The end of a block: what comes after the plan.
fn tail(block: &str) -> String {
    block[block.find("--- stderr").unwrap()..].to_owned()
}

#[test]
fn a_volume_never_shrinks_moves_or_is_stolen() {
    let project = Project::new();
    let script = r#"
let size = param("size", #{ type: "int", default: 40 });
let zone = param("zone", #{ type: "string", default: "eu-central-1a" });
let from = param("from", #{ type: "string", default: "a" });
let stack = tofu_apply("fleet", #{ dir: "tofu/fleet", vars: #{ instances: #{
    a: #{ type: "t3.large", zone: "eu-central-1a", ami: "ami-0123456789abcdef0" },
    b: #{ type: "t3.large", zone: zone, ami: "ami-0123456789abcdef0" },
} } });
mount_volume("data", #{ host: "h", instance: stack.outputs.instance_ids[from], path: "/data", size_gib: size });
"#;
    project.write("plans/volume.rhai", script);
    project.expect(0, &["run", "plans/volume.rhai", "--yes"]);
    let dry = |params: &[&str]| -> Vec<String> {
        let mut args = vec!["run".to_owned(), "plans/volume.rhai".to_owned(), "--dry-run".to_owned()];
        for param in params {
            args.extend(["--param".to_owned(), (*param).to_owned()]);
        }
        args
    };
    let block = |params: &[&str]| {
        let args = dry(params);
        project.block(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    insta::assert_snapshot!("volume-grows", block(&["size=80"]));
    insta::assert_snapshot!("volume-shrinks", block(&["size=20"]));
    insta::assert_snapshot!("volume-stolen", block(&["from=b"]));
}

/// A step that could not be decided while planning may turn out harmless; a loss that nobody saw stops the run.
#[test]
fn an_undecided_step_never_destroys_what_was_not_shown() {
    let project = Project::new();
    let model = r#"
fn resources(vars) {
    let out = #{};
    if vars.key == "plain" { out.old = #{ type: "terraform_data" }; } else { out.fresh = #{ type: "terraform_data" }; }
    out
}
fn outputs(vars, resources) { #{} }
"#;
    project.write("tofu/keyed/sim.rhai", model);
    let stack = |key: &str, allow: &str| {
        format!(
            "{allow}\nlet image = build_image(\"a\", #{{ flake: \".#a\" }});\ntofu_apply(\"keyed\", #{{ dir: \"tofu/keyed\", vars: #{{ key: {key} }} }});"
        )
    };
    project.write("plans/keyed.rhai", &stack("\"plain\"", ""));
    project.expect(0, &["run", "plans/keyed.rhai", "--yes"]);
    // The budget allows it; it was not shown all the same.
    project.write(
        "plans/keyed.rhai",
        &stack("image.sha256", "allow(#{ destroy: [\"*\"] });").replace("\".#a\"", "\".#b\""),
    );
    insta::assert_snapshot!(
        "undecided-destroys",
        project.block(&["run", "plans/keyed.rhai", "--yes", "--parallelism", "1"])
    );
    assert!(project.expect(0, &["sim", "show"]).contains("serial 1, 1 resources"), "nothing of it was done");
    // What is only new is done.
    project.expect(0, &["sim", "reset"]);
    project.expect(0, &["run", "plans/keyed.rhai", "--yes"]);
}
