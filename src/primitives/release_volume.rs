//! `release_volume`: takes a data volume from its host: unmounts and detaches it, makes a snapshot of it, and deletes it where that
//! is asked for. Each part is a change of its own; only the deletion destroys, and it counts as that.
//!
//! Rules: nothing in use is unmounted or detached by force; the snapshot is complete before the volume goes. A release is counted in
//! the volume's tag before it begins and its snapshot carries the number, so that a run that broke off is gone on with, and a
//! snapshot of an earlier release is never taken for this one's.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::{ApplyContext, ObserveContext, Scope};
use super::mount_volume::{Activate, MountVolume};
use super::partial::Partial;
use super::primitive::{Port, Primitive, Refusal};
use super::volume::{
    POLL, RELEASED, RELEASING, is_there, mark, of_step, only, state, tag, take_away, unknown_among,
};
use crate::plan::{Action, Change, Decision, Effect};
use crate::providers::ProviderError;
use crate::providers::ports::{
    Instance, MountReport, Snapshot, SnapshotRequest, TAG_FLEET, TAG_HOST, TAG_RELEASE, TAG_STEP, TAG_VOLUME,
    Volume,
};
use crate::value::Value;

/// Takes a volume from its host.
pub(super) struct ReleaseVolume;

fn default_snapshot() -> bool {
    true
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// The host that the volume belongs to.
    host: String,
    /// The name of the `mount_volume` step that made it; the step's own name when not given.
    of: Option<String>,
    /// The volume itself, `vol-...`, where no step made it.
    volume: Option<String>,
    /// Where it is mounted.
    #[schemars(regex(pattern = r"^(/\.?[A-Za-z0-9_-][A-Za-z0-9._-]*)+$"))]
    path: String,
    /// Who mounts there.
    #[serde(default)]
    activate: Activate,
    /// Make a snapshot once it is detached.
    #[serde(default = "default_snapshot")]
    snapshot: bool,
    /// Delete the volume afterwards.
    #[serde(default)]
    delete: bool,
}

/// A volume that was taken from its host.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Released", extend("x-clawd-step" = "release_volume"))]
pub(super) struct Released {
    /// `vol-...`; null when it goes without a snapshot, which would name it once it is gone.
    pub(super) volume_id: Option<String>,
    /// `snap-...`; null when none was asked for, or there never was a volume.
    pub(super) snapshot_id: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    volume: Option<Volume>,
    /// The instance it is attached to.
    holder: Option<Instance>,
    mounted: Option<MountReport>,
    /// Snapshots that releases of this step's made, oldest first.
    snapshots: Vec<Snapshot>,
}

/// The step that made the volume.
fn made_by(args: &Partial<'_, Args>, scope: Scope<'_>) -> String {
    let own = scope.step.as_str().split_once('.').map_or("", |(_, name)| name);
    format!("{}.{}", MountVolume::NAME, args.str("of").unwrap_or(own))
}

fn asks(args: &Partial<'_, Args>, key: &str, default: bool) -> bool {
    match args.get(key) {
        Some(Value::Bool(it)) => *it,
        _ => default,
    }
}

impl Seen {
    /// The number of the release that is going on or has ended, or of the next one.
    fn number(&self) -> usize {
        let next = self.highest() + 1;
        let Some(volume) = &self.volume else { return next };
        let mark = state(volume);
        let marked = mark.strip_prefix(RELEASING).or_else(|| mark.strip_prefix(RELEASED));
        marked
            .and_then(|number| number.parse().ok())
            // A snapshot is made once the volume is free: one that is attached again was written to since then.
            .filter(|number| volume.attached_to.is_none() || self.snapshot(*number).is_none())
            .unwrap_or(next)
    }

    /// The number of the last release that came to its snapshot.
    fn highest(&self) -> usize {
        let numbers = self.snapshots.iter().filter_map(|it| it.tags.get(TAG_RELEASE)?.parse().ok());
        numbers.max().unwrap_or(0)
    }

    /// The newest snapshot that can be used, where one is asked for: what is left of a volume that is gone.
    fn last(&self, wanted: bool) -> Option<&Snapshot> {
        self.snapshots.iter().rfind(|it| wanted && it.state == "completed")
    }

    /// The snapshot of a release.
    fn snapshot(&self, number: usize) -> Option<&Snapshot> {
        let number = number.to_string();
        self.snapshots.iter().find(|it| it.tags.get(TAG_RELEASE) == Some(&number) && it.state != "error")
    }
}

impl Primitive for ReleaseVolume {
    const NAME: &'static str = "release_volume";
    const SUMMARY: &'static str =
        "Takes a data volume from its host: unmounts, detaches, makes a snapshot, deletes when asked to.";
    const EXAMPLE: &'static str = r##"// A host goes, and its data stays as a snapshot: the volume first, then the instance.
allow(#{ destroy: ["release_volume.CLAWDINATOR-2", "tofu_apply.fleet/*"] });
let released = release_volume("CLAWDINATOR-2", #{ host: "CLAWDINATOR-2", path: "/var/lib/clawd", delete: true });
tofu_apply("fleet", #{
    dir: "tofu/fleet",
    vars: #{ instances: #{ "CLAWDINATOR-1": #{ type: "t3.large", zone: "eu-central-1a", ami: "ami-0123456789abcdef0" } } },
    after: [released],
});
output("release_volume", released.snapshot_id);"##;
    const IAM: &'static [&'static str] = &[
        "ec2:CreateSnapshot",
        "ec2:CreateTags",
        "ec2:DeleteVolume",
        "ec2:DescribeInstances",
        "ec2:DescribeSnapshots",
        "ec2:DescribeVolumes",
        "ec2:DetachVolume",
        "ssm:GetCommandInvocation",
        "ssm:SendCommand",
    ];
    const PORT: Port = Port::Ec2;
    type Args = Args;
    type Outputs = Released;
    type Seen = Seen;

    fn needs(args: &Partial<'_, Args>, action: &str) -> bool {
        match action {
            "ec2:DeleteVolume" => asks(args, "delete", false),
            "ec2:CreateSnapshot" => asks(args, "snapshot", default_snapshot()),
            _ => true,
        }
    }

    async fn observe(
        &self,
        args: &Partial<'_, Args>,
        cx: &ObserveContext<'_>,
    ) -> Result<Seen, ProviderError> {
        let scope = cx.scope();
        let step = made_by(args, scope);
        let volume = match (args.str("volume"), args.str("host")) {
            (Some(id), _) => cx.ec2().volume(id).await?.filter(is_there),
            (None, Some(host)) => only(of_step(cx.ec2(), scope, &step, host).await?, &step)?,
            (None, None) => None,
        };
        let tags = [(TAG_FLEET, scope.target.fleet.as_str()), (TAG_STEP, scope.step.as_str())];
        let mut snapshots = cx.ec2().snapshots(&tags).await?;
        let host = args.str("host");
        snapshots.retain(|it| it.tags.get(TAG_HOST).map(String::as_str) == host);
        // Numbers count within one volume.
        let id = volume.as_ref().map(|volume| volume.id.as_str()).or(args.str("volume"));
        snapshots.retain(|it| id.is_none_or(|id| it.tags.get(TAG_VOLUME).is_some_and(|of| of == id)));
        snapshots.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        let holder = match volume.as_ref().and_then(|volume| volume.attached_to.as_deref()) {
            Some(id) => cx.ec2().instance(id).await?,
            None => None,
        };
        let mounted = match (&holder, args.str("path")) {
            // One that does not run has nothing mounted.
            (Some(holder), Some(path)) if holder.state == "running" => {
                cx.hosts().mounted(&holder.id, path).await?
            }
            _ => None,
        };
        Ok(Seen { volume, holder, mounted, snapshots })
    }

    fn decide(&self, args: &Partial<'_, Args>, seen: &Seen, _: Scope<'_>) -> Result<Decision, Refusal> {
        if args.str("host").is_none() {
            return Ok(Decision::unknown("host is not known yet"));
        }
        if let Some(key) = unknown_among(args, &["of", "volume", "path", "activate", "snapshot", "delete"]) {
            return Ok(Decision::unknown(format!("{key} is not known yet")));
        }
        let (wants_snapshot, deletes) =
            (asks(args, "snapshot", default_snapshot()), asks(args, "delete", false));
        let id = |snapshot: Option<&Snapshot>| snapshot.map_or(Value::Null, |it| it.id.as_str().into());
        let Some(volume) = &seen.volume else {
            let latest = seen.last(wants_snapshot);
            if let Some(volume) = args.str("volume").filter(|_| wants_snapshot && latest.is_none()) {
                return Err(Refusal::new(
                    format!("there is no volume {volume}, and no snapshot that a release made of it"),
                    "name a volume of this account and region",
                ));
            }
            let was =
                latest.and_then(|it| it.tags.get(TAG_VOLUME)).map_or(Value::Null, |it| it.as_str().into());
            let planned = Value::map([("volume_id", was), ("snapshot_id", id(latest))]);
            return Ok(Decision::no_op("there is no such volume any more", planned));
        };
        let done = state(volume).starts_with(RELEASED) && volume.attached_to.is_none();
        let snapshot = seen.snapshot(seen.number());
        let mut changes = Vec::new();
        if let Some(mounted) = seen.mounted.as_ref().filter(|it| it.source == volume.id) {
            changes.push(Change::write("mount", mounted.path.as_str().into(), Value::Null));
        }
        if let Some(holder) = &volume.attached_to {
            changes.push(Change::write("instance", holder.as_str().into(), Value::Null));
        }
        let is_complete = snapshot.is_some_and(|it| it.state == "completed");
        if wants_snapshot && !is_complete {
            changes.push(Change::write("snapshot", id(snapshot), Value::Unknown));
        }
        if deletes {
            let (before, after) = (volume.id.as_str().into(), Value::Null);
            changes.push(Change { path: "volume".into(), before, after, effect: Effect::Destroy });
        }
        let snapshot_id = match (wants_snapshot, is_complete) {
            (false, _) => Value::Null,
            (true, true) => id(snapshot),
            (true, false) => Value::Unknown,
        };
        // Of a volume that goes without a snapshot nothing is left to name it, should this be looked at again.
        let volume_id = if deletes && !wants_snapshot { Value::Null } else { volume.id.as_str().into() };
        let planned = Value::map([("volume_id", volume_id), ("snapshot_id", snapshot_id)]);
        let decision = match (changes.is_empty(), deletes) {
            (true, _) if done => return Ok(Decision::no_op(format!("{} is released", volume.id), planned)),
            (true, _) => {
                Decision::new(Action::Update, format!("{} is not marked as released", volume.id), planned)
            }
            (false, true) => {
                Decision::new(Action::Destroy, format!("{} is to be deleted", volume.id), planned)
            }
            (false, false) => {
                Decision::new(Action::Update, format!("{} is to be released", volume.id), planned)
            }
        };
        let decision = decision.changes(changes);
        Ok(match deletes && !wants_snapshot {
            true => decision.note(format!("data loss: {} goes without a snapshot", volume.id)),
            false => decision,
        })
    }

    async fn apply(&self, args: Args, seen: Seen, cx: &ApplyContext<'_>) -> Result<Released, ProviderError> {
        let Some(volume) = &seen.volume else {
            let latest = seen.last(args.snapshot);
            let volume_id = latest.and_then(|it| it.tags.get(TAG_VOLUME).cloned());
            return Ok(Released { volume_id, snapshot_id: latest.map(|it| it.id.clone()) });
        };
        let number = seen.number();
        let snapshot = seen.snapshot(number).cloned();
        if volume.attached_to.is_some() || (args.snapshot && snapshot.is_none()) {
            // Before anything moves: a run that breaks off from here on is gone on with under the same number.
            tag("CreateTags releasing", &volume.id, &mark(format!("{RELEASING}{number}")), cx).await?;
        }
        take_away(volume, &args.path, args.activate.as_str(), cx).await?;
        let snapshot_id = match args.snapshot {
            true => Some(complete(&args, volume, snapshot, number, cx).await?),
            false => None,
        };
        if args.delete {
            cx.progress(&format!("deleting {}", volume.id));
            cx.effect("DeleteVolume", &volume.id, |_| cx.ec2().delete_volume(&volume.id)).await?;
        } else {
            tag("CreateTags released", &volume.id, &mark(format!("{RELEASED}{number}")), cx).await?;
        }
        let volume_id = Some(volume.id.clone()).filter(|_| args.snapshot || !args.delete);
        Ok(Released { volume_id, snapshot_id })
    }
}

/// The completed snapshot of a release.
async fn complete(
    args: &Args,
    volume: &Volume,
    found: Option<Snapshot>,
    number: usize,
    cx: &ApplyContext<'_>,
) -> Result<String, ProviderError> {
    let id = match found {
        Some(snapshot) => snapshot.id,
        None => {
            let mut tags = cx.owner_tags();
            tags.insert(TAG_HOST.to_owned(), args.host.clone());
            tags.insert(TAG_VOLUME.to_owned(), volume.id.clone());
            tags.insert(TAG_RELEASE.to_owned(), number.to_string());
            let description = format!("{} of {}, released", volume.id, args.host);
            let request = SnapshotRequest { volume_id: volume.id.clone(), description, tags };
            cx.progress(&format!("making a snapshot of {}", volume.id));
            cx.effect("CreateSnapshot", &request, |_| begin(&request, cx)).await?
        }
    };
    loop {
        let snapshot = cx.ec2().snapshot(&id).await?;
        match snapshot.as_ref().map(|it| it.state.as_str()) {
            Some("completed") => return Ok(id),
            Some("error") => {
                let why = snapshot.and_then(|it| it.state_reason).unwrap_or_default();
                return Err(ProviderError::permanent("ec2 CreateSnapshot", format!("{id} failed: {why}"))
                    .help("run again: it makes another; the volume is as it was"));
            }
            _ => cx.sleep(POLL).await?,
        }
    }
}

/// Begins a snapshot, unless an earlier try did: the call takes no token.
async fn begin(request: &SnapshotRequest, cx: &ApplyContext<'_>) -> Result<String, ProviderError> {
    let tags: Vec<(&str, &str)> =
        request.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let found = cx.ec2().snapshots(&tags).await?.into_iter().find(|it| it.state != "error");
    match found {
        Some(snapshot) => Ok(snapshot.id),
        None => cx.ec2().create_snapshot(request).await,
    }
}
