//! The house stands: dependencies point down only, pure modules do no IO, and only `cli` knows adapters.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::repository;

/// Modules with their layer. A module may use lower layers, and itself.
const LAYERS: [(&str, u8); 16] = [
    ("address", 0),
    ("diagnostic", 0),
    ("digest", 0),
    ("units", 0),
    ("value", 0),
    ("image", 1),
    ("plan", 1),
    ("stack", 1),
    ("memory", 1),
    ("providers", 2),
    ("primitives", 3),
    ("script", 4),
    ("exec", 4),
    ("docs", 4),
    ("host", 4),
    ("cli", 5),
];

/// Uses within a layer: data types of L0 build on each other, and the reference prints the language's tables.
const SIDEWAYS: [(&str, &str); 3] = [("value", "address"), ("diagnostic", "address"), ("docs", "script")];

fn layer(module: &str) -> u8 {
    LAYERS
        .iter()
        .find(|(name, _)| *name == module)
        .unwrap_or_else(|| panic!("src/{module} has no layer: add it to the table"))
        .1
}

fn sources() -> Vec<(String, PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = repository().join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files
        .into_iter()
        .filter(|path| !path.ends_with("lib.rs") && !path.ends_with("main.rs"))
        .map(|path| {
            let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
            let module = first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            // Tests inside a module may reach further than the module.
            let text = text.split("#[cfg(test)]").next().unwrap().to_owned();
            (module, path, text)
        })
        .collect()
}

fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn dependencies_point_down_only() {
    for (module, path, text) in sources() {
        for line in code_lines(&text) {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let down = used == module || layer(&used) < layer(&module);
                let sideways = SIDEWAYS.contains(&(module.as_str(), used.as_str()));
                assert!(down || sideways, "{}: `{module}` must not use `{used}`: {line}", path.display());
            }
        }
    }
}

#[test]
fn each_layer_keeps_to_its_tools() {
    let forbidden: [(&[&str], &[&str]); 5] = [
        // Pure: no IO, no clock, no environment.
        (
            &["address", "diagnostic", "units", "value", "image", "plan", "stack"],
            &[
                "std::fs",
                "std::net",
                "std::env",
                "std::process",
                "std::time::Instant",
                "std::time::SystemTime",
                "tokio",
                "rhai::",
            ],
        ),
        (&["primitives"], &["rhai::", "aws_sdk", "std::fs", "std::process", "tokio::"]),
        (&["script"], &["tokio", "aws_sdk", "std::net", "std::process", "providers::sim"]),
        (&["exec"], &["rhai::", "aws_sdk", "providers::sim", "println!"]),
        (&["providers"], &["rhai::"]),
    ];
    for (module, path, text) in sources() {
        for (modules, words) in forbidden {
            if modules.contains(&module.as_str()) {
                for line in code_lines(&text) {
                    let found = words.iter().find(|word| line.contains(**word));
                    assert!(
                        found.is_none(),
                        "{}: {module} must not use {}: {line}",
                        path.display(),
                        found.unwrap()
                    );
                }
            }
        }
    }
}

#[test]
fn only_the_command_line_prints_exits_and_reads_the_environment() {
    for (module, path, text) in sources().into_iter().filter(|(module, _, _)| module != "cli") {
        for word in ["println!", "eprintln!", "process::exit", "env::var", "stdout()", "stderr()"] {
            for line in code_lines(&text) {
                assert!(!line.contains(word), "{}: {module} must not use {word}: {line}", path.display());
            }
        }
    }
}
