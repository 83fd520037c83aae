//! `clawd host mount` on real block devices: loop devices over disk images, with what the kernel and the file systems' own programs
//! put on them. Root and loop devices are a part of these tests: where they are not, the tests fail and say so.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use regex_lite::Regex;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::support::block;

/// Signatures are looked at in images of this size.
const GIB: u64 = 1 << 30;

/// The volume of most tests.
const VOLUME: &str = "vol-0123456789abcdef0";

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Runs a program of the system that must succeed.
#[track_caller]
pub(crate) fn system(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is missing ({error}); run scripts/setup"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// This machine, as far as its disks are a test's. What is mounted below these directories, or attached from them, goes with it.
pub(crate) struct Machine {
    dirs: Vec<PathBuf>,
}

impl Machine {
    pub(crate) fn new(dirs: &[&Path]) -> Self {
        assert!(
            system("id", &["-u"]) == "0" && Path::new("/dev/loop-control").exists(),
            "loop devices are missing: these tests run as root, with /dev/loop-control"
        );
        Self { dirs: dirs.iter().map(|dir| dir.to_path_buf()).collect() }
    }

    fn holds(&self, path: &str) -> bool {
        self.dirs.iter().any(|dir| Path::new(path).starts_with(dir))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let unmount = || {
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
            let paths = mounts.lines().rev().filter_map(|line| line.split(' ').nth(1));
            for path in paths.filter(|path| self.holds(path)) {
                // What holds the images of others is busy until these are detached.
                let _ = Command::new("umount").arg(path).output();
            }
        };
        unmount();
        let loops = Command::new("losetup").args(["--noheadings", "--output", "NAME,BACK-FILE"]).output();
        for line in String::from_utf8_lossy(&loops.unwrap().stdout).lines() {
            let Some((device, image)) = line.trim().split_once(' ') else { continue };
            if self.holds(image.trim()) {
                let _ = Command::new("losetup").args(["--detach", device]).status();
            }
        }
        unmount();
    }
}

/// A host whose disks are images.
struct Host {
    _machine: Machine,
    dir: TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let host = Self { _machine: Machine::new(&[dir.path()]), dir };
        fs::create_dir(host.images()).unwrap();
        host
    }

    fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    fn image(&self, volume: &str) -> PathBuf {
        self.images().join(format!("{volume}.img"))
    }

    fn path(&self) -> String {
        self.dir.path().join("mnt/data").display().to_string()
    }

    /// A disk of some size on which nothing is.
    fn blank(&self, volume: &str, size: u64) -> PathBuf {
        let image = self.image(volume);
        File::create(&image).unwrap().set_len(size).unwrap();
        image
    }

    /// Attaches a disk; its device.
    fn attach(&self, volume: &str) -> String {
        system("losetup", &["--find", "--show", self.image(volume).to_str().unwrap()])
    }

    /// Detaches a device, and waits until nothing has it: whoever looks at devices may have it open for a moment.
    fn detach(&self, device: &str) {
        system("losetup", &["--detach", device]);
        let attached = || system("losetup", &["--noheadings", "--output", "NAME", "--list"]);
        while attached().lines().any(|line| line.trim() == device) {
            std::thread::yield_now();
        }
    }

    fn spec(&self, token: Option<&str>, request: &Json) -> PathBuf {
        let path = self.dir.path().join("spec.json");
        let spec = json!({ "version": 1, "token": token, "request": request });
        fs::write(&path, spec.to_string()).unwrap();
        path
    }

    fn run(&self, what: &str, spec: &Path) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clawd"));
        let images = self.images();
        let (images, run) = (images.to_str().unwrap(), self.dir.path().join("run"));
        let args = ["host", what, "--images", images, "--run", run.to_str().unwrap(), "--spec"];
        command.args(args).arg(spec).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        if self.bin().exists() {
            let path = format!("{}:{}", self.bin().display(), std::env::var("PATH").unwrap());
            command.env("PATH", path);
        }
        command.output().unwrap()
    }

    /// Programs that go before the system's.
    fn bin(&self) -> PathBuf {
        self.dir.path().join("bin")
    }

    /// Asks; the exit code and the answer.
    fn ask(&self, what: &str, token: Option<&str>, request: &Json) -> (i32, Json) {
        let output = self.run(what, &self.spec(token, request));
        let answer = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", block(&["host", what], &output)));
        (output.status.code().unwrap(), answer)
    }

    /// Asks for a mount; the exit code and the answer as a line of text, without what differs from run to run.
    fn told(&self, request: &Json) -> String {
        let token = clawd::digest::sha256_hex(request.to_string().as_bytes());
        let (code, answer) = self.ask("mount", Some(&token), request);
        let text = match answer.get("error") {
            Some(error) => format!(
                "{} ({code}): {}\n  {}",
                error["kind"].as_str().unwrap(),
                error["message"].as_str().unwrap(),
                error["help"].as_str().unwrap_or("-")
            ),
            None => format!("ok ({code})"),
        };
        self.stable(&text)
    }

    fn stable(&self, text: &str) -> String {
        let text = text.replace(self.dir.path().to_str().unwrap(), "[dir]");
        let rules = [(r"/dev/loop[0-9]+", "/dev/loop[n]"), (r"process [0-9]+", "process [pid]")];
        rules.into_iter().fold(text, |text, (pattern, with)| {
            Regex::new(pattern).unwrap().replace_all(&text, with).into_owned()
        })
    }

    /// A request for the volume as ext4.
    fn request(&self) -> Json {
        json!({
            "source": { "volume": { "id": VOLUME, "size": 1, "fs": "ext4", "may_format": true } },
            "path": self.path(), "owner": "root", "group": "root", "mode": "0750", "activate": "mount",
        })
    }
}

/// A request with one part of its volume, or of itself, another.
fn with(request: &Json, key: &str, value: Json) -> Json {
    let mut other = request.clone();
    match other["source"]["volume"].get_mut(key) {
        Some(place) => *place = value,
        None => other[key] = value,
    }
    other
}

#[test]
fn a_blank_volume_is_made_a_file_system_once_and_mounted_ever_after() {
    for fs_name in ["ext4", "xfs"] {
        let host = Host::new();
        host.blank(VOLUME, GIB);
        let device = host.attach(VOLUME);
        let request = with(&with(&host.request(), "fs", fs_name.into()), "owner", "daemon".into());
        let (code, answer) = host.ask("mount", Some(TOKEN), &request);
        assert_eq!(code, 0, "{answer}");
        let report = answer["ok"].clone();
        let uuid = system("blkid", &["--probe", "--output", "value", "--match-tag", "UUID", &device]);
        assert_eq!(
            report,
            json!({ "source": VOLUME, "path": host.path(), "fs": fs_name, "uuid": uuid, "owner": "daemon",
                    "group": "root", "mode": "0750", "size": 1 })
        );
        let label = system("blkid", &["--probe", "--output", "value", "--match-tag", "LABEL", &device]);
        assert_eq!(label, "clawd-data");
        let file = Path::new(&host.path()).join("file");
        fs::write(&file, "data").unwrap();
        // The same again, by the token and by another one: what is there is told, and nothing is done.
        assert_eq!(host.ask("mount", Some(TOKEN), &request), (0, answer));
        assert_eq!(host.ask("mount", Some(&TOKEN.replace('0', "1")), &request).1["ok"], report);
        assert_eq!(host.ask("mounted", None, &json!({ "path": host.path() })).1["ok"], report);
        let unmount = json!({ "volume_id": VOLUME, "path": host.path(), "activate": "mount" });
        assert_eq!(host.ask("unmount", Some(TOKEN.split_at(16).0), &unmount).0, 0);
        assert!(!file.exists());
        assert_eq!(host.ask("unmount", Some(TOKEN.split_at(16).0), &unmount).0, 0, "it is unmounted already");
        assert_eq!(host.ask("mounted", None, &json!({ "path": host.path() })).1["ok"], Json::Null);
        // A repeat whose answer does not hold any more does it again. Owner and mode of the root are set, of nothing below.
        let request = with(&with(&request, "may_format", false.into()), "mode", "0700".into());
        assert_eq!(host.ask("mount", Some(&TOKEN.replace('0', "2")), &request).1["ok"]["mode"], "0700");
        assert_eq!(fs::read_to_string(&file).unwrap(), "data");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        let owner = system("stat", &["--format", "%U", file.to_str().unwrap()]);
        assert_eq!(owner, "root", "what is below is not given away");
    }
}

/// What is on a disk, put there by the programs that make it.
fn occupy(what: &str, image: &Path, device: &str) {
    let path = image.to_str().unwrap();
    match what {
        "gpt" => drop(system("sgdisk", &["--new", "1:0:0", device])),
        "luks" => {
            let key = image.with_extension("key");
            fs::write(&key, "a passphrase").unwrap();
            let fast = ["--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
            let args =
                [&["luksFormat", "--type", "luks2"], &fast[..], &[path, key.to_str().unwrap()]].concat();
            system("cryptsetup", &args);
        }
        "lvm" => {
            let config = "devices { use_devicesfile = 0 }";
            system("pvcreate", &["--yes", "--config", config, device]);
        }
        "md" => {
            // The kernel here may have no md: a superblock of version 1.2, as md(4) describes it.
            let mut superblock = vec![0_u8; 256];
            superblock[..4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
            superblock[4] = 1;
            superblock[16..32].copy_from_slice(b"a device's uuid.");
            superblock[144] = 8;
            write_at(image, 4096, &superblock);
        }
        "swap" => drop(system("mkswap", &[device])),
        "ext4" => drop(system("mkfs.ext4", &["-q", "-L", "another", device])),
        "xfs" => drop(system("mkfs.xfs", &["-q", device])),
        "ext3" => drop(system("mkfs.ext3", &["-q", device])),
        "ext4-and-gpt" => {
            system("sgdisk", &["--new", "1:0:0", device]);
            // It leaves the first kilobyte alone, and with it the table.
            system("mkfs.ext4", &["-q", "-F", device, "524288"]);
        }
        // A thing that no program knows, where only reading finds it: an encrypted volume without header looks like that.
        "data" => write_at(image, GIB / 2 + 4096, b"something"),
        "last-byte" => write_at(image, GIB - 1, b"x"),
        other => panic!("{other}"),
    }
}

fn write_at(image: &Path, at: u64, bytes: &[u8]) {
    let mut file = File::options().write(true).open(image).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn what_holds_anything_is_never_formatted() {
    let mut told = String::new();
    for what in
        ["gpt", "luks", "lvm", "md", "swap", "ext3", "ext4-and-gpt", "data", "last-byte", "ext4", "xfs"]
    {
        let host = Host::new();
        let image = host.blank(VOLUME, GIB);
        // Made first and attached then: the kernel has nothing of it in its cache.
        let device = host.attach(VOLUME);
        occupy(what, &image, &device);
        host.detach(&device);
        system("sync", &[]);
        let copy = image.with_extension("copy");
        system("cp", &["--sparse=always", image.to_str().unwrap(), copy.to_str().unwrap()]);
        host.attach(VOLUME);
        // Whatever the caller allows.
        let fs_name = if what == "ext4" { "xfs" } else { "ext4" };
        told.push_str(&format!("{what}: {}\n", host.told(&with(&host.request(), "fs", fs_name.into()))));
        assert!(!Path::new(&host.path()).exists(), "{what}: nothing is mounted");
        system("sync", &[]);
        system("cmp", &[image.to_str().unwrap(), copy.to_str().unwrap()]);
    }
    insta::assert_snapshot!("volume-never-formatted", told);
}

#[test]
fn what_is_not_as_it_should_be_is_told() {
    let mut told = String::new();
    let mut tell = |what: &str, text: String| told.push_str(&format!("{what}: {text}\n"));
    let host = Host::new();
    let request = host.request();
    tell("no disk", host.told(&request));
    let image = host.blank(VOLUME, GIB);
    let device = host.attach(VOLUME);
    tell("blank, and formatting is not allowed", host.told(&with(&request, "may_format", false.into())));
    tell("smaller than the volume", host.told(&with(&request, "size", 2.into())));
    let second = host.attach(VOLUME);
    tell("two disks of one serial number", host.told(&request));
    host.detach(&second);
    // Reads behind the end of its file are errors of the device.
    File::options().write(true).open(&image).unwrap().set_len(GIB / 2).unwrap();
    tell("a disk that cannot be read", host.told(&request));
    File::options().write(true).open(&image).unwrap().set_len(GIB).unwrap();
    fs::create_dir_all(host.path()).unwrap();
    fs::write(format!("{}/file", host.path()), "x").unwrap();
    tell("files where the mount is to be", host.told(&request));
    fs::remove_file(format!("{}/file", host.path())).unwrap();
    assert_eq!(host.told(&request), "ok (0)");
    tell("mounted elsewhere", host.told(&with(&request, "path", format!("{}-other", host.path()).into())));
    let other = "vol-0fedcba9876543210";
    host.blank(other, GIB);
    host.attach(other);
    tell("something else is mounted there", host.told(&with(&request, "id", other.into())));
    let elsewhere =
        with(&with(&request, "id", other.into()), "path", format!("{}-other", host.path()).into());
    tell("two devices of one label", host.told(&elsewhere));
    // Another volume's unmount does not take this one away.
    let wrong = json!({ "volume_id": other, "path": host.path(), "activate": "mount" });
    let (code, answer) = host.ask("unmount", Some(TOKEN), &wrong);
    tell("unmounting another", host.stable(&format!("{code} {}", answer["error"]["message"])));
    // Somebody is in it.
    let held = File::create(format!("{}/held", host.path())).unwrap();
    let unmount = json!({ "volume_id": VOLUME, "path": host.path(), "activate": "mount" });
    let (code, answer) = host.ask("unmount", Some(TOKEN), &unmount);
    let message = host.stable(answer["error"]["message"].as_str().unwrap());
    tell(
        "busy",
        format!("{code} {}", Regex::new(r"in use by \S+").unwrap().replace(&message, "in use by [name]")),
    );
    drop(held);
    assert_eq!(host.ask("unmount", Some(TOKEN), &unmount).0, 0);
    host.detach(&device);
    tell("larger than the volume", {
        host.blank(VOLUME, 3 * GIB);
        host.attach(VOLUME);
        host.told(&with(&request, "size", 2.into()))
    });
    for (key, value) in [
        ("id", json!("../../sda")),
        ("fs", json!("btrfs")),
        ("owner", json!("nobody-of-this-name")),
        ("mode", json!("9")),
        ("activate", json!("by-hand")),
        ("path", json!("relative")),
        ("path", json!("/srv/../etc")),
        ("path", json!("/etc")),
    ] {
        tell(&format!("{key} {value}"), host.told(&with(&request, key, value)));
    }
    insta::assert_snapshot!("volume-wrong", told);
}

/// The disk behind the device is full: what was begun is told, and never taken for a file system.
#[test]
fn a_full_disk_while_formatting_is_told() {
    let host = Host::new();
    system("mount", &["-t", "tmpfs", "-o", "size=256k", "tmpfs", host.images().to_str().unwrap()]);
    host.blank(VOLUME, GIB);
    host.attach(VOLUME);
    let (code, answer) = host.ask("mount", Some(TOKEN), &host.request());
    assert_eq!((code, answer["error"]["kind"].as_str()), (1, Some("permanent")), "{answer}");
    let (code, answer) = host.ask("mount", Some(TOKEN), &host.request());
    assert_ne!(code, 0, "{answer}");
    assert!(!fs::read_to_string("/proc/self/mounts").unwrap().contains(&host.path()));
}

#[test]
fn a_file_system_grows_with_its_volume() {
    // Growing ext4 while it is mounted takes a capability that root has not everywhere.
    let capabilities = fs::read_to_string("/proc/self/status").unwrap();
    let effective = capabilities.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let may_grow_ext4 = u64::from_str_radix(effective.trim(), 16).unwrap() >> 24 & 1 == 1;
    for (fs_name, can) in [("xfs", true), ("ext4", may_grow_ext4)] {
        let host = Host::new();
        let image = host.blank(VOLUME, GIB);
        let device = host.attach(VOLUME);
        let request = with(&host.request(), "fs", fs_name.into());
        assert_eq!(host.told(&request), "ok (0)");
        File::options().write(true).open(&image).unwrap().set_len(2 * GIB).unwrap();
        // The device has grown and the file system has not: told as it is, and grown by the next mount.
        system("losetup", &["--set-capacity", &device]);
        let mounted = host.ask("mounted", None, &json!({ "path": host.path() })).1;
        assert_eq!(mounted["ok"]["size"], 1);
        let grown = with(&request, "size", 2.into());
        let (code, answer) = host.ask("mount", Some(&TOKEN.replace('0', "1")), &grown);
        if can {
            assert_eq!((code, &answer["ok"]["size"]), (0, &json!(2)), "{answer}");
        } else {
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(code == 1 && message.contains("Permission denied"), "{answer}");
            assert!(answer["error"]["help"].as_str().unwrap().contains("CAP_SYS_RESOURCE"), "{answer}");
        }
    }
}

/// The unit that the host's configuration declares, by a `systemctl` that does what systemd would do with it.
#[test]
fn a_unit_mounts_by_label() {
    let host = Host::new();
    host.blank(VOLUME, GIB);
    let device = host.attach(VOLUME);
    let request = with(&host.request(), "activate", "unit".into());
    fs::create_dir_all(host.bin()).unwrap();
    fs::create_dir_all(host.path()).unwrap();
    let systemctl = |script: &str| {
        let path = host.bin().join("systemctl");
        fs::write(&path, format!("#!/bin/sh\necho \"$@\" >>{}/units\n{script}", host.dir.path().display()))
            .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    systemctl("echo \"Unit $2 not found.\" >&2; exit 5");
    let mut told = format!("no unit: {}\n", host.told(&request));
    systemctl("exit 0");
    told.push_str(&format!("a unit that mounts nothing: {}\n", host.told(&request)));
    systemctl(&format!("case $1 in start) mount {device} {0} ;; stop) umount {0} ;; esac", host.path()));
    told.push_str(&format!("a unit that mounts: {}\n", host.told(&request)));
    let unmount = json!({ "volume_id": VOLUME, "path": host.path(), "activate": "unit" });
    assert_eq!(host.ask("unmount", Some(TOKEN), &unmount).0, 0);
    let other = "vol-0fedcba9876543210";
    host.blank(other, GIB);
    let second = host.attach(other);
    system("mkfs.ext4", &["-q", "-L", "other", &second]);
    systemctl(&format!("mount {second} {}", host.path()));
    told.push_str(&format!("a unit that mounts something else: {}\n", host.told(&request)));
    system("umount", &[&host.path()]);
    system("e2label", &[&device, "mine"]);
    told.push_str(&format!("another label: {}\n", host.told(&request)));
    let units = fs::read_to_string(host.dir.path().join("units")).unwrap();
    let name = system("systemd-escape", &["--path", "--suffix=mount", &host.path()]);
    assert!(units.lines().all(|line| line.ends_with(&name)), "{units}");
    insta::assert_snapshot!(
        "volume-units",
        Regex::new(r"\S+\.mount").unwrap().replace_all(&told, "[unit].mount")
    );
}

#[test]
fn a_spec_that_cannot_be_read_is_told() {
    let host = Host::new();
    let spec = host.dir.path().join("spec.json");
    let mut told = String::new();
    let request = host.request();
    for (what, text) in [
        ("no JSON", "{".to_owned()),
        ("no version", "{}".to_owned()),
        ("another version", "{\"version\":2}".to_owned()),
        ("no request", "{\"version\":1}".to_owned()),
        ("an unknown field", json!({ "version": 1, "request": request, "force": true }).to_string()),
        ("an unknown field of the request", {
            json!({ "version": 1, "request": with(&request, "force", true.into()) }).to_string()
        }),
        ("too long", format!("{{\"version\":1,\"pad\":\"{}\"}}", "x".repeat(16 << 10))),
        ("no token", json!({ "version": 1, "request": request }).to_string()),
        ("a token that is a path", json!({ "version": 1, "token": "../x", "request": request }).to_string()),
    ] {
        fs::write(&spec, text).unwrap();
        told.push_str(&format!(
            "# {what}\n{}\n",
            host.stable(&block(&["host", "mount"], &host.run("mount", &spec)))
        ));
    }
    let missing = host.run("mount", Path::new("/no/such/spec"));
    told.push_str(&format!("# no file\n{}\n", block(&["host", "mount"], &missing)));
    host.blank(VOLUME, GIB);
    host.attach(VOLUME);
    assert_eq!(host.ask("mount", Some(TOKEN), &request).0, 0);
    let (code, answer) = host.ask("mount", Some(TOKEN), &with(&request, "mode", "0700".into()));
    told.push_str(&format!("# a token of another request\n{code} {}\n", answer["error"]["message"]));
    insta::assert_snapshot!("volume-specs", told);
}
