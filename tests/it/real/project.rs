//! A project whose plans go through real nix to moto: a flake that builds without network, a profile `moto`.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use regex_lite::Regex;

use super::{Moto, Proxy};
use crate::support::{Project, block, repository};

/// A flake without inputs whose images are made by `/bin/sh`.
const FLAKE: &str = include_str!("flake.nix");

/// A project with a fleet of its own, so that tests share one moto.
pub(crate) struct RealProject {
    pub(crate) project: Project,
    pub(crate) fleet: String,
}

impl RealProject {
    /// A project with the flake of the tests and the plan `plans/image.rhai` that comes with clawd.
    pub(crate) fn new() -> Self {
        need_nix();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let fleet = format!("fleet-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let project = Project::new();
        project.write(
            "clawd.toml",
            &format!(
                "fleet = \"{fleet}\"\n\n[profiles.moto]\nadapters = \"aws\"\naccount = \"123456789012\"\n\
                 region = \"eu-central-1\"\nendpoint = \"http://127.0.0.1:{}\"\ncredentials = \"test\"\nlock = \"file\"\n",
                Moto::port()
            ),
        );
        // The fleet's name makes an image of its own: what one test built, another must not find.
        project.write("flake.nix", &FLAKE.replace("@salt@", &fleet));
        let image = std::fs::read_to_string(repository().join("plans/image.rhai")).unwrap();
        project.write("plans/image.rhai", &image);
        Self { project, fleet }
    }

    /// Another image: 1 % of its blocks differ.
    pub(crate) fn change_image(&self, change: &str) {
        let flake = self.project.read("flake.nix").replace("change = \"", &format!("change = \"{change}"));
        self.project.write("flake.nix", &flake);
    }

    /// Another plan in the place of `plans/image.rhai`.
    pub(crate) fn plan(&self, script: &str) -> &Self {
        self.project.write("plans/image.rhai", script);
        self
    }

    /// A command with the environment that nix needs, against an endpoint.
    pub(crate) fn command(&self, endpoint: Option<&Proxy>, args: &[&str]) -> Command {
        let mut command = self.project.command(args);
        // Nix itself needs its store's client and git; tests run offline and as whoever they run.
        for name in ["PATH", "HOME", "USER", "XDG_CACHE_HOME"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("NIX_CONFIG", "sandbox = false\nsubstitute = false\nbuilders =");
        if let Some(proxy) = endpoint {
            command.env("AWS_ENDPOINT_URL", proxy.url());
        }
        command
    }

    pub(crate) fn run(&self, endpoint: Option<&Proxy>, args: &[&str]) -> Output {
        self.command(endpoint, args).output().unwrap()
    }

    /// Runs a command that must end with this exit code; returns its stdout.
    #[track_caller]
    pub(crate) fn expect(&self, exit: i32, endpoint: Option<&Proxy>, args: &[&str]) -> String {
        let output = self.run(endpoint, args);
        assert_eq!(output.status.code(), Some(exit), "{}", block(args, &output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A whole command as one block, without what differs from run to run.
    pub(crate) fn block(&self, endpoint: Option<&Proxy>, args: &[&str]) -> String {
        self.stable(&block(args, &self.run(endpoint, args)))
    }

    pub(crate) fn stable(&self, text: &str) -> String {
        let rules = [
            (r"/nix/store/[0-9a-z]{32}-", "/nix/store/[hash]-"),
            (r"(ami|snap|vol|i|import-snap)-[0-9a-f]{8,17}\b", "$1-[id]"),
            (r"content hash [0-9a-f]{12}", "content hash [hash]"),
            (r"clawdinator-[0-9a-f]{16}", "clawdinator-[hash]"),
            (r"(http://127\.0\.0\.1|https://ec2\.example\.org):[0-9]{5}", "$1:[port]"),
            (r", [0-9smh]+ old", ", [age] old"),
            (r"\b20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z", "[time]"),
            // How far an upload came, and which block failed first, is the scheduler's.
            (r"(?m)^[^ \n]+: [0-9]+ %: .*\n", ""),
            (r"\bblock [0-9]+ of", "block [n] of"),
        ];
        let text = text.replace(&self.fleet, "[fleet]");
        rules.into_iter().fold(text, |text, (pattern, with)| {
            Regex::new(pattern).unwrap().replace_all(&text, with).into_owned()
        })
    }

    /// How many AMIs and snapshots moto has of this fleet.
    pub(crate) fn made(&self) -> (usize, usize) {
        let proxy = Proxy::plain();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ec2, _) = adapters(&proxy.url(), self.project.path());
            let owned = ec2.owned(&self.fleet).await.unwrap();
            let count = |kind: &str| owned.iter().filter(|it| it.kind == kind).count();
            (count("ami"), count("snapshot"))
        })
    }
}

/// The AWS adapters over an endpoint on this machine.
pub(crate) fn adapters(
    endpoint: &str,
    dir: &Path,
) -> (std::sync::Arc<dyn clawd::providers::ports::Ec2>, std::sync::Arc<dyn clawd::providers::ports::Upload>) {
    let (ec2, upload, _) = clawd::providers::aws::adapters(clawd::providers::aws::Settings {
        profile: "moto".into(),
        account: "123456789012".into(),
        region: "eu-central-1".into(),
        endpoint: Some(endpoint.into()),
        test_credentials: true,
        puts_per_second: clawd::providers::aws::PUTS_PER_SECOND,
        answer_timeout: clawd::providers::aws::ANSWER_TIMEOUT,
        cache: dir.join("cache"),
    });
    (ec2, upload)
}

/// Nix is a part of these tests; without it they fail, they are not skipped.
pub(crate) fn need_nix() {
    let found = Command::new("nix").arg("--version").output().is_ok_and(|output| output.status.success());
    assert!(
        found,
        "nix is missing: install nix 2.8 or newer (Debian: apt-get install nix-bin), or run scripts/setup"
    );
}
