//! The program: finding it, what it may see, and what it says.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde::Deserialize;

use super::super::{Ending, Environment, Said, Tool, plain};
use crate::providers::error::{ErrorKind, ProviderError};
use crate::providers::ports::Answer;
use crate::stack::Mask;

/// The programs that are looked for when a plan names none.
const NAMES: [&str; 2] = ["tofu", "terraform"];

/// The oldest version whose plans are known; for both programs.
const OLDEST: (u32, u32) = (1, 8);

pub(super) const INSTALL: &str =
    "install OpenTofu 1.8 or newer (opentofu.org/docs/intro/install); terraform 1.8 or newer works as well";

/// An interrupt makes it finish what it has begun, write the state and unlock it; providers take their time. A second one
/// would make it give up, so there is none.
pub(super) const ENDING: Ending = Ending { signal: Signal::INT, alone: true, grace: Duration::from_secs(60) };

/// What it may see of the environment: where things are, how to reach servers, credentials of AWS, its own configuration
/// files. Not `TF_CLI_ARGS*`, `TF_VAR_*`, `TF_WORKSPACE` and the like, which would change what a plan means.
pub(super) const ALLOWED: [&str; 47] = [
    "ALL_PROXY",
    "AWS_ACCESS_KEY_ID",
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_MAX_ATTEMPTS",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_RETRY_MODE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SDK_LOAD_CONFIG",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "NO_PROXY",
    "PATH",
    "SSH_AUTH_SOCK",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TF_CLI_CONFIG_FILE",
    "TF_ENCRYPTION",
    "TF_PLUGIN_CACHE_DIR",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_CONFIG_HOME",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Variables that hold a token for a registry, one per host.
const TOKENS: &str = "TF_TOKEN_";

/// The program that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// `tofu` or `terraform`.
    pub(super) name: String,
    /// Where it is.
    pub(super) path: PathBuf,
    /// What tells it from another version of it: size and time of change.
    pub(super) stamp: String,
}

impl Program {
    /// Finds the program a plan wants, else the first that is there.
    pub(super) fn find(environment: &Environment, wanted: Option<&str>) -> Answer<Self> {
        let path = environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
        let dirs: Vec<PathBuf> = path.map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
        let names = wanted.map_or(&NAMES[..], |wanted| {
            NAMES.iter().position(|name| *name == wanted).map_or(&[], |at| &NAMES[at..=at])
        });
        for name in names {
            for dir in &dirs {
                if let Some(found) = Self::at(name, dir.join(name)) {
                    return Ok(found);
                }
            }
        }
        let name = wanted.unwrap_or("tofu");
        let message = match wanted {
            Some(name) => format!("there is no `{name}` on PATH"),
            None => "there is neither `tofu` nor `terraform` on PATH".to_owned(),
        };
        Err(ProviderError::permanent(name, message).help(INSTALL))
    }

    fn at(name: &str, path: PathBuf) -> Option<Self> {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let metadata = std::fs::metadata(&path).ok()?;
        let runs = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
        let stamp = format!("{}-{}-{}", metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        runs.then(|| Self { name: name.to_owned(), path, stamp })
    }

    /// The version, major and minor, once it is known to be new enough.
    pub(super) async fn version(&self, dir: &Path, environment: &Environment) -> Answer<(u32, u32)> {
        #[derive(Deserialize)]
        struct Version {
            terraform_version: String,
        }
        let failed = |message: String| ProviderError::permanent(&self.name, message).help(INSTALL);
        let set = calm();
        let said = self.tool(dir, environment, &set).run(&["version", "-json"]).await?;
        let version = serde_json::from_str::<Version>(document(&said.stdout))
            .map_err(|_| failed(format!("`{} version -json` does not say its version", self.path.display())))?
            .terraform_version;
        let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= OLDEST => Ok((major, minor)),
            _ => {
                let (major, minor) = OLDEST;
                Err(failed(format!(
                    "{} {version} is too old: clawd needs {major}.{minor} or newer",
                    self.name
                )))
            }
        }
    }

    /// The version since when it takes variables beside a plan. Sources: the change logs of OpenTofu 1.11 and Terraform 1.10.
    pub(super) fn takes_variables_with_a_plan(&self) -> (u32, u32) {
        if self.name == "terraform" { (1, 10) } else { (1, 11) }
    }

    /// A way to run it.
    pub(super) fn tool<'a>(
        &'a self,
        dir: &'a Path,
        environment: &'a Environment,
        set: &'a [(String, OsString)],
    ) -> Tool<'a> {
        let program = self.path.to_str().unwrap_or(&self.name);
        Tool { program, dir, environment, allowed: &ALLOWED, set, install: INSTALL, ending: ENDING }
    }
}

/// Variables that keep it from asking questions and from calling home.
pub(super) fn calm() -> Vec<(String, OsString)> {
    [("CHECKPOINT_DISABLE", "1"), ("TF_IN_AUTOMATION", "1"), ("TF_INPUT", "0")]
        .map(|(name, value)| (name.to_owned(), value.into()))
        .to_vec()
}

/// The environment's tokens for registries.
pub(super) fn tokens(environment: &Environment) -> impl Iterator<Item = (String, OsString)> {
    environment.iter().filter_map(|(name, value)| {
        let name = name.to_str().filter(|name| name.starts_with(TOKENS))?;
        Some((name.to_owned(), value.clone()))
    })
}

/// The JSON document in what it printed. A warning about its own configuration may stand before it.
pub(super) fn document(stdout: &str) -> &str {
    let mut start = 0;
    for line in stdout.split_inclusive('\n') {
        if line.starts_with(['{', '[']) {
            return &stdout[start..];
        }
        start += line.len();
    }
    ""
}

/// One line of what it says with `-json`.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    #[serde(rename = "@message", default)]
    pub(super) message: String,
    #[serde(rename = "type", default)]
    pub(super) kind: String,
    diagnostic: Option<Complaint>,
}

/// One problem that it found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Complaint {
    severity: String,
    pub(super) summary: String,
    #[serde(default)]
    pub(super) detail: String,
    address: Option<String>,
    range: Option<Place>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Place {
    filename: String,
    start: Start,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Start {
    line: u32,
}

impl Event {
    /// Reads a line; `None` for what is no event.
    pub(super) fn read(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// The warning that it tells, in one line.
    pub(super) fn warning(&self, dir: &str, mask: &Mask) -> Option<String> {
        let complaint = self.diagnostic.as_ref().filter(|complaint| complaint.severity == "warning")?;
        Some(complaint.text(dir, mask).split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// The error that it tells.
    pub(super) fn error(self) -> Option<Complaint> {
        self.diagnostic.filter(|complaint| complaint.severity == "error")
    }
}

/// What it warns of in a stream of events, each once and in one line.
pub(super) fn warnings(stdout: &str, dir: &str, mask: &Mask) -> Vec<String> {
    let mut found = Vec::new();
    for event in stdout.lines().filter_map(Event::read) {
        if let Some(told) = event.warning(dir, mask).filter(|told| !found.contains(told)) {
            found.push(told);
        }
    }
    found
}

/// Everything that went wrong, as it said it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Complaints(pub(super) Vec<Complaint>);

impl Complaints {
    /// What a run with `-json` said; what it said besides counts when there is nothing else.
    pub(super) fn of(said: &Said) -> Self {
        let found: Vec<Complaint> =
            said.stdout.lines().filter_map(Event::read).filter_map(Event::error).collect();
        if found.is_empty() { Self(vec![Complaint::plain(&said.stderr)]) } else { Self(found) }
    }

    /// The problem with a summary that begins so.
    pub(super) fn find(&self, summary: &str) -> Option<&Complaint> {
        self.0.iter().find(|complaint| complaint.summary.starts_with(summary))
    }

    /// All of them as one text, without secrets. `dir` is the module's directory.
    pub(super) fn text(&self, dir: &str, mask: &Mask) -> String {
        self.0.iter().map(|complaint| complaint.text(dir, mask)).collect::<Vec<_>>().join("\n")
    }
}

impl Complaint {
    /// What it said without `-json`, without frames and colours.
    pub(super) fn plain(text: &str) -> Self {
        let text = plain(text);
        let lines: Vec<&str> = text
            .lines()
            .map(|line| line.trim_matches(|c: char| c.is_whitespace() || "╷│╵|".contains(c)))
            .filter(|line| !line.is_empty())
            .collect();
        let joined = lines.join("\n");
        let said = joined.trim_start_matches("Error:").trim().to_owned();
        let summary = if said.is_empty() { "it ended without saying why".to_owned() } else { said };
        Self { severity: "error".to_owned(), summary, detail: String::new(), address: None, range: None }
    }

    fn text(&self, dir: &str, mask: &Mask) -> String {
        // Before anything is taken out or put together, and again: what is hidden must be found as it was said.
        let told = |said: &str| mask.redact(&plain(&mask.redact(said)));
        let mut text = told(&self.summary);
        if let Some(place) = &self.range {
            text.push_str(&format!(" ({dir}/{}:{})", place.filename, place.start.line));
        }
        if let Some(address) = &self.address {
            text.push_str(&format!(" in {}", told(address)));
        }
        let detail = told(&self.detail);
        if !detail.trim().is_empty() {
            text.push_str(": ");
            text.push_str(detail.trim());
        }
        text
    }
}

/// Who holds a state's lock, as the message says it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) id: String,
    who: String,
    operation: String,
    created: String,
}

impl Held {
    /// Reads it from the message about a lock that could not be had.
    pub(super) fn read(complaints: &Complaints) -> Option<Self> {
        let complaint = complaints.find("Error acquiring the state lock")?;
        // Without `-json` all of it is one text.
        let said = format!("{}\n{}", complaint.summary, complaint.detail);
        let field = |name: &str| {
            let lines = said.lines().filter_map(|line| line.trim().split_once(':'));
            let mut values = lines.filter(|(known, _)| *known == name).map(|(_, value)| plain(value.trim()));
            values.next().unwrap_or_default()
        };
        Some(Self {
            id: field("ID"),
            who: field("Who"),
            operation: field("Operation"),
            created: field("Created"),
        })
    }

    /// Who holds it and since when. `now` is in seconds since the epoch.
    fn describe(&self, now: i64) -> String {
        let who = if self.who.is_empty() { "somebody" } else { &self.who };
        let doing = self.operation.trim_start_matches("OperationType").to_lowercase();
        // `2026-11-25 20:05:42.60373252 +0000 UTC`
        let created = self.created.get(..19).and_then(|text| text.parse::<jiff::civil::DateTime>().ok());
        let since = created
            .and_then(|at| at.to_zoned(jiff::tz::TimeZone::UTC).ok())
            .map(|at| at.timestamp().as_second());
        let age = match since {
            Some(since) => format!(" for {}", crate::units::Seconds(u64::try_from(now - since).unwrap_or(0))),
            None => String::new(),
        };
        let doing = if doing.is_empty() { String::new() } else { format!(", for {doing}") };
        let lock = if self.id.is_empty() { String::new() } else { format!(" (lock {})", self.id) };
        format!("{who} holds it{age}{doing}{lock}")
    }

    /// The refusal. `unlock` is the command that takes the lock away, where there is one.
    pub(super) fn refusal(
        &self,
        operation: &str,
        stack: &str,
        now: i64,
        unlock: Option<&str>,
    ) -> ProviderError {
        let message = format!("the state of {stack} is locked: {}", self.describe(now));
        let error = ProviderError::new(ErrorKind::Locked, operation, message);
        match unlock {
            Some(unlock) => {
                error.help(format!("wait until it is done; when its holder is gone for certain: {unlock}"))
            }
            None => error.help("wait until it is done; the lock of a state in a file goes with its process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_told_with_holder_and_age() {
        let line = r#"{"@level":"error","@message":"Error: Error acquiring the state lock","diagnostic":{"severity":"error","summary":"Error acquiring the state lock","detail":"Error message: resource temporarily unavailable\nLock Info:\n  ID:        701e77e1-0f62\n  Path:      terraform.tfstate\n  Operation: OperationTypeApply\n  Who:       root@vm\n  Version:   1.12.6\n  Created:   2026-11-25 20:05:42.60373252 +0000 UTC\n  Info:      \n"},"type":"diagnostic"}"#;
        let complaints = Complaints(vec![Event::read(line).and_then(Event::error).expect("an error")]);
        let held = Held::read(&complaints).expect("a lock");
        let told = held.refusal("tofu apply", "tofu/x", 1_795_637_262, Some("tofu force-unlock X"));
        assert_eq!(
            told.message,
            "the state of tofu/x is locked: root@vm holds it for 2m, for apply (lock 701e77e1-0f62)"
        );
        assert_eq!(told.kind, ErrorKind::Locked);
    }

    #[test]
    fn a_warning_before_a_document_is_none_of_it() {
        assert_eq!(document("\nWarning: Unable to open\n\n{\n \"a\": 1\n}\n"), "{\n \"a\": 1\n}\n");
        assert_eq!(document("\n"), "");
    }

    #[test]
    fn frames_and_colours_are_no_message() {
        let said = "\u{1b}[31m╷\u{1b}[0m\n\u{1b}[31m│\u{1b}[0m Error: Invalid thing\n│ \n│ It is wrong.\n╵\n";
        assert_eq!(Complaint::plain(said).summary, "Invalid thing\nIt is wrong.");
    }
}
