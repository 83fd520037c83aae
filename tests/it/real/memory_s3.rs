//! `clawd memory sync` with S3, as moto has it: what is written under which condition, lost answers, and who is refused.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value as Json;
use tempfile::TempDir;

use super::moto::{self, Moto};
use super::proxy::{Fault, Proxy};
use crate::support::block;

const BUCKET: &str = "clawd-memory-test";

/// A prefix that no other test has, in a bucket that is made once.
fn remote() -> String {
    static BUCKET_IS_THERE: Once = Once::new();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    BUCKET_IS_THERE.call_once(|| moto::make_bucket(BUCKET));
    format!("s3://{BUCKET}/hive-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

struct Host {
    dir: TempDir,
    endpoint: String,
}

impl Host {
    fn new(name: &str, endpoint: String) -> Self {
        let host = Self { dir: TempDir::new().unwrap(), endpoint };
        host.expect(0, &["init", "--host", name], "");
        host
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clawd"));
        command
            .arg("memory")
            .args(args)
            .env_clear()
            .env("CLAWD_MEMORY_DIR", self.dir.path().join("memory"))
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_REGION", "eu-central-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("HOME", self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str], input: &str) -> Output {
        let mut child = self.command(args).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    fn expect(&self, exit: i32, args: &[&str], input: &str) -> String {
        let output = self.run(args, input);
        assert_eq!(output.status.code(), Some(exit), "{}", block(args, &output));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn sync(&self, exit: i32, remote: &str) -> Json {
        serde_json::from_str(&self.expect(exit, &["sync", "--remote", remote, "--json"], "")).unwrap()
    }

    fn read(&self, path: &str) -> String {
        self.expect(0, &["read", path], "")
    }
}

#[test]
fn hosts_share_a_memory_in_s3() {
    let (proxy, remote) = (Proxy::plain(), remote());
    let hosts = ["H-1", "H-2"].map(|name| Host::new(name, proxy.url()));
    hosts[0].expect(0, &["write", "goals.md"], "one\n");
    hosts[0].expect(0, &["write", "old.md"], "old\n");
    assert_eq!(hosts[0].sync(0, &remote)["pushed"].as_array().unwrap().len(), 2);
    assert_eq!(hosts[1].sync(0, &remote)["pulled"].as_array().unwrap().len(), 2);
    // Nothing to do is one listing.
    proxy.forget();
    hosts[1].sync(0, &remote);
    assert_eq!(proxy.calls().len(), 1, "{:?}", proxy.calls());
    hosts[0].expect(0, &["append", "goals.md"], "from the first\n");
    hosts[1].expect(0, &["append", "goals.md"], "from the second\n");
    hosts[0].sync(0, &remote);
    hosts[1].sync(0, &remote);
    hosts[0].sync(0, &remote);
    for host in &hosts {
        assert_eq!(host.read("goals.md"), "one\nfrom the first\nfrom the second\n");
    }
    hosts[0].expect(0, &["rm", "old.md"], "");
    hosts[0].sync(0, &remote);
    hosts[1].sync(0, &remote);
    hosts[1].expect(1, &["read", "old.md"], "");
    // A removal is a write, too: hosts have no right to delete.
    for call in proxy.calls() {
        assert!(!call.is("s3 DeleteObject"), "{call:?}");
    }
}

/// Eight processes at a time, over a connection that loses answers after the effect.
#[test]
fn lost_answers_and_races_lose_no_line() {
    let count = AtomicU32::new(0);
    let proxy = Proxy::with(move |call| {
        let turn = count.fetch_add(1, Ordering::Relaxed);
        (call.is("s3 PutObject") && turn.is_multiple_of(3)).then_some(Fault::CutAfter)
    });
    let remote = remote();
    let mut hosts = ["H-1", "H-2", "H-3", "H-4"].map(|name| Host::new(name, proxy.url()));
    let mut lines = Vec::new();
    for round in 0..4 {
        for (number, host) in hosts.iter().enumerate() {
            let line = format!("round {round} host {number}\n");
            host.expect(0, &["append", "goals.md"], &line);
            lines.push(line);
        }
        std::thread::scope(|scope| {
            for host in &hosts {
                scope.spawn(|| host.run(&["sync", "--remote", &remote], ""));
            }
        });
    }
    let quiet = Proxy::plain();
    for _ in 0..2 {
        for host in &mut hosts {
            host.endpoint = quiet.url();
            host.sync(0, &remote);
        }
    }
    let whole = hosts[0].read("goals.md");
    for host in &hosts {
        assert_eq!(host.read("goals.md"), whole, "two quiet rounds converge");
    }
    for line in lines {
        assert!(whole.contains(&line), "{line} in\n{whole}");
    }
}

/// A memory of many files is listed in parts, by the keys that were there before; what came or went since is in one of them.
#[test]
fn a_listing_in_parts_misses_nothing() {
    let (proxy, remote) = (Proxy::plain(), remote());
    let host = Host::new("H-1", proxy.url());
    let dir = host.dir.path().join("memory/notes");
    std::fs::create_dir(&dir).unwrap();
    for n in 0..2_000 {
        std::fs::write(dir.join(format!("{n:04}.md")), format!("{n}\n")).unwrap();
    }
    host.sync(0, &remote);
    proxy.forget();
    host.sync(0, &remote);
    assert_eq!(proxy.count("s3 ListObjects"), 3, "990 keys are a part: {:?}", proxy.calls());
    // The first part ends with notes/0989.md, the second with notes/1979.md.
    let prefix = remote.strip_prefix(&format!("s3://{BUCKET}/")).unwrap();
    let new = ["aaa.md", "notes/0989.md.md", "notes/0988x.md", "notes/1500a.md", "zzz.md"];
    for name in new {
        moto::put_object(BUCKET, &format!("{prefix}/{name}"), "new\n");
    }
    let gone = ["notes/0000.md", "notes/0989.md", "notes/0990.md", "notes/1800.md", "notes/1999.md"];
    for name in gone {
        moto::delete_object(BUCKET, &format!("{prefix}/{name}"));
    }
    let said = host.sync(0, &remote);
    let mut sorted = new;
    sorted.sort_unstable();
    assert_eq!((&said["pulled"], &said["restored"]), (&sorted.into(), &gone.into()), "{said}");
}

/// A server that takes a write whatever its condition: the last writer would win there, so nothing is written to it but the probe.
#[test]
fn a_server_without_conditional_writes_is_refused() {
    for header in ["if-none-match", "if-match"] {
        let proxy = Proxy::with(move |call| call.is("s3 PutObject").then_some(Fault::Without(header)));
        let remote = remote();
        let host = Host::new("H-1", proxy.url()).with_file();
        let said = host.sync(1, &remote);
        let why = said["failed"][0]["why"].as_str().unwrap();
        assert!(why.contains("does not honour conditional writes"), "{header}: {said}");
        let keys = moto::keys(BUCKET);
        let prefix = remote.strip_prefix(&format!("s3://{BUCKET}/")).unwrap();
        let written: Vec<&String> = keys.iter().filter(|key| key.starts_with(prefix)).collect();
        assert!(written.iter().all(|key| key.ends_with(".clawd-probe")), "{written:?}");
    }
}

/// Who overwrites a memory wants to be able to look at what was there.
#[test]
fn a_bucket_without_versions_is_told() {
    let remote = remote();
    let host = Host::new("H-1", format!("http://127.0.0.1:{}", Moto::port()));
    let init = ["init", "--host", "H-1", "--remote", &remote];
    assert!(host.expect(0, &init, "").contains("keeps no versions"));
    let bucket = "clawd-memory-versions";
    moto::make_bucket(bucket);
    moto::set(
        bucket,
        "versioning",
        "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
    );
    let remote = format!("s3://{bucket}/hive");
    let init = ["init", "--host", "H-1", "--remote", &remote];
    assert!(!host.expect(0, &init, "").contains("versions"));
    // The remote is known from now on.
    host.expect(0, &["write", "goals.md"], "one\n");
    host.expect(0, &["sync"], "");
    assert_eq!(moto::keys(bucket), ["hive/conflicts/H-1/.clawd-probe", "hive/goals.md"]);
    host.expect(1, &["init", "--host", "H-1", "--remote", "s3://clawd-no-such-bucket/hive"], "");
}

#[test]
fn what_cannot_be_synced_is_told() {
    let remote = remote();
    let host = Host::new("H-1", format!("http://127.0.0.1:{}", Moto::port()));
    host.expect(0, &["write", "goals.md"], "one\n");
    let told = |host: &Host, remote: &str| {
        let args = ["sync", "--remote", remote];
        let text = block(&args, &host.run(&args, ""));
        let text = text.replace(&host.endpoint, "[endpoint]");
        regex_lite::Regex::new("hive-[0-9]+").unwrap().replace_all(&text, "hive-[n]").into_owned()
    };
    let mut text = told(&host, "s3://clawd-no-such-bucket/hive");
    text.push_str(&told(&host, "s3://NoBucket"));
    // Who may read and not write.
    let denied = Proxy::with(|call| {
        call.is("s3 PutObject").then_some(Fault::Refuse(403, "AccessDenied", "Access Denied"))
    });
    text.push_str(&told(&Host { dir: TempDir::new().unwrap(), endpoint: denied.url() }.with_file(), &remote));
    let elsewhere = Proxy::with(|call| {
        let refusal = Fault::Refuse(301, "PermanentRedirect", "The bucket must be addressed elsewhere.");
        call.operation.starts_with("s3 ").then_some(refusal)
    });
    text.push_str(&told(
        &Host { dir: TempDir::new().unwrap(), endpoint: elsewhere.url() }.with_file(),
        &remote,
    ));
    insta::assert_snapshot!("memory-s3-wrong", text);
}

impl Host {
    fn with_file(self) -> Self {
        self.expect(0, &["init", "--host", "H-1"], "");
        self.expect(0, &["write", "goals.md"], "one\n");
        self
    }
}
