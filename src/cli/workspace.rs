//! The project a command works in: its root, its profile, its state under `.clawd/`, and the providers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::{self, Adapters, Aws, Config, Profile};
use super::exit::Failed;
use super::signals::Signals;
use super::terminal::Terminal;
use crate::diagnostic::{Code, Diagnostic};
use crate::digest::sha256_hex;
use crate::exec;
use crate::plan::{Decided, Plan};
use crate::primitives::Port;
use crate::providers::absent::{Absent, NoCloud};
#[cfg(feature = "aws")]
use crate::providers::aws;
#[cfg(feature = "aws")]
use crate::providers::ports::Hosts;
use crate::providers::ports::Tofu;
use crate::providers::process::{self, Surroundings, Workplace};
use crate::providers::{Providers, sim};
use crate::script::{self, Evaluation, Given, Inputs, ScriptModel, Sources};
#[cfg(feature = "aws")]
use crate::units::Seconds;
use crate::value::{Map, Value};

/// The directory of clawd's own state.
const STATE: &str = ".clawd";

/// Files that decide what a plan means although no script reads them.
const LOCK_FILES: [&str; 2] = ["flake.lock", ".terraform.lock.hcl"];

/// Arguments of every command that evaluates a plan.
#[derive(Debug, clap::Args)]
pub(super) struct PlanArgs {
    /// The plan script, like plans/spawn.rhai.
    #[arg(value_name = "PLAN")]
    pub(super) script: PathBuf,
    /// Set a parameter of the plan; may be given more than once.
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub(super) params: Vec<String>,
    /// Set parameters from a TOML or JSON file.
    #[arg(long = "params", value_name = "FILE")]
    pub(super) params_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) profile: ProfileArgs,
}

/// The choice of a profile.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ProfileArgs {
    /// The profile of clawd.toml to use; the file's default, else the simulator.
    #[arg(long, value_name = "NAME")]
    pub(super) profile: Option<String>,
}

/// A project with a chosen profile.
#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) root: PathBuf,
    pub(super) config: Config,
    pub(super) profile: Profile,
}

/// Whether an endpoint is on this machine.
#[cfg(feature = "aws")]
fn is_loopback(endpoint: &str) -> bool {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // What stands before an @ is a user's name, not the host.
    if authority.contains('@') {
        return false;
    }
    let host = match authority.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Stacks that are planned at once for each core: much of a plan is waiting for providers.
const STACKS_PER_CORE: usize = 2;

/// The settings of a state in the profile's bucket.
#[cfg(feature = "aws")]
fn s3_backend(bucket: &str, region: &str, is_test_server: bool) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::from([
        ("bucket".to_owned(), bucket.to_owned()),
        ("region".to_owned(), region.to_owned()),
        ("use_lockfile".to_owned(), "true".to_owned()),
        // No `encrypt`: it would ask for AES256, and the bucket may have a key of its own.
    ]);
    if is_test_server {
        // A test server has no host name per bucket, and nobody to ask about credentials.
        for name in [
            "use_path_style",
            "skip_credentials_validation",
            "skip_requesting_account_id",
            "skip_region_validation",
        ] {
            settings.insert(name.to_owned(), "true".to_owned());
        }
    }
    settings
}

fn usage(message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(Code::Usage, message)
}

/// The nearest directory upwards that holds a `clawd.toml`.
fn marked_root(from: &Path) -> Option<PathBuf> {
    from.ancestors().find(|dir| dir.join(config::FILE).is_file()).map(Path::to_path_buf)
}

fn current_dir() -> Result<PathBuf, Diagnostic> {
    std::env::current_dir().and_then(|dir| dir.canonicalize()).map_err(|error| {
        Diagnostic::error(Code::StateUnwritable, format!("there is no current directory: {error}"))
    })
}

impl Workspace {
    /// The project around the current directory.
    pub(super) fn here(profile: &ProfileArgs) -> Result<Self, Diagnostic> {
        let current = current_dir()?;
        let root = marked_root(&current).unwrap_or(current);
        Self::at(root, profile)
    }

    fn at(root: PathBuf, profile: &ProfileArgs) -> Result<Self, Diagnostic> {
        let config = Config::load(&root)?;
        let profile = config.profile(profile.profile.as_deref())?;
        Ok(Self { root, config, profile })
    }

    /// The project of a script, and the script's path in it.
    pub(super) fn of_script(script: &Path, profile: &ProfileArgs) -> Result<(Self, String), Diagnostic> {
        let current = current_dir()?;
        let missing = |error: std::io::Error| {
            Diagnostic::error(Code::ScriptMissing, format!("cannot read {}: {error}", script.display()))
                .help("name a plan script, like plans/spawn.rhai")
        };
        // The directory is made canonical, the file is not: a link that leaves the project is refused later.
        let absolute = current.join(script);
        let dir = absolute.parent().unwrap_or(&current).canonicalize().map_err(missing)?;
        let file = absolute.file_name().ok_or_else(|| missing(std::io::ErrorKind::InvalidInput.into()))?;
        let root = marked_root(&dir)
            .unwrap_or_else(|| if dir.starts_with(&current) { current.clone() } else { dir.clone() });
        let inside = dir.join(file);
        let name = inside.strip_prefix(&root).unwrap_or(&inside).to_string_lossy().into_owned();
        Ok((Self::at(root, profile)?, name))
    }

    /// The profile's state directory.
    pub(super) fn state(&self) -> PathBuf {
        self.root.join(STATE).join(&self.profile.target.profile)
    }

    /// The directory of the locks. Profiles share it, because two of them may name one account and fleet.
    pub(super) fn locks(&self) -> PathBuf {
        self.root.join(STATE).join("locks")
    }

    /// The directory of the profile's runs.
    pub(super) fn runs(&self) -> PathBuf {
        self.state().join("runs")
    }

    /// Makes the state directory; `.clawd/` ignores itself in git.
    pub(super) fn ensure_state(&self) -> Result<(), Diagnostic> {
        let unwritable = |path: &Path, error: &std::io::Error| {
            Diagnostic::error(Code::StateUnwritable, format!("cannot write {}: {error}", path.display()))
                .help("clawd keeps journals and locks there; make the project's directory writable")
        };
        let state = self.state();
        fs::create_dir_all(&state).map_err(|error| unwritable(&state, &error))?;
        let ignore = self.root.join(STATE).join(".gitignore");
        if !ignore.exists() {
            fs::write(&ignore, "*\n").map_err(|error| unwritable(&ignore, &error))?;
        }
        Ok(())
    }

    /// The adapters of the profile.
    pub(super) fn providers(&self) -> Result<Providers, Diagnostic> {
        match &self.profile.adapters {
            Adapters::Sim(settings) => {
                let model = Arc::new(ScriptModel::new(self.root.clone(), self.config.limits));
                let home = self.profile.target.region.clone();
                sim::providers(self.root.clone(), self.state().join("world"), home, model, *settings).map_err(
                    |error| {
                        let mut diagnostic = Diagnostic::error(Code::PlanRead, error.to_string());
                        diagnostic.help = error.help;
                        diagnostic
                    },
                )
            }
            Adapters::Aws(aws) => self.real_providers(aws),
            Adapters::Local => self.local_providers(),
        }
    }

    /// Where the programs of this machine work. What they find out is kept under `.clawd/`, also while planning.
    fn workplace(&self) -> Result<Workplace, Diagnostic> {
        self.ensure_state()?;
        let environment = std::env::vars_os().collect();
        Ok(Workplace { root: self.root.clone(), cache: self.cache(), environment })
    }

    /// The directory of what can be computed again.
    fn cache(&self) -> PathBuf {
        self.state().join("cache")
    }

    /// OpenTofu as the profile surrounds it.
    fn tofu(&self, place: &Workplace, around: Surroundings) -> Arc<dyn Tofu> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let at_once = self.profile.per_port.get(&Port::Tofu).copied().unwrap_or(cores * STACKS_PER_CORE);
        let key_prefix = self.profile.target.fleet.clone();
        let lock_timeout = self.profile.lock_timeout.unwrap_or(around.lock_timeout);
        process::tofu(place.clone(), Surroundings { at_once, key_prefix, lock_timeout, ..around })
    }

    /// The programs of this machine, and no cloud.
    fn local_providers(&self) -> Result<Providers, Diagnostic> {
        let place = self.workplace()?;
        let around = Surroundings::new(process::secrets(place.clone()));
        Ok(Providers {
            tofu: self.tofu(&place, around),
            nix: process::nix(place),
            ec2: Arc::new(NoCloud),
            upload: Arc::new(NoCloud),
            hosts: Arc::new(Absent),
            clock: process::clock(),
        })
    }

    #[cfg(not(feature = "aws"))]
    fn real_providers(&self, _: &Aws) -> Result<Providers, Diagnostic> {
        unreachable!("a profile with these adapters is refused when it is read")
    }

    /// Where and as whom AWS is called.
    #[cfg(feature = "aws")]
    pub(super) fn aws_settings(&self, settings: &Aws) -> Result<aws::Settings, Diagnostic> {
        let endpoint =
            std::env::var("AWS_ENDPOINT_URL").ok().filter(|it| !it.is_empty()).or(settings.endpoint.clone());
        if settings.test_credentials && !endpoint.as_deref().is_some_and(is_loopback) {
            let message = format!(
                "profile `{}` has `credentials = \"test\"` and its endpoint is {}",
                self.profile.target.profile,
                endpoint.as_deref().unwrap_or("AWS itself")
            );
            return Err(Diagnostic::error(Code::Config, message)
                .help("test credentials are for a server on this machine, like http://127.0.0.1:5000"));
        }
        let target = &self.profile.target;
        Ok(aws::Settings {
            profile: target.profile.clone(),
            account: target.account.clone(),
            region: target.region.clone(),
            endpoint,
            test_credentials: settings.test_credentials,
            puts_per_second: settings.puts_per_second.unwrap_or(aws::PUTS_PER_SECOND),
            answer_timeout: settings.answer_timeout.map_or(aws::ANSWER_TIMEOUT, Seconds::duration),
            cache: self.cache(),
        })
    }

    /// AWS, and the programs of this machine.
    #[cfg(feature = "aws")]
    fn real_providers(&self, settings: &Aws) -> Result<Providers, Diagnostic> {
        let place = self.workplace()?;
        let called = self.aws_settings(settings)?;
        let mut around = Surroundings::new(process::secrets(place.clone()));
        around.variables.push(("AWS_REGION".to_owned(), called.region.clone().into()));
        if let Some(endpoint) = &called.endpoint {
            around.variables.push(("AWS_ENDPOINT_URL".to_owned(), endpoint.into()));
        }
        if settings.test_credentials {
            for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
                around.variables.push((name.to_owned(), "test".into()));
            }
        }
        let hosts: Arc<dyn Hosts> = match settings.local_hosts {
            true => self.local_hosts(&place, &around)?,
            false => Arc::new(Absent),
        };
        around.backend = s3_backend(&settings.state_bucket, &called.region, called.endpoint.is_some());
        let (ec2, upload, identity) = aws::adapters(called);
        around.identity = Some(identity);
        Ok(Providers {
            tofu: self.tofu(&place, around),
            nix: process::nix(place),
            ec2,
            upload,
            hosts,
            clock: process::clock(),
        })
    }

    /// This machine in the place of the hosts, with what their commands see of the test server.
    #[cfg(feature = "aws")]
    fn local_hosts(&self, place: &Workplace, around: &Surroundings) -> Result<Arc<dyn Hosts>, Diagnostic> {
        let clawd = std::env::current_exe().map_err(|error| {
            Diagnostic::error(Code::StateUnwritable, format!("clawd does not know where it lies: {error}"))
        })?;
        Ok(process::hosts(place.clone(), clawd, self.state().join("hosts"), around.variables.clone()))
    }

    fn lock_files(&self) -> BTreeMap<String, String> {
        LOCK_FILES
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), sha256_hex(&fs::read(self.root.join(name)).ok()?))))
            .collect()
    }

    /// Evaluates a script of this project.
    pub(super) fn evaluate(
        &self,
        script: &str,
        params: BTreeMap<String, Given>,
    ) -> Result<Evaluation, Box<script::Failure>> {
        script::evaluate(&Inputs {
            root: self.root.clone(),
            script: script.to_owned(),
            params,
            target: self.profile.target.clone(),
            canonical: self.config.memory.canonical.clone(),
            primitives: self.profile.primitives.clone(),
            budget: self.profile.budget.clone(),
            limits: self.config.limits,
            lock_files: self.lock_files(),
        })
    }
}

impl PlanArgs {
    /// The parameters as they were given; the command line wins over the file.
    pub(super) fn params(&self) -> Result<BTreeMap<String, Given>, Diagnostic> {
        let mut given = match &self.params_file {
            Some(path) => read_params(path)?,
            None => BTreeMap::new(),
        };
        let mut named = BTreeSet::new();
        for param in &self.params {
            let (name, value) =
                param.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
                    usage(format!("`--param {}` is not NAME=VALUE", param.escape_debug()))
                        .help("write --param count=3")
                })?;
            if !named.insert(name) {
                return Err(usage(format!("`--param {name}` is given twice")));
            }
            given.insert(name.to_owned(), Given::Text(value.to_owned()));
        }
        Ok(given)
    }
}

fn read_params(path: &Path) -> Result<BTreeMap<String, Given>, Diagnostic> {
    let wrong = |message: String| {
        Diagnostic::error(Code::ScriptBadParam, format!("{}: {message}", path.display()))
            .help("a parameter file is a TOML table or a JSON object of parameters")
    };
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let json: serde_json::Value = if path.extension().is_some_and(|extension| extension == "json") {
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?
    } else {
        let table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| wrong(error.message().to_owned()))?;
        serde_json::to_value(table).map_err(|error| wrong(error.to_string()))?
    };
    let map: Map = match Value::try_from(json).map_err(|error| wrong(error.to_string()))? {
        Value::Map(map) => map,
        other => return Err(wrong(format!("it holds a {}", other.kind()))),
    };
    Ok(map.into_iter().map(|(name, value)| (name.to_string(), Given::Value(value))).collect())
}

/// A plan that was made, with what it was made from.
pub(super) struct Made {
    pub(super) workspace: Workspace,
    pub(super) providers: Providers,
    pub(super) plan: Plan<Decided>,
    pub(super) sources: Sources,
}

impl Made {
    /// Leaves a plan whose process ends here: taking a large one apart would only cost time. What the providers put on the
    /// disk goes.
    pub(super) fn leave(self) {
        std::mem::forget((self.plan, self.sources));
    }
}

/// The executor's runtime. One thread drives all steps; adapters bring their own where they need more.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Diagnostic> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Diagnostic::error(Code::StateUnwritable, format!("the runtime cannot start: {error}"))
    })
}

/// Evaluates and decides; prints what the script printed and warned of.
pub(super) fn make_plan(
    args: &PlanArgs,
    terminal: &Terminal,
    runtime: &tokio::runtime::Runtime,
) -> Result<Made, Box<Failed>> {
    let (workspace, script) = Workspace::of_script(&args.script, &args.profile)?;
    let evaluated = workspace.evaluate(&script, args.params()?);
    let (prints, sources) = match &evaluated {
        Ok(evaluation) => (&evaluation.prints, &evaluation.sources),
        Err(failure) => (&failure.prints, &failure.sources),
    };
    for line in prints {
        terminal.note(&format!("print: {line}"));
    }
    let sources = sources.clone();
    let evaluation = match evaluated {
        Ok(evaluation) => evaluation,
        Err(failure) => {
            return Err(Box::new(Failed { diagnostics: failure.diagnostics, sources }));
        }
    };
    terminal.diagnostics(&evaluation.warnings, &sources);
    let providers = workspace.providers()?;
    // What runs meanwhile is told to end, and takes what it has written with it: it may have been given secrets.
    let planned = runtime.block_on(async {
        // Without a handler Ctrl-C ends the process at once, which is as good as it gets then.
        let Ok(mut signals) = Signals::new() else {
            return Some(exec::decide(evaluation.plan, &providers).await);
        };
        tokio::select! {
            plan = exec::decide(evaluation.plan, &providers) => Some(plan),
            _ = signals.next() => None,
        }
    });
    let Some(plan) = planned else {
        let message = "interrupted while planning; nothing was done";
        let diagnostics = vec![Diagnostic::error(Code::RunInterrupted, message)];
        return Err(Box::new(Failed { diagnostics, sources }));
    };
    Ok(Made { workspace, providers, plan, sources })
}
