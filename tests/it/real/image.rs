//! The main job against real nix and moto: from a flake to an AMI, once, whatever happens in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Call, Fault, Proxy, RealProject};

const RUN: [&str; 5] = ["run", "plans/image.rhai", "--profile", "moto", "--yes"];
const DRY: [&str; 6] = ["run", "plans/image.rhai", "--profile", "moto", "--dry-run", "--detailed-exitcode"];

fn bytes_sent(proxy: &Proxy) -> usize {
    let sending = |call: &Call| {
        matches!(call.operation.as_str(), "ebs PutSnapshotBlock" | "s3 UploadPart" | "s3 PutObject")
    };
    proxy.calls().iter().filter(|call| sending(call)).map(|call| call.sent).sum()
}

fn mutating(proxy: &Proxy) -> Vec<String> {
    proxy.calls().into_iter().filter(Call::mutates).map(|call| call.operation).collect()
}

#[test]
fn a_flake_becomes_one_ami_and_a_second_run_sends_nothing() {
    let real = RealProject::new();
    let proxy = Proxy::plain();
    insta::assert_snapshot!("image-dry", real.block(Some(&proxy), &DRY));
    assert_eq!(mutating(&proxy), Vec::<String>::new(), "a dry run changes nothing");
    assert!(proxy.count("sts GetCallerIdentity") == 1, "the account is checked first, once");
    assert_eq!(proxy.calls()[0].operation, "sts GetCallerIdentity");
    insta::assert_snapshot!("image-run", real.block(Some(&proxy), &RUN));
    assert_eq!(real.made(), (1, 1));
    assert_eq!(proxy.count("ebs PutSnapshotBlock"), 8, "zero blocks are not sent");
    proxy.forget();
    let again = real.expect(0, Some(&proxy), &RUN);
    assert!(again.contains("No changes."), "{again}");
    assert_eq!((mutating(&proxy), bytes_sent(&proxy)), (Vec::new(), 0));
}

#[test]
fn a_changed_image_sends_what_changed() {
    let real = RealProject::new();
    let proxy = Proxy::plain();
    real.expect(0, Some(&proxy), &RUN);
    real.change_image("x");
    // Once the image is built, the plan says what is to be sent.
    real.project.write(
        "plans/build.rhai",
        "build_image(\"base\", #{ flake: \".#clawdinator-image\", realise: true });",
    );
    real.expect(0, Some(&proxy), &["run", "plans/build.rhai", "--profile", "moto", "--yes"]);
    proxy.forget();
    insta::assert_snapshot!("image-changed", real.block(Some(&proxy), &DRY));
    real.expect(0, Some(&proxy), &RUN);
    assert_eq!(proxy.count("ebs PutSnapshotBlock"), 1, "one block of the image differs");
    let start = proxy.calls().into_iter().find(|call| call.is("ebs StartSnapshot")).unwrap();
    assert!(start.sent > 0);
    assert_eq!(real.made(), (2, 2));
}

#[test]
fn a_lost_cache_means_a_full_upload_and_nothing_else() {
    let real = RealProject::new();
    let proxy = Proxy::plain();
    real.expect(0, Some(&proxy), &RUN);
    std::fs::remove_dir_all(real.project.path().join(".clawd")).unwrap();
    let again = real.expect(0, Some(&proxy), &RUN);
    assert!(again.contains("No changes."), "{again}");
    real.change_image("y");
    std::fs::remove_dir_all(real.project.path().join(".clawd")).unwrap();
    proxy.forget();
    real.expect(0, Some(&proxy), &RUN);
    assert_eq!(proxy.count("ebs PutSnapshotBlock"), 8);
}

/// The process is killed at a random call, before or after its effect; then the plan is run to its end.
#[test]
fn ten_kills_at_random_calls_leave_one_ami_and_one_snapshot() {
    let seed = 0x1a6e_5eed;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut kills = 0;
    for round in 0..10 {
        let real = RealProject::new();
        let mut killed = 0;
        // Each life gets a little further than the one before, until one comes through.
        while killed < 3 {
            let (at, after) = (random.usize(3..28), random.bool());
            let pid = Arc::new(AtomicU32::new(0));
            let victim = Arc::clone(&pid);
            let kill: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
                let pid = victim.load(Ordering::SeqCst).to_string();
                let _ = std::process::Command::new("kill").args(["-KILL", &pid]).status();
            });
            let proxy = Proxy::with(move |call| {
                (call.at == at).then(|| {
                    if after { Fault::After(Arc::clone(&kill)) } else { Fault::Before(Arc::clone(&kill)) }
                })
            });
            let mut command = real.command(Some(&proxy), &RUN);
            let mut child = command
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            pid.store(child.id(), Ordering::SeqCst);
            let status = child.wait().unwrap();
            if status.success() {
                break;
            }
            assert_eq!(status.code(), None, "seed {seed:#x}, round {round}: it was killed or done");
            killed += 1;
            kills += 1;
        }
        let proxy = Proxy::plain();
        real.expect(0, Some(&proxy), &RUN);
        let last = real.expect(0, Some(&proxy), &DRY);
        assert!(last.contains("No changes."), "seed {seed:#x}, round {round}: {last}");
        assert_eq!(real.made(), (1, 1), "seed {seed:#x}, round {round}");
    }
    assert!(kills >= 10, "seed {seed:#x}: the process was killed {kills} times");
}
