//! Reading a module and initialising it. `init` runs when something it depends on changed, and only then: the module's files,
//! its lock file, the backend's settings, the program.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol_str::SmolStr;

use super::place::{Place, private_dir, unwritable};
use super::program::{Complaint, Complaints, Program};
use super::variables::backend_file;
use super::{TofuProcess, hint};
use crate::digest::sha256_hex;
use crate::providers::error::{ErrorKind, ProviderError};
use crate::providers::ports::{Answer, StackRequest};
use crate::providers::process::disk::blocking;
use crate::stack::module::{SourceFile, module_files};
use crate::stack::{Mask, Module};
use crate::units::Seconds;
use crate::value::{Map, Value};

const INIT: &str = "tofu init";

/// The file that pins the providers.
const LOCK_FILE: &str = ".terraform.lock.hcl";

/// What `init` was done for.
const STAMP: &str = "init";

/// The lock that everybody holds who uses a data directory, and that `init` holds alone.
const IN_USE: &str = "lock";

/// How often a lock that somebody holds is tried again.
const PATIENCE: Duration = Duration::from_millis(50);

/// A module that is initialised.
pub(super) struct Ready {
    pub(super) module: Module,
    /// A digest of its `.tf` files, those of the modules in the project that it calls, and their lock files.
    pub(super) source: String,
    /// Keeps others from initialising the data directory anew.
    pub(super) in_use: File,
}

/// The files of a module by path, its local children included.
fn sources(root: &Path, dir: &str) -> Answer<(Module, String)> {
    let failed = |path: &Path, error: &dyn std::fmt::Display| {
        ProviderError::permanent(INIT, format!("{}: {error}", path.display()))
            .help("name the directory of an OpenTofu module, like `tofu/fleet`")
    };
    let mut digests = Vec::new();
    let mut top = None;
    let mut waiting = vec![root.join(dir)];
    let mut seen = Vec::new();
    while let Some(dir) = waiting.pop() {
        let real = dir.canonicalize().map_err(|error| failed(&dir, &error))?;
        if seen.contains(&real) {
            continue;
        }
        let mut names: Vec<String> = fs::read_dir(&real)
            .and_then(|entries| {
                entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<Vec<_>, _>>()
            })
            .map_err(|error| failed(&dir, &error))?
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .collect();
        names.sort();
        let mut texts: Vec<(Arc<str>, String)> = Vec::new();
        for name in module_files(names.iter().map(String::as_str)).into_iter().chain([LOCK_FILE]) {
            let path = real.join(name);
            match fs::read_to_string(&path) {
                Ok(text) => {
                    digests.push(format!("{name} {}", sha256_hex(text.as_bytes())));
                    if name != LOCK_FILE {
                        texts.push((Arc::from(path.display().to_string()), text));
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&path, &error)),
            }
        }
        if texts.is_empty() {
            return Err(failed(&dir, &"there is no module: it holds no .tf file"));
        }
        let files: Vec<SourceFile<'_>> = texts.iter().map(|(path, text)| SourceFile { path, text }).collect();
        let module = Module::read(&files).map_err(|problems| failed(&dir, &problems[0]))?;
        waiting.extend(module.calls.iter().map(|call| real.join(call)));
        seen.push(real);
        top.get_or_insert(module);
    }
    let module = top.ok_or_else(|| failed(root, &"no module was read"))?;
    Ok((module, sha256_hex(digests.join("\n").as_bytes())))
}

/// Whether a lock is held beside others who use a directory, or alone by who changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    Shared,
    Alone,
}

/// Holds a lock on a directory of ours. It goes with the file.
///
/// # Errors
/// When others hold it for longer than a profile's patience.
pub(super) async fn lock(home: &Path, hold: Hold, patience: Seconds) -> Answer<File> {
    let path = home.join(IN_USE);
    let opened = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = opened.map_err(|error| unwritable(&path, &error))?;
    let until = Instant::now() + Duration::from_secs(patience.0);
    loop {
        let tried = match hold {
            Hold::Shared => file.try_lock_shared(),
            Hold::Alone => file.try_lock(),
        };
        match tried {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(unwritable(&path, &error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                let message = format!("another clawd uses {}", home.display());
                return Err(ProviderError::new(ErrorKind::Locked, INIT, message)
                    .help("wait until it is done, and run again; its lock goes with it"));
            }
            Err(TryLockError::WouldBlock) => tokio::time::sleep(PATIENCE).await,
        }
    }
}

impl TofuProcess {
    /// Reads a stack's module and initialises it where that is not done yet.
    pub(super) async fn ready(
        &self,
        program: &Program,
        place: &Place,
        request: &StackRequest,
    ) -> Answer<Ready> {
        let (root, dir) = (self.place.root.clone(), request.dir.clone());
        let (module, source) = blocking(move || sources(&root, &dir)).await??;
        let backend = self.backend(&module, request)?;
        let settings = sha256_hex(backend_file(&backend).as_bytes());
        // What is found through links counts as where it really is: the cache holds what `init` linked to.
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let (binary, cache) = (real(&program.path), real(&self.place.cache));
        let stamp_of = |source: &str| {
            let (binary, cache) = (binary.display(), cache.display());
            format!("{binary} {} {cache} {source} {settings}\n", program.stamp)
        };
        let stamp = stamp_of(&source);
        let stamp_file = place.common.join(STAMP);
        let is_done = || fs::read_to_string(&stamp_file).is_ok_and(|done| done == stamp);
        let patience = self.around.lock_timeout;
        let in_use = lock(&place.common, Hold::Shared, patience).await?;
        if is_done() {
            return Ok(Ready { module, source, in_use });
        }
        drop(in_use);
        // One at a time: the cache of providers is not made for two.
        let _turn = self.init.lock().await;
        let _cache = lock(&self.place.cache.join("tofu"), Hold::Alone, patience).await?;
        let mut source = source;
        {
            let _alone = lock(&place.common, Hold::Alone, patience).await?;
            if !is_done() {
                // An `init` that breaks off leaves who knows what: nothing is done until it has succeeded.
                unstamp(place)?;
                self.init(program, place, request, &backend).await?;
                // The first `init` of a module writes its lock file, which is a part of it from then on.
                let (root, dir) = (self.place.root.clone(), request.dir.clone());
                source = blocking(move || sources(&root, &dir)).await??.1;
                fs::write(&stamp_file, stamp_of(&source)).map_err(|error| unwritable(&stamp_file, &error))?;
            }
        }
        // Whoever comes in between did the same, or is told apart by what it stamped.
        let in_use = lock(&place.common, Hold::Shared, patience).await?;
        Ok(Ready { module, source, in_use })
    }

    /// The settings of a backend: the step's, and for a state in S3 the profile's where nobody says otherwise.
    pub(super) fn backend(&self, module: &Module, request: &StackRequest) -> Answer<Map> {
        let mut settings = request.backend.clone();
        let Some(backend) = &module.backend else { return Ok(settings) };
        if backend.kind == "s3" {
            for (name, value) in &self.around.backend {
                if settings.get(name).is_none() && !backend.settings.contains_key(name) {
                    let value = match value.as_str() {
                        "true" => Value::Bool(true),
                        "false" => Value::Bool(false),
                        text => Value::from(text),
                    };
                    settings.insert(SmolStr::new(name), value);
                }
            }
            if settings.get("key").is_none() && !backend.settings.contains_key("key") {
                let key = format!("{}/{}.tfstate", self.around.key_prefix, request.dir.trim_matches('/'));
                settings.insert("key", key.into());
            }
        }
        Ok(settings)
    }

    async fn init(
        &self,
        program: &Program,
        place: &Place,
        request: &StackRequest,
        backend: &Map,
    ) -> Answer<()> {
        program.version(&self.place.root, &self.place.environment).await?;
        let plugins = self.plugins();
        private_dir(&plugins).map_err(|error| unwritable(&plugins, &error))?;
        let file = place.common.join("backend.tfbackend");
        fs::write(&file, backend_file(backend)).map_err(|error| unwritable(&file, &error))?;
        let mut args = vec!["init".to_owned(), "-input=false".to_owned(), "-no-color".to_owned()];
        if place.module.join(LOCK_FILE).exists() {
            args.push("-lockfile=readonly".to_owned());
        }
        if !backend.is_empty() {
            args.push(format!("-backend-config={}", file.display()));
        }
        let mut set = self.variables(place, request);
        // `init` wants the workspace to be there, and a plan makes one that is not.
        set.retain(|(name, _)| name != "TF_WORKSPACE");
        let mut message = String::new();
        // Settings that changed want to be told twice; the same ones must not be, or it looks for a state to move.
        for more in [None, Some("-reconfigure")] {
            let args: Vec<&str> = args.iter().map(String::as_str).chain(more).collect();
            let said = program.tool(&place.module, &self.place.environment, &set).run(&args).await?;
            if said.status.success() {
                if more.is_some() {
                    tracing::warn!(
                        step = request.step,
                        "the backend of {} is another than the last time: what lies in the old state is not in this plan",
                        request.dir
                    );
                }
                return Ok(());
            }
            let text = if said.stderr.trim().is_empty() { &said.stdout } else { &said.stderr };
            message = Complaints(vec![Complaint::plain(text)]).text(&request.dir, &Mask::default());
            if !text.contains("Backend configuration changed") {
                break;
            }
        }
        let error = ProviderError::permanent(INIT, format!("{}: {message}", request.dir));
        Err(match hint(&message) {
            Some(help) => error.help(help),
            None => error,
        })
    }
}

/// Has the next run initialise a stack anew.
pub(super) fn unstamp(place: &Place) -> Answer<()> {
    let stamp_file = place.common.join(STAMP);
    match fs::remove_file(&stamp_file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unwritable(&stamp_file, &error)),
        _ => Ok(()),
    }
}

/// Where a module's state lies when its backend is a file.
pub(super) fn local_state(module: &Module, place: &Place, settings: &Map) -> Option<PathBuf> {
    let default = || place.module.join("terraform.tfstate");
    let Some(backend) = &module.backend else { return Some(default()) };
    if backend.kind != "local" {
        return None;
    }
    if let Some(path) = settings.get("path").and_then(Value::as_str) {
        return Some(place.module.join(path));
    }
    match backend.settings.get("path") {
        None => Some(default()),
        // One that is made up of something is nothing that can be known here.
        Some(written) => written.as_ref().map(|path| place.module.join(path)),
    }
}
