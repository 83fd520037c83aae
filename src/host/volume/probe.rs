//! What is on a device. Blank is only what three looks call blank: two programs that know signatures, and reading the device itself
//! in many places. A look that fails is no look: the device is unknown then, and nobody writes to it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

use rustix::fs::OFlags;

use super::device::Device;
use super::{LABEL, Programs, Result, complaint, failed, refused};
use crate::units::Bytes;

/// Both ends of a device are read whole: signatures and tables are there.
const ENDS: u64 = 4 << 20;

/// Places between the ends that are read.
const SAMPLES: u64 = 1024;

/// How much is read at each of them.
const SAMPLE: usize = 64 << 10;

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileSystem {
    /// `ext4`, `xfs`, or another that clawd does not make.
    pub(super) fs: String,
    pub(super) label: String,
    pub(super) uuid: String,
    /// How much of the device it spans; nothing for what clawd does not make.
    pub(super) size: Bytes,
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing at all.
    Blank,
    /// A file system and nothing else.
    FileSystem(FileSystem),
    /// Something else, in words.
    Other(String),
}

fn unknown(device: &str, why: &str) -> crate::providers::ProviderError {
    failed(format!("what is on {device} is not known: {why}"))
        .help("a device that cannot be read is never formatted or mounted: look at `dmesg`")
}

/// Looks at a device.
pub(super) fn look(programs: &Programs, device: &Device) -> Result<Found> {
    let path = device.path();
    let low = low_level(programs, &path)?;
    let signatures = signatures(programs, &path)?;
    match low {
        Low::Ambivalent => Ok(Found::Other(format!("more than one thing: {}", signatures.join(" and ")))),
        Low::Known(fields) if fields.get("USAGE").is_some_and(|usage| usage == "filesystem") => {
            match signatures.as_slice() {
                [_] => {
                    Ok(Found::FileSystem(FileSystem { size: span(device, &fields)?, ..of_fields(&fields) }))
                }
                _ => Ok(Found::Other(format!("more than one thing: {}", signatures.join(" and ")))),
            }
        }
        Low::Known(fields) => {
            let kind =
                fields.get("TYPE").or_else(|| fields.get("PTTYPE")).map_or("something", String::as_str);
            Ok(Found::Other(kind.to_owned()))
        }
        Low::Nothing if !signatures.is_empty() => Ok(Found::Other(signatures.join(" and "))),
        Low::Nothing => match first_data(device)? {
            None => Ok(Found::Blank),
            Some(at) => Ok(Found::Other(format!("data at byte {at} that no program knows"))),
        },
    }
}

/// The label of a device or partition that is somebody else's; `None` where there is none.
pub(super) fn label(programs: &Programs, path: &str) -> Result<Option<String>> {
    Ok(match low_level(programs, path)? {
        Low::Known(fields) => fields.get("LABEL").cloned(),
        Low::Nothing | Low::Ambivalent => None,
    })
}

/// Makes a file system on a device that is blank now.
pub(super) fn format(programs: &Programs, device: &Device, fs: &str) -> Result<FileSystem> {
    // Once more, right before: whoever asked for it looked some time ago.
    let found = look(programs, device)?;
    if found != Found::Blank {
        return Err(refused(format!("{device} was blank a moment ago, and holds something now"))
            .help("somebody else writes to it: find out who"));
    }
    // Without force: the programs refuse what is in use. mkfs.ext4 looks for contents only on a terminal, so the look above is what
    // stands between it and data.
    programs.run(&format!("mkfs.{fs}"), &["-q", "-L", LABEL, &device.path()])?;
    match look(programs, device)? {
        Found::FileSystem(it) if it.fs == fs && it.label == LABEL => Ok(it),
        other => Err(failed(format!("{device} does not hold what mkfs.{fs} made: {other:?}"))
            .help("look at the device; it may be failing")),
    }
}

/// What `blkid` says, reading the device itself.
enum Low {
    Nothing,
    Ambivalent,
    Known(BTreeMap<String, String>),
}

fn low_level(programs: &Programs, path: &str) -> Result<Low> {
    let said = programs.output("blkid", &["--probe", "--output", "export", path])?;
    // It says "nothing found" for a device that it cannot read as well; only the complaint tells.
    match (said.status.code(), said.stderr.is_empty()) {
        (Some(0), _) => Ok(Low::Known(
            String::from_utf8_lossy(&said.stdout)
                .lines()
                .filter_map(|line| line.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )),
        (Some(2), true) => Ok(Low::Nothing),
        (Some(8), _) => Ok(Low::Ambivalent),
        _ => Err(unknown(path, &complaint(&said))),
    }
}

/// The signatures that `wipefs` sees, which it is not told to wipe.
fn signatures(programs: &Programs, path: &str) -> Result<Vec<String>> {
    let said = programs.output("wipefs", &["--noheadings", "--output", "TYPE", path])?;
    if !said.status.success() || !said.stderr.is_empty() {
        return Err(unknown(path, &complaint(&said)));
    }
    let text = String::from_utf8_lossy(&said.stdout);
    let mut found: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    // One thing may have its signature in several places, as a partition table has.
    found.dedup();
    Ok(found)
}

fn of_fields(fields: &BTreeMap<String, String>) -> FileSystem {
    let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
    FileSystem { fs: field("TYPE"), label: field("LABEL"), uuid: field("UUID"), size: Bytes(0) }
}

/// The first byte that is not zero, in both ends and in many places between.
fn first_data(device: &Device) -> Result<Option<u64>> {
    let path = device.path();
    let failed = |error: std::io::Error| unknown(&path, &error.to_string());
    // Exclusive: a device that is mounted, or part of another one, makes this fail.
    let exclusive = i32::try_from(OFlags::EXCL.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(exclusive).open(&path).map_err(failed)?;
    let size = device.size.0;
    let step = (size / SAMPLES).max(1);
    let between = (0..SAMPLES).map(|n| n * step);
    let whole = |from: u64, to: u64| (from..to).step_by(SAMPLE);
    let places = whole(0, ENDS.min(size)).chain(between).chain(whole(size.saturating_sub(ENDS), size));
    let mut buffer = vec![0; SAMPLE];
    for place in places {
        let length = usize::try_from(size - place).unwrap_or(SAMPLE).min(SAMPLE);
        file.read_exact_at(&mut buffer[..length], place).map_err(failed)?;
        if let Some(at) = buffer[..length].iter().position(|byte| *byte != 0) {
            return Ok(Some(place + at as u64));
        }
    }
    Ok(None)
}

/// How much of a device a file system spans, by its own first block. Source: the kernel's documentation of ext4 and XFS on disk.
fn span(device: &Device, fields: &BTreeMap<String, String>) -> Result<Bytes> {
    let path = device.path();
    let failed = |error: std::io::Error| unknown(&path, &error.to_string());
    let fs = fields.get("TYPE").map(String::as_str);
    let file = File::open(&path).map_err(failed)?;
    let mut block = [0; 2048];
    file.read_exact_at(&mut block, 0).map_err(failed)?;
    Ok(match fs {
        Some("ext4") => ext4_span(&block),
        Some("xfs") => xfs_span(&block),
        _ => Bytes(0),
    })
}

/// How much of its device a mounted XFS spans: what has grown is in its log first, and on the device later.
pub(super) fn mounted_xfs_span(programs: &Programs, path: &str) -> Result<Bytes> {
    let said = programs.run("xfs_growfs", &["-n", path])?;
    // `data     =                       bsize=4096   blocks=262144, imaxpct=25`
    let data = said.lines().find(|line| line.starts_with("data")).unwrap_or_default();
    let number = |name: &str| {
        let word = data.split([' ', ',']).find_map(|word| word.strip_prefix(name));
        word.and_then(|number| number.parse::<u64>().ok())
    };
    match (number("bsize="), number("blocks=")) {
        (Some(size), Some(count)) => Ok(Bytes(size.saturating_mul(count))),
        _ => Err(failed(format!("xfs_growfs -n {path} says nothing of its size: {said}"))),
    }
}

/// The superblock is at byte 1024; block counts are little-endian, their upper half is at 0x150.
fn ext4_span(block: &[u8; 2048]) -> Bytes {
    let word =
        |at: usize| u64::from(u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]));
    let superblock = 1024;
    let size = 1024_u64 << word(superblock + 0x18).min(16);
    let has_upper = word(superblock + 0x60) & 0x80 != 0;
    let upper = if has_upper { word(superblock + 0x150) } else { 0 };
    Bytes((word(superblock + 0x4) | upper << 32).saturating_mul(size))
}

/// Big-endian: the size of a block at 4, their number at 8.
fn xfs_span(block: &[u8; 2048]) -> Bytes {
    let size = u32::from_be_bytes([block[4], block[5], block[6], block[7]]);
    let mut count = [0; 8];
    count.copy_from_slice(&block[8..16]);
    Bytes(u64::from_be_bytes(count).saturating_mul(u64::from(size)))
}
