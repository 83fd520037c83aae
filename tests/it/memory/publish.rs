//! A part of a memory that anybody may read.

use std::fs;

use tempfile::TempDir;

use super::Home;
use crate::support::walk;

#[test]
fn a_part_is_published_and_a_secret_refuses_all_of_it() {
    let home = Home::new();
    let shared = TempDir::new().unwrap();
    let to = format!("file://{}/public", shared.path().display());
    let publish = ["publish", "public", "--to", &to];
    let tell = |commands: &[(&[&str], &str)]| {
        home.session(commands).replace(shared.path().to_str().unwrap(), "[shared]")
    };
    home.expect(0, &["write", "goals.md"], "not for all\n");
    home.expect(0, &["write", "public/index.md"], "hello\n");
    home.expect(0, &["write", "public/posts/one.md"], "a post\n");
    let mut told =
        tell(&[(&publish, ""), (&publish, ""), (&["publish", "public", "--to", &to, "--json"], "")]);
    home.expect(0, &["append", "public/posts/one.md"], "more of it\n");
    home.expect(0, &["rm", "public/index.md"], "");
    told.push_str(&tell(&[(&publish, "")]));
    assert_eq!(
        fs::read_to_string(shared.path().join("public/posts/one.md")).unwrap(),
        "a post\nmore of it\n"
    );
    // Neither the new file nor the others leave.
    home.expect(0, &["write", "public/new.md"], "new\n");
    let key = format!("{}{}", "AKIA", "Q3EGRIFZRBV2KWXT");
    home.expect(0, &["append", "public/posts/one.md"], &format!("the key is {key}\n"));
    told.push_str(&tell(&[(&publish, ""), (&["publish", "public", "--to", &to, "--json"], "")]));
    let there: Vec<String> =
        walk(shared.path()).iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    assert!(!there.iter().any(|text| text.contains(&key) || text.contains("new")), "{there:?}");
    assert!(!told.contains(&key), "the refusal says where, not what: {told}");
    told.push_str(&tell(&[
        (&["publish", "no-such-dir", "--to", &to], ""),
        (&["publish", "../etc", "--to", &to], ""),
        (&["publish", "--to", "ftp://x"], ""),
    ]));
    // The shared memory itself is no place to publish to, nor what holds it or is in it.
    let hive = format!("file://{}/hive", shared.path().display());
    home.expect(0, &["init", "--host", "H-1", "--remote", &hive], "");
    // Nor is one that was only ever named for a round.
    let other = TempDir::new().unwrap();
    home.expect(0, &["sync", "--remote", &format!("file://{}/hive", other.path().display())], "");
    for place in ["/hive", "/hive/public", ""] {
        for shared in [&shared, &other] {
            let to = format!("file://{}{place}", shared.path().display());
            home.expect(64, &["publish", "--to", &to], "");
        }
    }
    insta::assert_snapshot!("memory-publish", told);
}
