//! What agents call, and what is refused.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value as Json;

use super::Home;
use crate::support::block;

#[test]
fn an_agent_reads_and_writes() {
    let home = Home::new();
    insta::assert_snapshot!(
        "memory-session",
        home.session(&[
            (&["init", "--host", "H-1"], ""),
            (&["write", "goals.md"], "# Goals\n\ncount: 1\n"),
            (&["read", "goals.md"], ""),
            (&["read", "goals.md", "--json"], ""),
            (&["edit", "goals.md", "--old", "count: 1", "--new", "count: 2"], ""),
            (&["edit", "goals.md", "--old", "count: 2", "--new", "count: 3", "--json"], ""),
            (&["append", "2026-11-26_H-1.md"], "no end"),
            (&["append", "2026-11-26_H-1.md"], "a line\n"),
            (&["append", "ideas/x.md", "--json"], ""),
            (&["read", "2026-11-26_H-1.md"], ""),
            (&["status"], ""),
            (&["status", "--json"], ""),
            (&["log"], ""),
            (&["rm", "ideas/x.md"], ""),
            (&["log", "ideas/x.md", "--json"], ""),
        ])
    );
    // What was overwritten is kept, and a line is never joined to another.
    assert_eq!(fs::read_to_string(home.file("2026-11-26_H-1.md")).unwrap(), "no end\na line\n");
    let blobs = fs::read_dir(home.dir.path().join("memory.clawd/blobs")).unwrap();
    let texts: Vec<String> = blobs.map(|blob| fs::read_to_string(blob.unwrap().path()).unwrap()).collect();
    assert!(texts.contains(&"# Goals\n\ncount: 1\n".to_owned()), "{texts:?}");
}

#[test]
fn a_lost_race_says_what_is_there() {
    let home = Home::new();
    home.expect(0, &["write", "goals.md"], "one\ntwo\n");
    let first = home.version("goals.md");
    home.expect(0, &["edit", "goals.md", "--old", "two", "--new", "three"], "");
    insta::assert_snapshot!(
        "memory-lost-race",
        home.session(&[
            (&["write", "goals.md"], "mine\n"),
            (&["write", "goals.md", "--if-version", &first], "mine\n"),
            (&["write", "goals.md", "--if-version", &first, "--json"], "mine\n"),
            (&["edit", "goals.md", "--old", "one", "--new", "1", "--if-version", &first, "--json"], ""),
            (&["rm", "goals.md", "--if-version", &first], ""),
            (&["write", "gone.md", "--if-version", &first], "mine\n"),
        ])
    );
    assert_eq!(fs::read_to_string(home.file("goals.md")).unwrap(), "one\nthree\n");
}

#[test]
fn bad_input_is_refused() {
    let home = Home::new();
    home.expect(0, &["write", "goals.md"], "one\ntwo\none\n");
    fs::write(home.file("bytes.bin"), b"\xff\x00").unwrap();
    fs::create_dir(home.file("dir")).unwrap();
    let outside = home.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "x").unwrap();
    symlink(outside.join("file"), home.file("link.md")).unwrap();
    symlink(&outside, home.file("etc")).unwrap();
    fs::write(home.file("two-names.md"), "x").unwrap();
    fs::hard_link(home.file("two-names.md"), home.file("second-name.md")).unwrap();
    fs::write(home.file("line\nbreak.md"), "x").unwrap();
    let stone = format!("clawd-memory-tombstone-v1 {}\n", "0".repeat(64));
    let long = "a".repeat(300);
    insta::assert_snapshot!(
        "memory-bad-input",
        home.session(&[
            (&["read", "gaols.md"], ""),
            (&["read", "nothing-like-it"], ""),
            (&["read", "../outside.md"], ""),
            (&["read", "/etc/hostname"], ""),
            (&["read", "link.md"], ""),
            (&["append", "etc/mine.md"], "x\n"),
            (&["read", "dir"], ""),
            (&["append", "two-names.md"], "x\n"),
            (&["append", ".clawd-memory.json"], "x\n"),
            (&["append", &long], "x\n"),
            (&["read", "bytes.bin", "--json"], ""),
            (&["edit", "goals.md", "--old", "none", "--new", "x"], ""),
            (&["edit", "goals.md", "--old", "one", "--new", "x", "--json"], ""),
            (&["edit", "goals.md", "--old", "", "--new", "x"], ""),
            (&["write", "goals.md", "--if-version", "latest"], "x\n"),
            (&["write", "stone.md"], &stone),
            (&["edit", "goals.md", "--old", "one\ntwo\none\n", "--new", ""], ""),
            (&["rm", "goals.md"], ""),
            (&["init", "--host", "no host"], ""),
            (&["init", "--host", "H-1", "--ignore", "a["], ""),
            (&["init", "--host", "H-1", "--canonical", "../x"], ""),
            (&["status"], ""),
        ])
    );
    assert_eq!(fs::read_to_string(home.file("goals.md")).unwrap(), "one\ntwo\none\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "nothing was written outside");
    home.expect(0, &["rm", "goals.md", "--allow-shrink"], "");
    assert_eq!(home.run(&["read", "bytes.bin"], "").stdout, b"\xff\x00");
}

/// A link that leads to another part of the memory is none of it either: what it leads to would be there twice.
#[test]
fn a_link_inside_the_memory_is_no_part_of_it() {
    let home = Home::new();
    home.expect(0, &["write", "real/x.md"], "x\n");
    symlink("real", home.file("alias")).unwrap();
    for (args, input) in [(&["read", "alias/x.md"], ""), (&["append", "alias/x.md"], "y\n")] {
        home.expect(1, args, input);
    }
    assert_eq!(home.expect(0, &["read", "real/x.md"], ""), "x\n");
    let status: Json = serde_json::from_str(&home.expect(0, &["status", "--json"], "")).unwrap();
    assert_eq!(status["skipped"][0]["name"], "alias");
}

/// A directory that is not mounted is empty, and everything in it would seem to be deleted.
#[test]
fn an_unmounted_directory_is_no_memory() {
    let home = Home::new();
    home.expect(0, &["write", "goals.md"], "one\n");
    fs::rename(home.memory(), home.dir.path().join("elsewhere")).unwrap();
    insta::assert_snapshot!(
        "memory-unmounted",
        home.session(&[(&["status"], ""), (&["append", "goals.md", "--json"], "x\n")])
    );
    fs::create_dir(home.memory()).unwrap();
    home.expect(1, &["append", "goals.md"], "x\n");
    assert_eq!(fs::read_dir(home.memory()).unwrap().count(), 0, "nothing was written");
    fs::write(home.file(".clawd-memory.json"), "{ \"format\": 9 }").unwrap();
    home.expect(1, &["status"], "");
}

/// Finding 6: of 40 increments by two writers, 22 were left.
#[test]
fn finding_6_no_increment_is_lost() {
    let home = Home::new();
    home.expect(0, &["write", "count.md"], "count: 0\n");
    let (agents, increments) = (4, 10);
    std::thread::scope(|scope| {
        for _ in 0..agents {
            scope.spawn(|| {
                for _ in 0..increments {
                    while !increment(&home) {}
                }
            });
        }
    });
    let wanted = format!("count: {}\n", agents * increments);
    assert_eq!(fs::read_to_string(home.file("count.md")).unwrap(), wanted);
}

/// Reads, adds one, writes; false when somebody else was first.
fn increment(home: &Home) -> bool {
    let json: Json = serde_json::from_str(&home.expect(0, &["read", "count.md", "--json"], "")).unwrap();
    let (text, version) = (json["content"].as_str().unwrap(), json["version"].as_str().unwrap());
    let old = text.trim();
    let count: u32 = old.strip_prefix("count: ").unwrap().parse().unwrap();
    let new = format!("count: {}", count + 1);
    let args = ["edit", "count.md", "--old", old, "--new", &new, "--if-version", version];
    let output = home.run(&args, "");
    match output.status.code() {
        Some(0) => true,
        Some(3) => false,
        _ => panic!("{}", block(&args, &output)),
    }
}
