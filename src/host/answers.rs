//! What was done under a token: a request that comes twice, because its answer was lost, is answered with what was done the first
//! time. The answers lie where a reboot takes them, as it takes the mounts; only what succeeded is kept.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind as Io, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::sha256_hex;
use crate::providers::{ErrorKind, ProviderError};

/// Where the answers are on a host.
pub const DIR: &str = "/run/clawd";

/// The answers of one host, and the lock of whatever changes it.
#[derive(Debug)]
pub struct Answers {
    dir: PathBuf,
    /// Held for as long as this host is being changed.
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Kept<T> {
    /// The digest of the request: a token belongs to one request for ever.
    request: String,
    answer: T,
}

fn wrong(what: &str, path: &Path, error: &std::io::Error) -> ProviderError {
    ProviderError::permanent("host", format!("cannot {what} {}: {error}", path.display()))
        .help("clawd's half on a host runs as root")
}

impl Answers {
    /// Opens them, alone.
    ///
    /// # Errors
    /// The directory cannot be used; another call is changing this host right now.
    pub fn open(dir: &Path) -> Result<Self, ProviderError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|error| wrong("make", dir, &error))?;
        let path = dir.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.map_err(|error| wrong("open", &path, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(TryLockError::Error(error)) => Err(wrong("lock", &path, &error)),
            Err(TryLockError::WouldBlock) => {
                let message = "another call is changing this host right now";
                Err(ProviderError::new(ErrorKind::Transient, "host", message)
                    .help("wait until it has ended, and run again"))
            }
        }
    }

    /// What was answered under a token.
    ///
    /// # Errors
    /// The token was used with another request; what is kept cannot be read.
    pub fn get<T: DeserializeOwned>(
        &self,
        token: &str,
        request: &impl Serialize,
    ) -> Result<Option<T>, ProviderError> {
        let path = self.path(token)?;
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == Io::NotFound => return Ok(None),
            Err(error) => return Err(wrong("read", &path, &error)),
        };
        // One that a crash cut off is none: what it was for is looked at anew.
        let Ok(kept) = serde_json::from_slice::<Kept<T>>(&text) else { return Ok(None) };
        match kept.request == digest(request) {
            true => Ok(Some(kept.answer)),
            false => Err(ProviderError::permanent("host", "the token was used with another request")
                .help("a token is made of its request: whoever made this one is wrong")),
        }
    }

    /// Keeps an answer.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put<T: Serialize>(
        &self,
        token: &str,
        request: &impl Serialize,
        answer: &T,
    ) -> Result<(), ProviderError> {
        let path = self.path(token)?;
        let text = serde_json::to_vec(&Kept { request: digest(request), answer }).unwrap_or_default();
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(&text)).map_err(|error| wrong("write", &path, &error))
    }

    fn path(&self, token: &str) -> Result<PathBuf, ProviderError> {
        match is_token(token) {
            true => Ok(self.dir.join(token)),
            false => {
                Err(ProviderError::permanent("host", format!("`{:.64}` is no token", token.escape_debug()))
                    .help("16 to 64 hexadecimal digits"))
            }
        }
    }
}

/// Whether a text is a token.
#[must_use]
pub fn is_token(text: &str) -> bool {
    (16..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn digest(request: &impl Serialize) -> String {
    sha256_hex(&serde_json::to_vec(request).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_given_again_for_its_request_alone() {
        let dir = tempfile::tempdir().unwrap();
        let token = "0123456789abcdef";
        let answers = Answers::open(dir.path()).unwrap();
        assert_eq!(answers.get::<u32>(token, &"a"), Ok(None));
        answers.put(token, &"a", &7).unwrap();
        assert_eq!(answers.get::<u32>(token, &"a"), Ok(Some(7)));
        assert_eq!(answers.get::<u32>(token, &"b").unwrap_err().kind, ErrorKind::Permanent);
        assert_eq!(answers.get::<u32>("../../etc/passwd", &"a").unwrap_err().kind, ErrorKind::Permanent);
        assert_eq!(Answers::open(dir.path()).unwrap_err().kind, ErrorKind::Transient, "one at a time");
        fs::write(dir.path().join(token), "{").unwrap();
        assert_eq!(answers.get::<u32>(token, &"a"), Ok(None));
    }
}
