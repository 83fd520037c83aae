//! Reading a module and initialising it. `init` runs when something it depends on changed, and only then: the module's files,
//! its lock file, the backend's settings, the program.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use smol_str::SmolStr;

use super::place::{Place, private_dir, unwritable};
use super::program::{Complaint, Complaints, Program, calm};
use super::variables::backend_file;
use super::{TofuProcess, hint};
use crate::plan::digest::sha256_hex;
use crate::providers::error::ProviderError;
use crate::providers::ports::{Answer, StackRequest};
use crate::providers::process::disk::blocking;
use crate::stack::Module;
use crate::stack::module::{SourceFile, module_files};
use crate::value::{Map, Value};

const INIT: &str = "tofu init";

/// The file that pins the providers.
const LOCK_FILE: &str = ".terraform.lock.hcl";

/// What `init` was done for.
const STAMP: &str = "init";

/// The lock that everybody holds who uses a data directory, and that `init` holds alone.
const IN_USE: &str = "lock";

/// A module that is initialised.
pub(super) struct Ready {
    pub(super) module: Module,
    /// A digest of all files that decide what it means.
    pub(super) source: String,
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

/// Holds a lock on a data directory: shared by those who use it, alone for who changes it.
fn lock(home: &Path, alone: bool) -> Answer<File> {
    let path = home.join(IN_USE);
    let locked = || {
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        if alone {
            file.lock()?;
        } else {
            file.lock_shared()?;
        }
        Ok(file)
    };
    locked().map_err(|error| unwritable(&path, &error))
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
        let stamp_of =
            |source: &str| format!("{} {} {source} {settings}\n", program.path.display(), program.stamp);
        let stamp = stamp_of(&source);
        let stamp_file = place.home.join(STAMP);
        let is_done = || fs::read_to_string(&stamp_file).is_ok_and(|done| done == stamp);
        if !is_done() {
            // One at a time: the cache of providers is not made for two.
            let _turn = self.init.lock().await;
            let (tofu_home, home) = (self.place.cache.join("tofu"), place.home.clone());
            let _cache = blocking(move || lock(&tofu_home, true)).await??;
            let _alone = blocking(move || lock(&home, true)).await??;
            if !is_done() {
                self.init(program, place, request, &backend).await?;
                // The first `init` of a module writes its lock file, which is a part of it from then on.
                let (root, dir) = (self.place.root.clone(), request.dir.clone());
                let (_, source_now) = blocking(move || sources(&root, &dir)).await??;
                let stamp = stamp_of(&source_now);
                fs::write(&stamp_file, &stamp).map_err(|error| unwritable(&stamp_file, &error))?;
                return Ok(Ready { module, source: source_now });
            }
        }
        Ok(Ready { module, source })
    }

    /// The settings of a backend: the step's, and for a state in S3 the profile's where nobody says otherwise.
    pub(super) fn backend(&self, module: &Module, request: &StackRequest) -> Answer<Map> {
        let mut settings = request.backend.clone();
        let Some(backend) = &module.backend else { return Ok(settings) };
        if backend.kind == "s3" {
            for (name, value) in &self.around.backend {
                if settings.get(name).is_none() && !backend.settings.contains(name) {
                    let value = match value.as_str() {
                        "true" => Value::Bool(true),
                        "false" => Value::Bool(false),
                        text => Value::from(text),
                    };
                    settings.insert(SmolStr::new(name), value);
                }
            }
            if settings.get("key").is_none() && !backend.settings.contains("key") {
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
        let file = place.home.join("backend.tfbackend");
        fs::write(&file, backend_file(backend)).map_err(|error| unwritable(&file, &error))?;
        let mut args = vec!["init".to_owned(), "-input=false".to_owned(), "-no-color".to_owned()];
        if place.module.join(LOCK_FILE).exists() {
            args.push("-lockfile=readonly".to_owned());
        }
        if !backend.is_empty() {
            args.push(format!("-backend-config={}", file.display()));
        }
        args.push("-reconfigure".to_owned());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut set = self.variables(place, request);
        set.extend(calm());
        let said = program.tool(&place.module, &self.place.environment, &set).run(&args).await?;
        if said.status.success() {
            return Ok(());
        }
        let text = if said.stderr.trim().is_empty() { &said.stdout } else { &said.stderr };
        let message = Complaints(vec![Complaint::plain(text)]).text(&request.dir);
        let error = ProviderError::permanent(INIT, format!("{}: {message}", request.dir));
        Err(match hint(&message) {
            Some(help) => error.help(help),
            None => error,
        })
    }
}

/// Where a module's state lies when its backend is a file: the module itself names no other place.
pub(super) fn local_state(module: &Module, place: &Place, settings: &Map) -> Option<PathBuf> {
    match module.backend.as_ref().map(|backend| backend.kind.as_str()) {
        None => Some(place.module.join("terraform.tfstate")),
        Some("local") => settings.get("path").and_then(Value::as_str).map(|path| place.module.join(path)),
        Some(_) => None,
    }
}
