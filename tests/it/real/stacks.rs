//! Projects whose stacks are planned and applied by real OpenTofu, with real state.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use regex_lite::Regex;
use serde_json::Value as Json;

use crate::support::{Project, block, repository};

/// A project with the profile `local` and a module of its own.
pub(crate) struct Stacks {
    pub(crate) project: Project,
}

/// Where scripts/setup puts what it builds.
fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache"),
        PathBuf::from,
    );
    base.join("clawd")
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|dir| dir.join(name).is_file())
}

/// The directory of the OpenTofu that is tested with: on PATH, else built by scripts/setup, else terraform's.
pub(crate) fn tofu_dir() -> PathBuf {
    let module = std::fs::read_to_string(repository().join("tests/tofu/go.mod")).unwrap();
    let version =
        module.split("require github.com/opentofu/opentofu v").nth(1).unwrap().lines().next().unwrap();
    let built = cache().join(format!("tofu-{version}"));
    let found = on_path("tofu")
        .or_else(|| built.join("tofu").is_file().then_some(built))
        .or_else(|| on_path("terraform"));
    found.expect("OpenTofu is missing: run scripts/setup, or install OpenTofu 1.8 or newer")
}

/// The OpenTofu, or terraform, that is tested with.
pub(crate) fn tofu_program() -> PathBuf {
    let dir = tofu_dir();
    let tofu = dir.join("tofu");
    if tofu.is_file() { tofu } else { dir.join("terraform") }
}

impl Stacks {
    pub(crate) fn new() -> Self {
        let project = Project::with_plans();
        project.write(
            "clawd.toml",
            "fleet = \"test\"\n[profiles.local]\nadapters = \"local\"\nlock_timeout = \"1s\"\n",
        );
        let mirror = cache().join("providers");
        project.write(
            "tofu.rc",
            &format!(
                "provider_installation {{\n  filesystem_mirror {{\n    path = \"{}\"\n  }}\n}}\n",
                mirror.display()
            ),
        );
        Self { project }
    }

    /// A project with one module, `tofu/m`, and a plan for it.
    pub(crate) fn with(module: &str, plan: &str) -> Self {
        let stacks = Self::new();
        stacks.module(module).plan(plan);
        stacks
    }

    pub(crate) fn module(&self, text: &str) -> &Self {
        self.project.write("tofu/m/main.tf", text);
        self
    }

    pub(crate) fn plan(&self, text: &str) -> &Self {
        self.project.write("plans/m.rhai", text);
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.project.path()
    }

    /// The command, not yet started, with no more of the environment than OpenTofu needs.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.project.command(args);
        let mut path = OsString::from(tofu_dir());
        path.push(":/usr/bin:/bin");
        command
            .env("PATH", path)
            .env("HOME", self.path())
            .env("TF_CLI_CONFIG_FILE", self.path().join("tofu.rc"));
        command
    }

    /// A PATH on which a script stands for OpenTofu: it does something and then becomes the real one.
    pub(crate) fn path_with(&self, name: &str, script: &str) -> String {
        let bin = self.path().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        let program = bin.join(name);
        let script = format!("#!/bin/sh\n{script}\nexec '{}' \"$@\"\n", tofu_program().display());
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        format!("{}:/usr/bin:/bin", bin.display())
    }

    /// A command with the profile.
    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub(crate) fn block(&self, args: &[&str]) -> String {
        stable(&block(args, &self.output(args)))
    }

    /// Runs a command that must end with this exit code; its stdout.
    #[track_caller]
    pub(crate) fn expect(&self, exit: i32, args: &[&str]) -> String {
        let output = self.output(args);
        assert_eq!(output.status.code(), Some(exit), "{}", block(args, &output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Applies the plan, which must succeed.
    #[track_caller]
    pub(crate) fn apply(&self) -> String {
        self.expect(0, &RUN)
    }

    #[track_caller]
    pub(crate) fn says_no_changes(&self) {
        let said = self.expect(0, &DRY);
        assert!(said.contains("No changes."), "{said}");
    }

    /// The state of a module, as it lies there.
    pub(crate) fn state(&self, dir: &str) -> Json {
        serde_json::from_str(&self.project.read(&format!("{dir}/terraform.tfstate"))).unwrap()
    }

    /// The ids in the state by name and key.
    pub(crate) fn ids(&self, dir: &str) -> std::collections::BTreeMap<String, String> {
        let state = self.state(dir);
        let mut ids = std::collections::BTreeMap::new();
        for resource in state["resources"].as_array().unwrap() {
            for instance in resource["instances"].as_array().unwrap() {
                let key = instance["index_key"].as_str().unwrap_or_default();
                let name = format!(
                    "{}{}{key}",
                    resource["name"].as_str().unwrap(),
                    if key.is_empty() { "" } else { "." }
                );
                // Data sources are no resources.
                if let Some(id) = instance["attributes"]["id"].as_str() {
                    ids.insert(name, id.to_owned());
                }
            }
        }
        ids
    }
}

pub(crate) const RUN: [&str; 5] = ["run", "plans/m.rhai", "--profile", "local", "--yes"];
pub(crate) const DRY: [&str; 6] =
    ["run", "plans/m.rhai", "--profile", "local", "--dry-run", "--detailed-exitcode"];

/// Replaces what differs from run to run.
pub(crate) fn stable(text: &str) -> String {
    let rules = [
        (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "[uuid]"),
        (r"serial [0-9]+ \([0-9a-f]{8}\)", "serial [n] ([state])"),
        (r"TF_DATA_DIR=\S+", "TF_DATA_DIR=[data]"),
        // What is done at once is told in any order.
        (r"(?m)^tofu_apply\.\S+: \S+: (Creat|Destr|Modif|Still|Provision|\().*\n", ""),
        (r"/\S*/\.clawd/", "[project]/.clawd/"),
    ];
    rules.into_iter().fold(text.to_owned(), |text, (pattern, with)| {
        Regex::new(pattern).unwrap().replace_all(&text, with).into_owned()
    })
}
