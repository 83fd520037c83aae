//! `build_image` with real nix: what it refuses, and how it says so.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::RealProject;
use crate::support::block;

const RUN: [&str; 5] = ["run", "plans/image.rhai", "--profile", "moto", "--yes"];
const PLAN: [&str; 4] = ["plan", "plans/image.rhai", "--profile", "moto"];

/// A plan that builds one attribute of the tests' flake.
fn plan(real: &RealProject, arguments: &str) {
    real.plan(&format!(
        "let image = build_image(\"x\", #{{ {arguments}, realise: true }});\noutput(\"path\", image.path);\noutput(\"revision\", image.revision);\n"
    ));
}

#[test]
fn images_come_as_files_as_directories_and_as_variants() {
    let real = RealProject::new();
    for (arguments, ending) in [
        ("flake: \".#raw\"", "test-image/nixos.img"),
        ("flake: \".#file\"", "image-file"),
        ("flake: \".#nixosConfigurations.host\", variant: \"amazon\"", "test-image/nixos.img"),
        ("flake: \".#qcow2\", format: \"qcow2\"", "nixos.qcow2"),
        ("flake: \".#nixosConfigurations.host\", variant: \"qemu\", format: \"qcow2\"", "nixos.qcow2"),
        ("flake: \".#bios\", boot_mode: \"legacy-bios\"", "nixos.img"),
    ] {
        plan(&real, arguments);
        let output = real.expect(0, None, &RUN);
        assert!(output.contains(&format!("{ending}\"")), "{arguments}: {output}");
        let again = real.expect(0, None, &PLAN);
        assert!(again.contains("No changes."), "{arguments}: {again}");
    }
}

#[test]
fn what_nix_refuses_is_told_at_the_scripts_call() {
    let real = RealProject::new();
    for (name, arguments) in [
        ("unknown-attribute", "flake: \".#rww\""),
        ("unknown-variant", "flake: \".#nixosConfigurations.host\", variant: \"amazn\""),
        ("no-variants", "flake: \".#raw\", variant: \"amazon\""),
        ("evaluation-error", "flake: \".#broken\""),
        ("no-derivation", "flake: \".#text\""),
        ("no-attribute", "flake: \".\""),
        ("no-flake", "flake: \"./nowhere#raw\""),
        ("not-pinned", "flake: \"github:example/fleet#raw\""),
        ("strange-system", "flake: \".#raw\", system: \"riscv64-linux\""),
        ("missing-feature", "flake: \".#kvm\""),
    ] {
        plan(&real, arguments);
        insta::assert_snapshot!(format!("nix-{name}"), real.block(None, &PLAN));
    }
}

#[test]
fn what_a_build_yields_is_held_against_what_was_asked_for() {
    let real = RealProject::new();
    for (name, arguments) in [
        ("build-failure", "flake: \".#fails\""),
        ("disk-full", "flake: \".#full\""),
        ("two-images", "flake: \".#two\""),
        ("no-image", "flake: \".#none\""),
        ("other-format", "flake: \".#qcow2\""),
        ("other-firmware", "flake: \".#bios\""),
        ("other-architecture", "flake: \".#arm\""),
    ] {
        plan(&real, arguments);
        insta::assert_snapshot!(format!("nix-{name}"), real.block(None, &RUN));
    }
    // What is in the store by now is refused while planning.
    insta::assert_snapshot!("nix-other-architecture-planned", real.block(None, &PLAN));
}

#[test]
fn an_image_that_no_step_needs_may_be_impossible_to_build() {
    let real = RealProject::new();
    plan(&real, "flake: \".#raw\"");
    real.expect(0, None, &RUN);
    real.plan(
        "let image = build_image(\"x\", #{ flake: \".#kvm\" });\n\
         build_image(\"y\", #{ flake: `.#packages.${image.architecture}-linux.raw` });",
    );
    let output = real.expect(0, None, &PLAN);
    assert!(output.contains("No changes."), "{output}");
}

#[test]
fn no_nix_and_old_nix_are_told() {
    let real = RealProject::new();
    plan(&real, "flake: \".#raw\"");
    let empty = tempfile::tempdir().unwrap();
    let mut command = real.command(None, &PLAN);
    command.env("PATH", empty.path());
    insta::assert_snapshot!("nix-missing", real.stable(&block(&PLAN, &command.output().unwrap())));
    let script = empty.path().join("nix");
    std::fs::write(&script, "#!/bin/sh\necho 'nix (Nix) 2.3.16'\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = real.command(None, &PLAN);
    command.env("PATH", empty.path());
    insta::assert_snapshot!("nix-old", real.stable(&block(&PLAN, &command.output().unwrap())));
}

#[test]
fn an_unlocked_flake_is_refused() {
    let real = RealProject::new();
    plan(&real, "flake: \".#raw\"");
    let flake = real.project.read("flake.nix");
    real.project.write("other/flake.nix", "{ outputs = { self }: { }; }");
    let with_input = flake
        .replacen('{', &format!("{{ inputs.other.url = \"path:{}/other\";", real.project.path().display()), 1)
        .replace("{ self }:", "{ self, other }:");
    real.project.write("flake.nix", &with_input);
    insta::assert_snapshot!("nix-unlocked", real.block(None, &PLAN));
}

fn git(real: &RealProject, args: &[&str]) {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"])
        .args(args)
        .current_dir(real.project.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_dirty_tree_is_told_and_a_clean_one_has_its_revision() {
    let real = RealProject::new();
    plan(&real, "flake: \".#raw\"");
    git(&real, &["init", "-q"]);
    git(&real, &["add", "."]);
    git(&real, &["commit", "-qm", "one"]);
    let clean = real.expect(0, None, &PLAN);
    assert!(!clean.contains("not committed"), "{clean}");
    real.project.write("plans/image.rhai", &(real.project.read("plans/image.rhai") + "// changed\n"));
    insta::assert_snapshot!("nix-dirty", real.block(None, &PLAN));
    git(&real, &["commit", "-qam", "two"]);
    let committed = real.expect(0, None, &RUN);
    let revision = committed.split("revision = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert_eq!(revision.len(), 40, "{committed}");
}

/// The builder writes its process id, then sleeps; it is gone once clawd was interrupted twice.
#[test]
fn an_abort_ends_the_build_with_all_its_processes() {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;
    let real = RealProject::new();
    plan(&real, "flake: \".#slow\"");
    let args = ["run", "plans/image.rhai", "--profile", "moto", "--yes", "--format", "jsonl"];
    let mut child = real.command(None, &args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    lines.find(|line| line.contains("building 1 of 1")).unwrap();
    let salt = format!("slow-image-{}", real.fleet);
    // Nix says that it builds a moment before the builder's process is there.
    while !running(&salt) {
        assert_eq!(child.try_wait().unwrap(), None, "clawd ended before the builder ran");
        std::thread::yield_now();
    }
    while child.try_wait().unwrap().is_none() {
        let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        std::thread::yield_now();
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!running(&salt), "a process of the build outlived clawd");
}

/// Whether any process has this text in its command line or environment.
fn running(mark: &str) -> bool {
    let holds = |file: std::path::PathBuf| {
        std::fs::read(file).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(mark))
    };
    let me = std::process::id().to_string();
    std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name != me
            && name.chars().all(|c| c.is_ascii_digit())
            && (holds(entry.path().join("cmdline")) || holds(entry.path().join("environ")))
            && !std::fs::read_to_string(entry.path().join("status")).is_ok_and(|it| it.contains("State:\tZ"))
    })
}
