//! Data volumes in the simulator: taken from their hosts, made from snapshots, and the file systems that hosts share.

use crate::support::Project;

/// A host without a stack's module around it.
const HOST: &str = r#"
let stack = tofu_apply("fleet", #{ dir: "tofu/fleet", vars: #{ instances: #{
    a: #{ type: "t3.large", zone: "eu-central-1a", ami: "ami-0123456789abcdef0" },
} } });
"#;

const MOUNTED: &str = r#"
mount_volume("data", #{ host: "h", instance: stack.outputs.instance_ids.a, path: "/data", size_gib: 10 });
"#;

fn project() -> Project {
    let project = Project::new();
    project.write("plans/volume.rhai", &format!("{HOST}{MOUNTED}"));
    project.expect(0, &["run", "plans/volume.rhai", "--yes"]);
    project
}

const RUN: [&str; 3] = ["run", "plans/volume.rhai", "--yes"];
const DRY: [&str; 4] = ["run", "plans/volume.rhai", "--dry-run", "--detailed-exitcode"];

#[track_caller]
fn assert_up_to_date(project: &Project) {
    let dry = project.expect(0, &DRY);
    assert!(dry.contains("No changes."), "{dry}");
}

#[test]
fn a_volume_is_released_and_then_deleted() {
    let project = project();
    let release = r#"let released = release_volume("data", #{ host: "h", path: "/data" });
output("snapshot", released.snapshot_id);
"#;
    project.write("plans/volume.rhai", &format!("{HOST}{release}"));
    insta::assert_snapshot!("volume-release", project.block(&RUN));
    assert_eq!((project.count("volume"), project.count("mount"), project.count("snapshot")), (1, 0, 1));
    assert_up_to_date(&project);

    // It is mounted again, written to, and released again: that takes another snapshot.
    project.write("plans/volume.rhai", &format!("{HOST}{MOUNTED}"));
    insta::assert_snapshot!("volume-mounted-again", project.block(&RUN));
    project.write("plans/volume.rhai", &format!("{HOST}{release}"));
    project.expect(0, &RUN);
    assert_eq!(project.count("snapshot"), 2);
    assert_up_to_date(&project);

    let delete = release.replace("path: \"/data\"", "path: \"/data\", delete: true");
    project.write("plans/volume.rhai", &format!("{HOST}{delete}"));
    insta::assert_snapshot!("volume-delete", project.block(&RUN));
    assert_eq!(project.count("volume"), 1, "what is not allowed is not done");
    let allow = "allow(#{ destroy: [\"release_volume.data\"], max_destroy: 1 });\n";
    project.write("plans/volume.rhai", &format!("{allow}{HOST}{delete}"));
    project.expect(0, &RUN);
    assert_eq!((project.count("volume"), project.count("snapshot")), (0, 2));
    assert_up_to_date(&project);
}

/// A snapshot of an earlier release is none of what was written since then.
#[test]
fn an_old_snapshot_is_not_taken_for_a_new_one() {
    let project = project();
    let release =
        |more: &str| format!("{HOST}release_volume(\"data\", #{{ host: \"h\", path: \"/data\"{more} }});\n");
    project.write("plans/volume.rhai", &release(""));
    project.expect(0, &RUN);
    project.write("plans/volume.rhai", &format!("{HOST}{MOUNTED}"));
    project.expect(0, &RUN);
    // Released again, without a snapshot; and then one is wanted, before it is deleted.
    project.write("plans/volume.rhai", &release(", snapshot: false"));
    project.expect(0, &RUN);
    assert_eq!(project.count("snapshot"), 1);
    let delete = format!("allow(#{{ destroy: [\"*\"] }});\n{}", release(", delete: true"));
    project.write("plans/volume.rhai", &delete);
    let told = project.expect(0, &RUN);
    assert!(told.contains("snapshot  (known after apply)"), "{told}");
    assert_eq!((project.count("volume"), project.count("snapshot")), (0, 2));
}

/// A path where the volume is not mounted must not pull it from under its mount.
#[test]
fn a_wrong_path_pulls_no_volume_from_under_its_mount() {
    let project = project();
    project.write(
        "plans/volume.rhai",
        &format!("{HOST}release_volume(\"data\", #{{ host: \"h\", path: \"/elsewhere\" }});\n"),
    );
    insta::assert_snapshot!("volume-release-wrong-path", project.block(&RUN));
    assert_eq!((project.count("mount"), project.count("snapshot")), (1, 0));
    let slash = format!("{HOST}release_volume(\"data\", #{{ host: \"h\", path: \"/data/\" }});\n");
    project.write("plans/volume.rhai", &slash);
    assert!(project.block(&RUN).contains("does not match"), "{}", project.block(&RUN));
}

/// What is not known yet could mean another volume than the one that would be found without it.
#[test]
fn an_argument_that_is_not_known_is_not_taken_for_none() {
    let project = project();
    let other = MOUNTED
        .replace("mount_volume(\"data\"", "let other = mount_volume(\"other\"")
        .replace("/data", "/other");
    let release = "release_volume(\"data\", #{ host: \"h\", path: \"/data\", volume: other.volume_id });\n";
    project.write("plans/volume.rhai", &format!("{HOST}{other}{release}"));
    let told = project.expect(0, &["plan", "plans/volume.rhai"]);
    assert!(told.contains("release_volume.data  unknown: volume is not known yet"), "{told}");
    let other = other.replace("size_gib: 10", "size_gib: 10, adopt: first.volume_id");
    let first = other
        .replace("let other", "let first")
        .replace("\"other\"", "\"first\"")
        .replace(", adopt: first.volume_id", "");
    project.write("plans/volume.rhai", &format!("{HOST}{first}{other}"));
    let told = project.expect(0, &["plan", "plans/volume.rhai"]);
    assert!(told.contains("mount_volume.other  unknown: adopt is not known yet"), "{told}");
}

#[test]
fn a_volume_that_goes_without_a_snapshot_says_so() {
    let project = project();
    let release = "allow(#{ destroy: [\"*\"] });\nrelease_volume(\"x\", #{ host: \"h\", of: \"data\", path: \"/data\", snapshot: false, delete: true });\n";
    project.write("plans/volume.rhai", &format!("{HOST}{release}"));
    insta::assert_snapshot!("volume-delete-without-snapshot", project.block(&RUN));
    assert_eq!((project.count("volume"), project.count("snapshot")), (0, 0));
    assert_up_to_date(&project);
}

#[test]
fn a_volume_from_a_snapshot_takes_the_place_of_one_that_stays() {
    let project = project();
    let release = "let released = release_volume(\"data\", #{ host: \"h\", path: \"/data\" });\noutput(\"snapshot\", released.snapshot_id);\n";
    project.write("plans/volume.rhai", &format!("{HOST}{release}"));
    project.expect(0, &RUN);
    let (_, snapshot) = project.world().into_iter().find(|(kind, _)| kind == "snapshot").unwrap();
    project.write("plans/volume.rhai", &format!("{HOST}{MOUNTED}"));
    project.expect(0, &RUN);

    let restored = MOUNTED.replace("size_gib: 10", &format!("size_gib: 10, snapshot: \"{snapshot}\""));
    project.write("plans/volume.rhai", &format!("{HOST}{restored}"));
    insta::assert_snapshot!("volume-restore-refused", project.block(&RUN));
    let allow = "allow(#{ replace: [\"mount_volume.data\"], max_replace: 1 });\n";
    project.write("plans/volume.rhai", &format!("{allow}{HOST}{restored}"));
    project.expect(0, &RUN);
    assert_eq!((project.count("volume"), project.count("mount")), (2, 1), "the old one stays, unmounted");
    assert_up_to_date(&project);

    let wrong = |args: &str| {
        let script = MOUNTED.replace("size_gib: 10", args);
        project.write("plans/volume.rhai", &format!("{HOST}{script}"));
        project.block(&["plan", "plans/volume.rhai"])
    };
    let blocks = [
        wrong("size_gib: 5, snapshot: \"snap-00000000000000000\""),
        wrong(&format!("size_gib: 10, adopt: \"vol-1\", snapshot: \"{snapshot}\"")),
        wrong("mode: \"0750\""),
    ];
    insta::assert_snapshot!("volume-snapshot-wrong", blocks.join("\n"));
}

#[test]
fn a_file_system_on_efs_is_mounted() {
    let project = Project::new();
    let efs = r#"
mount_volume("shared", #{ host: "h", instance: stack.outputs.instance_ids.a, path: "/shared", efs: "fs-1", access_point: "fsap-1" });
"#;
    project.write("plans/volume.rhai", &format!("{HOST}{efs}"));
    insta::assert_snapshot!("volume-efs", project.block(&RUN));
    assert_eq!((project.count("volume"), project.count("mount")), (0, 1));
    assert_up_to_date(&project);
    project.write("plans/volume.rhai", &format!("{HOST}{}", efs.replace("efs:", "mode: \"0700\", efs:")));
    let changed = project.expect(0, &RUN);
    assert!(changed.contains("differs in mode"), "{changed}");
    assert_up_to_date(&project);
    let wrong = |from: &str, to: &str| {
        project.write("plans/volume.rhai", &format!("{HOST}{}", efs.replace(from, to)));
        project.block(&["plan", "plans/volume.rhai"])
    };
    let blocks = [
        wrong(", access_point: \"fsap-1\"", ""),
        wrong("efs:", "size_gib: 1, efs:"),
        wrong("efs: \"fs-1\", ", ""),
    ];
    insta::assert_snapshot!("volume-efs-wrong", blocks.join("\n"));
}
