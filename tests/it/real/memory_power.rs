//! A power cut under a memory. The memory is on a file system of its own, on a loop device; what the device was told by a moment is
//! what a power cut at that moment leaves. A copy of the disk image, taken without telling the file system, is that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use super::volumes::{Machine, system};
use crate::support::block;

/// A memory on a disk of its own, and a shared memory on another one.
struct Disk {
    _machine: Machine,
    dir: TempDir,
}

impl Disk {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let disk = Self { _machine: Machine::new(&[dir.path()]), dir };
        fs::File::create(disk.image("disk")).unwrap().set_len(64 << 20).unwrap();
        system("mkfs.ext4", &["-q", "-F", disk.image("disk").to_str().unwrap()]);
        disk.mount("disk");
        disk.run("disk", &["init", "--host", "H-1"], "");
        disk
    }

    fn image(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.img"))
    }

    /// Mounts a disk, without the commits that the file system makes by itself every few seconds: they would hide what clawd leaves
    /// out.
    fn mount(&self, name: &str) {
        let point = self.dir.path().join(name);
        fs::create_dir(&point).unwrap();
        let image = self.image(name);
        system("mount", &["-o", "loop,commit=3000", image.to_str().unwrap(), point.to_str().unwrap()]);
    }

    /// The power goes: what the disk has by now, mounted under another name.
    fn cut(&self, name: &str) {
        let (from, to) = (self.image("disk"), self.image(name));
        system("cp", &["--sparse=always", from.to_str().unwrap(), to.to_str().unwrap()]);
        self.mount(name);
    }

    fn memory(&self, name: &str) -> PathBuf {
        self.dir.path().join(name).join("memory")
    }

    fn start(&self, name: &str, args: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        let mut command = Command::new(env!("CARGO_BIN_EXE_clawd"));
        command.arg("memory").args(args).env_clear().env("CLAWD_MEMORY_DIR", self.memory(name));
        let piped = std::process::Stdio::piped;
        let mut child = command.stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    fn run(&self, name: &str, args: &[&str], input: &str) -> String {
        let output = self.start(name, args, input);
        assert!(output.status.success(), "{}", block(args, &output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn remote(&self) -> String {
        format!("file://{}/shared", self.dir.path().display())
    }
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let disk = Disk::new();
    // A file that is new, in a directory that is; one that is replaced; one that is removed.
    disk.run("disk", &["write", "goals.md"], "one\n");
    disk.cut("first");
    assert_eq!(disk.run("first", &["read", "goals.md"], ""), "one\n");
    disk.run("disk", &["append", "goals.md"], "two\n");
    disk.run("disk", &["write", "ideas/deep/x.md"], "x\n");
    disk.cut("second");
    assert_eq!(disk.run("second", &["read", "goals.md"], ""), "one\ntwo\n");
    assert_eq!(disk.run("second", &["read", "ideas/deep/x.md"], ""), "x\n");
    // What was replaced is kept.
    let blobs = fs::read_dir(disk.dir.path().join("second/memory.clawd/blobs")).unwrap();
    let kept: Vec<String> = blobs.map(|it| fs::read_to_string(it.unwrap().path()).unwrap()).collect();
    assert!(kept.contains(&"one\n".to_owned()), "{kept:?}");
    disk.run("disk", &["rm", "ideas/deep/x.md"], "");
    disk.cut("third");
    assert_eq!(disk.start("third", &["read", "ideas/deep/x.md"], "").status.code(), Some(1));
    // It was removed on purpose, and the next round knows.
    let removed = fs::read_to_string(disk.dir.path().join("third/memory.clawd/removed.json")).unwrap();
    assert!(removed.contains("ideas/deep/x.md"), "{removed}");
}

#[test]
fn a_round_that_was_cut_off_is_done_again_and_loses_nothing() {
    let disk = Disk::new();
    let remote = disk.remote();
    disk.run("disk", &["write", "goals.md"], "one\ntwo\n");
    disk.run("disk", &["write", "mine.md"], "mine\n");
    disk.run("disk", &["sync", "--remote", &remote], "");
    // Somebody else's changes come with the next round.
    let shared = disk.dir.path().join("shared");
    fs::write(shared.join("goals.md"), "one\ntwo\ntheirs\n").unwrap();
    fs::write(shared.join("new.md"), "new\n").unwrap();
    disk.run("disk", &["append", "goals.md"], "ours\n");
    let index = disk.dir.path().join("disk/memory.clawd/index.json");
    let before = fs::read(&index).unwrap();
    disk.run("disk", &["sync", "--remote", &remote], "");
    disk.cut("after");
    // Between the last rename and the index: everything is there, and nobody remembers the round.
    fs::write(disk.dir.path().join("after/memory.clawd/index.json"), before).unwrap();
    // What was only remembered may be cut off, too.
    for blob in fs::read_dir(disk.dir.path().join("after/memory.clawd/blobs")).unwrap() {
        let path = blob.unwrap().path();
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
    }
    for _ in 0..2 {
        disk.run("after", &["sync", "--remote", &remote], "");
    }
    assert_eq!(disk.run("after", &["read", "goals.md"], ""), "one\ntwo\ntheirs\nours\n");
    assert_eq!(disk.run("after", &["read", "mine.md"], ""), "mine\n");
    assert_eq!(disk.run("after", &["read", "new.md"], ""), "new\n");
    assert_eq!(fs::read_to_string(shared.join("goals.md")).unwrap(), "one\ntwo\ntheirs\nours\n");
    let quiet = disk.run("after", &["sync", "--remote", &remote], "");
    assert_eq!(quiet, "In step.\n");
}

/// A disk that is full in the middle of a round: what fits is there, what does not is told, and no file is half there.
#[test]
fn a_disk_that_is_full_in_the_middle_of_a_round_is_told() {
    let disk = Disk::new();
    let remote = disk.remote();
    let shared = disk.dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    for n in 0..10 {
        fs::write(shared.join(format!("{n}.md")), vec![b'a' + n; 10 << 20]).unwrap();
    }
    let output = disk.start("disk", &["sync", "--remote", &remote], "");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("No space left on device") && said.contains("pulled"), "{said}");
    let whole = |path: &Path| fs::metadata(path).unwrap().len() == 10 << 20;
    for entry in fs::read_dir(disk.memory("disk")).unwrap() {
        let path = entry.unwrap().path();
        assert!(
            path.extension().is_none_or(|it| it != "md") || whole(&path),
            "{} is cut off",
            path.display()
        );
    }
    // Once there is room, the rest comes.
    for n in 0..8 {
        fs::remove_file(shared.join(format!("{n}.md"))).unwrap();
    }
    let blobs = disk.dir.path().join("disk/memory.clawd/blobs");
    for blob in fs::read_dir(blobs).unwrap() {
        fs::remove_file(blob.unwrap().path()).unwrap();
    }
    for entry in fs::read_dir(disk.memory("disk")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "md") {
            fs::remove_file(path).unwrap();
        }
    }
    let output = disk.start("disk", &["sync", "--remote", &remote], "");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(whole(&disk.memory("disk").join("9.md")));
}
