//! Many files, large files, names that differ in little, hosts that are not who they say, directories that are swapped.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use clawd::host::memory::{Expected, Memory, Shrinking};
use clawd::memory::MemoryPath;
use rustix::fs::{RenameFlags, renameat_with};
use serde_json::Value as Json;
use tempfile::TempDir;

use super::{Home, of};

/// A shared memory in a directory.
fn shared() -> (TempDir, String) {
    let dir = TempDir::new().unwrap();
    let remote = format!("file://{}/hive", dir.path().display());
    (dir, remote)
}

#[test]
fn ten_thousand_files_come_over_and_a_second_round_does_nothing() {
    let homes = [Home::new(), Home::new()];
    let (_shared, remote) = shared();
    for n in 0..10_000 {
        let path = homes[0].file(&format!("notes/{:02}/{n}.md", n % 100));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("note {n}\n")).unwrap();
    }
    let sync = ["sync", "--remote", &remote, "--json"];
    let count = |home: &Home, list: &str| {
        let said: Json = serde_json::from_str(&home.expect(0, &sync, "")).unwrap();
        said[list].as_array().unwrap().len()
    };
    assert_eq!(count(&homes[0], "pushed"), 10_000);
    assert_eq!(count(&homes[0], "pushed"), 0);
    assert_eq!(count(&homes[1], "pulled"), 10_000);
    assert_eq!(fs::read_to_string(homes[1].file("notes/99/9999.md")).unwrap(), "note 9999\n");
}

#[test]
fn a_large_file_and_bytes_that_are_no_text_come_over_whole() {
    let homes = [Home::new(), Home::new()];
    let (_shared, remote) = shared();
    let mut random = fastrand::Rng::with_seed(7);
    let large: Vec<u8> =
        std::iter::repeat_with(|| random.u64(..).to_le_bytes()).take(8 << 20).flatten().collect();
    fs::write(homes[0].file("large.bin"), &large).unwrap();
    fs::write(homes[0].file("bytes.bin"), b"\xff\xfe\x00one\n").unwrap();
    for home in &homes {
        home.expect(0, &["sync", "--remote", &remote], "");
    }
    assert!(fs::read(homes[1].file("large.bin")).unwrap() == large, "64 MiB, byte for byte");
    // Both change what is no text: there are no lines to merge, so one is put aside as a whole.
    fs::write(homes[0].file("bytes.bin"), b"\xff\xfe\x00two\n").unwrap();
    fs::write(homes[1].file("bytes.bin"), b"\xff\xfe\x00three\n").unwrap();
    homes[0].expect(0, &["sync", "--remote", &remote], "");
    homes[1].expect(3, &["sync", "--remote", &remote], "");
    assert_eq!(fs::read(homes[1].file("bytes.bin")).unwrap(), b"\xff\xfe\x00two\n");
    let aside = crate::support::walk(&homes[1].file("conflicts"));
    assert_eq!(fs::read(&aside[0]).unwrap(), b"\xff\xfe\x00three\n");
}

/// Names that differ in case only, or in how a letter is composed, are different files here and stay so.
#[test]
fn names_that_differ_in_little_are_different_files() {
    let homes = [Home::new(), Home::new()];
    let (_shared, remote) = shared();
    let names = ["Goals.md", "goals.md", "GOALS.md", "caf\u{e9}.md", "cafe\u{301}.md"];
    for name in names {
        homes[0].expect(0, &["write", name], &format!("{name}\n"));
    }
    for home in &homes {
        home.expect(0, &["sync", "--remote", &remote], "");
    }
    for name in names {
        assert_eq!(homes[1].expect(0, &["read", name], ""), format!("{name}\n"));
    }
}

/// Two machines that both say that they are H-1, as a host that was cloned would: both write the same daily note, and no line of it is
/// lost.
#[test]
fn two_hosts_of_one_name_lose_no_line() {
    let homes = [Home::new(), Home::new()];
    let (_shared, remote) = shared();
    for (n, home) in homes.iter().enumerate() {
        for line in 0..3 {
            home.expect(0, &["append", "2026-11-27_H-1.md"], &format!("line {line} of machine {n}\n"));
            home.run(&["sync", "--remote", &remote], "");
        }
    }
    for _ in 0..2 {
        for home in &homes {
            home.expect(0, &["sync", "--remote", &remote], "");
        }
    }
    let texts = homes.each_ref().map(|home| home.expect(0, &["read", "2026-11-27_H-1.md"], ""));
    assert_eq!(texts[0], texts[1]);
    assert_eq!(texts[0].lines().count(), 6, "{}", texts[0]);
}

/// Times of files mean nothing, and neither does the clock: files of the future and of the last century sync like any other.
#[test]
fn times_of_files_are_never_compared() {
    let homes = [Home::new(), Home::new()];
    let (shared, remote) = shared();
    homes[0].expect(0, &["write", "x.md"], "one\n");
    for home in &homes {
        home.expect(0, &["sync", "--remote", &remote], "");
    }
    let at = |path: &std::path::Path, years: i64| {
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000);
        let year = std::time::Duration::from_secs(31_556_952);
        let time = if years < 0 { time - year * 40 } else { time + year * 40 };
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    };
    // The newer content has the older time, on both sides.
    fs::write(homes[0].file("x.md"), "two\n").unwrap();
    at(&homes[0].file("x.md"), -1);
    at(&shared.path().join("hive/x.md"), 1);
    homes[0].expect(0, &["sync", "--remote", &remote], "");
    at(&homes[1].file("x.md"), 1);
    homes[1].expect(0, &["sync", "--remote", &remote], "");
    assert_eq!(homes[1].expect(0, &["read", "x.md"], ""), "two\n");
}

/// A directory of the memory that is swapped for a link all the time, while an agent writes into it: nothing is ever written, or read,
/// where the link leads.
#[test]
fn a_swapped_directory_leads_nowhere() {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("memory");
    let memory = Memory::init(&dir, of("H-1")).unwrap().0;
    let outside = home.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret.md"), "secret\n").unwrap();
    let (here, link) = (dir.join("ideas"), home.path().join("link"));
    fs::create_dir(&here).unwrap();
    symlink(&outside, &link).unwrap();
    let done = AtomicBool::new(false);
    let (mut written, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The two change places at once, so that there is always one of them.
            while !done.load(Ordering::Relaxed) {
                let at = rustix::fs::CWD;
                renameat_with(at, &here, at, &link, RenameFlags::EXCHANGE).unwrap();
                std::thread::yield_now();
            }
        });
        let path: MemoryPath = "ideas/x.md".parse().unwrap();
        let secret: MemoryPath = "ideas/secret.md".parse().unwrap();
        // Until both happened often: a write came through, and the link was met.
        while written < 50 || refused < 50 {
            let text = format!("{written} {refused}\n");
            match memory.write(&path, text.as_bytes(), &Expected::Any, Shrinking::Refused) {
                Ok(_) => written += 1,
                Err(_) => refused += 1,
            }
            if let Ok(found) = memory.read(&secret) {
                done.store(true, Ordering::Relaxed);
                panic!("read through the link: {:?}", found.content);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "nothing was written there");
}

/// The memory's directory itself is replaced while it is open: what was opened is written, not what has its name now.
#[test]
fn a_directory_that_is_replaced_is_not_the_memory() {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("memory");
    let memory = Memory::init(&dir, of("H-1")).unwrap().0;
    fs::rename(&dir, home.path().join("away")).unwrap();
    fs::create_dir(&dir).unwrap();
    let path: MemoryPath = "x.md".parse().unwrap();
    memory.write(&path, b"x\n", &Expected::Any, Shrinking::Refused).unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "the new directory is none of the memory's");
    assert_eq!(fs::read_to_string(home.path().join("away/x.md")).unwrap(), "x\n");
    assert!(Memory::open(&dir).is_err());
}
