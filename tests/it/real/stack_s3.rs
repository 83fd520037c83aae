//! State in S3, locked by S3: two machines at one stack, and a lock that nobody holds any more.

use std::process::{Child, Stdio};

use super::moto::{self, Moto};
use super::stacks::{RUN, Stacks};

const BUCKET: &str = "clawd-state-123456789012-eu-central-1";

/// A machine with its own checkout; all of them share the profile's state bucket.
fn machine(fleet: &str) -> Stacks {
    let stacks = Stacks::with("", "");
    stacks.project.write(
        "clawd.toml",
        &format!(
            "fleet = \"{fleet}\"\n\n[profiles.local]\nadapters = \"aws\"\naccount = \"123456789012\"\nregion = \"eu-central-1\"\n\
             endpoint = \"http://127.0.0.1:{}\"\ncredentials = \"test\"\nlock = \"file\"\nlock_timeout = \"1s\"\n",
            Moto::port()
        ),
    );
    stacks
}

/// A name that no other test has, and the bucket, once.
fn fleet() -> String {
    use std::sync::Once;
    use std::sync::atomic::{AtomicU32, Ordering};
    static BUCKET_IS_THERE: Once = Once::new();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    BUCKET_IS_THERE.call_once(|| moto::make_bucket(BUCKET));
    format!("s3-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn module(stacks: &Stacks, command: &str) {
    stacks.module(&format!(
        r#"
terraform {{
  backend "s3" {{}}
}}
variable "v" {{
  type    = string
  default = "one"
}}
resource "terraform_data" "it" {{
  input = var.v
  provisioner "local-exec" {{
    command = "{command}"
  }}
}}
"#
    ));
}

const PLAN: &str = "tofu_apply(\"m\", #{ dir: \"tofu/m\", vars: #{ v: param(\"v\", #{ type: \"string\", default: \"one\" }) } });";

/// Starts a run and returns once it holds the lock.
fn holding(stacks: &Stacks, fleet: &str) -> Child {
    let child = stacks.command(&RUN).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let lock = format!("{fleet}/tofu/m.tfstate.tflock");
    let held = (0..400).any(|_| {
        std::thread::park_timeout(std::time::Duration::from_millis(50));
        stacks.path().join("begun").exists() && moto::keys(BUCKET).contains(&lock)
    });
    assert!(held, "it never held {lock}");
    child
}

#[test]
fn two_runs_at_one_state_one_is_refused_and_the_loser_finds_what_moved() {
    let fleet = fleet();
    let (first, second) = (machine(&fleet), machine(&fleet));
    let dir = first.path().display().to_string();
    module(&first, &format!("touch {dir}/begun; while [ ! -e {dir}/go ]; do sleep 0.05; done"));
    first.plan(PLAN);
    module(&second, "true");
    second.plan(PLAN);
    second.expect(0, &["plan", "plans/m.rhai", "--profile", "local", "-o", "saved.json"]);
    let mut child = holding(&first, &fleet);
    let output = second.output(&["apply", "saved.json", "--yes"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("the state of tofu/m is locked: ") && said.contains("force-unlock "), "{said}");
    first.project.write("go", "");
    assert!(child.wait().unwrap().success());
    first.says_no_changes();
    // The saved plan was for a state that is no more: nothing is left to do, as the first did the same.
    second.expect(0, &["apply", "saved.json", "--yes"]);
    second.says_no_changes();
    // Another thing is refused.
    second.expect(0, &["plan", "plans/m.rhai", "--profile", "local", "-o", "two.json", "--param", "v=two"]);
    let three: Vec<&str> = RUN.into_iter().chain(["--param", "v=three"]).collect();
    first.expect(0, &three);
    let output = second.output(&["apply", "two.json", "--yes"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("state: was serial ") && said.contains(", now serial "), "{said}");
}

#[test]
fn a_stale_lock_is_told_with_its_holder_and_the_command_that_unlocks() {
    let fleet = fleet();
    let stacks = machine(&fleet);
    module(&stacks, "true");
    stacks.plan(PLAN);
    let lock = r#"{"ID":"7c1f2a34-5b6d-4e8f-9a0b-1c2d3e4f5a6b","Operation":"OperationTypeApply","Info":"","Who":"root@host-that-is-gone","Version":"1.12.6","Created":"2026-01-02T03:04:05Z","Path":""}"#;
    moto::put_object(BUCKET, &format!("{fleet}/tofu/m.tfstate.tflock"), lock);
    let output = stacks.output(&RUN);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("root@host-that-is-gone holds it for "), "{said}");
    assert!(said.contains("-chdir=tofu/m force-unlock 7c1f2a34-5b6d-4e8f-9a0b-1c2d3e4f5a6b"), "{said}");
    // Planning takes no lock.
    let planned = stacks.output(&["plan", "plans/m.rhai", "--profile", "local"]);
    assert!(planned.status.success(), "{}", String::from_utf8_lossy(&planned.stderr));
    moto::delete_object(BUCKET, &format!("{fleet}/tofu/m.tfstate.tflock"));
    stacks.apply();
    stacks.says_no_changes();
}

/// Nothing was begun while another held the lock, so what moved meanwhile was not us.
#[test]
fn an_apply_that_was_refused_for_a_lock_is_refused_for_the_state_that_moved() {
    let fleet = fleet();
    let (ours, theirs) = (machine(&fleet), machine(&fleet));
    for stacks in [&ours, &theirs] {
        module(stacks, "true");
        stacks.plan(PLAN);
    }
    ours.apply();
    ours.expect(0, &["plan", "plans/m.rhai", "--profile", "local", "-o", "two.json", "--param", "v=two"]);
    let lock = r#"{"ID":"7c1f2a34-5b6d-4e8f-9a0b-1c2d3e4f5a6b","Operation":"OperationTypeApply","Info":"","Who":"colleague@elsewhere","Version":"1.12.6","Created":"2026-01-02T03:04:05Z","Path":""}"#;
    let key = format!("{fleet}/tofu/m.tfstate.tflock");
    moto::put_object(BUCKET, &key, lock);
    let refused = ours.output(&["apply", "two.json", "--yes"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("colleague@elsewhere holds it"), "{said}");
    moto::delete_object(BUCKET, &key);
    theirs.expect(0, &RUN.into_iter().chain(["--param", "v=three"]).collect::<Vec<_>>());
    let refused = ours.output(&["apply", "two.json", "--yes"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("state: was serial "), "{said}");
}

#[test]
fn a_bucket_that_is_not_there_leads_to_bootstrap() {
    let stacks = machine(&fleet());
    module(&stacks, "true");
    stacks.plan("tofu_apply(\"m\", #{ dir: \"tofu/m\", backend: #{ bucket: \"clawd-no-such-bucket\" } });");
    let output = stacks.output(&RUN);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("clawd bootstrap"), "{said}");
}
