//! What is mounted, as `/proc/self/mountinfo` says. Source: proc_pid_mountinfo(5).

use std::fs;

use super::{Result, failed, refused};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    /// Major and minor number of what is mounted.
    pub(super) device: (u32, u32),
    /// The directory of the file system that is mounted: `/`, or another one where it is a bind.
    pub(super) root: String,
    /// Where.
    pub(super) path: String,
    /// The file system.
    pub(super) fs: String,
    /// What is mounted, in the kernel's words.
    pub(super) source: String,
    /// Whether nothing can be written.
    pub(super) read_only: bool,
}

/// All mounts, in the order they were made.
pub(super) fn all() -> Result<Vec<Mounted>> {
    let text =
        fs::read_to_string(MOUNTINFO).map_err(|error| failed(format!("cannot read {MOUNTINFO}: {error}")))?;
    text.lines()
        .map(|line| {
            parse(line).ok_or_else(|| failed(format!("{MOUNTINFO} has a line of another form: {line}")))
        })
        .collect()
}

/// The one mount at a path.
pub(super) fn at(all: &[Mounted], path: &str) -> Result<Option<Mounted>> {
    let mut found = all.iter().filter(|mount| mount.path == path);
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => Ok(Some(one.clone())),
        (Some(one), Some(other)) => {
            let message = format!("{path} is the mount of {} and of {} above it", one.source, other.source);
            Err(refused(message).help("unmount the one that is too many by hand"))
        }
    }
}

fn parse(line: &str) -> Option<Mounted> {
    // id, parent, device, root, path, options, optional fields, a hyphen, file system, source, options of the whole.
    let (mount, whole) = line.split_once(" - ")?;
    let mount: Vec<&str> = mount.split(' ').collect();
    let whole: Vec<&str> = whole.split(' ').collect();
    let (major, minor) = mount.get(2)?.split_once(':')?;
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    Some(Mounted {
        device: (major.parse().ok()?, minor.parse().ok()?),
        root: unescaped(mount.get(3)?),
        path: unescaped(mount.get(4)?),
        fs: (*whole.first()?).to_owned(),
        source: unescaped(whole.get(1)?),
        read_only: read_only(mount.get(5)?) || read_only(whole.get(2)?),
    })
}

/// Spaces and the like are written as a backslash and three octal digits.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).filter(|_| *first == b'\\');
        let code = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read() {
        let line = r"36 35 98:0 /mnt1 /a\040b rw,noatime master:1 - ext3 /dev/root ro,errors=continue";
        let mount = parse(line).expect("a mount");
        assert_eq!((mount.device, mount.path.as_str(), mount.fs.as_str()), ((98, 0), "/a b", "ext3"));
        assert_eq!(mount.root, "/mnt1");
        assert!(mount.read_only, "the file system is, whatever the mount says");
        assert_eq!(parse("36 35 98:0 /"), None);
        assert_eq!(unescaped(r"\134\9"), r"\\9");
    }

    #[test]
    fn two_mounts_at_one_path_are_refused() {
        let mount = |source: &str| Mounted {
            device: (1, 2),
            root: "/".to_owned(),
            path: "/a".to_owned(),
            fs: "ext4".to_owned(),
            source: source.to_owned(),
            read_only: false,
        };
        assert_eq!(at(&[mount("x")], "/b"), Ok(None));
        assert_eq!(at(&[mount("x")], "/a"), Ok(Some(mount("x"))));
        assert!(at(&[mount("x"), mount("y")], "/a").is_err());
    }
}
