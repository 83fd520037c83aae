//! A data volume on this host: found by its serial number, made a file system when it is provably blank and the caller allows it,
//! mounted, grown, handed to its owner; and unmounted again.
//!
//! Never formats what might hold data: every probe that fails says *unknown*, and unknown stops. Never detaches or unmounts by
//! force or lazily, never writes unit files, never changes owners below the mount's root. What is mounted already from the same
//! device is verified, and that is all.

mod activate;
mod device;
mod mounts;
mod probe;
mod program;

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, open};

use crate::providers::ports::{
    MountReport, MountRequest, MountSource, NEVER_A_MOUNT, UnmountRequest, VolumeSource,
};
use crate::providers::{ErrorKind, ProviderError};
use crate::units::{Bytes, GiB};
use device::Device;
use mounts::Mounted;
use probe::{FileSystem, Found};
pub use program::Programs;
pub(super) use program::complaint;

/// The label of the file systems that clawd makes; units mount by it.
pub const LABEL: &str = "clawd-data";

/// A file system that is smaller than its device by less than this spans it: the last part of a block group stays unused.
const SLACK: Bytes = Bytes(16 << 20);

type Result<T> = std::result::Result<T, ProviderError>;

fn refused(message: impl Into<String>) -> ProviderError {
    ProviderError::refused("host mount", message)
}

fn failed(message: impl Into<String>) -> ProviderError {
    ProviderError::permanent("host mount", message)
}

/// A disk of this host that is not there, or not as it will be, a moment after EC2 says so.
fn not_yet(message: impl Into<String>) -> ProviderError {
    ProviderError::new(ErrorKind::Transient, "host mount", message)
}

/// The disks of this host.
#[derive(Debug, Clone, Default)]
pub struct Disks {
    /// Only loop devices over images in this directory count, each named after its volume: a rehearsal, in which one machine stands
    /// for several hosts. All disks of the machine when `None`.
    pub images: Option<PathBuf>,
    /// The programs that work on them.
    pub programs: Programs,
}

impl Disks {
    /// What is mounted at a path.
    ///
    /// # Errors
    /// The mounts cannot be read, or what is mounted there cannot be looked at.
    pub fn mounted(&self, path: &str) -> Result<Option<MountReport>> {
        let Some(mount) = mounts::at(&mounts::all()?, path)? else { return Ok(None) };
        let device = self.devices()?.into_iter().find(|device| device.number == mount.device);
        let source = device.as_ref().and_then(Device::volume_id).unwrap_or_else(|| mount.source.clone());
        let (uuid, size) = match &device {
            Some(device) => match probe::look(&self.programs, device)? {
                Found::FileSystem(it) if it.fs == "xfs" => {
                    (it.uuid, spanned(probe::mounted_xfs_span(&self.programs, path)?, device.size))
                }
                Found::FileSystem(it) => (it.uuid, spanned(it.size, device.size)),
                Found::Blank | Found::Other(_) => (String::new(), GiB(0)),
            },
            None => (String::new(), GiB(0)),
        };
        let root =
            std::fs::metadata(path).map_err(|error| failed(format!("cannot look at {path}: {error}")))?;
        Ok(Some(MountReport {
            source,
            path: path.to_owned(),
            fs: mount.fs,
            uuid,
            owner: self.programs.name_of("passwd", root.uid())?,
            group: self.programs.name_of("group", root.gid())?,
            mode: format!("{:04o}", root.mode() & 0o7777),
            size,
        }))
    }

    /// Mounts a volume, whatever part of that is done already.
    ///
    /// # Errors
    /// Whatever stands between the volume and its mount; nothing of it is overcome by force.
    pub fn mount(&self, request: &MountRequest) -> Result<MountReport> {
        let MountSource::Volume(source) = &request.source else {
            let message = format!("{} is on EFS, which this clawd plans and rehearses only", request.path);
            return Err(failed(message).help("mount it by the host's configuration"));
        };
        let wanted = Wanted::of(&self.programs, request, source)?;
        let device = self.find(&source.id)?;
        check_size(&device, source.size)?;
        let all = mounts::all()?;
        let there = mounts::at(&all, &request.path)?;
        let elsewhere = all.iter().find(|it| it.device == device.number && it.path != request.path);
        match (&there, elsewhere) {
            (Some(there), _) if there.device != device.number => {
                let message = format!("{} is already the mount of {}", request.path, there.source);
                return Err(refused(message).help("unmount that first, or mount the volume elsewhere"));
            }
            (Some(there), _) if there.root != "/" => {
                let message =
                    format!("{} is the mount of {}{}, a part of it", request.path, device, there.root);
                return Err(refused(message).help("unmount that first, or mount the volume elsewhere"));
            }
            // Mounts of it beside the right one are binds, of whoever made them.
            (None, Some(elsewhere)) => {
                let message = format!("{device} is mounted at {} already", elsewhere.path);
                return Err(refused(message).help("unmount it there first"));
            }
            _ => {}
        }
        let on_it = match there {
            Some(_) => self.file_system(&device, source)?,
            None => {
                check_mountpoint(&request.path)?;
                let on_it = self.prepare(&device, source, &request.activate)?;
                activate::start(&self.programs, request, &device, &on_it)?;
                on_it
            }
        };
        let mount = verify(&device, &request.path, source)?;
        if mount.read_only {
            let message = format!("{} is mounted read-only from {device}", request.path);
            return Err(failed(message).help("the kernel found an error in the file system: look at `dmesg`"));
        }
        grow(&self.programs, &device, &on_it, &request.path)?;
        wanted.hand_over(&request.path, &device)?;
        self.mounted(&request.path)?.ok_or_else(|| failed(format!("{} is no mount any more", request.path)))
    }

    /// Unmounts a volume. One that is not mounted is a success.
    ///
    /// # Errors
    /// The path is the mount of something else; the volume is mounted elsewhere, too; somebody uses it.
    pub fn unmount(&self, request: &UnmountRequest) -> Result<()> {
        let UnmountRequest { volume_id, path, .. } = request;
        let all = mounts::all()?;
        let mount = mounts::at(&all, path)?;
        let device = self.devices()?.into_iter().find(|it| self.is_volume(it, volume_id));
        let Some(device) = device else {
            return match mount {
                None => Ok(()),
                Some(mount) => {
                    let message = format!(
                        "{path} is the mount of {}, and {volume_id} is no disk of this host",
                        mount.source
                    );
                    Err(failed(message).help("the disk may be gone from under its mount: unmount it by hand"))
                }
            };
        };
        if let Some(other) = all.iter().find(|it| it.device == device.number && it.path != *path) {
            return Err(refused(format!("{device} is mounted at {}", other.path)).help(
                "name that as `path`, or unmount it there first: it would be pulled from under its mount",
            ));
        }
        let Some(mount) = mount else { return Ok(()) };
        if mount.device != device.number {
            let message = format!("{path} is the mount of {}, not of {device}", mount.source);
            return Err(refused(message).help("unmount that by hand if it is not needed"));
        }
        activate::stop(&self.programs, request)?;
        match mounts::at(&mounts::all()?, path)? {
            None => Ok(()),
            Some(_) => {
                Err(failed(format!("{path} is still mounted")).help("look at what its mount unit does"))
            }
        }
    }

    /// Whether a device is a volume. Where disks are images, loop devices are; elsewhere a copy of a volume in a file is none.
    fn is_volume(&self, device: &Device, volume: &str) -> bool {
        device.image.is_some() == self.images.is_some() && device.volume_id().as_deref() == Some(volume)
    }

    fn devices(&self) -> Result<Vec<Device>> {
        let mut devices = device::all()?;
        if let Some(images) = &self.images {
            devices.retain(|device| device.image.as_deref().and_then(Path::parent) == Some(images));
        }
        Ok(devices)
    }

    /// The one device of a volume.
    fn find(&self, volume: &str) -> Result<Device> {
        let mut found = self.devices()?;
        found.retain(|device| self.is_volume(device, volume));
        match found.len() {
            0 => Err(not_yet(format!("no disk of this host bears the serial number of {volume}"))
                .help("it is there some seconds after EC2 attached it; run again")),
            1 => Ok(found.remove(0)),
            _ => {
                let names: Vec<String> = found.iter().map(Device::to_string).collect();
                Err(refused(format!("{} bear the serial number of {volume}", names.join(" and ")))
                    .help("a volume is one disk: find out which of them is real, and remove the other"))
            }
        }
    }

    /// The file system that is wanted, as it is on the device.
    fn file_system(&self, device: &Device, source: &VolumeSource) -> Result<FileSystem> {
        match probe::look(&self.programs, device)? {
            Found::FileSystem(it) if it.fs == source.fs => Ok(it),
            Found::FileSystem(it) => {
                let message =
                    format!("{device} holds {}, not {}: it is not formatted anew", it.fs, source.fs);
                Err(refused(message)
                    .help(format!("set `fs` to \"{}\", or move the data to another volume", it.fs)))
            }
            Found::Other(what) => Err(refused(format!("{device} holds {what}: it is not formatted"))
                .help("look at it; what is on a volume is never overwritten")),
            Found::Blank => {
                Err(refused(format!("{device} is blank, and is mounted all the same"))
                    .help("look at `dmesg`"))
            }
        }
    }

    /// Makes the device ready for its mount.
    fn prepare(&self, device: &Device, source: &VolumeSource, activate: &str) -> Result<FileSystem> {
        if let Some(user) = device.used_by()? {
            return Err(refused(format!("{device} is used by {user}"))
                .help("a data volume has no partitions and is part of nothing: look at it"));
        }
        self.check_label(device)?;
        let on_it = match probe::look(&self.programs, device)? {
            Found::Blank if source.may_format && self.find(&source.id)? != *device => {
                return Err(
                    refused(format!("{device} is another device than a moment ago")).help("run again")
                );
            }
            Found::Blank if source.may_format => probe::format(&self.programs, device, &source.fs)?,
            Found::Blank => {
                let message = format!("{device} has no file system, and its volume is not marked as blank");
                return Err(
                    refused(message).help("look at the volume; if it is empty, tag it clawd:state=blank")
                );
            }
            Found::FileSystem(_) | Found::Other(_) => self.file_system(device, source)?,
        };
        if on_it.label != LABEL && activate == activate::UNIT {
            let message =
                format!("{device} has the label `{}`, the mount unit looks for `{LABEL}`", on_it.label);
            return Err(refused(message).help("set the label by hand: `e2label`, or `xfs_admin -L`"));
        }
        Ok(on_it)
    }

    /// Two devices with one label: nobody could say which of them a unit mounts.
    fn check_label(&self, device: &Device) -> Result<()> {
        for other in self.devices()?.iter().filter(|other| other.number != device.number) {
            for part in other.parts()?.into_iter().chain([other.path()]) {
                if probe::label(&self.programs, &part)?.is_some_and(|label| label == LABEL) {
                    return Err(refused(format!("{part} bears the label `{LABEL}`, too, beside {device}"))
                        .help("one data volume to a host: detach the other, or give it another label"));
                }
            }
        }
        Ok(())
    }
}

/// The path of the mount that a path lies on; a path that is not there yet lies where its nearest directory does.
///
/// # Errors
/// The mounts cannot be read; the path leads through links.
pub fn mount_above(path: &str) -> Result<String> {
    let mounts = mounts::all()?;
    let mut above = Path::new(path);
    while std::fs::symlink_metadata(above).is_err() {
        let Some(parent) = above.parent() else { break };
        above = parent;
    }
    let is = above.canonicalize().map_err(|error| failed(format!("cannot look at {path}: {error}")))?;
    if is != above {
        return Err(refused(format!("{path} leads through a link, to {}", is.display()))
            .help("name the directory itself"));
    }
    let found = is.ancestors().find_map(|it| mounts.iter().find(|mount| Path::new(&mount.path) == it));
    Ok(found.map_or_else(|| "/".to_owned(), |mount| mount.path.clone()))
}

fn check_size(device: &Device, size: GiB) -> Result<()> {
    let wanted = Bytes(size.0 << 30);
    if device.size == wanted {
        return Ok(());
    }
    let message = format!("{device} has {}, the volume has {size}", device.size);
    // One that has just grown is seen a moment later.
    match device.size < wanted {
        true => Err(not_yet(message).help("run again; if it stays so, it is not the disk of this volume")),
        false => Err(refused(message).help("it is not the disk of this volume: look at it")),
    }
}

/// How much of a device a file system spans.
fn spanned(file_system: Bytes, device: Bytes) -> GiB {
    match device.0.saturating_sub(file_system.0) <= SLACK.0 {
        true => GiB(device.0 >> 30),
        false => GiB(file_system.0 >> 30),
    }
}

/// Looks at what is mounted now.
fn verify(device: &Device, path: &str, source: &VolumeSource) -> Result<Mounted> {
    let mount = mounts::at(&mounts::all()?, path)?.ok_or_else(|| {
        failed(format!("{path} is no mount, although it was just mounted"))
            .help("look at what its mount unit does: `systemctl status`")
    })?;
    if mount.device != device.number || mount.fs != source.fs {
        let message = format!("{path} became the mount of {} ({}), not of {device}", mount.source, mount.fs);
        return Err(refused(message).help("the mount unit names another device: look at it"));
    }
    Ok(mount)
}

/// Lets the file system span a device that has grown.
fn grow(programs: &Programs, device: &Device, on_it: &FileSystem, path: &str) -> Result<()> {
    if device.size.0.saturating_sub(on_it.size.0) <= SLACK.0 {
        return Ok(());
    }
    let grown = match on_it.fs.as_str() {
        "xfs" => programs.run("xfs_growfs", &[path]),
        _ => programs.run("resize2fs", &[&device.path()]),
    };
    grown.map(|_| ()).map_err(|error| {
        error.help("the file system is mounted as it was; growing ext4 takes the capability CAP_SYS_RESOURCE")
    })
}

/// Whose the mount is to be.
struct Wanted {
    owner: Uid,
    group: Gid,
    mode: Mode,
}

impl Wanted {
    /// Checks a request before anything is done.
    fn of(programs: &Programs, request: &MountRequest, source: &VolumeSource) -> Result<Self> {
        let MountRequest { path, owner, group, mode, activate, .. } = request;
        let VolumeSource { id, fs, .. } = source;
        let digits = id.strip_prefix("vol-").unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(failed(format!("`{}` is no id of a volume", id.escape_debug()))
                .help("vol- and hexadecimal digits"));
        }
        check_path(path)?;
        if !matches!(fs.as_str(), "ext4" | "xfs") {
            return Err(failed(format!("`{}` is no file system for a data volume", fs.escape_debug()))
                .help("ext4 or xfs"));
        }
        if !matches!(activate.as_str(), activate::UNIT | activate::MOUNT) {
            return Err(
                failed(format!("`{}` is no way to mount", activate.escape_debug())).help("unit or mount")
            );
        }
        let bits = u32::from_str_radix(mode, 8).ok().filter(|bits| *bits <= 0o7777);
        let bits = bits.ok_or_else(|| {
            failed(format!("`{}` is no mode", mode.escape_debug())).help("octal digits, like 0750")
        })?;
        Ok(Self {
            owner: Uid::from_raw(programs.id_of("passwd", owner)?),
            group: Gid::from_raw(programs.id_of("group", group)?),
            mode: Mode::from_raw_mode(bits),
        })
    }

    /// Gives the mount's root, and only it, to its owner.
    fn hand_over(&self, path: &str, device: &Device) -> Result<()> {
        let wrong = |what: &str, error: rustix::io::Errno| failed(format!("cannot {what} {path}: {error}"));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = File::from(open(path, flags, Mode::empty()).map_err(|error| wrong("open", error))?);
        let is = root.metadata().map_err(|error| failed(format!("cannot look at {path}: {error}")))?;
        let on = (rustix::fs::major(is.dev()), rustix::fs::minor(is.dev()));
        if on != device.number {
            return Err(
                refused(format!("{path} is not on {device} any more")).help("somebody mounts there, too")
            );
        }
        if (is.uid(), is.gid()) != (self.owner.as_raw(), self.group.as_raw()) {
            fchown(&root, Some(self.owner), Some(self.group)).map_err(|error| wrong("give away", error))?;
        }
        if is.mode() & 0o7777 != self.mode.bits() & 0o7777 {
            fchmod(&root, self.mode).map_err(|error| wrong("set the mode of", error))?;
        }
        Ok(())
    }
}

/// A path that a volume may be mounted at.
fn check_path(path: &str) -> Result<()> {
    let names = || path.split('/').skip(1);
    let is_plain = path.starts_with('/')
        && names().all(|name| !name.is_empty() && name != "." && name != "..")
        && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-'));
    if !is_plain {
        return Err(failed(format!("`{}` is no path to mount at", path.escape_debug()))
            .help("an absolute one of letters, digits, `.`, `_` and `-`, like /var/lib/clawd"));
    }
    if NEVER_A_MOUNT.contains(&path) {
        return Err(refused(format!("{path} is the host's own: no volume is mounted over it"))
            .help("mount it at a directory of its own, like /var/lib/clawd"));
    }
    Ok(())
}

/// Makes the directory of a mount.
fn make_mountpoint(path: &str) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(|error| failed(format!("cannot make {path}, to mount at: {error}")))
}

/// Looks at the directory of a mount. One that holds files is left alone: they would be hidden.
fn check_mountpoint(path: &str) -> Result<()> {
    // A path that leads through a link is another path, to the kernel too.
    mount_above(path)?;
    let wrong = |error: std::io::Error| failed(format!("cannot use {path} as a mount: {error}"));
    let is = match std::fs::symlink_metadata(path) {
        Ok(is) => is,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(wrong(error)),
    };
    if !is.is_dir() {
        return Err(
            refused(format!("{path} is no directory, such as a link")).help("remove it, or mount elsewhere")
        );
    }
    match std::fs::read_dir(path).map_err(wrong)?.next() {
        None => Ok(()),
        Some(_) => Err(refused(format!("{path} holds files, which a mount would hide"))
            .help("move them away first; somebody wrote there while the volume was not mounted")),
    }
}
