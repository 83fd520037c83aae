//! The block devices of this host, as sysfs shows them. A device is known by its serial number and its size, never by the name of
//! a link: names move between boots.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Result, failed};
use crate::units::Bytes;

const SYSFS: &str = "/sys/block";

/// Sectors of sysfs are of this size, whatever the device's own are.
const SECTOR: u64 = 512;

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    /// Its name, `nvme1n1`.
    name: String,
    /// Its major and minor number.
    pub(super) number: (u32, u32),
    /// Its size.
    pub(super) size: Bytes,
    /// Its serial number.
    serial: Option<String>,
    /// The file behind a loop device.
    pub(super) image: Option<PathBuf>,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/dev/{}", self.name)?;
        match self.volume_id() {
            Some(volume) => write!(f, " ({volume})"),
            None => Ok(()),
        }
    }
}

impl Device {
    fn read(dir: &Path) -> Option<Self> {
        let text = |file: &str| fs::read_to_string(dir.join(file)).ok().map(|text| text.trim().to_owned());
        let (major, minor) = text("dev")?
            .split_once(':')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))?;
        let size = Bytes(text("size")?.parse::<u64>().ok()? * SECTOR);
        let image = text("loop/backing_file").map(PathBuf::from);
        Some(Self {
            name: dir.file_name()?.to_string_lossy().into_owned(),
            number: (major, minor),
            size,
            // NVMe disks have it at their controller, others at the disk.
            serial: text("device/serial").or_else(|| text("serial")).filter(|serial| !serial.is_empty()),
            image,
        })
    }

    /// The volume that it is: EBS gives a disk the volume's id without its hyphen as its serial number. A loop device is the volume
    /// that its image is named after.
    pub(super) fn volume_id(&self) -> Option<String> {
        let stem = self.image.as_deref().filter(|image| image.extension().is_some_and(|it| it == "img"));
        if let Some(stem) = stem.and_then(Path::file_stem) {
            return Some(stem.to_string_lossy().into_owned()).filter(|stem| stem.starts_with("vol-"));
        }
        let digits = self.serial.as_deref()?.strip_prefix("vol")?;
        let digits = digits.strip_prefix('-').unwrap_or(digits);
        Some(format!("vol-{digits}"))
    }

    pub(super) fn path(&self) -> String {
        format!("/dev/{}", self.name)
    }

    /// What uses it besides mounts: its own partitions, or a disk that is made of it.
    pub(super) fn used_by(&self) -> Result<Option<String>> {
        let holders = names(&self.dir().join("holders"))?.into_iter().map(|name| format!("/dev/{name}"));
        Ok(holders.chain(self.parts()?).min())
    }

    /// Its partitions.
    pub(super) fn parts(&self) -> Result<Vec<String>> {
        let dir = self.dir();
        let parts = names(&dir)?.into_iter().filter(|name| dir.join(name).join("partition").exists());
        Ok(parts.map(|name| format!("/dev/{name}")).collect())
    }

    fn dir(&self) -> PathBuf {
        Path::new(SYSFS).join(&self.name)
    }
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let wrong = |error: std::io::Error| failed(format!("cannot read {}: {error}", dir.display()));
    let entries = fs::read_dir(dir).map_err(wrong)?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect())
}

/// All whole disks that have a size, sorted by name.
pub(super) fn all() -> Result<Vec<Device>> {
    let entries = fs::read_dir(SYSFS).map_err(|error| failed(format!("cannot read {SYSFS}: {error}")))?;
    let mut devices: Vec<Device> = entries
        .filter_map(|entry| Device::read(&entry.ok()?.path()))
        .filter(|device| device.size.0 > 0)
        .collect();
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_the_volume_of_its_serial_number() {
        let device = |serial: Option<&str>, image: Option<&str>| Device {
            name: "x".to_owned(),
            number: (1, 2),
            size: Bytes(1),
            serial: serial.map(str::to_owned),
            image: image.map(PathBuf::from),
        };
        for (serial, image, volume) in [
            (Some("vol0a1b"), None, Some("vol-0a1b")),
            (Some("vol-0a1b"), None, Some("vol-0a1b")),
            (Some("AWS0a1b"), None, None),
            (None, None, None),
            (None, Some("/x/vol-0a1b.img"), Some("vol-0a1b")),
            (None, Some("/x/vol-0a1b"), None),
            (None, Some("/x/disk.img"), None),
        ] {
            assert_eq!(device(serial, image).volume_id().as_deref(), volume, "{serial:?} {image:?}");
        }
    }
}
