//! Every kind of bad input gets a clear error, an exit code, and nothing done. Each snapshot reads alone.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use crate::support::{Project, block};

const HEAD: &str = "let image = build_image(\"base\", #{ flake: \".#x\" });\nlet ami = import_ami(\"base\", #{ image: image, name_prefix: \"abc\" });\n";

/// Name and script; each is checked alone.
const SCRIPTS: &[(&str, &str)] = &[
    ("syntax-error", "let x = ;"),
    ("syntax-unclosed-map", "let x = #{ a: 1;"),
    ("unknown-variable", "let hosts = 1;\nlet n = hots;"),
    ("unknown-variable-needs-import", "let n = fleet::hosts(1, 2);"),
    ("unknown-function", "let n = leng(\"x\");"),
    ("unknown-primitive", "import_amii(\"base\", #{});"),
    ("unknown-module-function", "import \"std/fleet\" as fleet;\nfleet::host(#{}, 1);"),
    ("unknown-argument", "build_image(\"base\", #{ flak: \".#x\", formt: \"raw\" });"),
    ("missing-argument", "import_ami(\"base\", #{ name_prefix: \"abc\" });"),
    ("no-arguments", "build_image(\"base\");"),
    ("arguments-not-a-map", "build_image(\"base\", \".#x\");"),
    (
        "wrong-type",
        "mount_volume(\"a\", #{ host: 1, instance: \"i-1\", path: \"data\", size_gib: \"40\", fs: \"ext3\", mode: \"rwx\" });",
    ),
    (
        "wrong-common-arguments",
        "build_image(\"a\", #{ flake: \".#x\", timeout: \"soon\", retries: -1, after: [1] });",
    ),
    (
        "all-argument-errors-at-once",
        "build_image(\"a\", #{ flake: 1 });\nbuild_image(\"b\", #{ flake: \".#x\", fromat: \"raw\" });\nimport_ami(\"c\", #{ name_prefix: \"x\" });",
    ),
    (
        "duplicate-step",
        "build_image(\"base\", #{ flake: \".#x\" });\nbuild_image(\"base\", #{ flake: \".#y\" });",
    ),
    ("bad-step-name", "build_image(\"a b\", #{ flake: \".#x\" });"),
    (
        "error-inside-a-module",
        "import \"std/fleet\" as fleet;\nlet hosts = fleet::hosts(#{ defaults: #{} , hosts: #{ a: #{} } }, 0);",
    ),
    (
        "argument-error-inside-a-module",
        "import \"std/storage\" as storage;\nlet mount = storage::state_volume(\"a\", \"i-1\", \"large\");",
    ),
    ("endless-loop", "let n = 0;\nloop { n += 1; }"),
    ("endless-recursion", "fn deeper(n) { deeper(n + 1) }\ndeeper(0);"),
    ("memory-bomb-string", "let s = \"x\";\nloop { s += s; }"),
    ("memory-bomb-array", "let a = [];\nloop { a.push(a); }"),
    (
        "memory-bomb-map",
        "let s = \"x\";\nfor i in 0..14 { s += s; }\nlet m = #{};\nlet n = 0;\nloop { m[\"k\" + n] = s + n; n += 1; }",
    ),
    (
        "callback-bomb",
        "let a = [];\nfor i in 0..5000 { a.push(i); }\nlet n = a.filter(|x| { let s = 0; for i in 0..5000 { s += i; } s > x });",
    ),
    ("list-used-while-walked", "let a = [1];\nlet n = a.filter(|x| a.contains(x));"),
    ("swallowed-error", "let a = [2, 1];\na.map(|x| fail(\"in a callback\"));"),
    ("sort-with-a-function", "let a = [2, 1];\na.sort(|x, y| x - y);"),
    ("dollar-in-double-quotes", "let a = 1;\nlet b = \"a-${a}\";"),
    ("builtin-defined-again", "fn assert(a, b) { }"),
    ("null", "let x = null;"),
    ("operator-on-wrong-types", "let x = \"a\" * 3;"),
    ("text-too-long", "let s = \"x\";\nfor i in 0..19 { s += s; }\nlet t = s.replaced(\"x\", s);"),
    (
        "nested-too-deeply",
        "let x = ((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((1))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))));",
    ),
    ("import-absolute", "import \"/etc/passwd\" as x;"),
    ("import-upwards", "import \"../outside\" as x;"),
    ("import-unknown", "import \"std/flet\" as fleet;"),
    ("read-absolute", "read_text(\"/etc/passwd\");"),
    ("read-upwards", "read_text(\"plans/../../etc/passwd\");"),
    ("read-missing", "read_toml(\"flet.toml\");"),
    ("disabled-switch", "switch 1 { 1 => 2, _ => 3 }"),
    ("disabled-try", "try { fail(\"x\"); } catch { }"),
    ("disabled-eval", "eval(\"1\");"),
    ("no-sleep", "sleep(1);"),
    ("no-time", "let t = timestamp();"),
    ("forged-token-escape", "let x = \"\\uE000\\uE010\\uE001\";"),
    ("forged-token-char", "let x = '\\uE010';"),
    ("assert-fails", "assert(1 > 2, \"one is not more than two\");"),
    ("fail", "fail(\"stop here\");"),
    ("allow-twice", "allow(#{ destroy: [\"a\"] });\nallow(#{ destroy: [\"b\"] });"),
    ("allow-in-function", "fn f() { allow(#{ destroy: [\"a\"] }); }\nf();"),
    ("allow-unknown-key", "allow(#{ destory: [\"a\"] });"),
    ("output-twice", "output(\"a\", 1);\noutput(\"a\", 2);"),
    ("overflow", "let x = 9223372036854775807 + 1;"),
    ("param-bad-spec", "let x = param(\"x\", #{ typ: \"int\" });"),
    ("param-bad-default", "let x = param(\"x\", #{ type: \"int\", default: 9, max: 3 });"),
    (
        "params-missing",
        "let a = param(\"a\", #{ type: \"int\", doc: \"how many\" });\nlet b = param(\"b\", #{ type: \"string\" });\nfor i in 0..a { build_image(b, #{}); }",
    ),
    ("secret-source", "let s = secret(\"s\", #{ from: \"vault:x\" });"),
    (
        "secret-in-text",
        "let s = secret(\"s\", #{ from: \"env:X\" });\nbuild_image(\"a\", #{ flake: `x${s}` });",
    ),
    ("secret-compared", "let s = secret(\"s\", #{ from: \"env:X\" });\nlet x = s == \"a\";"),
    ("secret-stored", "let s = secret(\"s\", #{ from: \"env:X\" });\nbuild_image(\"a\", #{ flake: s });"),
    ("secret-output", "output(\"s\", secret(\"s\", #{ from: \"env:X\" }));"),
];

/// Name and what comes after an image and an AMI are recorded: every use that needs a value now.
const DEFERRED: &[(&str, &str)] = &[
    ("unknown-output", "output(\"x\", ami.image_idd);"),
    ("output-of-a-value", "output(\"x\", ami.image_id.size);"),
    ("an-ami-is-no-image", "import_ami(\"two\", #{ image: ami, name_prefix: \"abc\" });"),
    ("an-output-is-no-image", "import_ami(\"two\", #{ image: ami.image_id, name_prefix: \"abc\" });"),
    ("a-step-is-no-string", "build_image(\"two\", #{ flake: image });"),
    ("a-step-in-text", "build_image(\"two\", #{ flake: `.#${image}` });"),
    ("a-number-is-no-string", "build_image(\"two\", #{ flake: image.size_bytes });"),
    ("deferred-step-name", "build_image(ami.image_id, #{ flake: \".#x\" });"),
    ("deferred-step-name-in-text", "build_image(`x-${ami.image_id}`, #{ flake: \".#x\" });"),
    ("deferred-map-key", "let m = #{};\nm[ami.image_id] = 1;"),
    ("deferred-map-key-in-text", "let m = #{};\nm[`${ami.image_id}`] = 1;\noutput(\"m\", m);"),
    ("deferred-if", "let id = ami.image_id;\nif id { }"),
    ("deferred-if-property", "if ami.image_id { }"),
    ("deferred-while", "while ami.image_id { }"),
    ("deferred-and", "let x = true && ami.image_id;"),
    ("deferred-not", "let x = !ami.image_id;"),
    ("deferred-equals", "if ami.image_id == \"ami-1\" { }"),
    ("deferred-equals-reversed", "if \"ami-1\" != ami.image_id { }"),
    ("deferred-less", "let x = image.size_bytes < 5;"),
    ("deferred-arithmetic", "let x = image.size_bytes / 2;"),
    ("deferred-text-equals", "if `${ami.image_id}` == \"ami-1\" { }"),
    ("deferred-len", "let x = ami.image_id.len();"),
    ("deferred-len-property", "let x = ami.image_id.len;"),
    ("deferred-text-len", "let x = `${ami.image_id}`.len();"),
    ("deferred-text-part", "let x = `${ami.image_id}`.sub_string(0, 4);"),
    ("deferred-text-split", "let x = `a-${ami.image_id}`.split(\"-\");"),
    ("deferred-text-contains", "let x = \"q\" in `${ami.image_id}`;"),
    ("deferred-in-list", "let x = ami.image_id in [\"ami-1\"];"),
    ("deferred-in-map", "let x = ami.image_id in #{ a: 1 };"),
    ("deferred-text-in-map", "let x = `${ami.image_id}` in #{ a: 1 };"),
    ("deferred-sort", "let x = [`${ami.image_id}`, \"a\"];\nx.sort();"),
    ("deferred-dedup", "let x = [`${ami.image_id}`, `${ami.image_id}`];\nx.dedup();"),
    ("deferred-loop", "for x in ami.image_id { }"),
    ("deferred-keys", "for x in ami.keys() { }"),
    ("deferred-index", "let x = [1, 2][image.size_bytes];"),
    ("deferred-cut-by-index", "let x = `${ami.image_id}`;\nbuild_image(\"two\", #{ flake: \".#\" + x[0] });"),
    ("deferred-test-on-a-list", "let x = [1].filter(|n| ami.image_id);"),
    ("deferred-text-equals-int", "if `${ami.image_id}` == 3 { }"),
    ("deferred-text-minus", "let x = `${ami.image_id}` - \"ami-\";"),
    ("deferred-text-loop", "for c in `${ami.image_id}` { }"),
    ("deferred-text-map-set", "let m = #{};\nm.set(`${ami.image_id}`, 1);"),
    ("deferred-to-json", "let x = #{ id: ami.image_id }.to_json();"),
    ("deferred-param-name", "let x = param(`${ami.image_id}`, #{ type: \"int\", default: 1 });"),
    ("deferred-module-name", "import `${ami.image_id}` as x;"),
    ("deferred-assert", "assert(ami.image_id, \"there\");"),
    (
        "deferred-in-a-function",
        "fn pick(id) {\n    if id == \"a\" { 1 } else { 2 }\n}\nlet x = pick(ami.image_id);",
    ),
    ("deferred-param-default", "let x = param(\"x\", #{ type: \"string\", default: ami.image_id });"),
];

#[test]
fn every_wrong_script_is_explained_at_its_place() {
    let project = Project::new();
    for (name, script) in SCRIPTS {
        insta::assert_snapshot!(*name, project.check(script));
    }
    assert!(!project.path().join(".clawd").exists(), "checking writes nothing");
}

/// Operations do not bound time. Where the time ends is not the same twice, so the place is not compared.
#[test]
fn a_script_that_takes_long_with_few_operations_is_stopped() {
    let project = Project::new();
    let text =
        project.check("let a = [];\nfor i in 0..19000 { a.push(i); }\nloop { let b = a; b.reverse(); }");
    assert!(text.contains("script.limit") && text.contains("the script runs too long"), "{text}");
    assert!(text.contains("max_cpu_ms") && text.contains("--- exit 1"), "{text}");
}

#[test]
fn every_use_of_a_deferred_value_that_needs_it_is_refused() {
    let project = Project::new();
    for (name, script) in DEFERRED {
        let text = project.check(&format!("{HEAD}{script}"));
        assert!(text.contains("--- exit 1"), "{name} passed:\n{text}");
        insta::assert_snapshot!(*name, text);
    }
}

#[test]
fn a_deferred_value_may_be_passed_on() {
    let project = Project::new();
    let script = format!(
        "{HEAD}let list = [ami.image_id, `x-${{ami.image_id}}-y`];\nlet text = \"id: \" + ami.image_id;\noutput(\"all\", #{{ list: list, text: text, map: #{{ id: ami.image_id }} }});"
    );
    project.write("plans/case.rhai", &script);
    let plan: serde_json::Value =
        serde_json::from_str(&project.expect(0, &["plan", "plans/case.rhai", "--format", "json"])).unwrap();
    insta::assert_snapshot!("deferred-passed-on", serde_json::to_string_pretty(&plan["outputs"]).unwrap());
}

#[test]
fn problems_as_json_have_places_codes_and_fixes() {
    let project = Project::new();
    project.write("plans/case.rhai", "build_image(\"base\", #{ flak: \".#x\" });");
    insta::assert_snapshot!("check-json", project.block(&["check", "plans/case.rhai", "--format", "json"]));
}

#[test]
fn scripts_and_parameters_that_are_not_there() {
    let project = Project::with_plans();
    insta::assert_snapshot!("missing-script", project.block(&["run", "plans/spwan.rhai"]));
    insta::assert_snapshot!("missing-directory", project.block(&["run", "pläns/spawn.rhai"]));
    insta::assert_snapshot!(
        "unknown-params",
        project.block(&["run", "plans/spawn.rhai", "--param", "cuont=3", "--param", "zone=a"])
    );
    insta::assert_snapshot!(
        "param-wrong-type",
        project.block(&["run", "plans/spawn.rhai", "--param", "count=three"])
    );
    insta::assert_snapshot!(
        "param-out-of-range",
        project.block(&["run", "plans/spawn.rhai", "--param", "count=65"])
    );
    insta::assert_snapshot!(
        "param-forged-token",
        project.block(&["run", "plans/roll.rhai", "--param", "host=\u{e000}\u{e010}\u{e001}"])
    );
    project.write("params.toml", "count = 2\n");
    project.expect(0, &["plan", "plans/spawn.rhai", "--params", "params.toml"]);
    project.write("params.json", "[1]");
    insta::assert_snapshot!(
        "params-file-wrong",
        project.block(&["plan", "plans/spawn.rhai", "--params", "params.json"])
    );
    insta::assert_snapshot!(
        "unknown-profile",
        project.block(&["plan", "plans/spawn.rhai", "--profile", "simm"])
    );
    project.write("clawd.toml", "flet = \"x\"\n");
    insta::assert_snapshot!("config-wrong", project.block(&["plan", "plans/spawn.rhai"]));
}

#[test]
fn a_profile_leaves_primitives_out() {
    let project = Project::with_plans();
    project.write(
        "clawd.toml",
        "fleet = \"f\"\n[profiles.sim]\nadapters = \"sim\"\nprimitives = [\"build_image\", \"import_ami\"]\n",
    );
    insta::assert_snapshot!("primitive-left-out", project.block(&["plan", "plans/teardown.rhai"]));
}

#[test]
fn links_do_not_lead_out_of_the_project() {
    let project = Project::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret.rhai"), "let x = 1;").unwrap();
    symlink(outside.path(), project.path().join("linked")).unwrap();
    project.write(".clawd/state", "1");
    insta::assert_snapshot!("read-state", project.check("read_text(\"./.clawd/state\");"));
    symlink("/etc/passwd", project.path().join("passwd.txt")).unwrap();
    insta::assert_snapshot!("import-through-link", project.check("import \"linked/secret\" as x;"));
    insta::assert_snapshot!("read-through-link", project.check("read_text(\"passwd.txt\");"));
    symlink(outside.path().join("secret.rhai"), project.path().join("plans/linked.rhai")).unwrap();
    insta::assert_snapshot!("script-through-link", project.block(&["check", "plans/linked.rhai"]));
}

#[test]
fn modules_in_a_circle_are_named() {
    let project = Project::new();
    project.write("lib/a.rhai", "import \"lib/b\" as b;").write("lib/b.rhai", "import \"lib/a\" as a;");
    insta::assert_snapshot!("import-circle", project.check("import \"lib/a\" as a;"));
}

#[test]
fn data_cannot_forge_a_leaf_or_a_token() {
    let project = Project::new();
    project.write(
        "data.json",
        r##"{ "$ref": "import_ami.base#image_id", "$secret": "db", "$unknown": true, "$$x": 1 }"##,
    );
    project.write("plans/case.rhai", "output(\"data\", read_json(\"data.json\"));");
    let plan: serde_json::Value =
        serde_json::from_str(&project.expect(0, &["plan", "plans/case.rhai", "--format", "json"])).unwrap();
    insta::assert_snapshot!("forged-leaves", serde_json::to_string_pretty(&plan["outputs"]).unwrap());
    project.expect(0, &["plan", "plans/case.rhai", "-o", "saved.json"]);
    project.expect(0, &["apply", "saved.json", "--yes"]);
    project.write("token.json", r#"["\ue000\ue010\ue001"]"#);
    insta::assert_snapshot!("forged-token-json", project.check("read_json(\"token.json\");"));
    project.write("token.toml", "x = \"\\uE010\"");
    insta::assert_snapshot!("forged-token-toml", project.check("read_toml(\"token.toml\");"));
    project.write("token.txt", "\u{e000}");
    insta::assert_snapshot!("forged-token-text", project.check("read_text(\"token.txt\");"));
}

#[test]
fn plan_files_that_are_not_what_was_saved() {
    let project = Project::with_plans();
    project.expect(0, &["plan", "plans/spawn.rhai", "-o", "saved.json"]);
    let saved = project.read("saved.json");
    let case = |name: &str, text: &str| {
        project.write("bad.json", text);
        insta::assert_snapshot!(name, project.block(&["apply", "bad.json", "--yes"]));
    };
    case("plan-file-truncated", &saved[..saved.len() / 2]);
    case("plan-file-edited", &saved.replacen("t3.large", "p5.48xlarge", 1));
    case("plan-file-older", &saved.replacen("\"format_version\": \"1\"", "\"format_version\": \"0\"", 1));
    case("plan-file-printed", &project.expect(0, &["plan", "plans/spawn.rhai", "--format", "json"]));
    case(
        "plan-file-cyclic",
        &saved.replace("\"depends_on\": []", "\"depends_on\": [\n        \"import_ami.base\"\n      ]"),
    );
    case("plan-file-other-fleet", &saved.replace("\"fleet\": \"clawdinators\"", "\"fleet\": \"others\""));
    insta::assert_snapshot!("plan-file-missing", project.block(&["apply", "none.json", "--yes"]));
    // A plan for another fleet, with a digest that is right.
    project.write("clawd.toml", "fleet = \"others\"\n");
    insta::assert_snapshot!("plan-file-wrong-target", project.block(&["apply", "saved.json", "--yes"]));
    assert!(!project.path().join(".clawd").exists(), "nothing was done");
}

#[test]
fn wrong_usage_exits_with_64() {
    let project = Project::with_plans();
    insta::assert_snapshot!("usage-unknown-flag", project.block(&["run", "plans/spawn.rhai", "--forse"]));
    insta::assert_snapshot!(
        "usage-bad-param",
        project.block(&["run", "plans/spawn.rhai", "--param", "count"])
    );
    insta::assert_snapshot!("usage-no-plan", project.block(&["run"]));
    insta::assert_snapshot!(
        "usage-detailed",
        project.block(&["run", "plans/spawn.rhai", "--detailed-exitcode"])
    );
    project.expect(64, &["frobnicate"]);
    project.expect(64, &["run", "plans/spawn.rhai", "--parallelism", "0"]);
    project.expect(64, &["run", "plans/spawn.rhai", "--format", "xml"]);
}

#[test]
fn a_torn_journal_is_read_and_a_damaged_one_is_told() {
    let project = Project::with_plans();
    project.expect(0, &["run", "plans/spawn.rhai", "--yes"]);
    let runs = project.path().join(".clawd/sim/runs");
    let run = std::fs::read_dir(&runs).unwrap().next().unwrap().unwrap().path();
    let id = run.file_name().unwrap().to_string_lossy().into_owned();
    let journal = run.join("journal.jsonl");
    let whole = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, &whole[..whole.len() - 20]).unwrap();
    insta::assert_snapshot!("torn-journal-runs", project.block(&["runs"]));
    assert!(project.expect(0, &["resume"]).contains("Applied: 0 done"), "all was done already");
    let mut damaged = whole.clone();
    damaged[30] ^= 1;
    std::fs::write(&journal, damaged).unwrap();
    insta::assert_snapshot!("damaged-journal", project.block(&["show", &id]));
    insta::assert_snapshot!("unknown-run", project.block(&["show", "20200101T000000Z-0000"]));
    std::fs::remove_dir_all(&runs).unwrap();
    insta::assert_snapshot!("nothing-to-resume", project.block(&["resume"]));
}

/// Two at once: the second is refused and told who holds the lock.
#[test]
fn two_runs_at_once() {
    let project = Project::with_plans();
    // The first run waits a long time of real seconds on its build.
    project.write("clawd.toml", "fleet = \"f\"\n[profiles.sim]\nadapters = \"sim\"\ntime_scale = 10.0\n");
    let mut first = project
        .command(&["run", "plans/spawn.rhai", "--yes", "--format", "jsonl"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("run_started")));
    // The second would not wait: without the lock it would be done, or fail, at once.
    project.write("clawd.toml", "fleet = \"f\"\n");
    insta::assert_snapshot!("two-runs", tail(&project.block(&["run", "plans/spawn.rhai", "--yes"])));
    project.expect(3, &["sim", "reset"]);
    first.kill().unwrap();
    first.wait().unwrap();
    project.expect(0, &["run", "plans/spawn.rhai", "--yes"]);
}

fn tail(block: &str) -> String {
    block[block.find("--- stderr").unwrap()..].to_owned()
}

/// A directory that cannot be written is told before anything is done. Root can write anywhere, so the command
/// runs as another user where the tests run as root.
#[test]
fn a_read_only_project() {
    let project = Project::with_plans();
    let binary = project.path().join("clawd");
    std::fs::copy(env!("CARGO_BIN_EXE_clawd"), &binary).unwrap();
    let set_mode =
        |mode| std::fs::set_permissions(project.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    set_mode(0o555);
    let args = ["run", "plans/spawn.rhai", "--yes"];
    let run = |as_nobody: bool, args: &[&str]| {
        let mut command = std::process::Command::new(&binary);
        command.args(args).current_dir(project.path()).env_clear().stdin(Stdio::null());
        if as_nobody {
            command.uid(65534).gid(65534);
        }
        command.output()
    };
    // An unprivileged caller may not change the user, and need not.
    let as_root = run(true, &["--version"]).is_ok();
    let output = run(as_root, &args).unwrap();
    let planned = run(as_root, &["plan", "plans/spawn.rhai"]).unwrap();
    set_mode(0o755);
    insta::assert_snapshot!("read-only", tail(&block(&args, &output)));
    assert_eq!(planned.status.code(), Some(0), "planning writes nothing");
}

#[test]
fn what_comes_with_clawd_checks() {
    let project = Project::with_plans();
    project.expect(0, &["check", "plans/spawn.rhai", "plans/roll.rhai", "plans/teardown.rhai"]);
}
