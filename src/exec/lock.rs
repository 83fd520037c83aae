//! The lock of a target: one apply at a time per account, region and fleet, on this machine. The operating
//! system drops it when its holder dies, so it is never stale.

#![allow(clippy::disallowed_methods)] // this is where it is done

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Code, Diagnostic};
use crate::digest::sha256_hex;
use crate::plan::Target;

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The run's id.
    pub run: String,
    /// The process.
    pub pid: u32,
    /// The command line.
    pub command: String,
    /// Since when, RFC 3339.
    pub since: String,
}

/// A held lock; dropping it releases it.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a target in the directory of locks.
    ///
    /// # Errors
    /// Another run holds it; the file cannot be written.
    pub fn acquire(dir: &Path, target: &Target, holder: &Holder) -> Result<Self, Diagnostic> {
        let key = format!("{}\n{}\n{}", target.account, target.region, target.fleet);
        let path = dir.join(format!("{}.lock", &sha256_hex(key.as_bytes())[..16]));
        let unwritable = |error: &std::io::Error| {
            Diagnostic::error(
                Code::StateUnwritable,
                format!("cannot write the lock {}: {error}", path.display()),
            )
            .help("check the permissions of the project's .clawd directory")
        };
        fs::create_dir_all(dir).map_err(|error| unwritable(&error))?;
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| unwritable(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(&mut file, target)),
            Err(TryLockError::Error(error)) => return Err(unwritable(&error)),
        }
        let text = serde_json::to_string(holder).unwrap_or_default();
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(text.as_bytes()))
            .map_err(|error| unwritable(&error))?;
        Ok(Self { _file: file })
    }
}

fn held(file: &mut File, target: &Target) -> Diagnostic {
    let mut text = String::new();
    let holder: Option<Holder> =
        file.read_to_string(&mut text).ok().and_then(|_| serde_json::from_str(&text).ok());
    let who = match holder {
        Some(Holder { run, pid, command, since }) => {
            format!("run {run}, process {pid}, since {since}: {}", command.escape_debug())
        }
        // The holder has not written its name yet.
        None => "a run that is just starting".to_owned(),
    };
    Diagnostic::error(
        Code::RunLocked,
        format!("another run is applying to fleet {} of profile {}: {who}", target.fleet, target.profile),
    )
    .help("wait until it is done; the lock goes with its process")
}
