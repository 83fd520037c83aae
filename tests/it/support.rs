//! Projects in temporary directories, whole commands as readable blocks, and the library's pieces put together
//! as the command line does it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use clawd::plan::{Plan, Recorded, Target};
use clawd::providers::Providers;
use clawd::providers::sim::{self, Settings};
use clawd::script::{self, Given, Inputs, Limits, ScriptModel};
use regex_lite::Regex;
use tempfile::TempDir;

/// The project's own root: plans, stdlib and modules that tests copy.
pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a directory.
pub(crate) fn walk(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .unwrap()
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path) } else { vec![path] }
        })
        .collect()
}

/// A project in a directory of its own.
pub(crate) struct Project {
    dir: TempDir,
}

impl Project {
    /// A project with the module and hosts that come with clawd, and no plan.
    pub(crate) fn new() -> Self {
        let project = Self { dir: TempDir::new().unwrap() };
        for file in ["clawd.toml", "fleet.toml"] {
            project.copy(file);
        }
        for module in ["base", "fleet", "local"] {
            for entry in fs::read_dir(repository().join("tofu").join(module)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if name.ends_with(".tf") || name == "sim.rhai" {
                    project.copy(&format!("tofu/{module}/{name}"));
                }
            }
        }
        project
    }

    /// The same with the plans that come with clawd.
    pub(crate) fn with_plans() -> Self {
        let project = Self::new();
        for plan in ["spawn", "roll", "teardown", "local"] {
            project.copy(&format!("plans/{plan}.rhai"));
        }
        project
    }

    /// A file of the repository.
    pub(crate) fn copy(&self, file: &str) -> &Self {
        self.write(file, &fs::read_to_string(repository().join(file)).unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, file: &str, text: &str) -> &Self {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path().join(file)).unwrap()
    }

    /// The command, not yet started.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clawd"));
        command.args(args).current_dir(self.path()).stdin(Stdio::null()).env_clear();
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must end with this exit code; returns its stdout.
    #[track_caller]
    pub(crate) fn expect(&self, exit: i32, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(exit), "{}", block(args, &output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A whole command as one readable block: command, stdout, stderr, exit code.
    pub(crate) fn block(&self, args: &[&str]) -> String {
        block(args, &self.run(args))
    }

    /// A script as a plan, and the block of checking it.
    pub(crate) fn check(&self, script: &str) -> String {
        self.write("plans/case.rhai", script);
        let mut text = String::from("plans/case.rhai\n");
        for line in script.lines() {
            let _ = writeln!(text, "  | {line}");
        }
        text.push_str(&self.block(&["check", "plans/case.rhai"]));
        text
    }

    /// What is in the simulated world, as (kind, id) pairs.
    pub(crate) fn world(&self) -> Vec<(String, String)> {
        let json = self.expect(0, &["sim", "show", "--format", "json"]);
        let rows: Vec<BTreeMap<String, String>> = serde_json::from_str(&json).unwrap();
        rows.into_iter().map(|mut row| (row.remove("kind").unwrap(), row.remove("id").unwrap())).collect()
    }

    /// How many of a kind are in the simulated world.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.world().iter().filter(|(found, _)| found == kind).count()
    }
}

/// A finished command as one readable block. What differs from run to run is replaced.
pub(crate) fn block(args: &[&str], output: &Output) -> String {
    let mut text = format!("$ clawd {}\n", args.join(" "));
    for (name, stream) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !stream.is_empty() {
            let _ = write!(text, "--- {name}\n{}", String::from_utf8_lossy(stream));
        }
    }
    let exit = output.status.code().map_or_else(|| "a signal".to_owned(), |code| code.to_string());
    let _ = writeln!(text, "--- exit {exit}");
    stable(&text)
}

/// Replaces ids, digests and times.
pub(crate) fn stable(text: &str) -> String {
    let rules = [
        (r"sha256:[0-9a-f]{64}", "sha256:[digest]"),
        (r"\b(ami|snap|vol|i|uuid|sim)-0[0-9a-f]{16}\b", "$1-[id]"),
        (r"\b[0-9]{8}T[0-9]{6}Z-[0-9a-f]{4}\b", "[run]"),
        (r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z", "[time]"),
        (r"process [0-9]+", "process [pid]"),
        (r"\(token [0-9a-f]{12}", "(token [token]"),
        (r"(/tmp|/var)/[^\s:]*\.tmp[A-Za-z0-9]+", "[project]"),
    ];
    rules.into_iter().fold(text.to_owned(), |text, (pattern, with)| {
        Regex::new(pattern).unwrap().replace_all(&text, with).into_owned()
    })
}

/// Where the tests apply plans.
pub(crate) fn target() -> Target {
    Target { profile: "sim".into(), fleet: "test".into(), account: "0".into(), region: "eu-central-1".into() }
}

/// Evaluates a script in a project directory.
pub(crate) fn evaluate(root: &Path, script: &str, params: &[(&str, &str)]) -> Result<Plan<Recorded>, String> {
    let inputs = Inputs {
        root: root.to_owned(),
        script: script.to_owned(),
        params: params
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Given::Text((*value).to_owned())))
            .collect(),
        target: target(),
        canonical: Vec::new(),
        primitives: None,
        budget: None,
        limits: Limits::default(),
        lock_files: BTreeMap::new(),
    };
    match script::evaluate(&inputs) {
        Ok(evaluation) => Ok(evaluation.plan),
        Err(failure) => {
            Err(failure.diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        }
    }
}

/// The simulator over a world in `root`.
pub(crate) fn simulator(root: &Path, settings: Settings) -> Providers {
    let model = Arc::new(ScriptModel::new(root.to_owned(), Limits::default()));
    sim::providers(root.to_owned(), root.join(".world"), sim::HOME_REGION.into(), model, settings).unwrap()
}
