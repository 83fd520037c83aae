//! Rules that keep data safe, each broken from outside: the journal cannot be written, a volume might hold data, what
//! is looked up is there twice, a read fails.

use async_trait::async_trait;
use clawd::exec::journal::{Journal, Record};
use clawd::exec::observer::Recording;
use clawd::exec::{Interrupt, Options, apply, decide};
use clawd::providers::ports::{SnapshotRequest, Tags, VolumeRequest, VolumeShape};
use clawd::providers::sim::{Settings, World};
use clawd::providers::{ProviderError, Providers};
use clawd::units::GiB;

use crate::support::{Project, evaluate, simulator};

/// A journal on a full disk.
struct Broken;

#[async_trait]
impl Journal for Broken {
    async fn durable(&self, _: &Record) -> Result<(), ProviderError> {
        Err(ProviderError::permanent("journal", "cannot be written: no space left on device"))
    }

    fn append(&self, _: &Record) -> Result<(), ProviderError> {
        Ok(())
    }

    fn parts(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
}

#[tokio::test]
async fn nothing_happens_without_a_journal() {
    let project = Project::with_plans();
    let providers = simulator(project.path(), Settings::default());
    let plan = decide(evaluate(project.path(), "plans/spawn.rhai", &[]).unwrap(), &providers).await;
    let (_sender, interrupt) = tokio::sync::watch::channel(Interrupt::None);
    let options = Options {
        run: "r".into(),
        parallelism: 8,
        per_port: Default::default(),
        fail_fast: false,
        spent: vec![],
    };
    let applied =
        apply(&plan, &providers, &Broken, &Recording::default(), interrupt, &options).await.unwrap();
    assert_eq!((applied.done(), applied.status()), (0, "failed"));
    drop(providers);
    assert!(
        World::open(project.path().join(".world")).unwrap().describe().is_empty(),
        "no effect without its intent"
    );
}

const VOLUME: &str = r#"
let stack = tofu_apply("fleet", #{ dir: "tofu/fleet", vars: #{ instances: #{
    a: #{ type: "t3.large", zone: "eu-central-1a", ami: "ami-0123456789abcdef0" },
} } });
let adopt = param("adopt", #{ type: "string", default: "" });
let args = #{ host: "h", instance: stack.outputs.instance_ids.a, path: "/data", size_gib: 10 };
if adopt != "" { args.adopt = adopt; }
mount_volume("data", args);
"#;

/// The world that the command line uses.
fn providers(project: &Project) -> Providers {
    let model =
        std::sync::Arc::new(clawd::script::ScriptModel::new(project.path().into(), Default::default()));
    let world = project.path().join(".clawd/sim/world");
    clawd::providers::sim::providers(
        project.path().into(),
        world,
        "eu-central-1".into(),
        model,
        Settings::default(),
    )
    .unwrap()
}

/// A volume with these tags.
fn volume(tags: &[(&str, &str)], snapshot: Option<String>) -> VolumeRequest {
    VolumeRequest {
        zone: "eu-central-1a".into(),
        size: GiB(10),
        kind: "gp3".into(),
        iops: None,
        throughput: None,
        kms_key: None,
        snapshot,
        tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    }
}

/// Makes a volume behind the plan's back, in the world the command line uses.
async fn foreign_volume(project: &Project, token: &str, tags: &[(&str, &str)]) -> String {
    let model =
        std::sync::Arc::new(clawd::script::ScriptModel::new(project.path().into(), Default::default()));
    let world = project.path().join(".clawd/sim/world");
    let providers = clawd::providers::sim::providers(
        project.path().into(),
        world,
        "eu-central-1".into(),
        model,
        Settings::default(),
    )
    .unwrap();
    let request = volume(tags, None);
    let id = providers.ec2.create_volume(token, &request).await.unwrap();
    providers.clock.sleep(std::time::Duration::from_secs(60)).await;
    providers.clock.settle().unwrap();
    id
}

const OURS: [(&str, &str); 3] =
    [("clawd:fleet", "clawdinators"), ("clawd:step", "mount_volume.data"), ("clawd:host", "h")];

#[tokio::test]
async fn a_volume_that_is_not_marked_blank_is_never_formatted() {
    for (name, state) in
        [("unmarked", None), ("formatted", Some("formatted")), ("others", Some("formatting:0123"))]
    {
        let project = Project::new();
        project.write("plans/volume.rhai", VOLUME);
        let mut tags = OURS.to_vec();
        tags.extend(state.map(|state| ("clawd:state", state)));
        foreign_volume(&project, "token", &tags).await;
        let output = project.run(&["run", "plans/volume.rhai", "--yes", "--parallelism", "1"]);
        assert_eq!(output.status.code(), Some(1), "{name}: {}", String::from_utf8_lossy(&output.stdout));
        let stderr = crate::support::stable(&String::from_utf8(output.stderr).unwrap());
        insta::assert_snapshot!(format!("never-formatted-{name}"), stderr);
        assert_eq!(project.count("mount"), 0);
    }
}

/// Whatever its mark says: what it was made from holds data.
#[tokio::test]
async fn a_volume_from_a_snapshot_is_never_formatted() {
    let project = Project::new();
    project.write("plans/volume.rhai", VOLUME);
    let providers = providers(&project);
    let id = foreign_volume(&project, "source", &[("clawd:state", "blank")]).await;
    let request = SnapshotRequest { volume_id: id, description: String::new(), tags: Tags::new() };
    let snapshot = providers.ec2.create_snapshot(&request).await.unwrap();
    let tags: Vec<_> = OURS.into_iter().chain([("clawd:state", "blank")]).collect();
    let request = volume(&tags, Some(snapshot));
    providers.ec2.create_volume("restored", &request).await.unwrap();
    providers.clock.settle().unwrap();
    drop(providers);
    project.expect(1, &["run", "plans/volume.rhai", "--yes"]);
    assert_eq!(project.count("mount"), 0);
}

#[tokio::test]
async fn an_adopted_volume_is_never_formatted() {
    let project = Project::new();
    project.write("plans/volume.rhai", VOLUME);
    let id = foreign_volume(&project, "token", &[("clawd:state", "blank")]).await;
    let param = format!("adopt={id}");
    project.expect(1, &["run", "plans/volume.rhai", "--yes", "--param", &param]);
    assert_eq!(project.count("mount"), 0);
    let missing = project.block(&["plan", "plans/volume.rhai", "--param", "adopt=vol-00000000000000000"]);
    assert!(missing.contains("does not exist") && missing.contains("--- exit 1"), "{missing}");
}

#[tokio::test]
async fn two_volumes_with_the_tags_of_one_step_are_an_error() {
    let project = Project::new();
    project.write("plans/volume.rhai", VOLUME);
    foreign_volume(&project, "one", &OURS).await;
    foreign_volume(&project, "two", &OURS).await;
    insta::assert_snapshot!("two-volumes", project.block(&["run", "plans/volume.rhai", "--yes"]));
    assert_eq!(project.count("instance"), 0, "a plan with a problem is not applied at all");
}

#[tokio::test]
async fn what_was_resized_half_way_is_finished() {
    let project = Project::new();
    project.write("plans/volume.rhai", VOLUME);
    project.expect(0, &["run", "plans/volume.rhai", "--yes"]);
    // As an interrupted run leaves it: the volume has grown, the file system has not.
    let (_, id) = project.world().into_iter().find(|(kind, _)| kind == "volume").unwrap();
    let shape = VolumeShape { size: GiB(20), kind: "gp3".into(), iops: None, throughput: None };
    providers(&project).ec2.modify_volume(&id, &shape).await.unwrap();
    project.write("plans/volume.rhai", &VOLUME.replace("size_gib: 10", "size_gib: 20"));
    insta::assert_snapshot!("resized-half-way", project.block(&["run", "plans/volume.rhai", "--dry-run"]));
    project.expect(0, &["run", "plans/volume.rhai", "--yes"]);
    let dry = project.expect(0, &["run", "plans/volume.rhai", "--dry-run", "--detailed-exitcode"]);
    assert!(dry.contains("No changes."), "{dry}");
}

#[test]
fn a_finished_run_is_not_revived() {
    let project = Project::with_plans();
    project.expect(0, &["run", "plans/spawn.rhai", "--yes"]);
    let runs = project.path().join(".clawd/sim/runs");
    let first = std::fs::read_dir(&runs).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
    // As if the first run had been killed before its last record.
    let journal = runs.join(&first).join("journal.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("run_ended")).collect();
    std::fs::write(&journal, kept.join("\n") + "\n").unwrap();
    std::fs::rename(runs.join(&first), runs.join("20200101T000000Z-0000")).unwrap();
    project.expect(0, &["run", "plans/teardown.rhai", "--yes"]);
    project.expect(1, &["resume"]);
    project.expect(1, &["resume", "20200101T000000Z-0000"]);
}

#[test]
fn a_profile_that_was_narrowed_binds_saved_plans() {
    let project = Project::with_plans();
    project.expect(0, &["run", "plans/spawn.rhai", "--yes"]);
    project.expect(0, &["plan", "plans/teardown.rhai", "-o", "saved.json"]);
    let config =
        |line: &str| format!("fleet = \"clawdinators\"\n[profiles.sim]\nadapters = \"sim\"\n{line}\n");
    project.write("clawd.toml", &config("budget = { destroy = [] }"));
    insta::assert_snapshot!("narrowed-budget", project.block(&["apply", "saved.json", "--yes"]));
    project.write("clawd.toml", &config("primitives = [\"build_image\"]"));
    insta::assert_snapshot!("narrowed-primitives", project.block(&["apply", "saved.json", "--yes"]));
    assert_eq!(project.count("instance"), 2);
}

#[test]
fn two_fleets_and_two_prefixes_do_not_meet() {
    let project = Project::new();
    let script = r#"
let image = build_image("a", #{ flake: ".#a" });
let one = import_ami("one", #{ image: image, name_prefix: "one" });
let two = import_ami("two", #{ image: image, name_prefix: "two", volume_size_gib: 20 });
output("ids", [one.image_id, two.image_id]);
"#;
    project.write("plans/images.rhai", script);
    for fleet in ["f1", "f2"] {
        project.write("clawd.toml", &format!("fleet = \"{fleet}\"\n"));
        project.expect(0, &["run", "plans/images.rhai", "--yes"]);
        let again = project.expect(0, &["run", "plans/images.rhai", "--dry-run", "--detailed-exitcode"]);
        assert!(again.contains("No changes."), "{again}");
    }
    assert_eq!(project.count("image"), 4);
    // Another root volume is another AMI of the same bytes: nothing is uploaded again.
    project.write("plans/images.rhai", &script.replace("volume_size_gib: 20", "volume_size_gib: 30"));
    let snapshots = project.count("snapshot");
    project.expect(0, &["run", "plans/images.rhai", "--yes"]);
    assert_eq!(project.count("snapshot"), snapshots);
    assert_eq!(project.count("image"), 5);
}
