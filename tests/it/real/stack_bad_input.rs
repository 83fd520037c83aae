//! Wrong modules, wrong arguments, wrong machines: each has an error that says what and where, and nothing is done.

use std::os::unix::fs::PermissionsExt as _;

use super::stacks::{DRY, RUN, Stacks};

const CHECK: [&str; 4] = ["check", "plans/m.rhai", "--profile", "local"];

const MODULE: &str = r#"
variable "hosts" {
  type = map(object({
    type = string
    size = optional(number)
  }))
  description = "The hosts by name."
}
variable "token" {
  type    = string
  default = ""
}
output "ids" {
  value = {}
}
output "secret" {
  value     = "x"
  sensitive = true
}
"#;

#[test]
fn arguments_are_held_against_the_module_before_anything_runs() {
    let stacks = Stacks::with(MODULE, "");
    for (name, plan) in [
        ("missing-variable", r#"tofu_apply("m", #{ dir: "tofu/m", vars: #{ token: "x" } });"#),
        ("unknown-variable", r#"tofu_apply("m", #{ dir: "tofu/m", vars: #{ hosts: #{}, tokn: "x" } });"#),
        (
            "mistyped-variable",
            "tofu_apply(\"m\", #{\n    dir: \"tofu/m\",\n    vars: #{ hosts: #{ a: #{ type: \"t\", size: \"big\" }, b: #{ typ: \"t\" } } },\n});",
        ),
        (
            "misspelt-output",
            "let m = tofu_apply(\"m\", #{ dir: \"tofu/m\", vars: #{ hosts: #{} } });\noutput(\"ids\", m.outputs.idz);",
        ),
        (
            "declared-output",
            "let m = tofu_apply(\"m\", #{ dir: \"tofu/m\", vars: #{ hosts: #{} }, outputs: #{ ids: \"map(strin)\", none: \"string\" } });",
        ),
        (
            "secret-to-plain-variable",
            "let s = secret(\"s\", #{ from: \"env:S\" });\ntofu_apply(\"m\", #{ dir: \"tofu/m\", vars: #{ hosts: #{}, token: s } });",
        ),
        (
            "sensitive-output-shown",
            "let m = tofu_apply(\"m\", #{ dir: \"tofu/m\", vars: #{ hosts: #{} } });\nimport_ami(\"x\", #{ image: build_image(\"x\", #{ flake: \".#x\" }), name_prefix: `a-${m.outputs.secret}` });",
        ),
        (
            "backend-without-block",
            r#"tofu_apply("m", #{ dir: "tofu/m", vars: #{ hosts: #{} }, backend: #{ bucket: "b" } });"#,
        ),
        ("no-module", r#"tofu_apply("m", #{ dir: "plans" });"#),
        ("outside", r#"tofu_apply("m", #{ dir: "../m" });"#),
        ("bad-replace", r#"tofu_apply("m", #{ dir: "tofu/m", vars: #{ hosts: #{} }, replace: #{ a: 1 } });"#),
    ] {
        stacks.plan(plan);
        insta::assert_snapshot!(name, stacks.block(&CHECK));
    }
    assert!(!stacks.path().join(".clawd").exists(), "nothing was run");
}

#[test]
fn a_module_that_is_no_hcl_is_told_with_file_and_line() {
    let stacks = Stacks::with("variable \"a\" {\n  type = \n}\n", "tofu_apply(\"m\", #{ dir: \"tofu/m\" });");
    insta::assert_snapshot!("hcl-syntax", stacks.block(&CHECK));
    stacks.module("variable \"a\" {\n  type = strin\n}\n");
    insta::assert_snapshot!("hcl-type", stacks.block(&CHECK));
    // What only OpenTofu itself finds.
    stacks.module("resource \"terraform_data\" \"a\" {\n  input = var.none\n}\n");
    insta::assert_snapshot!("hcl-reference", stacks.block(&DRY));
}

const ANY: &str = "resource \"terraform_data\" \"a\" {}\n";
const PLAN: &str = "tofu_apply(\"m\", #{ dir: \"tofu/m\" });";

#[test]
fn a_program_that_is_missing_or_old_is_told() {
    let stacks = Stacks::with(ANY, PLAN);
    let without = stacks.command(&DRY).env("PATH", "/nowhere").output().unwrap();
    insta::assert_snapshot!("no-program", super::stacks::stable(&crate::support::block(&DRY, &without)));
    stacks.project.write("bin/tofu", "#!/bin/sh\necho '{ \"terraform_version\": \"1.6.2\" }'\n");
    let program = stacks.path().join("bin/tofu");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", stacks.path().join("bin").display());
    let old = stacks.command(&DRY).env("PATH", path).output().unwrap();
    insta::assert_snapshot!("old-program", super::stacks::stable(&crate::support::block(&DRY, &old)));
}

#[test]
fn what_cannot_be_reached_is_told() {
    let stacks = Stacks::with(
        "terraform {\n  required_providers {\n    none = {\n      source = \"clawd/none\"\n    }\n  }\n}\nresource \"none_thing\" \"a\" {}\n",
        PLAN,
    );
    let output = stacks.output(&DRY);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("clawd/none") && said.contains("the provider's registry cannot be reached"),
        "{said}"
    );
    // A backend where nothing listens.
    stacks.module(&format!("terraform {{\n  backend \"http\" {{}}\n}}\n{ANY}"));
    stacks.plan(
        "tofu_apply(\"m\", #{ dir: \"tofu/m\", backend: #{ address: \"http://127.0.0.1:9/state\" } });",
    );
    let output = stacks.output(&DRY);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("connection refused") && said.contains("nothing listens there"), "{said}");
}

#[test]
fn a_plan_file_of_another_version_is_made_again() {
    let stacks = Stacks::with(ANY, PLAN);
    stacks.expect(0, &["plan", "plans/m.rhai", "--profile", "local", "-o", "saved.json"]);
    // A raw plan that is whole, and that this OpenTofu does not read.
    let dir = stacks.path().join("saved.json.d");
    let index = std::fs::read_to_string(dir.join("plans.json")).unwrap();
    let sha = index.split("\"sha256\": \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let foreign = "a plan of another version";
    let foreign_sha = clawd::digest::sha256_hex(foreign.as_bytes());
    std::fs::write(dir.join(format!("{foreign_sha}.tfplan")), foreign).unwrap();
    std::fs::write(dir.join("plans.json"), index.replace(&sha, &foreign_sha)).unwrap();
    stacks.expect(0, &["apply", "saved.json", "--yes"]);
    stacks.says_no_changes();
}

#[test]
fn a_destroy_without_budget_is_refused() {
    let stacks = Stacks::with(ANY, PLAN);
    stacks.apply();
    stacks.plan("tofu_apply(\"m\", #{ dir: \"tofu/m\", destroy: true });");
    insta::assert_snapshot!("destroy-without-budget", stacks.block(&RUN));
    assert_eq!(stacks.ids("tofu/m").len(), 1);
}

#[test]
fn an_address_to_replace_that_means_nothing_is_told() {
    let stacks = Stacks::with(ANY, PLAN);
    stacks.apply();
    stacks.plan("tofu_apply(\"m\", #{ dir: \"tofu/m\", replace: #{ \"terraform_data.b\": \"1\" } });");
    insta::assert_snapshot!("replace-unknown", stacks.block(&DRY));
}

#[test]
fn an_output_of_another_type_than_declared_is_told() {
    let stacks = Stacks::with(
        "output \"ids\" {\n  value = [\"a\"]\n}\n",
        "tofu_apply(\"m\", #{ dir: \"tofu/m\", outputs: #{ ids: \"map(string)\" } });",
    );
    insta::assert_snapshot!("output-type", stacks.block(&DRY));
}
