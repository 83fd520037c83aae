//! The modules under `tofu/`, as OpenTofu and a reader of the code see them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use clawd::memory::class::CANONICAL;
use hcl_edit::structure::{Block, Body};

use super::stacks::tofu_program;
use crate::support::{Project, repository};

fn modules() -> Vec<(String, Body)> {
    let mut modules: Vec<PathBuf> = std::fs::read_dir(repository().join("tofu"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    modules.sort();
    modules
        .into_iter()
        .map(|dir| {
            let text: String = std::fs::read_dir(&dir)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "tf"))
                .map(|path| std::fs::read_to_string(path).unwrap())
                .collect();
            let name = dir.file_name().unwrap().to_str().unwrap().to_owned();
            (name, hcl_edit::parser::parse_body(&text).unwrap())
        })
        .collect()
}

fn module(name: &str) -> Body {
    let found = modules().into_iter().find(|(module, _)| module == name);
    found.unwrap_or_else(|| panic!("there is no tofu/{name}")).1
}

/// An attribute as it is written; empty when it is not.
fn source_of(block: &Block, attribute: &str) -> String {
    let found = block.body.get_attribute(attribute);
    found.map_or_else(String::new, |attribute| attribute.value.to_string().trim().to_owned())
}

fn text_of<'a>(block: &'a Block, attribute: &str) -> Option<&'a str> {
    block.body.get_attribute(attribute)?.value.as_str()
}

#[test]
fn modules_are_formatted() {
    let output = Command::new(tofu_program())
        .args(["fmt", "-check", "-diff", "-recursive", "-no-color"])
        .current_dir(repository().join("tofu"))
        .env("TF_CLI_CONFIG_FILE", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn variables_and_outputs_of_modules_are_typed_and_described() {
    let mut bare = Vec::new();
    for (module, body) in modules() {
        for variable in body.get_blocks("variable") {
            let name = variable.labels[0].as_str();
            if !variable.body.has_attribute("type") || text_of(variable, "description").is_none() {
                bare.push(format!("{module}: variable {name}"));
            }
        }
        for output in body.get_blocks("output") {
            if text_of(output, "description").is_none() {
                bare.push(format!("{module}: output {}", output.labels[0].as_str()));
            }
        }
    }
    assert_eq!(bare, Vec::<String>::new());
}

/// What is passed on to AWS as text is checked while planning, or the variable says why that cannot be.
#[test]
fn text_that_a_module_takes_is_checked_or_says_why_not() {
    let mut unchecked = Vec::new();
    for (module, body) in modules() {
        for variable in body.get_blocks("variable") {
            let is_checked = variable.body.has_blocks("validation");
            let says_why =
                variable.body.to_string().lines().any(|line| line.trim().starts_with("# Not checked: "));
            if source_of(variable, "type").contains("string") && !is_checked && !says_why {
                unchecked.push(format!("{module}: variable {}", variable.labels[0].as_str()));
            }
        }
    }
    assert_eq!(unchecked, Vec::<String>::new());
}

/// The variables of a module, each with all that decides what may be passed: type, default, and what is refused with which words.
fn variables_of(body: &Body) -> BTreeMap<String, Vec<String>> {
    body.get_blocks("variable")
        .map(|variable| {
            let mut said: Vec<String> =
                ["type", "default", "nullable", "sensitive"].map(|it| source_of(variable, it)).into();
            for validation in variable.body.get_blocks("validation") {
                said.extend(["condition", "error_message"].map(|it| source_of(validation, it)));
            }
            (variable.labels[0].as_str().to_owned(), said)
        })
        .collect()
}

/// The outputs of a module with their types, which the descriptions begin with.
fn outputs_of(body: &Body) -> BTreeMap<String, String> {
    body.get_blocks("output")
        .map(|output| {
            let description = text_of(output, "description").unwrap_or_default();
            let (ty, _) = description.split_once(": ").unwrap_or_else(|| panic!("no type: {description}"));
            (output.labels[0].as_str().to_owned(), ty.to_owned())
        })
        .collect()
}

/// The names under which two modules say something else, or of which one says nothing.
fn differing<T: PartialEq>(one: &BTreeMap<String, T>, other: &BTreeMap<String, T>) -> Vec<String> {
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    names.into_iter().filter(|name| one.get(*name) != other.get(*name)).cloned().collect()
}

/// A plan that was tried without a cloud is tried with the same variables, which are refused for the same reasons.
#[test]
fn a_fleet_without_a_cloud_takes_and_yields_what_a_real_one_does() {
    let (fleet, local) = (module("fleet"), module("local"));
    assert_eq!(differing(&variables_of(&fleet), &variables_of(&local)), Vec::<String>::new());
    assert_eq!(differing(&outputs_of(&fleet), &outputs_of(&local)), Vec::<String>::new());
}

/// A role that did not allow what the memory takes for canonical would refuse the host's pushes.
#[test]
fn hosts_may_write_the_canonical_files_that_the_memory_has() {
    let fleet = module("fleet");
    let variable =
        fleet.get_blocks("variable").find(|variable| variable.labels[0].as_str() == "canonical_files");
    let default = variable.unwrap().body.get_attribute("default").unwrap().value.as_array().unwrap();
    assert_eq!(default.iter().filter_map(|file| file.as_str()).collect::<Vec<_>>(), CANONICAL);

    let project = Project::with_plans();
    let config = project.read("clawd.toml");
    project.write("clawd.toml", &format!("{config}\n[memory]\ncanonical = [\"team/plan.md\"]\n"));
    let plan = project.expect(0, &["plan", "plans/spawn.rhai", "--format", "json"]);
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let steps = plan["steps"].as_array().unwrap();
    let fleet = steps.iter().find(|step| step["address"] == "tofu_apply.fleet").unwrap();
    let all: Vec<&str> = CANONICAL.into_iter().chain(["team/plan.md"]).collect();
    assert_eq!(fleet["args"]["vars"]["canonical_files"], serde_json::json!(all));
}

/// Runs OpenTofu in a directory; whether it ended well, and what it said.
fn tofu(dir: &Path, args: &[&str]) -> (bool, String) {
    let output = Command::new(tofu_program())
        .args(args)
        .current_dir(dir)
        .env("TF_CLI_CONFIG_FILE", "/dev/null")
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The files of clawd.toml become a part of policies. What the module refuses is refused there already, before anything runs.
#[test]
fn clawd_toml_and_the_module_take_the_same_canonical_files() {
    let project = Project::with_plans();
    let dir = project.path().join("tofu/local");
    let (is_ready, said) = tofu(&dir, &["init", "-input=false", "-no-color"]);
    assert!(is_ready, "{said}");
    for (name, is_fine) in [
        ("goals.md", true),
        ("team/_x/plan-1.md", true),
        ("2026-11-26.md", true),
        ("x_2026-11-26_H-1.md", true),
        ("*.md", false),
        ("team/pla?.md", false),
        ("a b.md", false),
        ("a,b.md", false),
        (".hidden", false),
        ("team/-a.md", false),
        ("../x.md", false),
        ("team//x.md", false),
        ("/x.md", false),
        ("", false),
        ("conflicts", false),
        ("conflicts/H-1/x.md", false),
        ("2026-11-26_H-1.md", false),
        ("team/2026-11-26_H-1", false),
    ] {
        project.write("clawd.toml", &format!("[memory]\ncanonical = [{name:?}]\n"));
        let config = project.run(&["check", "plans/local.rhai"]);
        assert_eq!(config.status.success(), is_fine, "clawd.toml: {name}");
        let files = format!("-var=canonical_files=[{name:?}]");
        let (is_taken, said) =
            tofu(&dir, &["plan", "-input=false", "-no-color", "-var=instances={}", &files]);
        assert_eq!(is_taken, is_fine, "tofu/local: {name}: {said}");
    }
}

#[test]
fn versions_of_providers_are_bounded_on_both_sides() {
    let mut providers = 0;
    for (module, body) in modules() {
        let terraform: Vec<&Block> = body.get_blocks("terraform").collect();
        assert!(
            terraform.iter().any(|block| text_of(block, "required_version").is_some()),
            "{module} says which OpenTofu it needs"
        );
        for required in terraform.iter().flat_map(|block| block.body.get_blocks("required_providers")) {
            for provider in required.body.attributes() {
                let object = provider.value.as_object().unwrap();
                let version = object
                    .iter()
                    .find(|(key, _)| key.as_ident().is_some_and(|key| key.as_str() == "version"))
                    .and_then(|(_, value)| value.expr().as_str())
                    .unwrap_or_default();
                let is_bounded = version.contains("~>") || version.contains('>') && version.contains('<');
                assert!(is_bounded, "{module}: {} has the version {version:?}", provider.key.as_str());
                providers += 1;
            }
        }
    }
    assert!(providers >= 2, "base and fleet have a provider each");
}

/// A rehearsal that yields less than the module would refuse plans that are right, one that yields more would pass wrong ones.
#[test]
fn a_rehearsal_yields_the_outputs_of_the_module() {
    let project = Project::with_plans();
    project.expect(0, &["run", "plans/spawn.rhai", "--yes"]);
    let fleet = stack_outputs(&project, "tofu/fleet");
    let base = stack_outputs(&project, "tofu/base");
    project.expect(0, &["run", "plans/local.rhai", "--yes"]);
    let local = stack_outputs(&project, "tofu/local");
    for (module, body) in modules() {
        let mut named: Vec<String> =
            body.get_blocks("output").map(|output| output.labels[0].as_str().to_owned()).collect();
        named.sort();
        let yielded = match module.as_str() {
            "base" => &base,
            "fleet" => &fleet,
            "local" => &local,
            other => panic!("no rehearsal of tofu/{other} is tested"),
        };
        assert_eq!(&named, yielded, "tofu/{module}");
    }
}

/// Budgets count resources. A rehearsal that knew of fewer would pass plans that are refused later.
#[test]
fn a_rehearsal_knows_every_resource_of_a_fleet() {
    let project = Project::with_plans();
    let plan = project.read("plans/spawn.rhai");
    let with_efs = plan.replace(
        "stack::base(fleet::zones(desired))",
        "stack::base(fleet::zones(desired), #{ efs_enabled: true })",
    );
    assert_ne!(plan, with_efs, "the file system is on");
    project.write("plans/spawn.rhai", &with_efs);
    project.expect(0, &["run", "plans/spawn.rhai", "--yes"]);
    let row = stack_row(&project, "tofu/fleet");
    let addresses = row["resources"].as_object().unwrap().keys();
    let rehearsed: BTreeSet<&str> = addresses.map(|address| address.split('[').next().unwrap()).collect();
    let fleet = module("fleet");
    let declared: BTreeSet<String> = fleet
        .get_blocks("resource")
        .map(|resource| format!("{}.{}", resource.labels[0].as_str(), resource.labels[1].as_str()))
        .collect();
    assert_eq!(rehearsed, declared.iter().map(String::as_str).collect());
}

/// The names of what a stack of the simulated world yields, sorted.
fn stack_outputs(project: &Project, dir: &str) -> Vec<String> {
    stack_row(project, dir)["outputs"].as_object().unwrap().keys().cloned().collect()
}

/// A stack of the simulated world, as it was left.
fn stack_row(project: &Project, dir: &str) -> serde_json::Value {
    let log = project.read(".clawd/sim/world/world.log");
    let mut puts = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line.split_once(' ')?.1).ok())
        .flat_map(|transaction| transaction["puts"].as_array().cloned().unwrap_or_default());
    let row = puts
        .rfind(|put| put["table"] == "stack" && put["key"].as_str().is_some_and(|key| key.starts_with(dir)));
    row.unwrap_or_else(|| panic!("no stack of {dir} in {log}"))["row"].clone()
}
