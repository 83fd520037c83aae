//! The modules under `tofu/`, as OpenTofu and a reader of the code see them.

use std::path::PathBuf;
use std::process::Command;

use hcl_edit::structure::{Block, Body};

use super::stacks::tofu_program;
use crate::support::repository;

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
    let project = crate::support::Project::with_plans();
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

/// The names of what a stack of the simulated world yields, sorted.
fn stack_outputs(project: &crate::support::Project, dir: &str) -> Vec<String> {
    let log = project.read(".clawd/sim/world/world.log");
    let rows: Vec<serde_json::Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line.split_once(' ')?.1).ok())
        .flat_map(|transaction| transaction["puts"].as_array().cloned().unwrap_or_default())
        .filter(|put| put["table"] == "stack" && put["key"].as_str().is_some_and(|key| key.starts_with(dir)))
        .collect();
    let outputs =
        rows.last().unwrap_or_else(|| panic!("no stack of {dir} in {log}"))["row"]["outputs"].clone();
    outputs.as_object().unwrap().keys().cloned().collect()
}
