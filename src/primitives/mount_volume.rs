//! `mount_volume`: a data volume that outlives its host. Found by its owner tags or created; attached; made a
//! file system only when it is provably ours and blank; mounted. Or a file system that hosts share, mounted.
//!
//! Rules (design, section 8): never format what might hold data; never detach by force; grow only; another
//! zone or another instance is refused. What is made from a snapshot takes the place of a volume that stays.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::{ApplyContext, ObserveContext, Scope};
use super::partial::Partial;
use super::primitive::{Port, Primitive, Refusal};
use super::volume::{
    BLANK, FORMATTED, FORMATTING, POLL, SUPERSEDED, attach, is_alive, is_gone, look_up, mark, may_format,
    of_step, only, state, tag, take_away,
};
use crate::plan::{Action, Change, Decision, Effect};
use crate::providers::ProviderError;
use crate::providers::ports::{
    EfsSource, Instance, Modification, MountReport, MountRequest, MountSource, Snapshot, TAG_FLEET, TAG_HOST,
    TAG_STATE, TAG_STEP, Volume, VolumeRequest, VolumeShape, VolumeSource,
};
use crate::units::GiB;
use crate::value::Value;

/// Hex digits of the token in the mark of a volume that is being formatted.
const FORMAT_TOKEN_DIGITS: usize = 16;

/// Mounts a data volume on a host.
pub(super) struct MountVolume;

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum FileSystem {
    /// ext4.
    #[default]
    Ext4,
    /// XFS.
    Xfs,
}

/// EBS volume type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum VolumeType {
    /// General purpose, third generation.
    #[default]
    Gp3,
    /// Provisioned operations.
    Io2,
    /// Throughput, hard disk.
    St1,
}

/// Who mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Activate {
    /// The mount unit that the host's NixOS module declares.
    #[default]
    Unit,
    /// `clawd host mount` itself, where there is no such unit.
    Mount,
}

fn default_owner() -> String {
    "clawd".to_owned()
}

fn default_mode() -> String {
    "0750".to_owned()
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// The host the volume belongs to; with the step it identifies the volume.
    host: String,
    /// The instance it is attached to, `i-...`
    instance: String,
    /// Where it is mounted on the host.
    #[schemars(regex(pattern = r"^/[A-Za-z0-9._/\-]*$"))]
    path: String,
    /// Size. It grows when this does, and never shrinks. Every volume has one; a file system on EFS has none.
    #[schemars(range(min = 1, max = 65536))]
    size_gib: Option<u64>,
    /// Availability zone; the instance's own when not given.
    zone: Option<String>,
    /// File system.
    #[serde(default)]
    fs: FileSystem,
    /// EBS volume type.
    #[serde(default, rename = "type")]
    kind: VolumeType,
    /// Provisioned operations per second.
    #[schemars(range(min = 100, max = 256_000))]
    iops: Option<u32>,
    /// Provisioned throughput in MiB per second.
    #[schemars(range(min = 125, max = 2000))]
    throughput: Option<u32>,
    /// KMS key; the account's default when not given.
    kms_key: Option<String>,
    /// Owner of the mount's root directory.
    #[serde(default = "default_owner")]
    owner: String,
    /// Group of the mount's root directory.
    #[serde(default = "default_owner")]
    group: String,
    /// Mode of the mount's root directory, octal.
    #[serde(default = "default_mode")]
    #[schemars(regex(pattern = r"^[0-7]{3,4}$"))]
    mode: String,
    /// Snapshot to make the volume from. A volume that was not made from it is replaced by one that is, and stays beside it.
    snapshot: Option<String>,
    /// An existing volume to take over, `vol-...`
    adopt: Option<String>,
    /// An EFS file system to mount instead of a volume, `fs-...`; with `access_point`.
    efs: Option<String>,
    /// The directory of this host in the EFS file system, `fsap-...`
    access_point: Option<String>,
    /// Who mounts.
    #[serde(default)]
    activate: Activate,
}

/// A mounted volume.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Mount", extend("x-clawd-step" = "mount_volume"))]
pub(super) struct Mount {
    /// `vol-...`, or `fs-...` of a file system on EFS.
    pub(super) volume_id: String,
    /// The host's name.
    pub(super) host: String,
    /// The instance it is attached to.
    pub(super) instance: String,
    /// Where it is mounted.
    pub(super) path: String,
    /// Its availability zone; empty on EFS, which has one in each.
    pub(super) zone: String,
    /// Its size in GiB; 0 on EFS, which grows by itself.
    pub(super) size_gib: u64,
    /// UUID of the file system; empty on EFS.
    pub(super) uuid: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    volume: Option<Volume>,
    /// The volume whose place one from the snapshot takes.
    old: Option<Volume>,
    /// The wanted snapshot.
    snapshot: Option<Snapshot>,
    /// The wanted instance, when it is known.
    instance: Option<Instance>,
    /// The instance the volume is attached to now, when it is another one.
    holder: Option<Instance>,
    mounted: Option<MountReport>,
}

impl FileSystem {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

impl VolumeType {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Gp3 => "gp3",
            Self::Io2 => "io2",
            Self::St1 => "st1",
        }
    }
}

impl Activate {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Mount => "mount",
        }
    }
}

/// The volume of a step, and the one whose place it takes where it is to be made from another snapshot.
async fn find_volume(
    args: &Partial<'_, Args>,
    cx: &ObserveContext<'_>,
) -> Result<(Option<Volume>, Option<Volume>), ProviderError> {
    if let Some(id) = args.str("adopt") {
        let volume = cx.ec2().volume(id).await?;
        return volume.map(|volume| (Some(volume), None)).ok_or_else(|| {
            ProviderError::permanent(
                "ec2 DescribeVolumes",
                format!("the volume to adopt, {id}, does not exist"),
            )
        });
    }
    let Some(host) = args.str("host").filter(|_| args.str("efs").is_none()) else {
        return Ok((None, None));
    };
    let scope = cx.scope();
    let step = scope.step.as_str();
    let volumes = of_step(cx.ec2(), scope, step, host).await?;
    let Some(snapshot) = args.str("snapshot") else { return Ok((only(volumes, step)?, None)) };
    let (new, old) = volumes.into_iter().partition(|it| it.snapshot.as_deref() == Some(snapshot));
    Ok((only(new, step)?, only(old, step)?))
}

impl Seen {
    /// What stands against the arguments, given what is there.
    fn refusals(&self, args: &Partial<'_, Args>) -> Result<(), Refusal> {
        contradictions(args)?;
        if let Some(instance) = self.instance.as_ref().filter(|instance| is_gone(instance)) {
            return Err(Refusal::new(
                format!("the instance {} is {}", instance.id, instance.state),
                "apply the stack that launches its successor first",
            ));
        }
        if let Some(snapshot) = &self.snapshot {
            refuse_snapshot(snapshot, args)?;
        }
        // What the old one must fulfil: its place is taken where it is.
        let Some(volume) = self.volume.as_ref().or(self.old.as_ref()) else { return Ok(()) };
        let wanted_zone = args.str("zone").or(self.instance.as_ref().map(|instance| instance.zone.as_str()));
        if let Some(zone) = wanted_zone.filter(|zone| *zone != volume.zone) {
            return Err(Refusal::new(
                format!(
                    "the volume {} is in zone {}, the host in {zone}: EBS volumes do not move",
                    volume.id, volume.zone
                ),
                "keep the host in the volume's zone, or snapshot the volume and give the new one `snapshot`",
            ));
        }
        if let Some(size) = args
            .int("size_gib")
            .and_then(|size| u64::try_from(size).ok())
            .filter(|size| *size < volume.size.0 && self.volume.is_some())
        {
            return Err(Refusal::new(
                format!(
                    "the volume {} has {}, and would have to shrink to {size} GiB",
                    volume.id, volume.size
                ),
                format!("volumes only grow: set `size_gib` to {} or more", volume.size.0),
            ));
        }
        if let (Some(holder), Some(instance)) = (&self.holder, &self.instance)
            && !is_gone(holder)
        {
            return Err(Refusal::new(
                format!(
                    "the volume {} is attached to {}, which is {}, not to {}",
                    volume.id, holder.id, holder.state, instance.id
                ),
                "stop or replace that instance first; a volume in use is never detached by force",
            ));
        }
        if let (Some(mounted), Some(path)) = (&self.mounted, args.str("path"))
            && mounted.source != volume.id
            && self.old.as_ref().is_none_or(|old| old.id != mounted.source)
        {
            return Err(Refusal::new(
                format!("{path} is already the mount of {}, not of {}", mounted.source, volume.id),
                "mount the volume elsewhere, or unmount the other one by hand",
            ));
        }
        if let (Some(mounted), Some(fs)) = (&self.mounted, args.str("fs"))
            && mounted.source == volume.id
            && mounted.fs != fs
        {
            return Err(Refusal::new(
                format!("the volume {} holds {}, not {fs}: it is not formatted anew", volume.id, mounted.fs),
                format!("set `fs` to \"{}\", or move the data to a new volume by hand", mounted.fs),
            ));
        }
        Ok(())
    }

    /// What differs between the arguments and what is there, for a volume that exists.
    fn changes(&self, args: &Partial<'_, Args>, volume: &Volume, fs: &str, scope: Scope<'_>) -> Vec<Change> {
        let mut changes = Vec::new();
        if args.str("adopt").is_some() {
            let ours = [
                (TAG_FLEET, scope.target.fleet.as_str()),
                (TAG_STEP, scope.step.as_str()),
                (TAG_HOST, args.str("host").unwrap_or_default()),
            ];
            for (key, after) in ours {
                let before = volume.tags.get(key).map_or(Value::Null, |it| it.as_str().into());
                changes.extend(
                    (before.as_str() != Some(after)).then(|| Change::write(key, before, after.into())),
                );
            }
        }
        let moves = self.instance.is_none() || volume.attached_to.as_deref() != args.str("instance");
        if moves {
            let before = volume.attached_to.as_deref().map_or(Value::Null, Value::from);
            changes.push(Change::write("instance", before, args.planned("instance")));
        }
        let number = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
        let size = args.int("size_gib").and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        if size > volume.size.0 {
            changes.push(Change::write("size_gib", number(volume.size.0), number(size)));
        }
        for (key, before) in [("iops", volume.iops), ("throughput", volume.throughput)] {
            let before = before.map_or(Value::Null, |before| number(before.into()));
            if let Some(after) = args.get(key).filter(|after| **after != before && **after != Value::Null) {
                changes.push(Change::write(key, before, after.clone()));
            }
        }
        if let Some(kind) = args.str("type").filter(|kind| *kind != volume.kind) {
            changes.push(Change::write("type", volume.kind.as_str().into(), kind.into()));
        }
        match self.mounted.as_ref().filter(|mounted| mounted.source == volume.id) {
            None => {
                if may_format(volume) && args.get("adopt").is_none() {
                    let before = BLANK.into();
                    changes.push(Change {
                        path: "format".into(),
                        before,
                        after: fs.into(),
                        effect: Effect::Data,
                    });
                }
                // Where it moves to another instance, it is mounted there as it was: that is no change of its own.
                if !moves || state(volume) != FORMATTED {
                    changes.push(Change::write("path", Value::Null, args.planned("path")));
                }
            }
            Some(mounted) => {
                // An interrupted run grew the volume and not the file system, or did not mark what it formatted.
                if mounted.size < volume.size {
                    changes.push(Change::write(
                        "file_system_gib",
                        number(mounted.size.0),
                        number(volume.size.0),
                    ));
                }
                let marked = volume.tags.get(TAG_STATE).map(String::as_str);
                if marked != Some(FORMATTED) {
                    let before = marked.map_or(Value::Null, Value::from);
                    changes.push(Change::write(TAG_STATE, before, FORMATTED.into()));
                }
                changes.extend(owner_changes(mounted, args));
            }
        }
        changes
    }

    /// A volume that is to be made, in the place of another one where it comes from another snapshot.
    fn decide_new(&self, args: &Partial<'_, Args>, planned: Value, zone: Value, fs: &str) -> Decision {
        let mut changes = vec![
            Change::new("size_gib", args.planned("size_gib")),
            Change::new("zone", zone),
            Change::new("instance", args.planned("instance")),
            Change::new("path", args.planned("path")),
        ];
        let Some(snapshot) = args.get("snapshot").filter(|it| **it != Value::Null) else {
            changes.push(Change {
                path: "format".into(),
                before: Value::Null,
                after: fs.into(),
                effect: Effect::Data,
            });
            return Decision::new(Action::Create, "no volume carries this step's tags", planned)
                .changes(changes);
        };
        let before = self.old.as_ref().map_or(Value::Null, |old| old.id.as_str().into());
        changes.push(Change::write("snapshot", before, snapshot.clone()));
        let decision = match &self.old {
            None => Decision::new(Action::Create, "no volume carries this step's tags", planned),
            Some(old) => {
                let reason = format!("{} was not made from this snapshot", old.id);
                Decision::new(Action::Replace, reason, planned)
            }
        };
        let decision = decision.changes(changes);
        match &self.snapshot {
            Some(snapshot) => decision.note(loss(snapshot, self.old.as_ref())),
            None => decision,
        }
    }

    /// What is mounted of EFS, against what is wanted.
    fn decide_efs(&self, args: &Partial<'_, Args>, efs: &str) -> Decision {
        let planned = Value::map([
            ("volume_id", efs.into()),
            ("host", args.planned("host")),
            ("instance", args.planned("instance")),
            ("path", args.planned("path")),
            ("zone", "".into()),
            ("size_gib", 0.into()),
            ("uuid", "".into()),
        ]);
        let Some(mounted) = &self.mounted else {
            let changes = ["efs", "access_point", "instance", "path"];
            let changes = changes.map(|key| Change::new(key, args.planned(key)));
            return Decision::new(Action::Create, "it is not mounted on the host", planned).changes(changes);
        };
        let changes = owner_changes(mounted, args);
        if changes.is_empty() {
            return Decision::no_op(format!("{efs} is mounted"), planned);
        }
        let what: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
        let reason = format!("{efs} differs in {}", what.join(", "));
        Decision::new(Action::Update, reason, planned).changes(changes)
    }
}

/// Whose the mount's root is, against whose it is to be.
fn owner_changes(mounted: &MountReport, args: &Partial<'_, Args>) -> Vec<Change> {
    let wanted = [("owner", &mounted.owner), ("group", &mounted.group), ("mode", &mounted.mode)];
    wanted
        .into_iter()
        .filter_map(|(key, before)| {
            let default = if key == "mode" { default_mode() } else { default_owner() };
            let after = args.get(key).cloned().unwrap_or_else(|| default.into());
            // `750` and `0750` are one mode.
            let same =
                after.as_str().map(|it| it.trim_start_matches('0')) == Some(before.trim_start_matches('0'));
            (!same).then(|| Change::write(key, before.as_str().into(), after))
        })
        .collect()
}

/// The old volume stays, and is found no more.
fn supersedes(old: &Volume, by: &str) -> Change {
    let before = old.tags.get(TAG_STATE).map_or(Value::Null, |it| it.as_str().into());
    Change::write(format!("{} {TAG_STATE}", old.id), before, format!("{SUPERSEDED}{by}").into())
}

/// Arguments that mean nothing beside each other.
fn contradictions(args: &Partial<'_, Args>) -> Result<(), Refusal> {
    let given = |key: &str| args.get(key).is_some_and(|value| *value != Value::Null);
    if given("efs") {
        let volumes =
            ["size_gib", "type", "iops", "throughput", "kms_key", "snapshot", "adopt", "zone", "fs"];
        if let Some(key) = volumes.into_iter().find(|key| given(key)) {
            return Err(Refusal::new(
                format!("`{key}` says something of a volume, and `efs` is none"),
                format!("leave out `{key}`, or `efs`"),
            ));
        }
        if !given("access_point") {
            return Err(Refusal::new(
                "`efs` without `access_point` would give the host the whole file system",
                "give the host's access point, `fsap-...`: `tofu/base` makes one",
            ));
        }
        return Ok(());
    }
    if given("access_point") {
        return Err(Refusal::new("`access_point` without `efs` means nothing", "give `efs`, `fs-...`"));
    }
    if !given("size_gib") {
        return Err(Refusal::new("a volume has no size", "give `size_gib`"));
    }
    if given("adopt") && given("snapshot") {
        return Err(Refusal::new(
            "`adopt` takes a volume that is there, `snapshot` makes a new one",
            "leave out one of them",
        ));
    }
    Ok(())
}

/// A snapshot that no volume of these arguments can be made from.
fn refuse_snapshot(snapshot: &Snapshot, args: &Partial<'_, Args>) -> Result<(), Refusal> {
    if snapshot.state != "completed" {
        return Err(Refusal::new(
            format!("the snapshot {} is {}", snapshot.id, snapshot.state),
            "wait until it is completed, or name another",
        ));
    }
    let size = args.int("size_gib").and_then(|size| u64::try_from(size).ok());
    if let Some(size) = size.filter(|size| *size < snapshot.size.0) {
        return Err(Refusal::new(
            format!(
                "the snapshot {} is of a volume of {}, and {size} GiB cannot hold it",
                snapshot.id, snapshot.size
            ),
            format!("set `size_gib` to {} or more", snapshot.size.0),
        ));
    }
    Ok(())
}

/// What is lost with data that is taken from a snapshot.
fn loss(snapshot: &Snapshot, old: Option<&Volume>) -> String {
    let begun = jiff::Timestamp::from_second(snapshot.created)
        .map_or_else(|_| "long ago".to_owned(), |at| at.to_string());
    let written = match old {
        Some(old) => format!(
            "what was written to {} since then is not in it; that volume stays, marked as superseded",
            old.id
        ),
        None => "what was written since then is not in it".to_owned(),
    };
    format!("data loss: {} is of {begun}, and {written}", snapshot.id)
}

impl Primitive for MountVolume {
    const NAME: &'static str = "mount_volume";
    const SUMMARY: &'static str =
        "Mounts a data volume that outlives its host; creates, attaches, formats a blank one, grows.";
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
output("volume", mount.volume_id);"#;
    const IAM: &'static [&'static str] = &[
        "ec2:AttachVolume",
        "ec2:CreateTags",
        "ec2:CreateVolume",
        "ec2:DescribeInstances",
        "ec2:DescribeSnapshots",
        "ec2:DescribeVolumes",
        "ec2:DescribeVolumesModifications",
        "ec2:DetachVolume",
        "ec2:ModifyVolume",
        "ssm:GetCommandInvocation",
        "ssm:SendCommand",
    ];
    const PORT: Port = Port::Ec2;
    type Args = Args;
    type Outputs = Mount;
    type Seen = Seen;

    async fn observe(
        &self,
        args: &Partial<'_, Args>,
        cx: &ObserveContext<'_>,
    ) -> Result<Seen, ProviderError> {
        let (volume, old) = find_volume(args, cx).await?;
        let snapshot = match args.str("snapshot") {
            // One that a volume was made from already may be gone since then.
            Some(id) if volume.is_none() => Some(cx.ec2().snapshot(id).await?.ok_or_else(|| {
                ProviderError::permanent("ec2 DescribeSnapshots", format!("the snapshot {id} does not exist"))
                    .help("name one of this account and region; `release_volume` yields the one it makes")
            })?),
            _ => None,
        };
        let wanted = args.str("instance");
        let instance = match wanted {
            Some(id) => {
                let found = cx.ec2().instance(id).await?;
                Some(found.ok_or_else(|| {
                    ProviderError::permanent(
                        "ec2 DescribeInstances",
                        format!("the instance {id} does not exist"),
                    )
                    .help("pass an output of the stack that launches it, not an id written by hand")
                })?)
            }
            None => None,
        };
        let current = volume.as_ref().or(old.as_ref());
        let holder = match current.and_then(|volume| volume.attached_to.as_deref()) {
            Some(id) if Some(id) != wanted => cx.ec2().instance(id).await?,
            _ => None,
        };
        let attached_here =
            [&volume, &old].into_iter().flatten().any(|it| it.attached_to.as_deref() == wanted);
        let mounted = match (&instance, args.str("path")) {
            (Some(instance), Some(path)) if attached_here || args.str("efs").is_some() => {
                cx.hosts().mounted(&instance.id, path).await?
            }
            _ => None,
        };
        Ok(Seen { volume, old, snapshot, instance, holder, mounted })
    }

    fn decide(&self, args: &Partial<'_, Args>, seen: &Seen, scope: Scope<'_>) -> Result<Decision, Refusal> {
        seen.refusals(args)?;
        if args.str("host").is_none() {
            return Ok(Decision::unknown("host is not known yet"));
        }
        if let Some(efs) = args.str("efs") {
            return Ok(seen.decide_efs(args, efs));
        }
        let zone = match (&seen.volume, args.str("zone"), &seen.instance) {
            (Some(volume), _, _) => volume.zone.as_str().into(),
            (None, Some(zone), _) => zone.into(),
            (None, None, Some(instance)) => instance.zone.as_str().into(),
            (None, None, None) => Value::Unknown,
        };
        let of_volume = |id: &str| seen.mounted.as_ref().filter(|mounted| mounted.source == id);
        let mounted = seen.volume.as_ref().and_then(|volume| of_volume(&volume.id));
        let uuid = mounted.map_or(Value::Unknown, |mounted| mounted.uuid.as_str().into());
        let volume_id = seen.volume.as_ref().map_or(Value::Unknown, |volume| volume.id.as_str().into());
        let planned = Value::map([
            ("volume_id", volume_id),
            ("host", args.planned("host")),
            ("instance", args.planned("instance")),
            ("path", args.planned("path")),
            ("zone", zone.clone()),
            ("size_gib", args.planned("size_gib")),
            ("uuid", uuid),
        ]);
        let fs = args.str("fs").unwrap_or(FileSystem::default().as_str());
        let Some(volume) = &seen.volume else {
            return Ok(seen.decide_new(args, planned, zone, fs));
        };
        let mut changes = seen.changes(args, volume, fs, scope);
        if let Some(old) = &seen.old {
            changes.push(supersedes(old, &volume.id));
        }
        if changes.is_empty() {
            return Ok(Decision::no_op(format!("{} is mounted", volume.id), planned));
        }
        // A volume that an interrupted create of this very step left blank is still being created: its format
        // was approved with the create.
        if may_format(volume) && args.get("adopt").is_none() && mounted.is_none() {
            let reason = format!("{} was created and is not mounted yet", volume.id);
            return Ok(Decision::new(Action::Create, reason, planned).changes(changes));
        }
        let what: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
        let reason = format!("{} differs in {}", volume.id, what.join(", "));
        Ok(Decision::new(Action::Update, reason, planned).changes(changes))
    }

    async fn apply(&self, args: Args, seen: Seen, cx: &ApplyContext<'_>) -> Result<Mount, ProviderError> {
        let instance =
            seen.instance.ok_or_else(|| ProviderError::permanent(Self::NAME, "the instance is not known"))?;
        if let Some(efs) = &args.efs {
            return mount_efs(&args, efs, &instance, cx).await;
        }
        let size = args.size_gib.unwrap_or(0);
        let volume = match seen.volume {
            Some(volume) => volume,
            None => create(&args, &instance, cx).await?,
        };
        if let Some(old) = &seen.old {
            // The new one is there before the old one leaves; both at once would be two volumes of one label.
            take_away(old, seen.mounted.as_ref(), args.activate.as_str(), cx).await?;
            tag("CreateTags superseded", &old.id, &mark(format!("{SUPERSEDED}{}", volume.id)), cx).await?;
        }
        let volume = attach(volume, &instance, cx).await?;
        let size = size.max(volume.size.0);
        change_shape(&args, &volume, GiB(size), cx).await?;
        let report = mount(&args, &volume, GiB(size), &instance, cx).await?;
        Ok(Mount {
            volume_id: volume.id,
            host: args.host,
            instance: instance.id,
            path: args.path,
            zone: volume.zone,
            size_gib: size,
            uuid: report.uuid,
        })
    }
}

/// Changes what can be changed in place, and waits until the host can see it.
async fn change_shape(
    args: &Args,
    volume: &Volume,
    size: GiB,
    cx: &ApplyContext<'_>,
) -> Result<(), ProviderError> {
    let shape = VolumeShape {
        size,
        kind: args.kind.as_str().to_owned(),
        iops: args.iops,
        throughput: args.throughput,
    };
    let differs = shape.size > volume.size
        || shape.kind != volume.kind
        || shape.iops.is_some_and(|iops| volume.iops != Some(iops))
        || shape.throughput.is_some_and(|throughput| volume.throughput != Some(throughput));
    if !differs {
        return Ok(());
    }
    cx.progress(&format!("changing {} to {} of {}", volume.id, shape.size, shape.kind));
    cx.effect("ModifyVolume", &(&volume.id, &shape), |_| cx.ec2().modify_volume(&volume.id, &shape)).await?;
    loop {
        match cx.ec2().modification(&volume.id).await? {
            Modification::Done => return Ok(()),
            Modification::Modifying => cx.sleep(POLL).await?,
            Modification::Failed => {
                return Err(ProviderError::permanent(
                    "ec2 ModifyVolume",
                    format!("changing {} failed", volume.id),
                )
                .help("the volume is as it was; EC2 allows one change in six hours"));
            }
        }
    }
}

async fn mount_efs(
    args: &Args,
    efs: &str,
    instance: &Instance,
    cx: &ApplyContext<'_>,
) -> Result<Mount, ProviderError> {
    let access_point = args.access_point.clone().unwrap_or_default();
    let source = MountSource::Efs(EfsSource { id: efs.to_owned(), access_point });
    let report = mount_source(args, source, instance, cx).await?;
    Ok(Mount {
        volume_id: report.source,
        host: args.host.clone(),
        instance: instance.id.clone(),
        path: report.path,
        zone: String::new(),
        size_gib: 0,
        uuid: String::new(),
    })
}

async fn create(args: &Args, instance: &Instance, cx: &ApplyContext<'_>) -> Result<Volume, ProviderError> {
    let mut tags = cx.owner_tags();
    tags.insert(TAG_HOST.to_owned(), args.host.clone());
    let state = if args.snapshot.is_some() { FORMATTED } else { BLANK };
    tags.insert(TAG_STATE.to_owned(), state.to_owned());
    let request = VolumeRequest {
        zone: args.zone.clone().unwrap_or_else(|| instance.zone.clone()),
        size: GiB(args.size_gib.unwrap_or(0)),
        kind: args.kind.as_str().to_owned(),
        iops: args.iops,
        throughput: args.throughput,
        kms_key: args.kms_key.clone(),
        snapshot: args.snapshot.clone(),
        tags,
    };
    cx.progress(&format!("creating a volume of {} in {}", request.size, request.zone));
    let id = cx
        .create(
            "CreateVolume",
            &request,
            |token| {
                let request = &request;
                async move { cx.ec2().create_volume(&token, request).await }
            },
            |id| async move {
                let volume = cx.ec2().volume(&id).await?;
                Ok(volume.is_some_and(|volume| is_alive(&volume)))
            },
        )
        .await?;
    look_up(&id, cx).await
}

/// Mounts on the host. The volume is marked before a file system is made and after, so that no later run
/// takes a volume with data for a blank one.
async fn mount(
    args: &Args,
    volume: &Volume,
    size: GiB,
    instance: &Instance,
    cx: &ApplyContext<'_>,
) -> Result<MountReport, ProviderError> {
    let format = may_format(volume) && args.adopt.is_none();
    if format {
        let ours = format!("{FORMATTING}{}", &cx.token("mkfs", &volume.id, 0)[..FORMAT_TOKEN_DIGITS]);
        let state = state(volume);
        if state != BLANK && state != ours {
            return Err(ProviderError::refused(
                "mount_volume",
                format!("{} is marked `{state}`: another step began to format it", volume.id),
            )
            .help("look at the volume; if it is empty, tag it clawd:state=blank"));
        }
        tag("CreateTags formatting", &volume.id, &mark(ours), cx).await?;
    }
    let source = VolumeSource {
        id: volume.id.clone(),
        // The size is part of the request's identity: a volume that grew is mounted again, to grow its file system.
        size,
        fs: args.fs.as_str().to_owned(),
        may_format: format,
    };
    let report = mount_source(args, MountSource::Volume(source), instance, cx).await?;
    let mut tags = cx.owner_tags();
    tags.insert(TAG_HOST.to_owned(), args.host.clone());
    tags.extend(mark(FORMATTED));
    if tags.iter().any(|(key, value)| volume.tags.get(key) != Some(value)) {
        tag("CreateTags formatted", &volume.id, &tags, cx).await?;
    }
    Ok(report)
}

async fn mount_source(
    args: &Args,
    source: MountSource,
    instance: &Instance,
    cx: &ApplyContext<'_>,
) -> Result<MountReport, ProviderError> {
    let request = MountRequest {
        source,
        path: args.path.clone(),
        owner: args.owner.clone(),
        group: args.group.clone(),
        mode: args.mode.clone(),
        activate: args.activate.as_str().to_owned(),
    };
    cx.progress(&format!("mounting {} at {}", request.source.id(), args.path));
    cx.effect("host mount", &(&request, &instance.id), |token| {
        let request = &request;
        async move { cx.hosts().mount(&token, &instance.id, request).await }
    })
    .await
}
