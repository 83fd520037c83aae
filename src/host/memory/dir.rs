//! The memory's directory, and nothing outside it: every name of a path is opened on its own, below what was opened before and
//! without following a link. Who replaces a directory by a link meanwhile gets an error instead of a file elsewhere.

use std::fs::File as StdFile;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fsync, mkdirat, open, openat, openat2, renameat,
    statat, unlinkat,
};
use rustix::io::Errno;

use super::error::{ErrorKind, MemoryError};
use crate::memory::{MemoryPath, Version};

/// How the names of files begin that are being written. One that a killed writer left is overwritten by nobody and read by
/// nobody; the name is clawd's own.
const UNFINISHED: &str = ".clawd-new-";

/// What in a directory is no file of a memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// What it is called, as far as it can be shown.
    pub name: String,
    /// Why it is none.
    pub why: String,
}

/// A file as it was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) content: Vec<u8>,
    pub(super) mode: Mode,
}

impl Found {
    pub(super) fn version(&self) -> Version {
        Version::of(&self.content)
    }
}

/// The open directory. It stays the one that was opened, wherever its name points later.
#[derive(Debug)]
pub(super) struct Root {
    dir: OwnedFd,
    path: PathBuf,
}

fn flags() -> OFlags {
    OFlags::NOFOLLOW | OFlags::CLOEXEC
}

impl Root {
    pub(super) fn open(path: &Path) -> Result<Self, MemoryError> {
        match open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(dir) => Ok(Self { dir, path: path.to_owned() }),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(MemoryError::no_memory(path)),
            Err(error) => Err(MemoryError::io("open", path, &error.into())),
        }
    }

    fn failed(&self, what: &str, path: &MemoryPath, error: Errno) -> MemoryError {
        let whole = self.path.join(path.as_str());
        match error {
            Errno::LOOP | Errno::NOTDIR => {
                let message = format!(
                    "{path} leads through something that is no directory of the memory, such as a link"
                );
                MemoryError::new(ErrorKind::Path, message)
                    .help("links are not followed; put the file itself there")
            }
            error => MemoryError::io(what, &whole, &error.into()),
        }
    }

    /// The directory of a file; `None` when there is none and it is not to be made.
    fn parent(&self, path: &MemoryPath, make: bool) -> Result<Option<OwnedFd>, MemoryError> {
        let failed = |error| self.failed("open", path, error);
        let mut dir = openat(&self.dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | flags(), Mode::empty())
            .map_err(failed)?;
        let names: Vec<&str> = path.names().collect();
        for name in &names[..names.len() - 1] {
            let below = |dir: &OwnedFd| {
                openat(dir, *name, OFlags::RDONLY | OFlags::DIRECTORY | flags(), Mode::empty())
            };
            dir = match below(&dir) {
                Ok(below) => below,
                Err(Errno::NOENT) if make => {
                    match mkdirat(&dir, *name, Mode::from_raw_mode(0o770)) {
                        Ok(()) | Err(Errno::EXIST) => fsync(&dir).map_err(failed)?,
                        Err(error) => return Err(self.failed("make a directory for", path, error)),
                    }
                    below(&dir).map_err(failed)?
                }
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(failed(error)),
            };
        }
        Ok(Some(dir))
    }

    /// A file's content; `None` when there is no file.
    pub(super) fn read(&self, path: &MemoryPath) -> Result<Option<Found>, MemoryError> {
        // The kernel walks the names, and refuses every link on the way.
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let wanted = OFlags::RDONLY | OFlags::NONBLOCK | flags();
        match openat2(&self.dir, path.as_str(), wanted, Mode::empty(), beneath) {
            // Before Linux 5.6, and where a sandbox does not know the call: name by name.
            Err(Errno::NOSYS) => {}
            // On the way, or at its end: the kernel does not say.
            Err(Errno::LOOP) if path.names().count() > 1 => {
                return Err(self.failed("read", path, Errno::LOOP));
            }
            opened => return self.opened(opened, path),
        }
        match self.parent(path, false)? {
            Some(dir) => self.read_in(&dir, path),
            None => Ok(None),
        }
    }

    fn read_in(&self, dir: &OwnedFd, path: &MemoryPath) -> Result<Option<Found>, MemoryError> {
        // Without waiting: a pipe would make the reader wait for a writer.
        let opened = openat(dir, path.name(), OFlags::RDONLY | OFlags::NONBLOCK | flags(), Mode::empty());
        self.opened(opened, path)
    }

    /// What an attempt to open a file gave.
    fn opened(
        &self,
        opened: Result<OwnedFd, Errno>,
        path: &MemoryPath,
    ) -> Result<Option<Found>, MemoryError> {
        let file = match opened {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            // A device or socket that cannot be opened is no file either.
            Err(Errno::LOOP | Errno::NXIO) => return Err(no_file(path, "a link or a socket")),
            Err(error) => return Err(self.failed("read", path, error)),
        };
        let stat = rustix::fs::fstat(&file).map_err(|error| self.failed("read", path, error))?;
        if let Some(what) = not_plain(FileType::from_raw_mode(stat.st_mode), stat.st_nlink as u64) {
            return Err(no_file(path, what));
        }
        // Room for the end, too, which is found by reading it.
        let mut content = Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or(0) + 1);
        StdFile::from(file)
            .take(u64::MAX)
            .read_to_end(&mut content)
            .map_err(|error| MemoryError::io("read", &self.path.join(path.as_str()), &error))?;
        Ok(Some(Found { content, mode: Mode::from_raw_mode(stat.st_mode) }))
    }

    /// Puts a content in a file's place at once, if the version that is there is still the expected one.
    pub(super) fn put(
        &self,
        path: &MemoryPath,
        content: &[u8],
        expected: Option<&Version>,
        mode: Option<Mode>,
    ) -> Result<(), MemoryError> {
        let dir = self.parent(path, true)?.ok_or_else(|| self.failed("write", path, Errno::NOENT))?;
        let new = self
            .write_new(&dir, content, mode)
            .map_err(|error| MemoryError::io("write", &self.path.join(path.as_str()), &error))?;
        let put = || {
            // A writer that knows nothing of the lock may have been here meanwhile.
            self.check(&dir, path, expected)?;
            renameat(&dir, new.as_str(), &dir, path.name()).map_err(|error| self.failed("write", path, error))
        };
        if let Err(error) = put() {
            let _ = unlinkat(&dir, new.as_str(), AtFlags::empty());
            return Err(error);
        }
        fsync(&dir).map_err(|error| self.failed("write", path, error))
    }

    /// Removes a file, if the version that is there is still the expected one.
    pub(super) fn remove(&self, path: &MemoryPath, expected: &Version) -> Result<(), MemoryError> {
        let failed = |error| self.failed("remove", path, error);
        let Some(dir) = self.parent(path, false)? else { return Ok(()) };
        self.check(&dir, path, Some(expected))?;
        unlinkat(&dir, path.name(), AtFlags::empty()).map_err(failed)?;
        fsync(&dir).map_err(failed)
    }

    fn check(&self, dir: &OwnedFd, path: &MemoryPath, expected: Option<&Version>) -> Result<(), MemoryError> {
        let current = self.read_in(dir, path)?.map(|found| found.version());
        if current.as_ref() == expected {
            return Ok(());
        }
        Err(MemoryError::new(ErrorKind::Moved, format!("{path} changed in this moment"))
            .current(current, None)
            .help("read it again; whoever wrote it did not use `clawd memory`"))
    }

    /// A new file with a content that is on disk; its name.
    fn write_new(&self, dir: &OwnedFd, content: &[u8], mode: Option<Mode>) -> io::Result<String> {
        let name = format!("{UNFINISHED}{:016x}", fastrand::u64(..));
        let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | flags();
        let mut file = StdFile::from(openat(dir, name.as_str(), create, Mode::from_raw_mode(0o660))?);
        let write = |file: &mut StdFile| {
            file.write_all(content)?;
            if let Some(mode) = mode {
                rustix::fs::fchmod(&*file, mode & (Mode::RWXU | Mode::RWXG | Mode::RWXO))?;
            }
            file.sync_all()
        };
        write(&mut file).inspect_err(|_| {
            let _ = unlinkat(dir, name.as_str(), AtFlags::empty());
        })?;
        Ok(name)
    }

    /// The sentinel's content.
    pub(super) fn sentinel(&self, name: &str) -> Result<Option<Vec<u8>>, MemoryError> {
        let failed = |error: &io::Error| MemoryError::io("read", &self.path.join(name), error);
        match openat(&self.dir, name, OFlags::RDONLY | OFlags::NONBLOCK | flags(), Mode::empty()) {
            Ok(file) => {
                let mut content = Vec::new();
                StdFile::from(file).read_to_end(&mut content).map_err(|error| failed(&error))?;
                Ok(Some(content))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed(&error.into())),
        }
    }

    /// Writes the sentinel.
    pub(super) fn put_sentinel(&self, name: &str, content: &[u8]) -> Result<(), MemoryError> {
        let write = || -> io::Result<()> {
            let new = self.write_new(&self.dir, content, None)?;
            renameat(&self.dir, new.as_str(), &self.dir, name)?;
            Ok(fsync(&self.dir)?)
        };
        write().map_err(|error| MemoryError::io("write", &self.path.join(name), &error))
    }

    /// All files, sorted, and what is none.
    pub(super) fn list(&self) -> Result<(Vec<MemoryPath>, Vec<Skipped>), MemoryError> {
        let (mut files, mut skipped) = (Vec::new(), Vec::new());
        self.walk(self.dir.as_fd(), "", &mut files, &mut skipped)?;
        files.sort();
        skipped.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((files, skipped))
    }

    fn walk(
        &self,
        dir: rustix::fd::BorrowedFd<'_>,
        prefix: &str,
        files: &mut Vec<MemoryPath>,
        skipped: &mut Vec<Skipped>,
    ) -> Result<(), MemoryError> {
        let failed = |error: Errno| MemoryError::io("read", &self.path.join(prefix), &error.into());
        for entry in Dir::read_from(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..")
                || name.to_bytes().starts_with(crate::memory::path::RESERVED.as_bytes())
            {
                continue;
            }
            let whole = format!("{prefix}{}", name.to_string_lossy());
            let mut skip = |why: &str| skipped.push(Skipped { name: whole.clone(), why: why.to_owned() });
            let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // It went while we looked.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed(error)),
            };
            if name.to_str().is_err() {
                skip("its name is no UTF-8");
                continue;
            }
            let path = match whole.parse::<MemoryPath>() {
                Ok(path) => path,
                Err(error) => {
                    skip(&error.to_string());
                    continue;
                }
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind == FileType::Directory {
                match openat(dir, name, OFlags::RDONLY | OFlags::DIRECTORY | flags(), Mode::empty()) {
                    Ok(below) => self.walk(below.as_fd(), &format!("{whole}/"), files, skipped)?,
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(failed(error)),
                }
            } else if let Some(what) = not_plain(kind, stat.st_nlink as u64) {
                skip(what);
            } else {
                files.push(path);
            }
        }
        Ok(())
    }
}

/// What something is that is no file with one name.
fn not_plain(kind: FileType, names: u64) -> Option<&'static str> {
    match kind {
        FileType::RegularFile if names > 1 => Some("a file with another name (a hard link)"),
        FileType::RegularFile => None,
        FileType::Symlink => Some("a link"),
        FileType::Directory => Some("a directory"),
        _ => Some("a device, a pipe or a socket"),
    }
}

fn no_file(path: &MemoryPath, what: &str) -> MemoryError {
    MemoryError::new(ErrorKind::Path, format!("{path} is {what}, no file of the memory"))
        .help("only plain files with one name are shared")
}
