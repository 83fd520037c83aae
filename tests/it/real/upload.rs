//! From an image to a snapshot: what is sent, what is not sent again, and what is refused.

use super::{Fault, Proxy, RealProject, moto};

const RUN: [&str; 5] = ["run", "plans/image.rhai", "--profile", "moto", "--yes"];
const PLAN: [&str; 4] = ["plan", "plans/image.rhai", "--profile", "moto"];

/// A plan that imports an attribute of the tests' flake.
fn plan(real: &RealProject, attribute: &str, build: &str, import: &str) {
    real.plan(&format!(
        "let image = build_image(\"x\", #{{ flake: \".#{attribute}\"{build} }});\n\
         let ami = import_ami(\"x\", #{{ image: image, name_prefix: \"clawdinator\"{import} }});\n\
         output(\"ami\", ami.image_id);\noutput(\"copies\", ami.copies);\n"
    ));
}

fn bucket(real: &RealProject) -> String {
    moto::make_bucket(&real.fleet);
    real.fleet.clone()
}

#[test]
fn an_image_goes_through_s3_and_leaves_nothing_there() {
    let real = RealProject::new();
    let bucket = bucket(&real);
    plan(&real, "raw", "", &format!(", method: \"vmimport\", bucket: \"{bucket}\""));
    let proxy = Proxy::plain();
    insta::assert_snapshot!("upload-vmimport", real.block(Some(&proxy), &RUN));
    assert_eq!(real.made(), (1, 1));
    assert_eq!(moto::keys(&bucket), Vec::<String>::new(), "the temporary object is removed");
    assert_eq!(proxy.count("ec2 ImportSnapshot"), 1);
    assert!(real.expect(0, Some(&proxy), &RUN).contains("No changes."));
    // Another image in another format; the parts of one that was cut off are not sent again.
    plan(&real, "vmdk", ", format: \"vmdk\"", &format!(", method: \"vmimport\", bucket: \"{bucket}\""));
    let cutting = Proxy::with(|call| {
        (call.is("s3 CompleteMultipartUpload") && call.number < 3).then_some(Fault::CutBefore)
    });
    real.expect(0, Some(&cutting), &RUN);
    assert_eq!(cutting.count("s3 UploadPart"), 3, "each part once: {:?}", cutting.calls());
    assert_eq!(real.made(), (2, 2));
}

#[test]
fn what_cannot_be_imported_is_told() {
    let real = RealProject::new();
    let bucket = bucket(&real);
    for (name, attribute, build, import) in [
        ("not-raw", "qcow2", ", format: \"qcow2\"", String::new()),
        (
            "qcow2-vmimport",
            "qcow2",
            ", format: \"qcow2\"",
            format!(", method: \"vmimport\", bucket: \"{bucket}\""),
        ),
        ("no-bucket", "raw", "", ", method: \"vmimport\"".to_owned()),
        ("copy-to-itself", "raw", "", ", copies: [\"eu-central-1\"]".to_owned()),
        ("io2-without-iops", "raw", "", ", volume_type: \"io2\"".to_owned()),
    ] {
        plan(&real, attribute, build, &import);
        insta::assert_snapshot!(format!("upload-{name}"), real.block(None, &PLAN));
    }
    for (name, import) in [
        ("missing-bucket", ", method: \"vmimport\", bucket: \"no-such-bucket-anywhere\"".to_owned()),
        ("missing-role", format!(", method: \"vmimport\", bucket: \"{bucket}\", role: \"missing-vmimport\"")),
    ] {
        plan(&real, "raw", "", &import);
        insta::assert_snapshot!(format!("upload-{name}"), real.block(None, &RUN));
    }
    assert_eq!(real.made(), (0, 0));
}

#[test]
fn a_bucket_in_another_region_is_refused_before_anything_is_sent() {
    let real = RealProject::new();
    let bucket = bucket(&real);
    let clawd = real.project.read("clawd.toml").replace("eu-central-1", "eu-west-1");
    real.project.write("clawd.toml", &clawd);
    plan(&real, "raw", "", &format!(", method: \"vmimport\", bucket: \"{bucket}\""));
    let proxy = Proxy::plain();
    insta::assert_snapshot!("upload-bucket-elsewhere", real.block(Some(&proxy), &RUN));
    assert_eq!(proxy.count("s3 UploadPart"), 0);
}

#[test]
fn a_failed_import_says_what_ec2_said_and_the_next_run_imports_anew() {
    let real = RealProject::new();
    let bucket = bucket(&real);
    plan(&real, "raw", "", &format!(", method: \"vmimport\", bucket: \"{bucket}\""));
    let failed = "<DescribeImportSnapshotTasksResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId>\
        <importSnapshotTaskSet><item><importTaskId>@</importTaskId><snapshotTaskDetail><status>deleted</status>\
        <statusMessage>ClientError: Disk validation failed [Unsupported VMDK File Format]</statusMessage>\
        </snapshotTaskDetail></item></importSnapshotTaskSet></DescribeImportSnapshotTasksResponse>";
    let failing = Proxy::with(move |call| {
        (call.is("ec2 DescribeImportSnapshotTasks") && call.number > 0)
            .then_some(Fault::InsteadOfTask(failed))
    });
    insta::assert_snapshot!("upload-import-failed", real.block(Some(&failing), &RUN));
    // The token's first answer is the failed import; the next generation begins another.
    let first = Proxy::with(move |call| {
        (call.is("ec2 DescribeImportSnapshotTasks") && call.number == 0)
            .then_some(Fault::InsteadOfTask(failed))
    });
    real.expect(0, Some(&first), &RUN);
    assert_eq!(first.count("ec2 ImportSnapshot"), 2);
    assert_eq!(real.made().0, 1);
}

#[test]
fn an_upload_goes_on_with_what_the_journal_lacks_and_without_it_into_the_same_snapshot() {
    for keep_journal in [true, false] {
        let real = RealProject::new();
        // Enough blocks that the journal hears of some before the kill.
        real.project.write(
            "flake.nix",
            &real
                .project
                .read("flake.nix")
                .replace("for block in 0 1 2 3 20 21 40; do", "for block in $(seq 0 199); do")
                .replace("seek=63", "seek=220")
                .replace("32M", "128M"),
        );
        plan(&real, "raw", "", "");
        // All tries of one block fail for good after some hundred blocks.
        let breaking = Proxy::with(|call| {
            (call.is("ebs PutSnapshotBlock") && call.number >= 150).then_some(Fault::Refuse(
                403,
                "AccessDeniedException",
                "no",
            ))
        });
        let refused = real.expect(1, Some(&breaking), &RUN);
        assert!(refused.contains("Not complete"), "{refused}");
        if !keep_journal {
            std::fs::remove_dir_all(real.project.path().join(".clawd/moto/runs")).unwrap();
        }
        let proxy = Proxy::plain();
        insta::assert_snapshot!(
            if keep_journal { "upload-resumes" } else { "upload-resends" },
            real.block(Some(&proxy), &PLAN)
        );
        real.expect(0, Some(&proxy), &RUN);
        let (sent, started) = (proxy.count("ebs PutSnapshotBlock"), proxy.count("ebs StartSnapshot"));
        assert_eq!(started, 0, "the unfinished snapshot is gone on with");
        if keep_journal {
            assert!((51..=110).contains(&sent), "only what the journal lacks: {sent}");
        } else {
            assert_eq!(sent, 201, "all blocks, into the same snapshot");
        }
        assert_eq!(real.made(), (1, 1));
    }
}

#[test]
fn manifests_in_a_bucket_let_any_machine_send_only_what_changed() {
    let real = RealProject::new();
    let bucket = bucket(&real);
    plan(&real, "raw", "", &format!(", bucket: \"{bucket}\", bucket_prefix: \"images\""));
    let proxy = Proxy::plain();
    real.expect(0, Some(&proxy), &RUN);
    let kept = moto::keys(&bucket);
    assert!(kept.len() == 1 && kept[0].starts_with("images/manifests/snap-"), "{kept:?}");
    // Another machine: nothing of this one's state is there.
    std::fs::remove_dir_all(real.project.path().join(".clawd")).unwrap();
    real.change_image("z");
    proxy.forget();
    real.expect(0, Some(&proxy), &RUN);
    assert_eq!(proxy.count("ebs PutSnapshotBlock"), 1);
    let started = proxy.calls().into_iter().find(|call| call.is("ebs StartSnapshot")).unwrap();
    assert!(
        started.form.contains("ParentSnapshotId") && !started.form.contains("Encrypted"),
        "{}",
        started.form
    );
}

#[test]
fn a_snapshot_that_is_encrypted_otherwise_is_neither_used_nor_built_on() {
    let real = RealProject::new();
    let sent = |kms_key: &str| {
        let key = if kms_key.is_empty() { String::new() } else { format!(", kms_key: \"{kms_key}\"") };
        plan(&real, "raw", "", &key);
        let proxy = Proxy::plain();
        real.expect(0, Some(&proxy), &RUN);
        let start = proxy.calls().into_iter().find(|call| call.is("ebs StartSnapshot")).unwrap().form;
        (
            proxy.count("ebs PutSnapshotBlock"),
            start.contains("ParentSnapshotId"),
            start.contains("\"Encrypted\":true"),
        )
    };
    let arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555";
    assert_eq!(sent(""), (8, false, false));
    assert_eq!(sent(arn), (8, false, true), "the same image under a key is another snapshot");
    real.change_image("a");
    assert_eq!(sent(arn), (1, true, false), "a child is encrypted as its parent is");
    real.change_image("b");
    assert_eq!(sent(""), (1, true, false), "the newest that is not encrypted is the parent");
    assert_eq!(sent("alias/mine"), (8, false, true));
    real.change_image("c");
    assert_eq!(sent("alias/mine"), (8, false, true), "an alias may mean another key by now");
}

#[test]
fn copies_permissions_and_deprecation_are_brought_in_line() {
    let real = RealProject::new();
    plan(&real, "raw", "", "");
    real.expect(0, None, &RUN);
    plan(
        &real,
        "raw",
        "",
        ", copies: [\"us-east-1\"], launch_permissions: [\"111111111111\"], deprecate_after_days: 90",
    );
    let proxy = Proxy::plain();
    insta::assert_snapshot!("upload-placements", real.block(Some(&proxy), &PLAN));
    real.expect(0, Some(&proxy), &RUN);
    assert_eq!(proxy.count("ec2 CopyImage"), 1);
    let again = real.expect(0, Some(&proxy), &PLAN);
    assert!(again.contains("No changes.") && again.contains("us-east-1: \"ami-"), "{again}");
    plan(&real, "raw", "", ", launch_permissions: [\"222222222222\"]");
    real.expect(0, Some(&proxy), &RUN);
    assert!(real.expect(0, Some(&proxy), &PLAN).contains("No changes."));
}

#[test]
fn the_policy_of_a_plan_is_the_least_one() {
    let real = RealProject::new();
    plan(&real, "raw", "", "");
    insta::assert_snapshot!(
        "iam-ebs-direct",
        real.block(None, &["docs", "iam", "plans/image.rhai", "--profile", "moto"])
    );
    plan(&real, "raw", "", ", method: \"vmimport\", bucket: \"images\", copies: [\"us-east-1\"]");
    insta::assert_snapshot!(
        "iam-vmimport",
        real.block(None, &["docs", "iam", "plans/image.rhai", "--profile", "moto"])
    );
    insta::assert_snapshot!("iam-without-plan", real.block(None, &["docs", "iam"]));
    insta::assert_snapshot!("docs-two-names", real.block(None, &["docs", "import_ami", "plans/image.rhai"]));
}

#[test]
fn an_account_that_encrypts_by_default_uploads_once_and_then_what_changed() {
    // A region of its own: the setting is the region's.
    moto::ec2_in("eu-north-1", "Action=EnableEbsEncryptionByDefault&Version=2016-11-15");
    let real = RealProject::new();
    real.project.write("clawd.toml", &real.project.read("clawd.toml").replace("eu-central-1", "eu-north-1"));
    plan(&real, "raw", "", "");
    // The snapshot is there, the AMI is not.
    let denied = Proxy::with(|call| {
        call.is("ec2 RegisterImage").then_some(Fault::Refuse(403, "UnauthorizedOperation", "no"))
    });
    real.expect(1, Some(&denied), &RUN);
    let proxy = Proxy::plain();
    real.expect(0, Some(&proxy), &RUN);
    assert_eq!(
        (proxy.count("ebs StartSnapshot"), proxy.count("ebs PutSnapshotBlock")),
        (0, 0),
        "it is known again"
    );
    real.change_image("n");
    proxy.forget();
    real.expect(0, Some(&proxy), &RUN);
    assert_eq!(proxy.count("ebs PutSnapshotBlock"), 1);
}
