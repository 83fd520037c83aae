//! `plans/memory.rhai` end to end: EC2 and S3 of moto, and this machine in the place of two hosts, with real disks, file systems,
//! mounts and memories.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::volumes::Machine;
use super::{Moto, moto};
use crate::support::{Project, block, stable};

/// Two hosts of moto's, and a project with the plan.
struct Fleet {
    /// Before the directories go, so do the mounts in them.
    _machine: Machine,
    project: Project,
    instances: Vec<String>,
    bucket: String,
    /// Where the volumes are mounted.
    mounts: TempDir,
    /// The command.
    clawd: PathBuf,
}

const HOSTS: [&str; 2] = ["H-1", "H-2"];

impl Fleet {
    fn new(name: &str) -> Self {
        let project = Project::new();
        let bucket = format!("hive-{name}-{}", std::process::id());
        moto::make_bucket(&bucket);
        let versions = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
        moto::set(&bucket, "versioning", versions);
        project.write(
            "clawd.toml",
            &format!(
                "fleet = \"{bucket}\"\n\n[profiles.moto]\nadapters = \"aws\"\naccount = \"123456789012\"\n\
                 region = \"eu-central-1\"\nendpoint = \"http://127.0.0.1:{}\"\ncredentials = \"test\"\n\
                 lock = \"file\"\nhosts = \"local\"\n",
                Moto::port()
            ),
        );
        project.copy("plans/memory.rhai");
        let mounts = TempDir::new().unwrap();
        let machine = Machine::new(&[project.path(), mounts.path()]);
        let instances = HOSTS.map(|_| moto::launch()).to_vec();
        Self {
            project,
            instances,
            bucket,
            mounts,
            _machine: machine,
            clawd: env!("CARGO_BIN_EXE_clawd").into(),
        }
    }

    fn run(&self, more: &[&str]) -> Output {
        let instances = HOSTS.iter().zip(&self.instances).map(|(host, id)| format!("\"{host}\": \"{id}\""));
        let instances = format!("instances={{ {} }}", instances.collect::<Vec<_>>().join(", "));
        let remote = format!("remote=s3://{}/hive", self.bucket);
        let root = format!("root={}", self.mounts.path().display());
        let mut args = vec!["run", "plans/memory.rhai", "--profile", "moto", "--yes"];
        for param in [&instances, &remote, &root] {
            args.extend(["--param", param]);
        }
        args.extend(more);
        let mut command = Command::new(&self.clawd);
        command.args(&args).current_dir(self.project.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap()
    }

    #[track_caller]
    fn expect(&self, exit: i32, more: &[&str]) -> String {
        let output = self.run(more);
        assert_eq!(output.status.code(), Some(exit), "{}", block(more, &output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn memory(&self, host: usize) -> PathBuf {
        self.mounts.path().join(HOSTS[host]).join("memory")
    }

    /// `clawd memory` on a host, as an agent calls it.
    #[track_caller]
    fn agent(&self, host: usize, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clawd"));
        command.arg("memory").args(args).env_clear().env("CLAWD_MEMORY_DIR", self.memory(host));
        command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", Moto::port()));
        for (name, value) in
            [("AWS_REGION", "eu-central-1"), ("AWS_ACCESS_KEY_ID", "t"), ("AWS_SECRET_ACCESS_KEY", "t")]
        {
            command.env(name, value);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", block(args, &output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command said, without what differs from run to run.
    fn stable(&self, text: &str) -> String {
        let mut text =
            text.replace(self.mounts.path().to_str().unwrap(), "[mounts]").replace(&self.bucket, "[fleet]");
        for (host, id) in HOSTS.iter().zip(&self.instances) {
            text = text.replace(id, &format!("[instance of {host}]"));
        }
        let text = regex_lite::Regex::new(r"(vol|snap|i)-[0-9a-f]{8,17}\b")
            .unwrap()
            .replace_all(&text, "$1-[id]")
            .into_owned();
        stable(&text)
    }
}

#[test]
fn two_hosts_share_a_memory_on_volumes_that_outlive_them() {
    let mut fleet = Fleet::new("share");
    let first = fleet.expect(0, &[]);
    insta::assert_snapshot!("memory-plan-first", fleet.stable(&first));
    let again = fleet.expect(0, &["--dry-run", "--detailed-exitcode"]);
    assert!(again.contains("No changes."), "{again}");

    // Agents write on both hosts; what a round would do is told, and is no change.
    fs::write(fleet.memory(0).join("goals.md"), "be good\n").unwrap();
    let told = fleet.expect(0, &["--dry-run", "--detailed-exitcode"]);
    assert!(told.contains("No changes.") && told.contains("to push: goals.md"), "{told}");
    fleet.agent(0, &["sync"]);
    fleet.agent(1, &["sync"]);
    assert_eq!(fleet.agent(1, &["read", "goals.md"]), "be good\n");

    // The instance of the first host is replaced: its volume moves to the new one, with what is on it.
    moto::ec2(&format!("Action=TerminateInstances&InstanceId.1={}", fleet.instances[0]));
    fleet.instances[0] = moto::launch();
    let moved = fleet.expect(0, &[]);
    insta::assert_snapshot!("memory-plan-moved", fleet.stable(&moved));
    assert_eq!(fleet.agent(0, &["read", "goals.md"]), "be good\n");
    let again = fleet.expect(0, &["--dry-run", "--detailed-exitcode"]);
    assert!(again.contains("No changes."), "{again}");
}

/// Nothing is synced onto a disk that is not the volume's, and nobody takes an unmounted directory for an empty memory.
#[test]
fn a_volume_that_is_unmounted_behind_the_plan_is_mounted_again() {
    let fleet = Fleet::new("unmounted");
    fleet.expect(0, &["--param", "fs=xfs"]);
    fs::write(fleet.memory(0).join("goals.md"), "be good\n").unwrap();
    fleet.agent(0, &["sync"]);
    let mount = fleet.mounts.path().join(HOSTS[0]);
    assert!(Command::new("umount").arg(&mount).status().unwrap().success());
    let told = fleet.expect(0, &["--param", "fs=xfs"]);
    insta::assert_snapshot!("memory-plan-unmounted", fleet.stable(&told));
    assert_eq!(fleet.agent(0, &["read", "goals.md"]), "be good\n");
    // The volumes grow, with the file systems on them.
    fleet.expect(0, &["--param", "fs=xfs", "--param", "size_gib=2"]);
    let again =
        fleet.expect(0, &["--param", "fs=xfs", "--param", "size_gib=2", "--dry-run", "--detailed-exitcode"]);
    assert!(again.contains("No changes."), "{again}");
    let wrong = fleet.run(&["--param", "fs=ext4", "--param", "size_gib=2"]);
    insta::assert_snapshot!("memory-plan-other-file-system", fleet.stable(&block(&["run"], &wrong)));
}

/// What root does for a memory is done as the account that the mount belongs to, so that agents can write what a round wrote.
#[test]
fn a_memory_belongs_to_whom_the_mount_belongs() {
    let mut fleet = Fleet::new("owner");
    // Where tests are built, other accounts may not look.
    let bin = TempDir::new().unwrap();
    for dir in [bin.path(), fleet.mounts.path()] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fleet.clawd = bin.path().join("clawd");
    fs::copy(env!("CARGO_BIN_EXE_clawd"), &fleet.clawd).unwrap();
    moto::put_object(&fleet.bucket, "hive/goals.md", "be good\n");
    fleet.expect(0, &["--param", "owner=daemon"]);
    let owner = |path: PathBuf| fs::metadata(path).unwrap().uid();
    let daemon = owner(fleet.mounts.path().join(HOSTS[0]));
    assert_ne!(daemon, 0, "the mount is daemon's");
    for path in ["", "goals.md", ".clawd-memory.json", "../memory.clawd/index.json"] {
        assert_eq!(owner(fleet.memory(0).join(path)), daemon, "memory/{path}");
    }
    let again = fleet.expect(0, &["--param", "owner=daemon", "--dry-run", "--detailed-exitcode"]);
    assert!(again.contains("No changes."), "{again}");
}
