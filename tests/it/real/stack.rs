//! `tofu_apply` with real OpenTofu: what is planned is what is applied, and nothing else.

use super::stacks::{DRY, RUN, Stacks};

const LOCAL: [&str; 5] = ["run", "plans/local.rhai", "--profile", "local", "--yes"];
const LOCAL_DRY: [&str; 6] =
    ["run", "plans/local.rhai", "--profile", "local", "--dry-run", "--detailed-exitcode"];

fn with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    args.iter().chain(more).copied().collect()
}

#[test]
fn a_removed_host_is_one_destroy_that_has_to_be_allowed() {
    let stacks = Stacks::new();
    insta::assert_snapshot!("local-first", stacks.block(&LOCAL_DRY));
    stacks.expect(0, &LOCAL);
    insta::assert_snapshot!("local-second", stacks.block(&LOCAL_DRY));
    let one = with(&LOCAL, &["--param", "count=1"]);
    insta::assert_snapshot!("local-removed-host", stacks.block(&one));
    let refused = stacks.output(&one);
    let line = String::from_utf8(refused.stderr).unwrap();
    let line = line.lines().find(|line| line.contains("allow(#{")).unwrap().trim().to_owned();
    let plan = stacks.project.read("plans/local.rhai").replace("let count", &format!("{line}\nlet count"));
    stacks.project.write("plans/local.rhai", &plan);
    stacks.expect(0, &one);
    assert_eq!(stacks.ids("tofu/local").keys().collect::<Vec<_>>(), ["host.CLAWDINATOR-1"]);
}

/// "Deploy one host" replaced the fleet, because all hosts shared one AMI.
#[test]
fn finding_1_moving_one_pin_touches_that_host_alone() {
    let stacks = Stacks::new();
    let three = with(&LOCAL, &["--param", "count=3"]);
    stacks.expect(0, &three);
    let before = stacks.ids("tofu/local");
    let fleet = stacks.project.read("fleet.toml");
    stacks
        .project
        .write("fleet.toml", &format!("{fleet}\n[hosts.CLAWDINATOR-3]\nami = \"ami-00000000000000009\"\n"));
    let allow =
        "allow(#{ replace: [`tofu_apply.fleet/terraform_data.host[\"CLAWDINATOR-3\"]`], max_replace: 1 });\n";
    let plan = stacks.project.read("plans/local.rhai").replace("let count", &format!("{allow}let count"));
    stacks.project.write("plans/local.rhai", &plan);
    insta::assert_snapshot!("finding-1", stacks.block(&with(&LOCAL_DRY, &["--param", "count=3"])));
    stacks.expect(0, &three);
    let after = stacks.ids("tofu/local");
    for host in ["host.CLAWDINATOR-1", "host.CLAWDINATOR-2"] {
        assert_eq!(before[host], after[host], "{host} is the same");
    }
    assert_ne!(before["host.CLAWDINATOR-3"], after["host.CLAWDINATOR-3"], "the moved host is another");
}

const HOSTS: &str = r#"
variable "hosts" {
  type = set(string)
}
resource "terraform_data" "host" {
  for_each = var.hosts
  input    = each.key
}
output "ids" {
  value = { for name, host in terraform_data.host : name => host.id }
}
"#;

/// "Deploy all" replaced nothing, without a word, when nothing had changed.
#[test]
fn finding_2_replacing_all_says_so_does_so_and_does_it_once() {
    let stacks = Stacks::with(
        HOSTS,
        r#"
let trigger = param("trigger", #{ type: "string", default: "" });
let replace = #{};
if trigger != "" {
    for host in ["a", "b"] { replace[`terraform_data.host["${host}"]`] = trigger; }
}
allow(#{ replace: ["tofu_apply.m/*"] });
tofu_apply("m", #{ dir: "tofu/m", vars: #{ hosts: ["a", "b"] }, replace: replace });
"#,
    );
    stacks.apply();
    stacks.says_no_changes();
    let first = stacks.ids("tofu/m");
    insta::assert_snapshot!("finding-2", stacks.block(&with(&RUN, &["--param", "trigger=november"])));
    let second = stacks.ids("tofu/m");
    assert!(first.iter().all(|(host, id)| second[host] != *id), "all were replaced: {first:?} {second:?}");
    // The same trigger again is no change, also where nothing is left of what clawd keeps for itself.
    std::fs::remove_dir_all(stacks.path().join(".clawd")).unwrap();
    let again = stacks.expect(0, &with(&DRY, &["--param", "trigger=november"]));
    assert!(again.contains("No changes."), "{again}");
    // Another one is.
    assert!(stacks.expect(2, &with(&DRY, &["--param", "trigger=december"])).contains("2 to replace"));
}

/// A variable in a CI job's environment switched a resource off, and the apply was approved by a flag.
#[test]
fn finding_3_the_environment_changes_no_plan() {
    let stacks = Stacks::with(
        r#"
variable "control" {
  type    = bool
  default = true
}
resource "terraform_data" "control" {
  count = var.control ? 1 : 0
}
"#,
        "tofu_apply(\"m\", #{ dir: \"tofu/m\" });",
    );
    stacks.apply();
    let output = stacks
        .command(&DRY)
        .env("TF_VAR_control", "false")
        .env("TF_CLI_ARGS", "-destroy")
        .env("TF_CLI_ARGS_plan", "-var=control=false")
        .env("TF_WORKSPACE", "other")
        .env("TF_DATA_DIR", "/nowhere")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("No changes."), "{output:?}");
    // Said in the plan it is shown, and has to be allowed.
    stacks.plan("tofu_apply(\"m\", #{ dir: \"tofu/m\", vars: #{ control: false } });");
    insta::assert_snapshot!("finding-3", stacks.block(&RUN));
    assert_eq!(stacks.ids("tofu/m").len(), 1);
}

/// State was on the root disk and went with the host.
#[test]
fn finding_7_a_host_that_is_replaced_keeps_its_data() {
    let module: String = std::fs::read_dir(crate::support::repository().join("tofu/fleet"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "tf"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let body = hcl_edit::parser::parse_body(&module).unwrap();
    let instances: Vec<_> = body
        .get_blocks("resource")
        .filter(|block| block.labels.first().is_some_and(|label| label.as_str() == "aws_instance"))
        .collect();
    assert_eq!(instances.len(), 1, "the fleet's module has its hosts in one place");
    // What claims a volume as the instance's own would take it along.
    assert!(!instances[0].body.has_attribute("volume_tags"));
    for forbidden in ["ebs_block_device", "ephemeral_block_device"] {
        assert!(!instances[0].body.has_blocks(forbidden), "{forbidden}");
    }
    assert_eq!(
        body.get_blocks("resource").filter(|block| block.labels[0].as_str().starts_with("aws_ebs")).count(),
        0
    );
    // In the rehearsal: another instance, the same volume.
    let project = crate::support::Project::with_plans();
    project.expect(0, &["run", "plans/spawn.rhai", "--yes"]);
    let volumes = |project: &crate::support::Project| -> Vec<String> {
        project.world().into_iter().filter(|(kind, _)| kind == "volume").map(|(_, id)| id).collect()
    };
    let before = volumes(&project);
    project.expect(0, &["run", "plans/roll.rhai", "--yes"]);
    assert_eq!(volumes(&project), before);
}

const CHANGES: &str = r#"
variable "size" {
  type = number
}
variable "image" {
  type = string
}
variable "extra" {
  type    = bool
  default = false
}
resource "terraform_data" "disk" {
  input = { size = var.size, fixed = "x" }
}
resource "terraform_data" "host" {
  triggers_replace = [var.image]
}
resource "terraform_data" "extra" {
  count = var.extra ? 1 : 0
}
output "size" {
  value = var.size
}
output "host" {
  value = terraform_data.host.id
}
"#;

#[test]
fn create_update_replace_and_destroy_are_told_apart() {
    let stacks = Stacks::with(
        CHANGES,
        r#"
let size = param("size", #{ type: "int", default: 1 });
let image = param("image", #{ type: "string", default: "a" });
let extra = param("extra", #{ type: "bool", default: true });
allow(#{ replace: ["tofu_apply.m/*"], destroy: ["tofu_apply.m/*"] });
let stack = tofu_apply("m", #{ dir: "tofu/m", vars: #{ size: size, image: image, extra: extra } });
output("size", stack.outputs.size);
"#,
    );
    stacks.apply();
    let changed = ["--param", "size=2", "--param", "image=b", "--param", "extra=false"];
    insta::assert_snapshot!("changes-all", stacks.block(&with(&DRY, &changed)));
    let json = stacks
        .expect(0, &with(&["plan", "plans/m.rhai", "--profile", "local", "--format", "json"], &changed));
    let again = stacks
        .expect(0, &with(&["plan", "plans/m.rhai", "--profile", "local", "--format", "json"], &changed));
    assert_eq!(json, again, "the same plan is the same bytes");
    stacks.expect(0, &with(&RUN, &changed));
    assert!(stacks.expect(0, &with(&DRY, &changed)).contains("No changes."));
    // Only an output changes: it is told, and applied.
    stacks.module(&CHANGES.replace("value = var.size", "value = var.size + 1"));
    insta::assert_snapshot!("changes-output-only", stacks.block(&with(&DRY, &changed)));
    stacks.expect(0, &with(&RUN, &changed));
    assert!(stacks.expect(0, &with(&DRY, &changed)).contains("No changes."));
    // All of it goes.
    stacks.plan(
        "allow(#{ destroy: [\"tofu_apply.m/*\"], max_destroy: 2 });\ntofu_apply(\"m\", #{ dir: \"tofu/m\", vars: #{ size: 2, image: \"b\" }, destroy: true });",
    );
    insta::assert_snapshot!("changes-destroy", stacks.block(&RUN));
    stacks.says_no_changes();
}

#[test]
fn a_workspace_has_a_state_of_its_own() {
    let stacks = Stacks::with(
        HOSTS,
        r#"
for place in ["here", "there"] {
    tofu_apply(place, #{ dir: "tofu/m", workspace: place, vars: #{ hosts: [place] } });
}
"#,
    );
    stacks.apply();
    stacks.says_no_changes();
    for place in ["here", "there"] {
        let state = stacks.project.read(&format!("tofu/m/terraform.tfstate.d/{place}/terraform.tfstate"));
        assert!(state.contains(&format!("\"index_key\": \"{place}\"")), "{state}");
    }
}

#[test]
fn what_changed_outside_is_shown_apart() {
    let stacks = Stacks::with(
        r#"
terraform {
  required_providers {
    test = {
      source = "clawd/test"
    }
  }
}
variable "dir" {
  type = string
}
resource "test_file" "kept" {
  path    = "${var.dir}/kept"
  content = "as it should be"
}
resource "test_file" "gone" {
  path    = "${var.dir}/gone"
  content = "here"
}
"#,
        "tofu_apply(\"m\", #{ dir: \"tofu/m\", vars: #{ dir: param(\"dir\", #{ type: \"string\" }) } });",
    );
    let dir = format!("dir={}", stacks.path().display());
    let args = |args: &[&'static str]| -> Vec<String> {
        args.iter().map(ToString::to_string).chain(["--param".to_owned(), dir.clone()]).collect()
    };
    let run = args(&RUN);
    let run: Vec<&str> = run.iter().map(String::as_str).collect();
    let dry = args(&DRY);
    let dry: Vec<&str> = dry.iter().map(String::as_str).collect();
    stacks.expect(0, &run);
    assert!(stacks.expect(0, &dry).contains("No changes."));
    stacks.project.write("kept", "changed by hand");
    std::fs::remove_file(stacks.path().join("gone")).unwrap();
    insta::assert_snapshot!(
        "drift",
        stacks.block(&dry).replace(&*stacks.path().to_string_lossy(), "[project]")
    );
    stacks.expect(0, &run);
    assert_eq!(stacks.project.read("kept"), "as it should be");
    assert!(stacks.expect(0, &dry).contains("No changes."));
}

/// Where an id is a name, it is the same after a replacement; the trigger is done with all the same.
#[test]
fn a_trigger_replaces_once_what_keeps_its_id() {
    let stacks = Stacks::new();
    stacks.module(&format!(
        "terraform {{\n  required_providers {{\n    test = {{ source = \"clawd/test\" }}\n  }}\n}}\n\
         resource \"test_file\" \"it\" {{\n  path    = \"{}/it\"\n  content = \"x\"\n}}\n",
        stacks.path().display()
    ));
    let plan = |trigger: &str| {
        stacks.plan(&format!(
            "allow(#{{ replace: [`tofu_apply.m/test_file.it`], max_replace: 1 }});\n\
             tofu_apply(\"m\", #{{ dir: \"tofu/m\"{trigger} }});"
        ));
    };
    plan("");
    stacks.apply();
    let id = stacks.ids("tofu/m");
    plan(", replace: #{ \"test_file.it\": \"november\" }");
    let said = stacks.apply();
    assert!(said.contains("-/+ test_file.it") || said.contains("± test_file.it"), "{said}");
    assert_eq!(stacks.ids("tofu/m"), id, "the id outlives what it names");
    stacks.says_no_changes();
    plan(", replace: #{ \"test_file.it\": \"december\" }");
    assert!(!stacks.expect(2, &DRY).contains("No changes."));
}

/// One that a plan names no more is remembered all the same.
#[test]
fn a_trigger_is_not_forgotten_when_a_plan_leaves_it_out() {
    let stacks =
        Stacks::with("resource \"terraform_data\" \"a\" {}\nresource \"terraform_data\" \"b\" {}\n", "");
    let plan = |a: &str, b: Option<&str>| {
        let b = b.map_or(String::new(), |b| format!(", \"terraform_data.b\": \"{b}\""));
        stacks.plan(&format!(
            "allow(#{{ replace: [\"*\"] }});\n\
             tofu_apply(\"m\", #{{ dir: \"tofu/m\", replace: #{{ \"terraform_data.a\": \"{a}\"{b} }} }});"
        ));
    };
    plan("may", Some("may"));
    stacks.apply();
    plan("june", None);
    stacks.apply();
    plan("june", Some("may"));
    stacks.says_no_changes();
    plan("june", Some("june"));
    assert!(!stacks.expect(2, &DRY).contains("No changes."));
}

/// A check that can be made only once the resources are there.
#[test]
fn what_opentofu_warns_of_while_it_applies_is_told() {
    let module = "check \"health\" {\n  assert {\n    condition     = length(terraform_data.it.id) < 5\n    error_message = \"The hive is not well.\"\n  }\n}\n\
                  resource \"terraform_data\" \"it\" {}\n";
    let stacks = Stacks::with(module, "tofu_apply(\"m\", #{ dir: \"tofu/m\" });");
    let output = stacks.output(&RUN);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("OpenTofu warns: Check block assertion failed (tofu/m/main.tf:3)"), "{said}");
}

/// What is started, in which order and with what; and that `init` is not, once it was.
#[test]
fn opentofu_is_started_with_these_arguments() {
    let stacks = Stacks::with("resource \"terraform_data\" \"it\" {}\n", "");
    stacks.plan("tofu_apply(\"m\", #{ dir: \"tofu/m\", parallelism: 3, binary: \"terraform\" });");
    stacks.project.write("tofu/m/.terraform.lock.hcl", "# No providers.\n");
    let log = stacks.path().join("started");
    let script = format!(
        "echo \"$@\" >> '{}'; [ \"$1\" = version ] || [ -n \"$TF_PLUGIN_CACHE_DIR\" ] || exit 9",
        log.display()
    );
    // Any program of that name will do for the choice of it.
    let path = stacks.path_with("terraform", &script);
    let run = |args: &[&str]| {
        let _ = std::fs::remove_file(&log);
        let output = stacks.command(args).env("PATH", &path).output().unwrap();
        assert!(matches!(output.status.code(), Some(0 | 2)), "{}", String::from_utf8_lossy(&output.stderr));
        let started = std::fs::read_to_string(&log).unwrap();
        let rule = regex_lite::Regex::new(r"/\S+/").unwrap();
        rule.replace_all(&started, "[dir]/").into_owned()
    };
    let told = [("first plan", run(&DRY)), ("run", run(&RUN)), ("no changes", run(&DRY))];
    let told: String = told.iter().map(|(when, started)| format!("# {when}\n{started}")).collect();
    insta::assert_snapshot!("opentofu-arguments", told);
    stacks.project.write("tofu/m/more.tf", "# Edited.\n");
    assert!(run(&DRY).starts_with("version -json\ninit "), "another module is initialised again");
}

/// The simulator cannot drift from what it stands for: one plan, one set of variables, the same changes.
#[test]
fn the_simulator_changes_what_opentofu_changes() {
    let stacks = Stacks::new();
    let plan = |extra: &str| {
        stacks.project.write(
            "plans/m.rhai",
            &format!(
                r#"
import "std/fleet" as fleet;
let count = param("count", #{{ type: "int", default: 2 }});
let base = param("base", #{{ type: "string", default: "ami-0123456789abcdef0" }});
allow(#{{ replace: ["*"], destroy: ["*"] }});
let hosts = fleet::hosts(read_toml("fleet.toml"), count);
let vars = #{{ fleet: fleet_name(), instances: fleet::instances(hosts, #{{ base: base }}) }};
let stack = tofu_apply("fleet", #{{ dir: "tofu/local", vars: vars{extra} }});
"#
            ),
        );
    };
    let changes = |profile: &str, params: &[&str]| -> Vec<(String, String)> {
        let mut args = vec!["plan", "plans/m.rhai", "--profile", profile, "--format", "json"];
        args.extend(params.iter().flat_map(|param| ["--param", param]));
        let shown: serde_json::Value = serde_json::from_str(&stacks.expect(0, &args)).unwrap();
        let step = &shown["steps"][0];
        let nested = step["nested"].as_array().cloned().unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let nested = nested.iter().map(|change| (text(&change["address"]), text(&change["action"])));
        std::iter::once((text(&step["address"]), text(&step["action"]))).chain(nested).collect()
    };
    let replace = ", replace: #{ \"terraform_data.host[\\\"CLAWDINATOR-1\\\"]\": \"may\" }";
    let rounds: [(&str, &[&str]); 7] = [
        ("", &["count=1"]),
        ("", &["count=1"]),
        ("", &["count=2"]),
        ("", &["count=2", "base=ami-00000000000000001"]),
        ("", &["count=1", "base=ami-00000000000000001"]),
        (replace, &["count=1", "base=ami-00000000000000001"]),
        (", destroy: true", &["count=1"]),
    ];
    for (extra, params) in rounds {
        plan(extra);
        let [real, sim] = ["local", "sim"].map(|profile| {
            let shown = changes(profile, params);
            let mut args = vec!["run", "plans/m.rhai", "--profile", profile, "--yes"];
            args.extend(params.iter().flat_map(|param| ["--param", param]));
            stacks.expect(0, &args);
            (shown, changes(profile, params))
        });
        assert_eq!(real, sim, "{extra} {params:?}");
    }
}

/// What is no longer managed is lost to the fleet: it has to be allowed like what is destroyed.
#[test]
fn what_is_forgotten_counts_as_destroyed() {
    let stacks =
        Stacks::with("resource \"terraform_data\" \"it\" {}\n", "tofu_apply(\"m\", #{ dir: \"tofu/m\" });");
    stacks.apply();
    stacks.module("removed {\n  from = terraform_data.it\n  lifecycle {\n    destroy = false\n  }\n}\n");
    let refused = stacks.output(&RUN);
    let said =
        String::from_utf8_lossy(&refused.stdout).into_owned() + &*String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("no longer managed; the thing itself stays"), "{said}");
    assert!(said.contains("destroy tofu_apply.m/terraform_data.it"), "{said}");
}

#[test]
fn what_opentofu_warns_of_is_told() {
    let module = "check \"health\" {\n  assert {\n    condition     = terraform_data.it.input == \"well\"\n    error_message = \"The hive is not well.\"\n  }\n}\n\
                  resource \"terraform_data\" \"it\" {\n  input = \"ill\"\n}\n";
    let stacks = Stacks::with(module, "tofu_apply(\"m\", #{ dir: \"tofu/m\" });");
    let said = stacks.expect(2, &DRY);
    assert!(said.contains("note: OpenTofu warns: Check block assertion failed (tofu/m/main.tf:3)"), "{said}");
    assert!(said.contains("The hive is not well."), "{said}");
}

/// A raw plan holds the state in the clear; a run that is complete leaves none.
#[test]
fn a_complete_run_leaves_no_raw_plan() {
    fn raw_plans(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries
            .flat_map(|path| if path.is_dir() { raw_plans(&path) } else { vec![path] })
            .filter(|path| path.extension().is_some_and(|extension| extension == "tfplan"))
            .collect()
    }
    let stacks =
        Stacks::with("resource \"terraform_data\" \"it\" {}\n", "tofu_apply(\"m\", #{ dir: \"tofu/m\" });");
    stacks.apply();
    assert_eq!(raw_plans(stacks.path()), Vec::<std::path::PathBuf>::new());
}

/// Workspaces in a backend that the module names, and a module that changes after they are there.
#[test]
fn a_second_workspace_of_a_named_backend_is_made_and_initialised_again() {
    let module = |more: &str| {
        format!("terraform {{\n  backend \"local\" {{}}\n}}\nresource \"terraform_data\" \"it\" {{}}\n{more}")
    };
    let stacks = Stacks::with(&module(""), "");
    for workspace in ["blue", "green", "blue"] {
        stacks.plan(&format!("tofu_apply(\"m\", #{{ dir: \"tofu/m\", workspace: \"{workspace}\" }});"));
        stacks.apply();
        stacks.says_no_changes();
    }
    stacks.module(&module("resource \"terraform_data\" \"more\" {}\n"));
    for workspace in ["blue", "green"] {
        stacks.plan(&format!("tofu_apply(\"m\", #{{ dir: \"tofu/m\", workspace: \"{workspace}\" }});"));
        let said = stacks.apply();
        assert!(said.contains("resources inside steps: 1 to create"), "{said}");
    }
}

/// However the directory is spelled, it is one stack with one state.
#[test]
fn spellings_of_a_directory_mean_one_stack() {
    let stacks =
        Stacks::with("resource \"terraform_data\" \"it\" {}\n", "tofu_apply(\"m\", #{ dir: \"tofu/m\" });");
    stacks.apply();
    for dir in ["./tofu/m", "tofu//m/", "tofu/./m"] {
        stacks.plan(&format!("tofu_apply(\"m\", #{{ dir: \"{dir}\" }});"));
        stacks.says_no_changes();
    }
}

/// The project's root may be a module, and a file of a module may be a link inside the project.
#[test]
fn unusual_layouts_are_read_as_opentofu_reads_them() {
    let stacks = Stacks::with("", "tofu_apply(\"m\", #{ dir: \".\", vars: #{ v: \"x\" } });");
    stacks.project.write("main.tf", "resource \"terraform_data\" \"it\" {\n  input = var.v\n}\n");
    stacks.project.write("shared/variables.tf", "variable \"v\" {\n  type = string\n}\n");
    std::os::unix::fs::symlink("shared/variables.tf", stacks.path().join("variables.tf")).unwrap();
    stacks.apply();
    stacks.says_no_changes();
}
