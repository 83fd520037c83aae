//! `sync_memory`: keeps a host's memory directory in step with the shared one. It takes a `Mount`, not an id,
//! so nobody syncs onto a root disk by accident. Memory lives: the step is decided on its configuration, and
//! the list of files is information.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::{ApplyContext, ObserveContext, Scope};
use super::mount_volume::Mount;
use super::partial::Partial;
use super::primitive::{Port, Primitive, Refusal};
use crate::plan::{Action, Change, Decision};
use crate::providers::ProviderError;
use crate::providers::ports::{MemoryConfig, MemoryPending, MemoryStatus};
use crate::units::Seconds;
use crate::value::Value;

/// A host that watches its memory has a round every few minutes: one that had none for so long does not watch any more.
const LATE_WATCHING: Seconds = Seconds(3600);

/// A memory that only plans keep in step is synced anew when the last round is this long ago.
const LATE: Seconds = Seconds(24 * 3600);

/// Keeps a memory directory in step.
pub(super) struct SyncMemory;

fn default_watch() -> bool {
    true
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// The host's name: the owner of its daily notes, `YYYY-MM-DD_HOST.md`.
    host: String,
    /// The mounted volume the directory lies on.
    mount: Mount,
    /// The directory, relative to the mount.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_][A-Za-z0-9._\-]*(/[A-Za-z0-9_][A-Za-z0-9._\-]*)*$"))]
    dir: String,
    /// The shared memory: `s3://bucket/prefix`, or `file:///dir` on one machine.
    #[schemars(regex(
        pattern = r"^(s3://[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9](/[A-Za-z0-9._/\-]*)?|file:///.*)$"
    ))]
    remote: String,
    /// Canonical files besides `goals.md`, `architecture.md` and `ops.md`.
    #[serde(default)]
    canonical: Vec<String>,
    /// Keep in step all the time, not only when a plan is applied.
    #[serde(default = "default_watch")]
    watch: bool,
}

/// A memory directory in step.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Memory", extend("x-clawd-step" = "sync_memory"))]
pub(super) struct Memory {
    /// The host's name.
    pub(super) host: String,
    /// Absolute directory on the host.
    pub(super) dir: String,
    /// The shared memory.
    pub(super) remote: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    status: Option<Standing>,
}

/// What a decision rests on. The list of files is not part of it: agents write all the time.
#[derive(Debug, Serialize, Deserialize)]
struct Standing {
    config: MemoryConfig,
    in_step: bool,
    /// Whether the last round is too long ago.
    late: bool,
    conflicts: u32,
    /// What a round would do; for people only.
    #[serde(skip)]
    pending: Option<MemoryPending>,
}

impl From<MemoryStatus> for Standing {
    fn from(status: MemoryStatus) -> Self {
        let MemoryStatus { config, in_step, age, conflicts, files: _, versions: _, pending } = status;
        let limit = if config.watch { LATE_WATCHING } else { LATE };
        Self { late: age.is_some_and(|age| age > limit), config, in_step, conflicts, pending }
    }
}

fn absolute(mount_path: &str, dir: &str) -> String {
    format!("{}/{dir}", mount_path.trim_end_matches('/'))
}

/// The configuration as far as it is known: an unknown leaf is named.
fn wanted(args: &Partial<'_, Args>) -> Result<MemoryConfig, String> {
    let text = |path: &str| args.str(path).map(str::to_owned).ok_or_else(|| path.to_owned());
    let canonical = match args.get("canonical") {
        None => Vec::new(),
        Some(Value::List(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(|| "canonical".to_owned()))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err("canonical".to_owned()),
    };
    Ok(MemoryConfig {
        dir: absolute(&text("mount.path")?, &text("dir")?),
        mount: text("mount.path")?,
        remote: text("remote")?,
        host: text("host")?,
        canonical,
        watch: match args.get("watch") {
            None => default_watch(),
            Some(Value::Bool(watch)) => *watch,
            Some(_) => return Err("watch".to_owned()),
        },
    })
}

/// Reads one field of a configuration.
type Pick = fn(&MemoryConfig) -> Value;

fn changes(before: Option<&MemoryConfig>, after: &MemoryConfig) -> Vec<Change> {
    let text = |config: Option<&MemoryConfig>, pick: Pick| config.map_or(Value::Null, pick);
    let fields: [(&str, Pick); 5] = [
        ("host", |config| config.host.as_str().into()),
        ("dir", |config| config.dir.as_str().into()),
        ("remote", |config| config.remote.as_str().into()),
        ("canonical", |config| {
            Value::List(config.canonical.iter().map(|name| name.as_str().into()).collect())
        }),
        ("watch", |config| config.watch.into()),
    ];
    fields
        .into_iter()
        .map(|(name, pick)| Change::write(name, text(before, pick), pick(after)))
        .filter(|change| change.before != change.after)
        // Whose a new memory is stands in the step; nothing is configured anew to be an empty list.
        .filter(|change| {
            before.is_some() || (change.path != "host" && change.after != Value::List(Vec::new()))
        })
        .collect()
}

impl Primitive for SyncMemory {
    const NAME: &'static str = "sync_memory";
    const SUMMARY: &'static str = "Keeps a host's memory directory in step with the shared hive-mind memory.";
    const EXAMPLE: &'static str = r#"let stack = tofu_apply("fleet", #{
    dir: "tofu/fleet",
    vars: #{ instances: #{ "CLAWDINATOR-1": #{ type: "t3.large", zone: "eu-central-1a", ami: "ami-0123456789abcdef0" } } },
});
let mount = mount_volume("CLAWDINATOR-1", #{
    host: "CLAWDINATOR-1",
    instance: stack.outputs.instance_ids["CLAWDINATOR-1"],
    path: "/var/lib/clawd",
    size_gib: 40,
});
let memory = sync_memory("CLAWDINATOR-1", #{
    host: "CLAWDINATOR-1",
    mount: mount,
    dir: "memory",
    remote: "s3://clawd-memory/hive",
});
output("memory", memory.dir);"#;
    const IAM: &'static [&'static str] = &[
        "s3:GetBucketVersioning",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:PutObject",
        "ssm:GetCommandInvocation",
        "ssm:SendCommand",
    ];
    const PORT: Port = Port::Hosts;
    type Args = Args;
    type Outputs = Memory;
    type Seen = Seen;

    async fn observe(
        &self,
        args: &Partial<'_, Args>,
        cx: &ObserveContext<'_>,
    ) -> Result<Seen, ProviderError> {
        let (Some(instance), Ok(config)) = (args.str("mount.instance"), wanted(args)) else {
            return Ok(Seen { status: None });
        };
        let status = cx.hosts().memory(instance, &config.dir).await?;
        Ok(Seen { status: status.map(Standing::from) })
    }

    fn decide(&self, args: &Partial<'_, Args>, seen: &Seen, _: Scope<'_>) -> Result<Decision, Refusal> {
        let config = match wanted(args) {
            Ok(config) => config,
            Err(leaf) => return Ok(Decision::unknown(format!("{leaf} is not known yet"))),
        };
        let planned = Value::map([
            ("host", config.host.as_str().into()),
            ("dir", config.dir.as_str().into()),
            ("remote", config.remote.as_str().into()),
        ]);
        let Some(status) = &seen.status else {
            let reason = if args.str("mount.instance").is_some() {
                "the host does not keep this directory in step yet"
            } else {
                "the host is not there yet"
            };
            return Ok(Decision::new(Action::Create, reason, planned).changes(changes(None, &config)));
        };
        let differing = changes(Some(&status.config), &config);
        let decision = if !differing.is_empty() {
            Decision::new(Action::Update, "the host is configured otherwise", planned).changes(differing)
        } else if !status.in_step {
            Decision::new(Action::Update, "the last round did not end in step", planned)
        } else if status.late {
            Decision::new(Action::Update, "the last round is too long ago", planned)
        } else {
            Decision::no_op("the host keeps it in step", planned)
        };
        let told = status.pending.iter().flat_map(|MemoryPending { push, pull, merge, remove }| {
            [("push", push), ("pull", pull), ("merge", merge), ("remove", remove)]
        });
        let decision =
            told.filter(|(_, names)| !names.is_empty()).fold(decision, |decision, (what, names)| {
                decision.note(format!("to {what}: {}", names.join(", ")))
            });
        Ok(match status.conflicts {
            0 => decision,
            count => {
                decision.note(format!("{count} conflicts wait for a person in {}/conflicts", config.dir))
            }
        })
    }

    async fn apply(&self, args: Args, _: Seen, cx: &ApplyContext<'_>) -> Result<Memory, ProviderError> {
        let config = MemoryConfig {
            dir: absolute(&args.mount.path, &args.dir),
            mount: args.mount.path.clone(),
            remote: args.remote,
            host: args.host,
            canonical: args.canonical,
            watch: args.watch,
        };
        cx.progress(&format!("syncing {} with {}", config.dir, config.remote));
        let status = cx
            .effect("host memory", &(&args.mount.instance, &config), |token| {
                let (config, instance) = (&config, &args.mount.instance);
                async move { cx.hosts().keep_memory(&token, instance, config).await }
            })
            .await?;
        if status.versions == Some(false) {
            cx.progress(&format!(
                "the bucket of {} keeps no versions: what is overwritten is gone",
                config.remote
            ));
        }
        if status.conflicts > 0 {
            cx.progress(&format!("{} conflicts wait for a person", status.conflicts));
        }
        Ok(Memory { host: config.host, dir: config.dir, remote: config.remote })
    }
}
