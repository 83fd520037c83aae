//! `clawd.toml`: the fleet's name, the profiles, the limits. A project without one rehearses in the simulator.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::plan::{Budget, Target};
use crate::primitives::Port;
use crate::providers::sim::{Faults, Settings};
use crate::script::Limits;

/// The file's name; it marks the project's root.
pub(super) const FILE: &str = "clawd.toml";

/// Steps at once, when the profile does not say.
const PARALLELISM: usize = 32;

/// The account of a simulated world, in the form of one that cannot exist.
const SIM_ACCOUNT: &str = "000000000000";
const SIM_REGION: &str = "eu-central-1";

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The name everything we create is tagged with.
    #[serde(default = "default_fleet")]
    pub(super) fleet: String,
    /// The profile that is used when none is named.
    #[serde(default = "default_profile")]
    profile: String,
    #[serde(default)]
    profiles: BTreeMap<String, ProfileConfig>,
    #[serde(default)]
    pub(super) limits: Limits,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileConfig {
    adapters: String,
    account: Option<String>,
    region: Option<String>,
    primitives: Option<Vec<String>>,
    budget: Option<Budget>,
    parallelism: Option<usize>,
    #[serde(default)]
    concurrency: Concurrency,
    #[serde(default)]
    faults: FaultsConfig,
    #[serde(default)]
    time_scale: f64,
}

/// Steps at once per port.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Concurrency {
    nix: Option<usize>,
    ec2: Option<usize>,
    tofu: Option<usize>,
    hosts: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultsConfig {
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    rate: f64,
}

fn default_fleet() -> String {
    "demo".to_owned()
}

fn default_profile() -> String {
    "sim".to_owned()
}

impl Default for Config {
    fn default() -> Self {
        Self {
            fleet: default_fleet(),
            profile: default_profile(),
            profiles: BTreeMap::new(),
            limits: Limits::default(),
        }
    }
}

/// A profile, checked.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    pub(super) target: Target,
    pub(super) primitives: Option<Vec<String>>,
    pub(super) budget: Option<Budget>,
    pub(super) parallelism: usize,
    pub(super) per_port: BTreeMap<Port, usize>,
    pub(super) sim: Settings,
}

fn invalid(message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(Code::Config, message)
}

impl Config {
    /// Reads the project's file; the default when there is none.
    pub(super) fn load(root: &Path) -> Result<Self, Diagnostic> {
        let path = root.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(invalid(format!("cannot read {}: {error}", path.display()))),
        };
        let config: Self = toml::from_str(&text).map_err(|error| {
            let line =
                error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            invalid(format!("{FILE}:{line}: {}", error.message().trim()))
        })?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if config.fleet.is_empty() || config.fleet.len() > 64 || !config.fleet.chars().all(plain) {
            return Err(invalid(format!(
                "{FILE}: the fleet's name `{}` is not usable as a tag",
                config.fleet
            ))
            .help("1 to 64 letters, digits, `-`, `_`, `.`"));
        }
        Ok(config)
    }

    /// The named profile, or the default one.
    pub(super) fn profile(&self, name: Option<&str>) -> Result<Profile, Diagnostic> {
        let name = name.unwrap_or(&self.profile);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || !name.chars().all(plain) {
            return Err(invalid(format!("`{}` is not a profile's name", name.escape_debug())));
        }
        match self.profiles.get(name) {
            Some(profile) => profile.checked(name, &self.fleet),
            None if name == "sim" => ProfileConfig::simulator().checked(name, &self.fleet),
            None => {
                let known = || self.profiles.keys().map(String::as_str).chain(["sim"]);
                let help = match nearest(name, known()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("{FILE} has: {}", known().collect::<Vec<_>>().join(", ")),
                };
                Err(invalid(format!("there is no profile `{name}`")).help(help))
            }
        }
    }
}

impl ProfileConfig {
    /// The embedded default.
    fn simulator() -> Self {
        Self {
            adapters: "sim".to_owned(),
            account: None,
            region: None,
            primitives: None,
            budget: None,
            parallelism: None,
            concurrency: Concurrency::default(),
            faults: FaultsConfig::default(),
            time_scale: 0.0,
        }
    }

    fn checked(&self, name: &str, fleet: &str) -> Result<Profile, Diagnostic> {
        let wrong = |message: String| invalid(format!("{FILE}: profile `{name}`: {message}"));
        if self.adapters != "sim" {
            return Err(wrong(format!("this clawd has no adapters `{}`", self.adapters)).help("it has: sim"));
        }
        if !(0.0..=1.0).contains(&self.faults.rate) {
            return Err(wrong(format!(
                "`faults.rate` is {}, a share from 0 to 1 is expected",
                self.faults.rate
            )));
        }
        if !(0.0..=10.0).contains(&self.time_scale) {
            return Err(wrong(format!(
                "`time_scale` is {}, 0 to 10 real seconds per virtual one are expected",
                self.time_scale
            )));
        }
        let registry = crate::primitives::Registry::all();
        if let Some(unknown) = self.primitives.iter().flatten().find(|name| registry.get(name).is_none()) {
            let help = nearest(unknown, registry.names())
                .map_or_else(String::new, |near| format!("did you mean `{near}`?"));
            return Err(wrong(format!("there is no primitive `{unknown}`")).help(help));
        }
        if let Some(budget) = &self.budget {
            budget.check_globs().map_err(|error| wrong(error.to_string()))?;
        }
        let Concurrency { nix, ec2, tofu, hosts } = self.concurrency;
        let per_port: BTreeMap<Port, usize> =
            [(Port::Nix, nix), (Port::Ec2, ec2), (Port::Tofu, tofu), (Port::Hosts, hosts)]
                .into_iter()
                .filter_map(|(port, most)| most.map(|most| (port, most)))
                .collect();
        if self.parallelism == Some(0) || per_port.values().any(|most| *most == 0) {
            return Err(wrong("`parallelism` and `concurrency` are at least 1".to_owned()));
        }
        Ok(Profile {
            target: Target {
                profile: name.to_owned(),
                fleet: fleet.to_owned(),
                account: self.account.clone().unwrap_or_else(|| SIM_ACCOUNT.to_owned()),
                region: self.region.clone().unwrap_or_else(|| SIM_REGION.to_owned()),
            },
            primitives: self.primitives.clone(),
            budget: self.budget.clone(),
            parallelism: self.parallelism.unwrap_or(PARALLELISM),
            per_port,
            sim: Settings {
                faults: Faults { seed: self.faults.seed, rate: self.faults.rate },
                time_scale: self.time_scale,
            },
        })
    }
}
