//! What is applied conforms to what was shown: speculative plans row by row, and saved plans.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::stacks::{DRY, RUN, Stacks};

/// A stack whose output is known after it is applied: `terraform_data` yields its input only then.
const SOURCE: &str = r#"
variable "v" {
  type = string
}
variable "n" {
  type = number
}
resource "terraform_data" "it" {
  input = { v = var.v, n = var.n, keys = { (var.v) = "x" } }
}
output "v" {
  value = terraform_data.it.output.v
}
output "keys" {
  value = terraform_data.it.output.keys
}
"#;

/// Two stacks, the second taking what the first yields. `n` makes that unknown without changing it.
fn stacks(module: &str, more: &str) -> Stacks {
    let stacks = Stacks::with(
        module,
        &format!(
            r#"
let v = param("v", #{{ type: "string", default: "one" }});
let n = param("n", #{{ type: "int", default: 1 }});
allow(#{{ replace: ["tofu_apply.m/*"], destroy: ["tofu_apply.m/*"] }});
let source = tofu_apply("source", #{{ dir: "tofu/source", vars: #{{ v: v, n: n }} }});
tofu_apply("m", #{{ dir: "tofu/m", vars: #{{ {more} }} }});
"#
        ),
    );
    stacks.project.write("tofu/source/main.tf", SOURCE);
    stacks
}

fn with<'a>(args: &[&'a str], v: &'a str, n: &'a str) -> Vec<&'a str> {
    args.iter().copied().chain(["--param", v, "--param", n]).collect()
}

const SWITCH: &str = r#"
variable "v" {
  type = string
}
resource "terraform_data" "it" {
  input            = var.v
  triggers_replace = [startswith(var.v, "boom") ? "x" : "y"]
}
resource "terraform_data" "more" {
  count = var.v == "more" ? 1 : 0
}
output "it" {
  value = terraform_data.it.id
}
"#;

#[test]
fn equal_changes_are_applied() {
    let stacks = stacks(SWITCH, "v: source.outputs.v");
    stacks.apply();
    stacks.says_no_changes();
    let before = stacks.ids("tofu/m");
    insta::assert_snapshot!("conform-equal", stacks.block(&with(&RUN, "v=two", "n=1")));
    assert_eq!(stacks.ids("tofu/m"), before, "updated in place");
    assert!(stacks.project.read("tofu/m/terraform.tfstate").contains("\"two\""));
}

#[test]
fn weaker_changes_are_applied() {
    let stacks = stacks(
        &SWITCH.replace("startswith(var.v, \"boom\") ? \"x\" : \"y\"", "var.v"),
        "v: source.outputs.v",
    );
    stacks.apply();
    let before = stacks.ids("tofu/m");
    let shown = stacks.expect(0, &with(&RUN, "v=one", "n=2"));
    assert!(shown.contains("-/+ terraform_data.it"), "a replacement was shown: {shown}");
    assert_eq!(stacks.ids("tofu/m"), before, "nothing had to be replaced");
}

#[test]
fn stronger_changes_are_refused() {
    let stacks = stacks(SWITCH, "v: source.outputs.v");
    stacks.apply();
    let before = stacks.ids("tofu/m");
    insta::assert_snapshot!("conform-stronger", stacks.block(&with(&RUN, "v=boom", "n=1")));
    assert_eq!(stacks.ids("tofu/m"), before);
}

#[test]
fn changes_of_another_address_are_refused() {
    let stacks = stacks(SWITCH, "v: source.outputs.v");
    stacks.apply();
    insta::assert_snapshot!("conform-another-address", stacks.block(&with(&RUN, "v=more", "n=1")));
    assert_eq!(stacks.ids("tofu/m").len(), 1);
}

const STRICT: &str = r#"
variable "v" {
  type = string
  validation {
    condition     = can(regex("^v-[0-9]+$", var.v))
    error_message = "It is like v-1."
  }
}
resource "terraform_data" "it" {
  input = var.v
}
"#;

#[test]
fn a_placeholder_that_validation_rejects_leaves_the_step_unknown() {
    let stacks = stacks(STRICT, "v: source.outputs.v");
    insta::assert_snapshot!("conform-validation", stacks.block(&with(&DRY, "v=v-1", "n=1")));
    stacks.expect(0, &with(&RUN, "v=v-1", "n=1"));
    // With a placeholder of its own it is planned.
    let plan = stacks.project.read("plans/m.rhai");
    stacks.plan(&plan.replace("dir: \"tofu/m\",", "dir: \"tofu/m\", placeholders: #{ v: \"v-0\" },"));
    insta::assert_snapshot!("conform-own-placeholder", stacks.block(&with(&DRY, "v=v-2", "n=1")));
    // A real value that is not valid is an error, not a warning.
    let output = stacks.output(&with(&RUN, "v=wrong", "n=1"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("It is like v-1."), "{said}");
}

#[test]
fn an_output_that_is_made_of_a_stand_in_is_not_known() {
    let through = "variable \"v\" {\n  type = string\n}\noutput \"v\" {\n  value = var.v\n}\n";
    let stacks = stacks(through, "v: source.outputs.v");
    let plan = stacks.project.read("plans/m.rhai").replace("tofu_apply(\"m\"", "let m = tofu_apply(\"m\"");
    stacks.plan(&format!("{plan}output(\"v\", m.outputs.v);\n"));
    let said = stacks.expect(2, &with(&DRY, "v=one", "n=1"));
    assert!(said.contains("      v = (known after apply)\n"), "{said}");
    stacks.expect(0, &with(&RUN, "v=one", "n=1"));
}

/// Not OpenTofu says this but clawd, so no other placeholder would help.
#[test]
fn what_clawd_finds_wrong_in_a_speculative_plan_is_an_error() {
    let stacks = stacks(SWITCH, "v: source.outputs.v");
    let plan = stacks.project.read("plans/m.rhai");
    stacks.plan(
        &plan.replace("dir: \"tofu/m\",", "dir: \"tofu/m\", replace: #{ \"terraform_data.no\": \"1\" },"),
    );
    insta::assert_snapshot!("conform-speculative-error", stacks.block(&with(&DRY, "v=one", "n=1")));
}

#[test]
fn a_placeholder_that_a_data_source_rejects_leaves_the_step_unknown() {
    let reads = r#"
variable "v" {
  type = string
}
data "terraform_remote_state" "other" {
  backend = "local"
  config  = { path = var.v }
}
resource "terraform_data" "it" {
  input = data.terraform_remote_state.other.outputs.v
}
"#;
    let stacks = stacks(reads, "v: source.outputs.v");
    let shown = stacks.expect(2, &with(&DRY, "v=../source/terraform.tfstate", "n=1"));
    assert!(shown.contains("? tofu_apply.m  unknown: the speculative plan failed"), "{shown}");
    stacks.expect(0, &with(&RUN, "v=../source/terraform.tfstate", "n=1"));
    assert_eq!(stacks.ids("tofu/m").len(), 1);
}

#[test]
fn unknown_keys_leave_the_step_unknown() {
    let each = r#"
variable "keys" {
  type = map(string)
}
resource "terraform_data" "it" {
  for_each = var.keys
}
"#;
    let stacks = stacks(each, "keys: source.outputs.keys");
    insta::assert_snapshot!("conform-unknown-keys", stacks.block(&with(&DRY, "v=one", "n=1")));
    stacks.expect(0, &with(&RUN, "v=one", "n=1"));
    assert_eq!(stacks.ids("tofu/m").keys().collect::<Vec<_>>(), ["it.one"]);
    // Another key destroys what was never shown: refused, although the budget would allow it.
    let output = stacks.output(&with(&RUN, "v=two", "n=1"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("terraform_data.it[\"one\"]: was not shown, now destroy"), "{said}");
}

/// A stand-in that becomes a key, or a count, is no key and no count: which resources there are is not known.
#[test]
fn a_key_or_count_that_is_not_known_leaves_the_step_unknown() {
    let module = r#"
variable "v" {
  type = string
}
variable "n" {
  type = number
}
resource "terraform_data" "each" {
  for_each = toset([var.v])
}
resource "terraform_data" "many" {
  count = var.n
}
"#;
    let keyed = &module[..module.find("variable \"n\"").unwrap()];
    let keyed = format!("{keyed}resource \"terraform_data\" \"each\" {{\n  for_each = toset([var.v])\n}}\n");
    let stacks = stacks(&keyed, "v: source.outputs.v");
    insta::assert_snapshot!("conform-stand-in-as-key", stacks.block(&with(&DRY, "v=one", "n=1")));
    stacks.expect(0, &with(&RUN, "v=one", "n=1"));
    assert_eq!(stacks.ids("tofu/m").keys().collect::<Vec<_>>(), ["each.one"]);

    let stacks = self::stacks(module, "v: v, n: source.outputs.n");
    let source = format!("{SOURCE}output \"n\" {{\n  value = terraform_data.it.output.n\n}}\n");
    stacks.project.write("tofu/source/main.tf", &source);
    let shown = stacks.expect(2, &with(&DRY, "v=one", "n=2"));
    assert!(shown.contains("? tofu_apply.m  unknown: the speculative plan failed"), "{shown}");
    stacks.expect(0, &with(&RUN, "v=one", "n=2"));
    let state = stacks.state("tofu/m");
    let resources = state["resources"].as_array().unwrap().iter();
    let count: usize = resources.map(|resource| resource["instances"].as_array().unwrap().len()).sum();
    assert_eq!(count, 3, "{state}");
}

const PLAIN: &str = r#"
variable "v" {
  type = string
}
resource "terraform_data" "it" {
  input = var.v
}
output "id" {
  value = terraform_data.it.id
}
"#;
const PLAIN_PLAN: &str =
    r#"tofu_apply("m", #{ dir: "tofu/m", vars: #{ v: param("v", #{ type: "string", default: "one" }) } });"#;

const SAVE: [&str; 6] = ["plan", "plans/m.rhai", "--profile", "local", "-o", "saved.json"];
const APPLY: [&str; 3] = ["apply", "saved.json", "--yes"];

#[test]
fn a_saved_plan_is_applied_as_the_file_that_was_shown() {
    let stacks = Stacks::with(PLAIN, PLAIN_PLAN);
    stacks.expect(0, &SAVE);
    let beside: Vec<_> = std::fs::read_dir(stacks.path().join("saved.json.d"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(beside.len(), 2, "the raw plan and its index: {beside:?}");
    for file in &beside {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    stacks.expect(0, &APPLY);
    assert_eq!(stacks.state("tofu/m")["outputs"]["id"]["value"], stacks.ids("tofu/m")["it"]);
    // A second time nothing is left to do.
    stacks.expect(0, &APPLY);
    stacks.says_no_changes();
}

#[test]
fn a_raw_plan_that_is_missing_or_damaged_is_made_again_and_held_against_what_was_shown() {
    for damage in ["remove", "damage"] {
        let stacks = Stacks::with(PLAIN, PLAIN_PLAN);
        stacks.expect(0, &SAVE);
        let dir = stacks.path().join("saved.json.d");
        if damage == "remove" {
            std::fs::remove_dir_all(&dir).unwrap();
        } else {
            std::fs::write(raw_plan(&stacks, "saved.json.d"), "not a plan").unwrap();
        }
        stacks.expect(0, &APPLY);
        stacks.says_no_changes();
    }
}

fn raw_plan(stacks: &Stacks, dir: &str) -> PathBuf {
    let files = std::fs::read_dir(stacks.path().join(dir)).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| path.extension().is_some_and(|it| it == "tfplan")).unwrap()
}

/// A raw plan that is a plan, but not the one that was shown.
#[test]
fn another_raw_plan_in_the_place_of_the_one_that_was_shown_is_never_applied() {
    let stacks = Stacks::with(PLAIN, PLAIN_PLAN);
    stacks.expect(0, &SAVE);
    let other = ["plan", "plans/m.rhai", "--profile", "local", "-o", "other.json", "--param", "v=other"];
    stacks.expect(0, &other);
    let (shown, other) = (raw_plan(&stacks, "saved.json.d"), raw_plan(&stacks, "other.json.d"));
    std::fs::copy(&other, &shown).unwrap();
    // The index names another digest: the file is not taken, and the plan is made again.
    stacks.expect(0, &APPLY);
    assert!(!stacks.project.read("tofu/m/terraform.tfstate").contains("\"other\""));

    let stacks = Stacks::with(PLAIN, PLAIN_PLAN);
    stacks.expect(0, &SAVE);
    // Even one that the index names has to say what was shown.
    let digest = |file: &Path| file.file_stem().unwrap().to_str().unwrap().to_owned();
    let shown = raw_plan(&stacks, "saved.json.d");
    let index = stacks.project.read("saved.json.d/plans.json").replace(&digest(&shown), "DIGEST");
    let other = ["plan", "plans/m.rhai", "--profile", "local", "-o", "other.json", "--param", "v=other"];
    stacks.expect(0, &other);
    let other = raw_plan(&stacks, "other.json.d");
    std::fs::rename(&other, shown.with_file_name(other.file_name().unwrap())).unwrap();
    stacks.project.write("saved.json.d/plans.json", &index.replace("DIGEST", &digest(&other)));
    let output = stacks.output(&APPLY);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("the raw plan is not the one that was shown"), "{said}");
    assert!(!stacks.path().join("tofu/m/terraform.tfstate").exists(), "nothing was applied");
}

#[test]
fn a_state_that_moved_is_refused_with_was_and_now() {
    let stacks = Stacks::with(PLAIN, PLAIN_PLAN);
    stacks.apply();
    let save: Vec<&str> = SAVE.into_iter().chain(["--param", "v=two"]).collect();
    stacks.expect(0, &save);
    // Somebody else changes the stack in between, to something third.
    let other: Vec<&str> = RUN.into_iter().chain(["--param", "v=three"]).collect();
    stacks.expect(0, &other);
    insta::assert_snapshot!("conform-moved", stacks.block(&APPLY));
    assert!(stacks.project.read("tofu/m/terraform.tfstate").contains("\"three\""));
    // What was planned has happened by other hands: nothing is left to do, and that is fine.
    let wanted: Vec<&str> = RUN.into_iter().chain(["--param", "v=two"]).collect();
    stacks.expect(0, &wanted);
    stacks.expect(0, &APPLY);
}

#[test]
fn an_output_that_nobody_has_is_told_where_it_is_used() {
    let stacks = stacks(PLAIN, "v: source.outputs.keys[\"none\"]");
    let output = stacks.output(&with(&RUN, "v=one", "n=1"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let told = super::stacks::stable(&crate::support::block(&["run"], &output));
    insta::assert_snapshot!("conform-absent-output", told.split("--- stderr").nth(1).unwrap());
}
