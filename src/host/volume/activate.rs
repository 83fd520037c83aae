//! Mounting and unmounting: by the unit that the host's configuration declares, or directly where there is none.

use std::path::Path;

use super::device::Device;
use super::probe::FileSystem;
use super::{Programs, Result, complaint, failed, make_mountpoint, refused};
use crate::providers::ports::{MountRequest, UnmountRequest};

/// The host's configuration declares a mount unit.
pub(super) const UNIT: &str = "unit";
/// There is none: the device is mounted directly.
pub(super) const MOUNT: &str = "mount";

/// Processes that are named when a mount is busy.
const NAMED: usize = 5;

pub(super) fn start(
    programs: &Programs,
    request: &MountRequest,
    device: &Device,
    on_it: &FileSystem,
) -> Result<()> {
    match request.activate.as_str() {
        UNIT => systemctl(programs, "start", &request.path),
        _ => {
            make_mountpoint(&request.path)?;
            let options = "nodev,nosuid";
            programs
                .run("mount", &["-t", &on_it.fs, "-o", options, &device.path(), &request.path])
                .map(|_| ())
        }
    }
}

pub(super) fn stop(programs: &Programs, request: &UnmountRequest) -> Result<()> {
    let stopped = match request.activate == UNIT {
        true => systemctl(programs, "stop", &request.path),
        false => programs.run("umount", &[&request.path]).map(|_| ()),
    };
    let Err(error) = stopped else { return Ok(()) };
    let users = users(Path::new(&request.path));
    if users.is_empty() {
        return Err(error);
    }
    Err(refused(format!("{} is in use by {}", request.path, users.join(", ")))
        .help("stop them and run again; a mount in use is not taken away by force"))
}

fn systemctl(programs: &Programs, what: &str, path: &str) -> Result<()> {
    let unit = unit_name(path);
    let said = programs.output("systemctl", &[what, &unit])?;
    match said.status.success() {
        true => Ok(()),
        false => Err(failed(format!("systemctl {what} {unit}: {}", complaint(&said))).help(format!(
            "the host's NixOS configuration declares {unit}, by label; where there is none, say `activate: \"mount\"`"
        ))),
    }
}

/// The name of a path's mount unit. Source: systemd-escape(1), systemd.unit(5).
fn unit_name(path: &str) -> String {
    let mut name = String::new();
    for (at, byte) in path.trim_matches('/').bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if at > 0 => name.push('.'),
            byte if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':') => {
                name.push(char::from(byte));
            }
            byte => name.push_str(&format!("\\x{byte:02x}")),
        }
    }
    name + ".mount"
}

/// Processes with a file or their directory below a mount, as far as this process may see.
fn users(path: &Path) -> Vec<String> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let below = |link: &Path| std::fs::read_link(link).is_ok_and(|target| target.starts_with(path));
    let mut users = Vec::new();
    for process in processes.filter_map(std::result::Result::ok) {
        let dir = process.path();
        let Ok(id) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let open = std::fs::read_dir(dir.join("fd"))
            .is_ok_and(|mut files| files.any(|file| file.is_ok_and(|file| below(&file.path()))));
        if open || below(&dir.join("cwd")) || below(&dir.join("root")) || below(&dir.join("exe")) {
            let name = std::fs::read_to_string(dir.join("comm")).unwrap_or_default();
            users.push(format!("{} (process {id})", name.trim().escape_debug()));
        }
        if users.len() == NAMED {
            users.push("others".to_owned());
            break;
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `systemd-escape --path --suffix=mount` of systemd 252 says.
    #[test]
    fn units_are_named_as_systemd_names_them() {
        for (path, unit) in [
            ("/var/lib/clawd", "var-lib-clawd.mount"),
            ("/srv/my-data", "srv-my\\x2ddata.mount"),
            ("/.a/b.c_d", "\\x2ea-b.c_d.mount"),
        ] {
            assert_eq!(unit_name(path), unit);
        }
    }
}
