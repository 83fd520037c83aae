//! Nix 2.8 and newer as a subprocess: evaluates before it builds, and builds exactly the derivation that was evaluated.
//!
//! Never writes a lock file, never runs a build while planning. Substituters and remote builders are nix's own business:
//! its configuration, `NIX_CONFIG` and what they need of the environment are passed through. What was built is kept from the
//! garbage collector by a root beside the cache.

use std::fs;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::builders::{Builder, hindrance, remote_builders};
use super::disk::{self, blocking};
use super::flake::{Metadata, refuse_unpinned, taken_apart};
use super::progress::{BuildLog, name};
use super::{Said, Tool, Workplace, plain};
use crate::diagnostic::nearest;
use crate::image::info::architecture;
use crate::providers::error::{ErrorKind, ProviderError};
use crate::providers::ports::{Answer, BuiltImage, Derivation, ImageSource, Nix, NixRead, Watch, Work};

/// How to get nix.
const INSTALL: &str = "install nix 2.8 or newer; Debian has it as `nix-bin`, others at nixos.org/download";

/// The oldest nix whose output is known.
const OLDEST: (u32, u32) = (2, 8);

/// The first nix that says `nix config show` for `nix show-config`.
const CONFIG_SHOW: (u32, u32) = (2, 20);

/// What nix may see of the environment: where things are, how to reach other machines and caches, its own configuration.
const ALLOWED: [&str; 32] = [
    "ALL_PROXY",
    "AWS_ACCESS_KEY_ID",
    "AWS_CONFIG_FILE",
    "AWS_PROFILE",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "NIX_CONFIG",
    "NIX_CONF_DIR",
    "NIX_REMOTE",
    "NIX_SSHOPTS",
    "NIX_SSL_CERT_FILE",
    "NIX_STATE_DIR",
    "NIX_STORE_DIR",
    "NIX_USER_CONF_FILES",
    "NO_PROXY",
    "PATH",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "TMPDIR",
    "USER",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Flags of the new command line, which is still behind a switch.
const NEW_CLI: [&str; 2] = ["--extra-experimental-features", "nix-command flakes"];

/// Never let an evaluation change what a flake is pinned to. (With `--no-write-lock-file` beside it, nix 2.8 would lock
/// inputs anew in memory and go on.)
const LOCKED: [&str; 1] = ["--no-update-lock-file"];

/// The most lines of nix's own message that an error quotes.
const QUOTED: usize = 30;

/// Nix on this machine.
pub(crate) struct NixProcess {
    place: Workplace,
    version: OnceCell<(u32, u32)>,
}

/// What the evaluation yields.
#[derive(Debug, Deserialize)]
struct Evaluated {
    drv: String,
    out: String,
    system: Option<String>,
    #[serde(default)]
    features: Vec<String>,
}

/// Nix's own message: without control sequences, its prefix and what is no more than noise.
fn message(said: &Said) -> String {
    let text = plain(&said.stderr);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| {
            !line.starts_with("warning:") && !line.starts_with("(use '--show-trace'") && !line.is_empty()
        })
        .collect();
    let kept = &lines[lines.len().saturating_sub(QUOTED)..];
    kept.join("\n").trim_start_matches("error:").trim().to_owned()
}

/// An error of nix. Nix has tried downloads again by itself before it gives up.
fn failed(operation: &str, message: String) -> ProviderError {
    let signs = [
        (
            "No space left on device",
            "free space on the disk of the nix store, `nix-collect-garbage` does, and run again",
        ),
        (
            "'build-users-group'",
            "nix run by root builds as members of that group: make it, or write `build-users-group =` into /etc/nix/nix.conf to \
             build as root",
        ),
    ];
    let help = signs.iter().find(|(sign, _)| message.contains(sign)).map(|(_, help)| *help);
    let error = ProviderError::permanent(operation, message);
    match help {
        Some(help) => error.help(help),
        None => error,
    }
}

/// Whether a build failed for want of a download: a later try may have more luck, and goes on with what was built.
fn is_network(message: &str) -> bool {
    let signs = ["unable to download", "Couldn't resolve host", "Could not resolve host", "timed out"];
    signs.iter().any(|sign| message.contains(sign))
}

impl NixProcess {
    pub(crate) fn new(place: Workplace) -> Self {
        Self { place, version: OnceCell::new() }
    }

    fn tool<'a>(&'a self, program: &'a str) -> Tool<'a> {
        Tool {
            program,
            dir: &self.place.root,
            environment: &self.place.environment,
            allowed: &ALLOWED,
            set: &[],
            install: INSTALL,
            ending: super::AT_ONCE,
        }
    }

    /// The version, once it is known to be new enough.
    async fn version(&self) -> Answer<(u32, u32)> {
        self.version
            .get_or_try_init(|| async {
                let said = self.tool("nix").run(&["--version"]).await?;
                // `nix (Nix) 2.8.0`, `nix (Determinate Nix 3.1) 2.28.1`.
                let text = said.stdout.trim().to_owned();
                let number = text.rsplit(' ').next().unwrap_or_default();
                let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
                let found = match (parts.next(), parts.next()) {
                    (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
                    _ => {
                        let message = format!("`nix --version` says `{}`, which is no version", plain(&text));
                        return Err(ProviderError::permanent("nix", message));
                    }
                };
                if found < OLDEST {
                    let (major, minor) = OLDEST;
                    let message = format!("nix {number} is too old: clawd needs {major}.{minor} or newer");
                    return Err(ProviderError::permanent("nix", message).help("upgrade nix on this machine"));
                }
                Ok(found)
            })
            .await
            .copied()
    }

    /// Runs a command of the new command line that prints JSON.
    async fn nix(&self, args: &[&str]) -> Answer<Result<String, Said>> {
        self.version().await?;
        let args: Vec<&str> = NEW_CLI.iter().chain(args).copied().collect();
        let said = self.tool("nix").run(&args).await?;
        Ok(if said.status.success() { Ok(said.stdout) } else { Err(said) })
    }

    async fn metadata(&self, flake: &str) -> Answer<Metadata> {
        const OPERATION: &str = "nix flake metadata";
        let args: Vec<&str> =
            ["flake", "metadata", "--json"].into_iter().chain(LOCKED).chain([flake]).collect();
        let text = match self.nix(&args).await? {
            Ok(text) => text,
            Err(said) => {
                let message = message(&said);
                if message.contains("lock file") || self.lacks_lock_file(flake) {
                    return Err(ProviderError::permanent(OPERATION, format!("{flake} is not locked: {message}"))
                        .help("run `nix flake lock` there and commit flake.lock: an image must not depend on the day"));
                }
                return Err(failed(OPERATION, message));
            }
        };
        let metadata: Metadata = serde_json::from_str(&text).map_err(|error| {
            ProviderError::permanent(OPERATION, format!("what it says of {flake} cannot be read: {error}"))
        })?;
        if !metadata.original.is_local() && !metadata.original.is_pinned() {
            let pin = metadata.revision.as_deref().unwrap_or("REVISION");
            let message = format!("{flake} is not pinned: it means another tree tomorrow");
            return Err(ProviderError::permanent(OPERATION, message).help(format!(
                "name a revision, such as {}/{pin}, or make it an input of the project's own flake",
                flake.trim_end_matches('/')
            )));
        }
        Ok(metadata)
    }

    /// Whether a flake on this machine has no lock file. Nix fetches what is not locked before it complains, so where that
    /// fails its own message tells of the network.
    fn lacks_lock_file(&self, flake: &str) -> bool {
        let path = ["path:", "git+file://", "git+file:"]
            .iter()
            .find_map(|prefix| flake.strip_prefix(prefix))
            .unwrap_or(flake);
        let dir = self.place.root.join(path.split('?').next().unwrap_or(path));
        dir.join("flake.nix").is_file() && !dir.join("flake.lock").is_file()
    }

    async fn evaluate(&self, source: &ImageSource<'_>) -> Answer<Evaluated> {
        const OPERATION: &str = "nix eval";
        let apply = taken_apart(source);
        let args: Vec<&str> = ["eval", "--json", "--system", source.system]
            .into_iter()
            .chain(LOCKED)
            .chain([source.flake, "--apply", apply.as_str()])
            .collect();
        match self.nix(&args).await? {
            Ok(text) => serde_json::from_str(&text).map_err(|error| {
                ProviderError::permanent(
                    OPERATION,
                    format!("what {} is cannot be read: {error}", source.flake),
                )
            }),
            Err(said) => {
                let message = message(&said);
                if message.contains("does not provide attribute") {
                    return Err(self.unknown_attribute(source).await);
                }
                Err(failed(OPERATION, format!("{}: {message}", source.flake)))
            }
        }
    }

    /// Says which attributes there are instead.
    async fn unknown_attribute(&self, source: &ImageSource<'_>) -> ProviderError {
        let (flake, attribute) = source.flake.split_once('#').unwrap_or((source.flake, ""));
        let mut known: Vec<String> = Vec::new();
        let sets = [format!("packages.{}", source.system), "nixosConfigurations".to_owned()];
        for set in &sets {
            let place = format!("{flake}#{set}");
            let args: Vec<&str> = ["eval", "--json"]
                .into_iter()
                .chain(LOCKED)
                .chain([place.as_str(), "--apply", "builtins.attrNames"])
                .collect();
            // A flake need not have the set; then there is nothing to list.
            let Ok(Ok(text)) = self.nix(&args).await else { continue };
            let names: Vec<String> = serde_json::from_str(&text).unwrap_or_default();
            let prefix = if set == "nixosConfigurations" { "nixosConfigurations." } else { "" };
            known.extend(names.into_iter().map(|name| format!("{prefix}{name}")));
        }
        let all = if known.is_empty() {
            "it has no packages".to_owned()
        } else {
            format!("it has: {}", known.join(", "))
        };
        let help = match nearest(attribute, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{flake}#{near}`? {all}"),
            None => all,
        };
        let message = format!("{flake} has no attribute `{attribute}` for {}", source.system);
        ProviderError::permanent("nix eval", message).help(help)
    }

    /// Whether the store holds a path, whole.
    async fn is_valid(&self, path: &str) -> Answer<bool> {
        self.version().await?;
        let said = self.tool("nix-store").run(&["--check-validity", "--print-invalid", path]).await?;
        if said.status.success() {
            return Ok(said.stdout.trim().is_empty());
        }
        Err(failed("nix-store --check-validity", message(&said)))
    }

    fn cache_file(&self, store_path: &str) -> PathBuf {
        let file = Path::new(store_path).file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.place.cache.join("images").join(file + ".json")
    }

    /// What is in an output. Hashing takes seconds and a store path never changes, so the answer is kept.
    async fn inspect(&self, store_path: &str) -> Answer<BuiltImage> {
        let kept = self.cache_file(store_path);
        let output = PathBuf::from(store_path);
        blocking(move || {
            let known: Option<BuiltImage> =
                fs::read(&kept).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let still_there =
                |image: &BuiltImage| fs::metadata(&image.path).is_ok_and(|it| it.len() == image.size.0);
            if let Some(image) = known.filter(still_there) {
                return Ok(image);
            }
            let image = disk::inspect(&output)?;
            // A cache that cannot be written costs time only.
            if let (Some(dir), Ok(json)) = (kept.parent(), serde_json::to_vec(&image)) {
                let fresh = kept.with_extension(format!("{}.new", std::process::id()));
                let _ = fs::create_dir_all(dir)
                    .and_then(|()| fs::write(&fresh, json))
                    .and_then(|()| fs::rename(&fresh, &kept));
            }
            Ok(image)
        })
        .await?
    }

    /// Why no builder takes the derivation, where none does.
    async fn hindrance(&self, derivation: &Derivation, system: &str) -> Answer<Option<String>> {
        const OPERATION: &str = "nix show-config";
        let words: &[&str] =
            if self.version().await? < CONFIG_SHOW { &["show-config"] } else { &["config", "show"] };
        let args: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        let text = self.nix(&args).await?.map_err(|said| failed(OPERATION, message(&said)))?;
        let config: serde_json::Value = serde_json::from_str(&text)
            .map_err(|error| ProviderError::permanent(OPERATION, format!("is not JSON: {error}")))?;
        let value = |key: &str| &config[key]["value"];
        let list =
            |key: &str| -> Vec<String> { serde_json::from_value(value(key).clone()).unwrap_or_default() };
        let mut systems = list("extra-platforms");
        systems.extend(value("system").as_str().map(str::to_owned));
        let mut builders =
            vec![Builder { name: "this machine".to_owned(), systems, features: list("system-features") }];
        builders.extend(remote_builders(value("builders").as_str().unwrap_or_default()));
        Ok(hindrance(&derivation.features, system, &builders))
    }
}

/// What `nix-store --realise --dry-run` announces: derivations to build and paths to fetch.
fn announced(text: &str) -> (Vec<&str>, u64) {
    let (mut build, mut fetch, mut in_fetch) = (Vec::new(), 0, false);
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("  /nix/").map(|_| line.trim()) {
            if in_fetch {
                fetch += 1;
            } else {
                build.push(path);
            }
        } else {
            in_fetch = line.contains("will be fetched") || line.contains("will be copied");
        }
    }
    (build, fetch)
}

#[async_trait]
impl NixRead for NixProcess {
    async fn derivation(&self, source: &ImageSource<'_>) -> Answer<Derivation> {
        let Some((flake, attribute)) =
            source.flake.split_once('#').filter(|(_, attribute)| !attribute.is_empty())
        else {
            return Err(ProviderError::permanent(
                "nix eval",
                format!("`{}` names no attribute", source.flake),
            )
            .help("name the image's attribute, like `.#clawdinator-image`"));
        };
        if flake.starts_with('-') || attribute.starts_with('-') {
            let message = format!("`{}` is not a flake reference", source.flake);
            return Err(
                ProviderError::permanent("nix eval", message).help("write one like `.#clawdinator-image`")
            );
        }
        refuse_unpinned(flake)?;
        let metadata = self.metadata(if flake.is_empty() { "." } else { flake }).await?;
        let Evaluated { drv, out, system, features } = self.evaluate(source).await?;
        let system = system.unwrap_or_else(|| source.system.to_owned());
        let architecture = architecture(&system).ok_or_else(|| {
            let message = format!("{} is for {system}, which EC2 has no machines for", source.flake);
            ProviderError::permanent("nix eval", message)
                .help("x86_64-linux and aarch64-linux are systems of EC2")
        })?;
        let dirty = metadata.is_dirty();
        Ok(Derivation {
            drv_path: drv,
            store_path: out,
            architecture: architecture.to_owned(),
            revision: metadata.revision.filter(|_| !dirty),
            dirty,
            features,
        })
    }

    async fn built(&self, derivation: &Derivation) -> Answer<Option<BuiltImage>> {
        if self.is_valid(&derivation.store_path).await? {
            return self.inspect(&derivation.store_path).await.map(Some);
        }
        Ok(None)
    }

    async fn work(&self, derivation: &Derivation) -> Answer<Work> {
        let said = self.tool("nix-store").run(&["--realise", "--dry-run", &derivation.drv_path]).await?;
        if !said.status.success() {
            return Err(failed("nix-store --realise --dry-run", message(&said)));
        }
        let text = plain(&said.stderr);
        let (build, fetch) = announced(&text);
        let system = if derivation.architecture == "arm64" { "aarch64-linux" } else { "x86_64-linux" };
        let hindrance = if build.contains(&derivation.drv_path.as_str()) {
            self.hindrance(derivation, system).await?
        } else {
            None
        };
        Ok(Work { build: build.len() as u64, fetch, hindrance })
    }
}

#[async_trait]
impl Nix for NixProcess {
    async fn realise(&self, derivation: &Derivation, watch: &dyn Watch) -> Answer<BuiltImage> {
        const OPERATION: &str = "nix build";
        self.version().await?;
        let roots = self.place.cache.join("roots");
        fs::create_dir_all(&roots).map_err(|error| {
            ProviderError::permanent(OPERATION, format!("cannot make {}: {error}", roots.display()))
        })?;
        let root = roots.join(name(&derivation.store_path)).to_string_lossy().into_owned();
        let mut log = BuildLog::default();
        let args = [
            "--realise",
            derivation.drv_path.as_str(),
            "--add-root",
            root.as_str(),
            "--indirect",
            "--log-format",
            "internal-json",
            "-v",
        ];
        let status = self
            .tool("nix-store")
            .follow(&args, |line| {
                if let Some(told) = log.line(line) {
                    watch.progress(&told);
                }
            })
            .await?;
        if !status.success() {
            let mut error = failed(OPERATION, log.failure());
            if is_network(&error.message) {
                error.kind = ErrorKind::Transient;
            }
            return Err(match error.help {
                Some(_) => error,
                None => error.help(format!(
                    "`nix log {}` has the whole log, where the build got that far",
                    derivation.drv_path
                )),
            });
        }
        if !self.is_valid(&derivation.store_path).await? {
            let message = format!(
                "nix built {}, and {} is not in the store",
                derivation.drv_path, derivation.store_path
            );
            return Err(ProviderError::permanent(OPERATION, message).help("plan again"));
        }
        watch.progress(&format!("hashing {}", derivation.store_path));
        self.inspect(&derivation.store_path).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dry_run_announces_is_counted() {
        let text = "these 2 derivations will be built:\n  /nix/store/a.drv\n  /nix/store/b.drv\nthese 1 paths will be fetched (1 MiB):\n  /nix/store/c\n";
        assert_eq!(announced(text), (vec!["/nix/store/a.drv", "/nix/store/b.drv"], 1));
        assert_eq!(announced("warning: nothing"), (vec![], 0));
    }
}
