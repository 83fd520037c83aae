//! Where a stack lives on this machine: its module in the project, OpenTofu's data directory and our own notes in the cache.
//!
//! Everything here can be lost: the data directory is made again by `init`. The state is where the module's backend says,
//! never here. Files that hold state or variables are readable for their owner only and go with the process that made them;
//! what a killed process left is swept away by the next one, which knows it by a lock that nobody holds any more.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::digest::sha256_hex;
use crate::providers::error::ProviderError;
use crate::providers::ports::{Answer, StackRequest};

/// The file that a working directory's owner holds locked.
const OWNER: &str = "owner";

/// The beginning of a working directory's name.
const WORK: &str = "work-";

/// What stands before its name while it is made.
const FRESH: &str = "new-";

/// After this long nobody finishes one any more.
const UNFINISHED: Duration = Duration::from_secs(3600);

/// A stack on this machine.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The module's directory.
    pub(super) module: PathBuf,
    /// What is kept for the stack.
    pub(super) home: PathBuf,
    /// What its workspaces share: what `init` makes.
    pub(super) common: PathBuf,
}

/// A directory that a person reading it should not find state of others in.
pub(super) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The error of a file of ours.
pub(super) fn unwritable(path: &Path, error: &io::Error) -> ProviderError {
    ProviderError::permanent("tofu", format!("{}: {error}", path.display()))
        .help("clawd keeps OpenTofu's data there; make the project's .clawd directory writable")
}

impl Place {
    /// The place of a request's stack. What decides which state it means decides the place.
    pub(super) fn of(root: &Path, cache: &Path, request: &StackRequest) -> Answer<Self> {
        let recipe = serde_json::json!([request.dir, request.backend, request.binary]);
        let common = cache.join("tofu").join(&sha256_hex(recipe.to_string().as_bytes())[..16]);
        let home = common.join("workspaces").join(&request.workspace);
        private_dir(&home).map_err(|error| unwritable(&home, &error))?;
        Ok(Self { module: root.join(&request.dir), home, common })
    }

    /// OpenTofu's data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.common.join("data")
    }

    /// What a command line needs to mean this stack, for people.
    pub(super) fn command(&self, program: &str, dir: &str, workspace: &str, command: &str) -> String {
        let workspace =
            if workspace == "default" { String::new() } else { format!("TF_WORKSPACE={workspace} ") };
        format!("{workspace}TF_DATA_DIR={} {program} -chdir={dir} {command}", self.data().display())
    }
}

/// A directory for one plan: its variables, the raw plan, what an apply said. It goes when nobody needs it any more.
#[derive(Debug)]
pub(super) struct Work {
    path: PathBuf,
    _owner: File,
}

impl Work {
    /// A new one for a stack.
    pub(super) fn new(place: &Place) -> Answer<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Two containers that share a project may have the same process ids.
        let name = format!("{WORK}{}-{number}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = place.home.join(&name);
        let make = || {
            sweep(&place.home)?;
            // It gets its name once its owner is known: nobody sweeps away what is just being made.
            let fresh = place.home.join(format!("{FRESH}{name}"));
            private_dir(&fresh)?;
            let owner = private(&fresh.join(OWNER))?;
            owner.lock()?;
            fs::rename(&fresh, &path)?;
            Ok(owner)
        };
        let owner = make().map_err(|error| unwritable(&path, &error))?;
        Ok(Self { path, _owner: owner })
    }

    /// A file in it, empty and private.
    pub(super) fn file(&self, name: &str) -> Answer<PathBuf> {
        let path = self.path.join(name);
        private(&path).map_err(|error| unwritable(&path, &error))?;
        Ok(path)
    }

    /// The name of a file in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What cannot be removed now is swept away by the next process.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn private(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Removes the working directories of processes that are gone.
fn sweep(home: &Path) -> io::Result<()> {
    for entry in fs::read_dir(home)? {
        let path = entry?.path();
        let is_work =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(WORK));
        if !is_work {
            // One that was never finished holds nothing but an empty file; what is being made now is younger.
            let is_old = |metadata: fs::Metadata| {
                metadata.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > UNFINISHED))
            };
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(FRESH) && path.metadata().is_ok_and(is_old) {
                let _ = fs::remove_dir_all(&path);
            }
            continue;
        }
        let Ok(owner) = File::open(path.join(OWNER)) else { continue };
        match owner.try_lock() {
            Ok(()) => {
                // Two that sweep at once find the same; the second finds nothing left.
                let _ = fs::remove_dir_all(&path);
            }
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_process_left_is_swept_and_what_a_living_one_has_stays() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { module: dir.path().into(), home: dir.path().into(), common: dir.path().into() };
        let living = Work::new(&place).unwrap();
        let file = living.file("vars").unwrap();
        let dead = dir.path().join("work-0-0");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(OWNER), "").unwrap();
        fs::write(dead.join("vars"), "secret").unwrap();
        let next = Work::new(&place).unwrap();
        assert!(!dead.exists() && file.exists());
        drop((living, next));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_holds_variables_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let file = private(&dir.path().join("vars")).expect("a file");
        assert_eq!(file.metadata().expect("metadata").permissions().mode() & 0o777, 0o600);
    }
}
