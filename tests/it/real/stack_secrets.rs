//! A secret given to a stack is found nowhere: not in a plan, a file, the journal, a log, an argument, or the environment of
//! what OpenTofu starts.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::stacks::{DRY, RUN, Stacks, tofu_program};

const CANARY: &str = "canary-7f3a9c-do-not-print";

const MODULE: &str = r#"
variable "token" {
  type      = string
  sensitive = true
}
variable "dir" {
  type = string
}
resource "terraform_data" "uses" {
  input = nonsensitive(sha256(var.token))
  provisioner "local-exec" {
    command = "env > ${var.dir}/environment; touch ${var.dir}/begun; while [ ! -e ${var.dir}/go ]; do sleep 0.05; done"
  }
}
output "token" {
  value     = var.token
  sensitive = true
}
"#;

const PLAN: &str = r#"
let token = secret("token", #{ from: "env:CANARY" });
let stack = tofu_apply("m", #{ dir: "tofu/m", vars: #{ token: token, dir: param("dir", #{ type: "string" }) } });
"#;

/// Every file below a directory that holds the canary, but for OpenTofu's state, which is the backend's business.
fn holders(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holders(&path));
        } else if !path.to_string_lossy().contains(".tfstate") {
            let bytes = fs::read(&path).unwrap_or_default();
            if bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

/// The processes whose arguments or environment hold the canary, but for clawd, which was given it.
fn knowing_processes(clawd: u32) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else {
            continue;
        };
        let holds = |file: &str| {
            fs::read(path.join(file))
                .is_ok_and(|bytes| bytes.windows(CANARY.len()).any(|it| it == CANARY.as_bytes()))
        };
        if holds("cmdline") || (pid != clawd && holds("environ")) {
            found.push(
                String::from_utf8_lossy(&fs::read(path.join("cmdline")).unwrap_or_default()).into_owned(),
            );
        }
    }
    found
}

#[test]
fn a_canary_is_found_nowhere() {
    let stacks = Stacks::with(MODULE, PLAN);
    let dir = format!("dir={}", stacks.path().display());
    let command = |args: &[&str]| {
        let args: Vec<&str> = args.iter().copied().chain(["--param", &dir]).collect();
        let mut command = stacks.command(&args);
        command.env("CANARY", CANARY).env("RUST_LOG", "trace");
        command
    };
    let saved =
        command(&["plan", "plans/m.rhai", "--profile", "local", "-o", "saved.json"]).output().unwrap();
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    assert!(!stacks.path().join("saved.json.d").exists(), "a raw plan with secrets in it is not kept");
    let mut child = command(&RUN).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
        said.push_str(&line);
        said.push('\n');
        if line.contains("Provisioning with 'local-exec'") {
            // While it runs: the arguments and the environment of everything there is, and the disk. The raw plan is
            // compressed, and OpenTofu's alone.
            for _ in 0..200 {
                if stacks.path().join("begun").exists() {
                    break;
                }
                std::thread::park_timeout(std::time::Duration::from_millis(20));
            }
            assert_eq!(knowing_processes(child.id()), Vec::<String>::new());
            assert_eq!(holders(stacks.path()), Vec::<String>::new());
            stacks.project.write("go", "");
        }
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{said}");
    assert!(!said.contains(CANARY) && !String::from_utf8_lossy(&output.stdout).contains(CANARY), "{said}");
    let environment = stacks.project.read("environment");
    assert!(environment.contains("TF_DATA_DIR=") && !environment.contains("CANARY"), "{environment}");
    assert_eq!(holders(stacks.path()), Vec::<String>::new());
    let shown =
        command(&["plan", "plans/m.rhai", "--profile", "local", "--format", "json"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("\"$secret\": \"token\"") && !shown.contains(CANARY), "{shown}");
    let dry = command(&DRY).output().unwrap();
    assert_eq!(dry.status.code(), Some(0), "{}", String::from_utf8_lossy(&dry.stdout));
}

/// What a validation says of a secret is told without it.
#[test]
fn an_error_about_a_secret_does_not_tell_it() {
    let module = r#"
variable "token" {
  type      = string
  sensitive = true
  validation {
    condition     = length(var.token) > 100
    error_message = nonsensitive("The token is ${var.token}, which is too short.")
  }
}
"#;
    let stacks = Stacks::with(
        module,
        "tofu_apply(\"m\", #{ dir: \"tofu/m\", vars: #{ token: secret(\"token\", #{ from: \"file:token\" }) } });",
    );
    stacks.project.write("token", &format!("{CANARY}\n"));
    let output = stacks.output(&DRY);
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &*String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("(secret)") && !said.contains(CANARY), "{said}");
}

/// A sensitive output is a handle: it can be passed on to another stack, and is stored nowhere on the way.
#[test]
fn a_sensitive_output_is_passed_on_as_a_handle() {
    let taker = r#"
variable "token" {
  type      = string
  sensitive = true
}
resource "terraform_data" "it" {
  input = nonsensitive(sha256(var.token))
}
"#;
    let maker = r#"
resource "terraform_data" "it" {
  input = sensitive("canary-7f3a9c-do-not-print")
}
output "token" {
  value     = terraform_data.it.output
  sensitive = true
}
"#;
    let stacks = Stacks::with(
        taker,
        r#"
let maker = tofu_apply("maker", #{ dir: "tofu/maker" });
tofu_apply("m", #{ dir: "tofu/m", vars: #{ token: maker.outputs.token } });
"#,
    );
    stacks.project.write("tofu/maker/main.tf", maker);
    stacks.apply();
    stacks.says_no_changes();
    // `printf canary-7f3a9c-do-not-print | sha256sum`
    let digest = clawd::digest::sha256_hex(CANARY.as_bytes());
    assert_eq!(
        stacks.state("tofu/m")["resources"][0]["instances"][0]["attributes"]["output"]["value"],
        digest
    );
    let mut found = holders(&stacks.path().join(".clawd"));
    found.extend(holders(&stacks.path().join("plans")));
    assert_eq!(found, Vec::<String>::new());
    // A variable that OpenTofu would print takes none.
    stacks.module(&taker.replace("  sensitive = true\n", ""));
    let output = stacks.output(&DRY);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the variable `token` is not marked as sensitive"), "{said}");
}

/// A value that a module copies to where no mark is, and one of which a part is not known yet, are secrets all the same.
#[test]
fn copies_and_parts_of_a_secret_are_told_nowhere() {
    let module = r#"
variable "token" {
  type      = string
  sensitive = true
}
resource "terraform_data" "it" {
  input = var.token
}
output "copied" {
  value = terraform_data.it.output
}
output "partly" {
  value     = { password = var.token, id = terraform_data.it.id }
  sensitive = true
}
"#;
    let stacks = Stacks::with(
        module,
        r#"let stack = tofu_apply("m", #{ dir: "tofu/m", vars: #{ token: secret("token", #{ from: "file:token" }) } });
           output("copied", stack.outputs.copied);"#,
    );
    stacks.project.write("token", CANARY);
    let mut said = stacks.expect(0, &["plan", "plans/m.rhai", "--profile", "local", "-o", "saved.json"]);
    said += &stacks.apply();
    said += &stacks.expect(0, &DRY);
    assert!(!said.contains(CANARY), "{said}");
    fs::remove_file(stacks.path().join("token")).unwrap();
    assert_eq!(holders(stacks.path()), Vec::<String>::new());
}

/// A stack that takes a secret output is planned with the value that the output will have, not with the one it had.
#[test]
fn a_secret_output_that_changes_arrives_in_the_same_run() {
    let maker = r#"
variable "version_of_token" {
  type = string
}
output "token" {
  value     = "token-${var.version_of_token}"
  sensitive = true
}
"#;
    let taker = r#"
variable "token" {
  type      = string
  sensitive = true
}
resource "terraform_data" "it" {
  input = nonsensitive(sha256(var.token))
}
"#;
    let stacks = Stacks::with(
        taker,
        r#"
let maker = tofu_apply("maker", #{ dir: "tofu/maker", vars: #{ version_of_token: param("v", #{ type: "string" }) } });
tofu_apply("m", #{ dir: "tofu/m", vars: #{ token: maker.outputs.token } });
"#,
    );
    stacks.project.write("tofu/maker/main.tf", maker);
    for version in ["v=1", "v=2"] {
        stacks.expect(0, &RUN.into_iter().chain(["--param", version]).collect::<Vec<_>>());
        let digest = clawd::digest::sha256_hex(version.replace("v=", "token-").as_bytes());
        assert_eq!(
            stacks.state("tofu/m")["resources"][0]["instances"][0]["attributes"]["input"]["value"],
            digest,
            "{version}"
        );
    }
}

/// Ctrl-C while planning ends what was started and takes the variables along; so does whoever stops a job.
#[test]
fn an_interrupted_plan_leaves_no_secret_behind() {
    for signal in [Signal::INT, Signal::TERM] {
        let stacks = Stacks::with(
            r#"
variable "token" {
  type      = string
  sensitive = true
}
"#,
            "tofu_apply(\"m\", #{ dir: \"tofu/m\", vars: #{ token: secret(\"token\", #{ from: \"env:CANARY\" }) } });",
        );
        // An OpenTofu that hangs as soon as it is to plan.
        let hangs = format!(
            "if [ \"$1\" = plan ]; then trap 'exit 1' INT; touch '{}/begun'; while :; do sleep 0.05; done; fi",
            stacks.path().display()
        );
        let name = tofu_program().file_name().unwrap().to_str().unwrap().to_owned();
        let mut command = stacks.command(&["plan", "plans/m.rhai", "--profile", "local"]);
        command.env("CANARY", CANARY).env("PATH", stacks.path_with(&name, &hangs));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        for _ in 0..400 {
            if stacks.path().join("begun").exists() {
                break;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(25));
        }
        assert_eq!(holders(&stacks.path().join(".clawd")).len(), 1, "the file of variables is there");
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert!(said.contains("interrupted while planning; nothing was done"), "{said}");
        assert_eq!(holders(stacks.path()), Vec::<String>::new());
        assert_eq!(knowing_processes(0), Vec::<String>::new(), "nothing of it runs on");
    }
}

/// What a module makes secret by itself is known only once it is made; a provider copies it to where no mark is.
#[test]
fn a_secret_that_the_module_makes_is_told_nowhere() {
    let module = format!(
        r#"
resource "terraform_data" "made" {{
  input = sensitive("{CANARY}")
}}
output "copy" {{
  value = nonsensitive(terraform_data.made.output)
}}
"#
    );
    let plan = "let stack = tofu_apply(\"m\", #{ dir: \"tofu/m\" });\noutput(\"copy\", stack.outputs.copy);";
    let stacks = Stacks::with(&module, plan);
    let output = stacks.output(&RUN);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("copy = (secret") && !said.contains(CANARY), "{said}");
    assert_eq!(holders(&stacks.path().join(".clawd")), Vec::<String>::new());
    stacks.says_no_changes();
}

/// A private key has lines, and a message puts them in one, indents or escapes them.
#[test]
fn a_secret_of_several_lines_is_told_nowhere() {
    let module = r#"
variable "key" {
  type      = string
  sensitive = true
}
check "key" {
  assert {
    condition     = length(var.key) < 5
    error_message = "It is too long: ${nonsensitive(var.key)}"
  }
}
resource "terraform_data" "it" {
  lifecycle {
    precondition {
      condition     = length(var.key) < 500
      error_message = "It is much too long: ${jsonencode(nonsensitive(var.key))}"
    }
  }
}
"#;
    let plan =
        "tofu_apply(\"m\", #{ dir: \"tofu/m\", vars: #{ key: secret(\"key\", #{ from: \"env:KEY\" }) } });";
    let stacks = Stacks::with(module, plan);
    for lines in [2, 40] {
        let key = (0..lines).map(|line| format!("{CANARY}-line-{line}\r\n")).collect::<String>();
        let run = || stacks.command(&RUN).env("KEY", &key).output().unwrap();
        for output in [run(), run()] {
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &*String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), lines == 2, "{said}");
            assert!(said.contains("too long: ") && said.contains("(secret)"), "{said}");
            assert!(!said.contains("canary"), "{said}");
        }
    }
    assert_eq!(holders(&stacks.path().join(".clawd")), Vec::<String>::new());
}

/// The mark alone changes the state, and what uses the output waits for it.
#[test]
fn an_output_that_becomes_secret_arrives_as_what_it_is() {
    let source = |sensitive: bool| {
        format!("output \"token\" {{\n  value     = \"{CANARY}\"\n  sensitive = {sensitive}\n}}\n")
    };
    let stacks = Stacks::with(
        "variable \"token\" {\n  type      = string\n  sensitive = true\n}\n\
         resource \"terraform_data\" \"uses\" {\n  input = nonsensitive(sha256(var.token))\n}\n",
        "let source = tofu_apply(\"source\", #{ dir: \"tofu/source\" });\n\
         tofu_apply(\"m\", #{ dir: \"tofu/m\", vars: #{ token: source.outputs.token } });",
    );
    for sensitive in [false, true, false] {
        stacks.project.write("tofu/source/main.tf", &source(sensitive));
        stacks.apply();
        stacks.says_no_changes();
        let state = stacks.project.read("tofu/m/terraform.tfstate");
        assert!(!state.contains("clawd-placeholder"), "{state}");
        assert_eq!(stacks.state("tofu/source")["outputs"]["token"]["sensitive"] == true, sensitive);
    }
}

/// Every program that clawd starts for a stack, from the first to the last.
#[test]
fn no_program_is_given_a_secret_by_its_arguments_or_environment() {
    let stacks = Stacks::with(MODULE, PLAN);
    stacks.project.write("go", "");
    let log = format!(
        "tr '\\0' '\\n' < /proc/$$/environ >> '{0}'; tr '\\0' ' ' < /proc/$$/cmdline >> '{0}'; echo >> '{0}'",
        stacks.path().join("started").display()
    );
    let name = tofu_program().file_name().unwrap().to_str().unwrap().to_owned();
    let path = stacks.path_with(&name, &log);
    let dir = format!("dir={}", stacks.path().display());
    for args in [&DRY[..], &RUN[..], &DRY[..]] {
        let args: Vec<&str> = args.iter().copied().chain(["--param", &dir]).collect();
        let output = stacks.command(&args).env("CANARY", CANARY).env("PATH", &path).output().unwrap();
        assert!(matches!(output.status.code(), Some(0 | 2)), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let started = stacks.project.read("started");
    for command in ["init", "plan", "show", "state pull", "apply"] {
        let is_there = started.lines().any(|line| line.contains(&format!("{name} {command} ")));
        assert!(is_there, "no {command} was started:\n{started}");
    }
    assert!(!started.contains("CANARY") && !started.contains(CANARY), "{started}");
}
