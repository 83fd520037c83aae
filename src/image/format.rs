//! Disk image formats, by what the bytes say. A raw disk has no mark of its own: it is what has no other's mark.

use std::fmt;

/// How much of a file's beginning `detect` wants to see.
pub const HEAD: usize = 512;

/// How much of a file's end `detect` wants to see: a fixed VHD has its mark there only.
pub const TAIL: usize = 512;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// A raw disk.
    Raw,
    /// Microsoft's virtual disk.
    Vhd,
    /// Microsoft's newer virtual disk, which neither EBS direct nor vmimport takes.
    Vhdx,
    /// `VMware`'s virtual disk.
    Vmdk,
    /// QEMU's copy-on-write disk.
    Qcow2,
    /// Compressed data, by the name of the compression.
    Compressed(&'static str),
}

/// Marks at the beginning of a file. Sources: QEMU's `docs/interop/qcow2`, the VMDK and VHD specifications, RFC 1952, and
/// the formats of xz, zstd and bzip2.
const MARKS: [(&[u8], DiskFormat); 9] = [
    (b"QFI\xfb", DiskFormat::Qcow2),
    (b"KDMV", DiskFormat::Vmdk),
    (b"# Disk DescriptorFile", DiskFormat::Vmdk),
    (b"conectix", DiskFormat::Vhd),
    (b"vhdxfile", DiskFormat::Vhdx),
    (b"\x1f\x8b", DiskFormat::Compressed("gzip")),
    (b"\xfd7zXZ\x00", DiskFormat::Compressed("xz")),
    (b"\x28\xb5\x2f\xfd", DiskFormat::Compressed("zstd")),
    (b"BZh", DiskFormat::Compressed("bzip2")),
];

impl DiskFormat {
    /// What the first and the last bytes of a file say.
    #[must_use]
    pub fn detect(head: &[u8], tail: &[u8]) -> Self {
        if let Some((_, format)) = MARKS.iter().find(|(mark, _)| head.starts_with(mark)) {
            return *format;
        }
        if tail.starts_with(b"conectix") { Self::Vhd } else { Self::Raw }
    }

    /// The word for it in plans.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vmdk => "vmdk",
            Self::Qcow2 => "qcow2",
            Self::Compressed(name) => name,
        }
    }
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Endings of file names that image builders give to disk images.
pub const ENDINGS: [&str; 7] = ["img", "raw", "vhd", "vpc", "vhdx", "vmdk", "qcow2"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_marks() {
        let mut footer = vec![0; TAIL];
        footer[..8].copy_from_slice(b"conectix");
        for (head, tail, format) in [
            (&b"QFI\xfb\0\0\0\x03"[..], &[][..], DiskFormat::Qcow2),
            (b"KDMV\x01", &[], DiskFormat::Vmdk),
            (b"conectix", &[], DiskFormat::Vhd),
            (b"\0\0\0", &footer, DiskFormat::Vhd),
            (b"\x1f\x8b\x08", &[], DiskFormat::Compressed("gzip")),
            (b"\xebc\x90", &[0; TAIL], DiskFormat::Raw),
            (b"", b"", DiskFormat::Raw),
        ] {
            assert_eq!(DiskFormat::detect(head, tail), format);
        }
    }
}
