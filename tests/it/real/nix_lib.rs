//! The nix files that come with clawd: all parse, and what needs no nixpkgs evaluates to what is written down.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::project::need_nix;
use crate::support::repository;

fn nix_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            nix_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "nix") {
            found.push(path);
        }
    }
}

#[test]
fn every_nix_file_parses() {
    need_nix();
    let mut files = vec![repository().join("flake.nix")];
    nix_files(&repository().join("nix"), &mut files);
    nix_files(&repository().join("tests/it/real"), &mut files);
    assert!(files.len() > 10, "the nix files are gone: {files:?}");
    for file in files {
        let output = Command::new("nix-instantiate").arg("--parse").arg(&file).output().unwrap();
        assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn functions_of_data_give_what_is_written_down() {
    need_nix();
    let tests = repository().join("nix/lib/tests.nix");
    let output =
        Command::new("nix-instantiate").args(["--eval", "--strict", "--json"]).arg(tests).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["failed"], serde_json::json!([]));
    insta::assert_snapshot!("nix-lib", serde_json::to_string_pretty(&value["cases"]).unwrap());
}

#[test]
fn every_input_is_locked_to_the_revision_it_names() {
    let lock = std::fs::read_to_string(repository().join("flake.lock")).unwrap();
    let lock: serde_json::Value = serde_json::from_str(&lock).unwrap();
    assert_eq!(lock["version"], 7);
    let nodes = lock["nodes"].as_object().unwrap();
    for (name, node) in nodes.iter().filter(|(name, _)| *name != "root") {
        let rev = node["locked"]["rev"].as_str().unwrap_or_default();
        assert_eq!(rev.len(), 40, "{name} is not locked");
        assert!(node["locked"]["narHash"].as_str().is_some_and(|hash| hash.starts_with("sha256-")), "{name}");
    }
    assert_eq!(nodes["root"]["inputs"]["nixpkgs"], serde_json::json!(["nix-openclaw", "nixpkgs"]));
}
