//! Image files on this machine: finding the one in a build's output, saying what it is, hashing it whole and by block.
//!
//! Reads only. Hashing runs on threads of its own, with a bounded buffer each, so memory does not grow with the image.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use sha2::{Digest as _, Sha256};

use crate::digest::hex;
use crate::image::blocks::hash_block;
use crate::image::format::{ENDINGS, HEAD, TAIL};
use crate::image::info::ImageInfo;
use crate::image::{BLOCK_SIZE, BlockHash, BlockMap, DiskFormat};
use crate::providers::error::ProviderError;
use crate::providers::ports::{Answer, BuiltImage};
use crate::units::Bytes;

/// Where NixOS's image builders put what they say of an image.
const INFO: &str = "nix-support/image-info.json";

const OPERATION: &str = "image file";

fn unreadable(path: &Path, error: &io::Error) -> ProviderError {
    ProviderError::permanent(OPERATION, format!("cannot read {}: {error}", path.display()))
}

/// Runs something that reads the disk or computes on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Answer<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ProviderError::permanent(OPERATION, format!("a thread ended early: {error}")))
}

/// The image in a build's output, with everything that is known of it.
pub(super) fn inspect(output: &Path) -> Answer<BuiltImage> {
    let info = info(output)?;
    let path = find(output, &info)?;
    let file = File::open(&path).map_err(|error| unreadable(&path, &error))?;
    let size = file.metadata().map_err(|error| unreadable(&path, &error))?.len();
    let format = format(&file, size).map_err(|error| unreadable(&path, &error))?;
    if size == 0 {
        return Err(ProviderError::permanent(OPERATION, format!("{} is empty", path.display()))
            .help("the derivation must yield a disk image"));
    }
    let sha256 = sha256(file).map_err(|error| unreadable(&path, &error))?;
    Ok(BuiltImage {
        path: path.to_string_lossy().into_owned(),
        size: Bytes(size),
        sha256,
        format: format.as_str().to_owned(),
        architecture: info.architecture().map(str::to_owned),
        boot_mode: info.boot_mode,
    })
}

fn info(output: &Path) -> Answer<ImageInfo> {
    let path = output.join(INFO);
    match fs::read_to_string(&path) {
        Ok(text) => ImageInfo::parse(&text).map_err(|error| {
            ProviderError::permanent(
                OPERATION,
                format!("{} is not what NixOS writes: {error}", path.display()),
            )
        }),
        // A file has no directory in it, and other builders say nothing.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(ImageInfo::default())
        }
        Err(error) => Err(unreadable(&path, &error)),
    }
}

/// Exactly one image file: the output itself, the one it names, or the only one with an image's ending.
fn find(output: &Path, info: &ImageInfo) -> Answer<PathBuf> {
    let metadata = fs::metadata(output).map_err(|error| unreadable(output, &error))?;
    if metadata.is_file() {
        return Ok(output.to_owned());
    }
    if let Some(named) = &info.file {
        let path = output.join(named);
        let canonical = path.canonicalize().map_err(|error| unreadable(&path, &error))?;
        // An image that is a link into another store path would not be what the output's hash stands for.
        if !canonical.starts_with(output) {
            let message = format!("{} of {} lies outside it", named.escape_debug(), output.display());
            return Err(ProviderError::permanent(OPERATION, message));
        }
        return Ok(canonical);
    }
    let mut files = Vec::new();
    walk(output, &mut files).map_err(|error| unreadable(output, &error))?;
    files.sort();
    let is_image = |path: &PathBuf| {
        path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| ENDINGS.contains(&ending))
    };
    let images: Vec<&PathBuf> = files.iter().filter(|path| is_image(path)).collect();
    let list = |files: &[&PathBuf]| {
        let names: Vec<String> = files
            .iter()
            .take(20)
            .map(|path| path.strip_prefix(output).unwrap_or(path).to_string_lossy().into_owned())
            .collect();
        names.join(", ")
    };
    match images.as_slice() {
        [image] => Ok((*image).clone()),
        [] => {
            let all: Vec<&PathBuf> = files.iter().collect();
            let found = if all.is_empty() { "nothing".to_owned() } else { list(&all) };
            Err(ProviderError::permanent(
                OPERATION,
                format!("{} holds no image file: {found}", output.display()),
            )
            .help(format!("an image file ends in one of: {}", ENDINGS.join(", "))))
        }
        several => Err(ProviderError::permanent(
            OPERATION,
            format!("{} holds {} image files: {}", output.display(), several.len(), list(several)),
        )
        .help("which one is meant must not be a guess: let the attribute yield one image")),
    }
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if entry.file_name() != "nix-support" {
                walk(&entry.path(), found)?;
            }
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn format(file: &File, size: u64) -> io::Result<DiskFormat> {
    let mut head = vec![0; HEAD.min(usize::try_from(size).unwrap_or(HEAD))];
    file.read_exact_at(&mut head, 0)?;
    let length = TAIL.min(head.len());
    let mut tail = vec![0; length];
    file.read_exact_at(&mut tail, size - length as u64)?;
    Ok(DiskFormat::detect(&head, &tail))
}

fn sha256(mut file: File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            length => hash.update(&buffer[..length]),
        }
    }
}

/// Blocks in a row, with the index of the first.
type Run<'a> = (usize, &'a mut [Option<BlockHash>]);

/// The blocks of an image file. Each thread takes every n-th run of blocks, so that all end together.
pub(crate) fn block_map(path: &Path, size: Bytes) -> Answer<BlockMap> {
    const RUN: usize = 32;
    let failed = |error: io::Error| unreadable(path, &error);
    let file = File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?.len();
    if found != size.0 {
        let message = format!("{} has {found} bytes, it had {} when it was hashed", path.display(), size.0);
        return Err(
            ProviderError::permanent(OPERATION, message).help("something changes the image; plan again")
        );
    }
    let count = usize::try_from(BlockMap::count_for(size)).unwrap_or(usize::MAX);
    let mut hashes = vec![None; count];
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut shares: Vec<Vec<Run<'_>>> = (0..threads).map(|_| Vec::new()).collect();
    for (number, run) in hashes.chunks_mut(RUN).enumerate() {
        shares[number % threads].push((number * RUN, run));
    }
    let hash_share = |share: Vec<Run<'_>>| -> io::Result<()> {
        let mut buffer = vec![0; BLOCK_SIZE];
        for (first, run) in share {
            for (offset, hash) in run.iter_mut().enumerate() {
                let length = read_block(&file, first + offset, size, &mut buffer)?;
                *hash = hash_block(&buffer[..length]);
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = shares.into_iter().map(|share| scope.spawn(|| hash_share(share))).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(io::Error::other("a hashing thread panicked")))
        })
    })
    .map_err(failed)?;
    Ok(BlockMap { size, hashes })
}

/// Reads one block; returns its length, which is short at the image's end. Beyond the end there is nothing.
pub(crate) fn read_block(file: &File, at: usize, size: Bytes, buffer: &mut [u8]) -> io::Result<usize> {
    let offset = at as u64 * BLOCK_SIZE as u64;
    let length = usize::try_from(size.0.saturating_sub(offset).min(BLOCK_SIZE as u64)).unwrap_or(BLOCK_SIZE);
    file.read_exact_at(&mut buffer[..length], offset)?;
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    #[test]
    fn an_output_holds_exactly_one_image() {
        let one = output(&[("sub/nixos.img", b"x"), ("nix-support/other.img", b"y"), ("README", b"z")]);
        assert!(inspect(one.path()).unwrap().path.ends_with("sub/nixos.img"));
        let none = output(&[("README", b"z")]);
        let error = inspect(none.path()).unwrap_err();
        assert!(error.message.contains("no image file: README"), "{error}");
        let two = output(&[("a.img", b"x"), ("b.vhd", b"y")]);
        assert!(inspect(two.path()).unwrap_err().message.contains("2 image files: a.img, b.vhd"));
        let empty = output(&[("a.img", b"")]);
        assert!(inspect(empty.path()).unwrap_err().message.contains("is empty"));
        let named = output(&[
            ("a.img", b"x"),
            ("b.img", b"y"),
            (INFO, br#"{ "file": "b.img", "boot_mode": "uefi" }"#),
        ]);
        let found = inspect(named.path()).unwrap();
        assert_eq!((found.path.ends_with("b.img"), found.boot_mode.as_deref()), (true, Some("uefi")));
        let outside = output(&[(INFO, br#"{ "file": "/etc/hostname" }"#)]);
        assert!(inspect(outside.path()).unwrap_err().message.contains("outside"));
    }

    #[test]
    fn blocks_are_those_of_a_plain_reading() {
        let mut content = vec![0; BLOCK_SIZE * 70 + 3];
        for at in [0, 33, 64] {
            content[at * BLOCK_SIZE + 9] = 7;
        }
        content[BLOCK_SIZE * 70 + 2] = 1;
        let dir = output(&[("a.img", &content)]);
        let size = Bytes(content.len() as u64);
        let map = block_map(&dir.path().join("a.img"), size).unwrap();
        let plain: Vec<_> = content.chunks(BLOCK_SIZE).map(hash_block).collect();
        assert_eq!(map, BlockMap { size, hashes: plain });
        assert_eq!(map.to_send(None).to_string(), "0,33,64,70");
        assert!(
            block_map(&dir.path().join("a.img"), Bytes(5))
                .unwrap_err()
                .message
                .contains("when it was hashed")
        );
    }
}
