//! Applies that break: half-way, interrupted, killed, locked.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::stacks::{DRY, RUN, Stacks};

const PLAN: &str = "tofu_apply(\"m\", #{ dir: \"tofu/m\" });";

/// A stack whose second resource waits until a file is there.
fn waiting(stacks: &Stacks) {
    stacks.module(&format!(
        r#"
resource "terraform_data" "first" {{
  input = "x"
}}
resource "terraform_data" "slow" {{
  input = terraform_data.first.id
  provisioner "local-exec" {{
    command = "touch {0}/begun; while [ ! -e {0}/go ]; do sleep 0.05; done"
  }}
}}
resource "terraform_data" "last" {{
  input = terraform_data.slow.id
}}
"#,
        stacks.path().display()
    ));
}

/// Starts a run and returns when its second resource is under way.
fn begun(stacks: &Stacks) -> Child {
    let mut child = stacks.command(&RUN).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let begun = lines.map_while(Result::ok).any(|line| line.contains("Provisioning with 'local-exec'"));
    assert!(begun, "the run ended early");
    child
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
}

#[test]
fn a_failure_half_way_is_in_the_state_and_the_next_run_goes_on() {
    let module = r#"
resource "terraform_data" "first" {
  input = "x"
}
resource "terraform_data" "breaks" {
  input = terraform_data.first.id
  provisioner "local-exec" {
    command = "exit 1"
  }
}
resource "terraform_data" "last" {
  input = terraform_data.breaks.id
}
"#;
    let stacks = Stacks::with(module, PLAN);
    insta::assert_snapshot!("half-way", stacks.block(&RUN));
    assert_eq!(stacks.ids("tofu/m").keys().collect::<Vec<_>>(), ["breaks", "first"]);
    // What is left has not been shown: a tainted resource is replaced. The run cannot be resumed, its plan can be made again.
    stacks.module(&module.replace("exit 1", "exit 0"));
    stacks.plan(&format!("allow(#{{ replace: [\"tofu_apply.m/terraform_data.breaks\"] }});\n{PLAN}"));
    insta::assert_snapshot!("half-way-next", stacks.block(&DRY));
    stacks.apply();
    stacks.says_no_changes();
}

#[test]
fn a_second_interrupt_is_passed_on_once_and_the_state_is_written_and_unlocked() {
    let stacks = Stacks::with("", PLAN);
    waiting(&stacks);
    let mut child = begun(&stacks);
    // The first lets what runs finish; the second ends it.
    kill_process(pid(&child), Signal::INT).unwrap();
    kill_process(pid(&child), Signal::INT).unwrap();
    let mut asked = 0;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            // Two signals on their way at once are one.
            None if asked < 20 => {
                asked += 1;
                std::thread::park_timeout(std::time::Duration::from_millis(100));
                let _ = kill_process(pid(&child), Signal::INT);
            }
            None => break child.wait().unwrap(),
        }
    };
    assert_eq!(status.code(), Some(130));
    assert_eq!(stacks.ids("tofu/m").keys().collect::<Vec<_>>(), ["first", "slow"], "the state was written");
    stacks.project.write("go", "");
    stacks.plan(&format!("allow(#{{ replace: [\"*\"] }});\n{PLAN}"));
    stacks.apply();
    stacks.says_no_changes();
    assert_eq!(stacks.ids("tofu/m").len(), 3);
}

#[test]
fn a_first_interrupt_lets_a_stack_finish() {
    let stacks = Stacks::with("", PLAN);
    waiting(&stacks);
    let mut child = begun(&stacks);
    kill_process(pid(&child), Signal::INT).unwrap();
    stacks.project.write("go", "");
    assert_eq!(child.wait().unwrap().code(), Some(0), "all was begun, so nothing was interrupted");
    stacks.says_no_changes();
}

/// OpenTofu goes on when clawd dies, and the next run finds the work done.
#[test]
fn a_killed_run_leaves_a_whole_state() {
    let stacks = Stacks::with("", PLAN);
    waiting(&stacks);
    let mut child = begun(&stacks);
    child.kill().unwrap();
    child.wait().unwrap();
    // Its lock is gone with it, OpenTofu's own is not: the next run waits for that, and is refused after a second.
    let output = stacks.output(&RUN);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("the state of tofu/m is locked") && said.contains("for apply (lock "), "{said}");
    stacks.project.write("go", "");
    // The orphan finishes on its own time.
    let done = (0..200).any(|_| {
        std::thread::park_timeout(std::time::Duration::from_millis(50));
        stacks.output(&DRY).status.code() == Some(0)
    });
    assert!(done, "the orphan never finished: {}", stacks.block(&DRY));
    assert_eq!(stacks.ids("tofu/m").len(), 3);
    stacks.says_no_changes();
}

/// A crash after OpenTofu was done and before clawd wrote that down.
#[test]
fn a_run_that_dies_between_apply_and_journal_is_done() {
    let stacks = Stacks::with("resource \"terraform_data\" \"it\" {}\n", PLAN);
    stacks.apply();
    let runs = stacks.path().join(".clawd/local/runs");
    let run = std::fs::read_dir(&runs).unwrap().next().unwrap().unwrap().path();
    let journal = std::fs::read_to_string(run.join("journal.jsonl")).unwrap();
    // Everything after the intent is lost.
    let kept: String = journal.split_inclusive('\n').take_while(|line| !line.contains("\"done\"")).collect();
    assert!(kept.contains("tofu apply") && kept.len() < journal.len(), "{journal}");
    std::fs::write(run.join("journal.jsonl"), kept).unwrap();
    let before = stacks.ids("tofu/m");
    stacks.expect(0, &["resume", "--profile", "local", "--yes"]);
    stacks.says_no_changes();
    assert_eq!(stacks.ids("tofu/m"), before);
}

/// The state of a plan that was begun may have moved by our own hand: what is left of it is applied.
#[test]
fn a_run_that_broke_off_is_resumed_as_far_as_it_was_shown() {
    let module = |ok: bool| {
        format!(
            r#"
resource "terraform_data" "first" {{
  input = "x"
}}
resource "test_file" "breaks" {{
  path    = "{}/file"
  content = terraform_data.first.id
}}
terraform {{
  required_providers {{
    test = {{
      source = "clawd/test"
    }}
  }}
}}
"#,
            if ok { "." } else { "/nowhere" }
        )
    };
    let stacks = Stacks::with(&module(false), PLAN);
    let output = stacks.output(&RUN);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(stacks.ids("tofu/m").keys().collect::<Vec<_>>(), ["first"]);
    // The same again, with the cause still there: held against what was shown, tried, failed for the same reason.
    let output = stacks.output(&["resume", "--profile", "local", "--yes"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write the file"), "{said}");
    stacks.module(&module(true));
    stacks.apply();
    stacks.says_no_changes();
}

/// What somebody else did after that is not our work, and is not overwritten.
#[test]
fn a_state_that_others_moved_after_a_run_broke_off_is_refused() {
    let stacks = Stacks::with(
        "terraform {\n  required_providers {\n    test = { source = \"clawd/test\" }\n  }\n}\n\
         resource \"terraform_data\" \"first\" {}\n\
         resource \"test_file\" \"breaks\" {\n  path    = \"/nowhere/file\"\n  content = terraform_data.first.id\n}\n",
        PLAN,
    );
    stacks.expect(1, &RUN);
    let mut state = stacks.state("tofu/m");
    state["serial"] = (state["serial"].as_u64().unwrap() + 1).into();
    stacks.project.write("tofu/m/terraform.tfstate", &state.to_string());
    let output = stacks.output(&["resume", "--profile", "local", "--yes"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("was serial ") && said.contains("now serial "), "{said}");
}

/// An apply that began nothing leaves nothing that a later one could take for its own.
#[test]
fn a_state_that_others_moved_after_an_apply_began_nothing_is_refused() {
    let module = |input: &str| format!("resource \"terraform_data\" \"it\" {{\n  input = \"{input}\"\n}}\n");
    let stacks = Stacks::with(&module("one"), PLAN);
    stacks.apply();
    stacks.module(&module("two"));
    let save = ["plan", "plans/m.rhai", "--profile", "local", "-o", "saved.json"];
    stacks.expect(0, &save);
    let breaks = "if [ \"$1\" = apply ]; then echo 'Error: no valid credentials' >&2; exit 1; fi";
    let name = super::stacks::tofu_program().file_name().unwrap().to_str().unwrap().to_owned();
    let path = stacks.path_with(&name, breaks);
    let broken = stacks.command(&["apply", "saved.json", "--yes"]).env("PATH", path).output().unwrap();
    let said = String::from_utf8_lossy(&broken.stderr).into_owned();
    assert!(broken.status.code() == Some(1) && said.contains("no valid credentials"), "{said}");
    let mut state = stacks.state("tofu/m");
    state["serial"] = (state["serial"].as_u64().unwrap() + 1).into();
    stacks.project.write("tofu/m/terraform.tfstate", &state.to_string());
    let output = stacks.output(&["apply", "saved.json", "--yes"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("was serial ") && said.contains("now serial "), "{said}");
}

/// What hangs is interrupted when its time is over, and OpenTofu unlocks the state.
#[test]
fn an_apply_that_hangs_ends_with_its_timeout() {
    let stacks = Stacks::with("", "tofu_apply(\"m\", #{ dir: \"tofu/m\", timeout: \"8s\" });");
    waiting(&stacks);
    let output = stacks.output(&RUN);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not done within its timeout of 8s"), "{said}");
    assert_eq!(stacks.ids("tofu/m").keys().collect::<Vec<_>>(), ["first", "slow"], "the state was written");
    stacks.project.write("go", "");
    stacks.plan(&format!("allow(#{{ replace: [\"*\"] }});\n{PLAN}"));
    stacks.apply();
    stacks.says_no_changes();
}

#[test]
fn a_plan_that_hangs_ends_with_its_timeout() {
    let stacks = Stacks::with("", "tofu_apply(\"m\", #{ dir: \"tofu/m\", timeout: \"1s\" });");
    let hangs = "if [ \"$1\" = plan ]; then trap 'exit 1' INT; while :; do sleep 0.05; done; fi";
    let name = super::stacks::tofu_program().file_name().unwrap().to_str().unwrap().to_owned();
    let path = stacks.path_with(&name, hangs);
    let output = stacks.command(&DRY).env("PATH", path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not done within its timeout of 1s"), "{said}");
}

/// A saved plan holds what was shown; a module that changed since makes another one, and that is refused.
#[test]
fn a_module_that_changed_since_the_plan_was_saved_is_refused() {
    let module = |input: &str| format!("resource \"terraform_data\" \"it\" {{\n  input = \"{input}\"\n}}\n");
    let stacks = Stacks::with(&module("one"), PLAN);
    stacks.apply();
    stacks.module(&module("two"));
    stacks.expect(0, &["plan", "plans/m.rhai", "--profile", "local", "-o", "saved.json"]);
    stacks.module(&module("three"));
    let refused = stacks.output(&["apply", "saved.json", "--yes"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("terraform_data.it input: was \"two\", now \"three\""), "{said}");
    stacks.module(&module("two"));
    stacks.expect(0, &["apply", "saved.json", "--yes"]);
    stacks.says_no_changes();
}

/// A directory that happens to have the name of one for raw plans is somebody's own.
#[test]
fn a_saved_plan_takes_nothing_from_a_directory_that_is_there() {
    let stacks = Stacks::with("resource \"terraform_data\" \"it\" {}\n", PLAN);
    stacks.project.write("conf.d/nginx.conf", "precious");
    for _ in 0..2 {
        stacks.expect(0, &["plan", "plans/m.rhai", "--profile", "local", "-o", "conf"]);
        assert_eq!(stacks.project.read("conf.d/nginx.conf"), "precious");
    }
    stacks.expect(0, &["apply", "conf", "--yes"]);
    // Nothing is left to do and to keep.
    stacks.expect(0, &["plan", "plans/m.rhai", "--profile", "local", "-o", "conf"]);
    let left: Vec<_> = std::fs::read_dir(stacks.path().join("conf.d")).unwrap().collect();
    assert_eq!(left.len(), 1);
}

/// An `init` that breaks off may have changed which state is meant; what was done before counts no more.
#[test]
fn an_init_that_failed_is_not_taken_for_done() {
    let module = |path: &str, more: &str| {
        format!(
            "terraform {{\n  backend \"local\" {{\n    path = \"{path}\"\n  }}\n{more}}}\nresource \"terraform_data\" \"it\" {{}}\n"
        )
    };
    let stacks = Stacks::with(&module("a.tfstate", ""), PLAN);
    stacks.apply();
    // Another state, and a provider that cannot be had: the backend is written, then `init` fails.
    let broken = "  required_providers {\n    no = { source = \"clawd/no-such-provider\" }\n  }\n";
    stacks.module(&module("b.tfstate", broken));
    stacks.expect(1, &DRY);
    stacks.module(&module("a.tfstate", ""));
    stacks.says_no_changes();
}
