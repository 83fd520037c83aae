//! Conventions as tests: every primitive is registered, documented, and its example plans and applies; what is
//! generated is current.

use std::fs;

use clawd::diagnostic::Code;
use clawd::docs;
use clawd::primitives::Registry;

use crate::support::{Project, repository, walk};

#[test]
fn every_primitive_file_is_registered_under_its_own_name() {
    let dir = repository().join("src/primitives");
    let mut files: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("impl Primitive for")))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let mut registered: Vec<&str> = Registry::all().names().collect();
    registered.sort_unstable();
    assert_eq!(files, registered);
}

/// `scripts/mutants` takes long; that its list is current is seen here.
#[test]
fn every_mutant_still_has_its_place() {
    #[derive(serde::Deserialize)]
    struct List {
        mutant: Vec<Mutant>,
    }
    #[derive(serde::Deserialize)]
    struct Mutant {
        name: String,
        file: String,
        from: String,
    }
    let list: List =
        toml::from_str(&fs::read_to_string(repository().join("tests/mutants.toml")).unwrap()).unwrap();
    let lost: Vec<&str> = list
        .mutant
        .iter()
        .filter(|it| fs::read_to_string(repository().join(&it.file)).unwrap().matches(&it.from).count() != 1)
        .map(|it| it.name.as_str())
        .collect();
    assert!(lost.is_empty(), "`from` does not stand exactly once for: {lost:?}");
}

#[test]
fn every_argument_and_output_is_documented() {
    for primitive in Registry::all().iter() {
        assert!(!primitive.summary.is_empty(), "{} has no summary", primitive.name);
        assert!(!primitive.outputs.title().is_empty(), "{} has no output type", primitive.name);
        for field in primitive.args.fields().iter().chain(primitive.outputs.fields()) {
            assert!(!field.doc.is_empty(), "{}.{} has no doc comment", primitive.name, field.name);
        }
    }
}

#[test]
fn every_example_plans_applies_and_then_changes_nothing() {
    for primitive in Registry::all().iter() {
        let project = Project::new();
        project.write("plans/example.rhai", primitive.example);
        let plan = project.expect(2, &["run", "plans/example.rhai", "--dry-run", "--detailed-exitcode"]);
        assert!(plan.contains(primitive.name), "the example of {} does not use it:\n{plan}", primitive.name);
        project.expect(0, &["run", "plans/example.rhai", "--yes"]);
        let again = project.expect(0, &["run", "plans/example.rhai", "--dry-run", "--detailed-exitcode"]);
        assert!(again.contains("No changes."), "{}:\n{again}", primitive.name);
    }
}

#[test]
fn the_reference_is_current() {
    let written = fs::read_to_string(repository().join("docs/reference.md")).unwrap();
    assert!(
        written.trim_end() == docs::markdown().trim_end(),
        "docs/reference.md is not current: cargo run -- docs > docs/reference.md"
    );
}

#[test]
fn every_diagnostic_code_is_used() {
    // A code that nothing produces would be a promise that nobody keeps.
    let mut all = String::new();
    for entry in walk(&repository().join("src")) {
        all.push_str(&fs::read_to_string(entry).unwrap());
    }
    for (code, _) in Code::ALL {
        let name = format!("Code::{code:?}");
        assert!(all.contains(&name), "{name} ({code}) is produced nowhere");
    }
}

#[test]
fn every_command_has_help_and_a_man_page() {
    let project = Project::new();
    for command in
        ["run", "plan", "apply", "resume", "check", "docs", "runs", "show", "sim", "bootstrap", "completions"]
    {
        let help = project.expect(0, &[command, "--help"]);
        assert!(help.contains("Usage: clawd"), "{command}: {help}");
        assert!(project.expect(0, &["man", command]).contains(".TH"), "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(project.expect(0, &["completions", shell]).contains("clawd"), "{shell}");
    }
}

#[test]
fn the_reference_has_all_its_forms() {
    let project = Project::new();
    insta::assert_snapshot!("docs-one-primitive", project.block(&["docs", "build_image"]));
    insta::assert_snapshot!("docs-rhai", project.block(&["docs", "--format", "rhai"]));
    insta::assert_snapshot!("docs-iam", project.block(&["docs", "import_ami", "--format", "iam"]));
    insta::assert_snapshot!("docs-one-function", project.block(&["docs", "param"]));
    insta::assert_snapshot!("docs-unknown", project.block(&["docs", "import_amo"]));
    let schema: serde_json::Value =
        serde_json::from_str(&project.expect(0, &["docs", "--format", "json-schema"])).unwrap();
    assert_eq!(schema["import_ami"]["args"]["properties"]["name_prefix"]["type"], "string");
}
