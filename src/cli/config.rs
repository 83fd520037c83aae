//! `clawd.toml`: the fleet's name, the profiles, the limits. A project without one rehearses in the simulator.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;
use std::path::Path;

use serde::Deserialize;

use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::memory::MemoryPath;
use crate::memory::class::CONFLICTS;
use crate::plan::{Budget, Target};
use crate::primitives::Port;
use crate::providers::sim::{self, Faults, Settings};
use crate::script::Limits;
use crate::units::Seconds;

/// The file's name; it marks the project's root.
pub(super) const FILE: &str = "clawd.toml";

/// Steps at once, when the profile does not say.
const PARALLELISM: usize = 32;

/// The account and region of a profile without a cloud.
const NOWHERE: &str = "local";

/// The bucket that holds the states of a profile's stacks, when it names none. Fleets of one account and region share it.
fn default_state_bucket(account: &str, region: &str) -> String {
    format!("clawd-state-{account}-{region}")
}

/// Whether S3 takes the name, and takes it over TLS, where a name with dots matches no certificate.
fn is_bucket_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    // Names that S3 keeps for itself.
    let kept = ["xn--", "sthree-", "amzn-s3-demo-"].iter().any(|start| name.starts_with(start))
        || ["-s3alias", "--ol-s3", "--x-s3", "--table-s3"].iter().any(|end| name.ends_with(end));
    let edges = !name.starts_with('-') && !name.ends_with('-');
    (3..=63).contains(&name.len()) && name.bytes().all(inner) && edges && !kept
}

/// Why a file cannot be canonical, if it cannot. Each host's role gets a right to write it, so that the name must not hold what a
/// policy would read as a wildcard or a variable, and must not be that of a file which one host writes alone. `canonical_files` of
/// `tofu/fleet` has the same rules.
fn not_canonical(path: &MemoryPath) -> Option<&'static str> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let plain = |name: &str| !name.starts_with(['.', '-']) && name.bytes().all(inner);
    if !path.names().all(plain) {
        Some("its names have letters, digits, `.`, `_` and `-`, and begin with a letter, a digit or `_`")
    } else if path.names().next() == Some(CONFLICTS) {
        Some("what is set aside in a conflict belongs to one host")
    } else if begins_with_day(path.name()) {
        Some("a daily note belongs to one host")
    } else {
        None
    }
}

/// Whether a name begins like that of a daily note, `YYYY-MM-DD_`.
fn begins_with_day(name: &str) -> bool {
    name.len() > 10
        && name.bytes().take(11).enumerate().all(|(index, byte)| match index {
            4 | 7 => byte == b'-',
            10 => byte == b'_',
            _ => byte.is_ascii_digit(),
        })
}

/// The account of a simulated world, in the form of one that cannot exist.
const SIM_ACCOUNT: &str = "000000000000";

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
    #[serde(default)]
    pub(super) memory: MemoryConfig,
}

/// The shared memory of the fleet.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemoryConfig {
    /// Canonical files besides those of every memory.
    #[serde(default)]
    pub(super) canonical: Vec<String>,
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
    faults: Option<FaultsConfig>,
    time_scale: Option<f64>,
    endpoint: Option<String>,
    credentials: Option<Credentials>,
    lock: Option<String>,
    snapshot_puts_per_second: Option<NonZeroU32>,
    answer_timeout: Option<String>,
    lock_timeout: Option<String>,
    state_bucket: Option<String>,
    hosts: Option<String>,
}

/// Where credentials come from, when not from the standard chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Credentials {
    /// Credentials that are none, for test servers on this machine.
    Test,
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
            memory: MemoryConfig::default(),
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
    pub(super) adapters: Adapters,
    /// How long OpenTofu waits for the lock of a state, when not as long as by default.
    pub(super) lock_timeout: Option<Seconds>,
}

/// The adapters of a profile.
#[derive(Debug, Clone)]
pub(super) enum Adapters {
    /// The simulator.
    Sim(Settings),
    /// AWS, and the programs of this machine.
    Aws(Aws),
    /// The programs of this machine, and no cloud.
    Local,
}

/// What the AWS adapters are told beside account and region.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "aws"), allow(dead_code))] // such a profile is refused, and nobody reads it
pub(super) struct Aws {
    /// Another endpoint than AWS's own; `AWS_ENDPOINT_URL` wins over it.
    pub(super) endpoint: Option<String>,
    /// Test credentials instead of the standard chain.
    pub(super) test_credentials: bool,
    /// Puts of blocks per second, when the account has another quota than the default.
    pub(super) puts_per_second: Option<NonZeroU32>,
    /// How long a server may say nothing, when not as long as by default.
    pub(super) answer_timeout: Option<Seconds>,
    /// The bucket of the states of stacks.
    pub(super) state_bucket: String,
    /// Whether this machine stands for the hosts, with disk images for their volumes.
    pub(super) local_hosts: bool,
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
        for name in &config.memory.canonical {
            let wrong = |message: String| {
                invalid(format!("{FILE}: [memory] canonical: {message}"))
                    .help("paths are relative to the memory, like `decisions.md`")
            };
            let path = name.parse::<MemoryPath>().map_err(|error| wrong(error.to_string()))?;
            if let Some(why) = not_canonical(&path) {
                return Err(wrong(format!("`{}` cannot be canonical: {why}", name.escape_debug())));
            }
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
            faults: None,
            time_scale: None,
            endpoint: None,
            credentials: None,
            lock: None,
            snapshot_puts_per_second: None,
            answer_timeout: None,
            lock_timeout: None,
            state_bucket: None,
            hosts: None,
        }
    }

    fn checked(&self, name: &str, fleet: &str) -> Result<Profile, Diagnostic> {
        let wrong = |message: String| invalid(format!("{FILE}: profile `{name}`: {message}"));
        let adapters = match self.adapters.as_str() {
            "sim" => Adapters::Sim(self.simulated().map_err(|error| error.into_diagnostic(&wrong))?),
            "aws" => Adapters::Aws(self.real().map_err(|error| error.into_diagnostic(&wrong))?),
            "local" => {
                self.without_cloud().map_err(|error| error.into_diagnostic(&wrong))?;
                Adapters::Local
            }
            other => {
                return Err(
                    wrong(format!("this clawd has no adapters `{other}`")).help("it has: sim, aws, local")
                );
            }
        };
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
                account: self.account.clone().unwrap_or_else(|| match adapters {
                    Adapters::Local => NOWHERE.to_owned(),
                    Adapters::Sim(_) | Adapters::Aws(_) => SIM_ACCOUNT.to_owned(),
                }),
                region: self.region.clone().unwrap_or_else(|| match adapters {
                    Adapters::Local => NOWHERE.to_owned(),
                    Adapters::Sim(_) | Adapters::Aws(_) => sim::HOME_REGION.to_owned(),
                }),
            },
            primitives: self.primitives.clone(),
            budget: self.budget.clone(),
            parallelism: self.parallelism.unwrap_or(PARALLELISM),
            per_port,
            adapters,
            lock_timeout: Self::seconds("lock_timeout", self.lock_timeout.as_deref())
                .map_err(|error| error.into_diagnostic(&wrong))?,
        })
    }

    /// A duration that a key gives.
    fn seconds(key: &str, text: Option<&str>) -> Result<Option<Seconds>, Wrong> {
        let read = text.map(str::parse::<Seconds>).transpose();
        read.map_err(|error| Wrong::new(format!("`{key}`: {error}"), "\"30s\" is the default"))
    }

    /// A profile that touches no cloud takes no settings of one.
    fn without_cloud(&self) -> Result<(), Wrong> {
        for (key, given) in [
            ("account", self.account.is_some()),
            ("region", self.region.is_some()),
            ("endpoint", self.endpoint.is_some()),
            ("credentials", self.credentials.is_some()),
            ("snapshot_puts_per_second", self.snapshot_puts_per_second.is_some()),
            ("answer_timeout", self.answer_timeout.is_some()),
            ("state_bucket", self.state_bucket.is_some()),
            ("hosts", self.hosts.is_some()),
            ("faults", self.faults.is_some()),
            ("time_scale", self.time_scale.is_some()),
        ] {
            if given {
                return Err(Wrong::new(
                    format!("`{key}` means nothing to the adapters `local`"),
                    "remove it, or choose `adapters = \"aws\"` or `adapters = \"sim\"`",
                ));
            }
        }
        self.check_lock(false)
    }

    /// The simulator's settings.
    fn simulated(&self) -> Result<Settings, Wrong> {
        for (key, given) in [
            ("endpoint", self.endpoint.is_some()),
            ("credentials", self.credentials.is_some()),
            ("snapshot_puts_per_second", self.snapshot_puts_per_second.is_some()),
            ("answer_timeout", self.answer_timeout.is_some()),
            ("state_bucket", self.state_bucket.is_some()),
            ("hosts", self.hosts.is_some()),
            ("lock_timeout", self.lock_timeout.is_some()),
        ] {
            if given {
                return Err(Wrong::new(
                    format!("`{key}` is for the adapters `aws`"),
                    "remove it, or set `adapters = \"aws\"`",
                ));
            }
        }
        let faults = self.faults.unwrap_or_default();
        if !(0.0..=1.0).contains(&faults.rate) {
            return Err(Wrong::new(
                format!("`faults.rate` is {}, a share from 0 to 1 is expected", faults.rate),
                "0.05 fails one call in twenty",
            ));
        }
        let time_scale = self.time_scale.unwrap_or_default();
        if !(0.0..=10.0).contains(&time_scale) {
            return Err(Wrong::new(
                format!("`time_scale` is {time_scale}, 0 to 10 real seconds per virtual one are expected"),
                "0 waits for nothing",
            ));
        }
        self.check_lock(false)?;
        Ok(Settings { faults: Faults { seed: faults.seed, rate: faults.rate }, time_scale })
    }

    /// The settings of a profile that touches a real account.
    fn real(&self) -> Result<Aws, Wrong> {
        if !cfg!(feature = "aws") {
            return Err(Wrong::new(
                "this clawd was built without the adapters `aws`".to_owned(),
                "build it with its default features: cargo build --release",
            ));
        }
        if self.faults.is_some() || self.time_scale.is_some() {
            return Err(Wrong::new(
                "`faults` and `time_scale` are for the simulator".to_owned(),
                "remove them, or set `adapters = \"sim\"`",
            ));
        }
        let account = self.account.as_deref().unwrap_or_default();
        if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Wrong::new(
                format!(
                    "`account` is `{}`, the 12 digits of an AWS account are expected",
                    account.escape_debug()
                ),
                "a profile pins its account, so that other credentials cannot reach another one by mistake",
            ));
        }
        let region = self.region.as_deref().unwrap_or_default();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if region.is_empty() || !region.chars().all(plain) {
            return Err(Wrong::new(
                format!("`region` is `{}`, a region like `eu-central-1` is expected", region.escape_debug()),
                "a profile pins its region",
            ));
        }
        self.check_lock(true)?;
        let answer_timeout = Self::seconds("answer_timeout", self.answer_timeout.as_deref())?;
        if answer_timeout == Some(Seconds(0)) {
            let message = "`answer_timeout` is 0, no server answers that fast".to_owned();
            return Err(Wrong::new(message, "leave it out for 30s"));
        }
        Ok(Aws {
            endpoint: self.endpoint.clone(),
            test_credentials: self.credentials == Some(Credentials::Test),
            puts_per_second: self.snapshot_puts_per_second,
            answer_timeout,
            state_bucket: self.state_bucket(account, region)?,
            local_hosts: self.local_hosts()?,
        })
    }

    /// Whether this machine stands for the hosts. Beside a real account that would mark volumes as formatted that were not: what is
    /// made then are images on this machine.
    fn local_hosts(&self) -> Result<bool, Wrong> {
        match self.hosts.as_deref() {
            None => Ok(false),
            Some("local") if self.credentials == Some(Credentials::Test) => Ok(true),
            Some("local") => Err(Wrong::new(
                "`hosts = \"local\"` takes disk images on this machine for volumes, which is for test servers only".to_owned(),
                "set `credentials = \"test\"` with an endpoint on this machine, or remove `hosts`",
            )),
            Some(other) => Err(Wrong::new(
                format!("`hosts` is `{}`, this clawd has: local", other.escape_debug()),
                "remove it, or set `hosts = \"local\"` beside a test server",
            )),
        }
    }

    /// The bucket of the states of stacks, as it is named or by default.
    fn state_bucket(&self, account: &str, region: &str) -> Result<String, Wrong> {
        match &self.state_bucket {
            None => Ok(default_state_bucket(account, region)),
            Some(name) if is_bucket_name(name) => Ok(name.clone()),
            Some(name) => Err(Wrong::new(
                format!("`state_bucket` is `{}`, S3 takes no such name", name.escape_debug()),
                "3 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends",
            )),
        }
    }

    /// Two machines that apply at once must not believe in a lock of one of them by accident.
    fn check_lock(&self, needed: bool) -> Result<(), Wrong> {
        match self.lock.as_deref() {
            Some("file") => Ok(()),
            None if !needed => Ok(()),
            None => Err(Wrong::new(
                "a profile of a real account must name its lock".to_owned(),
                "`lock = \"file\"` holds on this machine only: it is right where one machine applies",
            )),
            Some(other) => Err(Wrong::new(
                format!("`lock` is `{}`, this clawd has: file", other.escape_debug()),
                "`lock = \"file\"` holds on this machine only",
            )),
        }
    }
}

/// What is wrong with a profile, before its name is put in front.
struct Wrong {
    message: String,
    help: String,
}

impl Wrong {
    fn new(message: String, help: impl Into<String>) -> Self {
        Self { message, help: help.into() }
    }

    fn into_diagnostic(self, place: &impl Fn(String) -> Diagnostic) -> Diagnostic {
        place(self.message).help(self.help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_files_are_those_that_a_policy_can_name() {
        let reason = |text: &str| not_canonical(&text.parse().expect("a path of the memory"));
        for text in [
            "goals.md",
            "teams/_a/b-1.md",
            "0",
            "2026-11-26.md",
            "2026-1-26_x.md",
            "x_2026-11-26_y",
            "a/conflicts",
        ] {
            assert_eq!(reason(text), None, "{text}");
        }
        for text in [
            "*",
            "a?.md",
            "${aws:username}.md",
            "a b.md",
            "\u{e4}.md",
            ".hidden",
            "-a",
            "a/.b",
            "a/-b",
            "a,b",
        ] {
            assert!(reason(text).is_some_and(|why| why.starts_with("its names have letters")), "{text}");
        }
        for text in ["2026-11-26_H-1.md", "a/2026-11-26_", "conflicts", "conflicts/H-1/goals.md"] {
            assert!(reason(text).is_some_and(|why| why.ends_with("belongs to one host")), "{text}");
        }
    }

    #[test]
    fn names_of_buckets_are_those_that_s3_takes() {
        let longest = "b".repeat(63);
        for name in ["abc", "0-9", &default_state_bucket("123456789012", "ap-southeast-2"), &longest] {
            assert!(is_bucket_name(name), "{name}");
        }
        let longer = "b".repeat(64);
        for name in
            ["", "ab", &longer, "-abc", "abc-", "a.b.c", "Abc", "a_b", "xn--abc", "sthree-abc", "abc-s3alias"]
        {
            assert!(!is_bucket_name(name), "{name}");
        }
    }
}
