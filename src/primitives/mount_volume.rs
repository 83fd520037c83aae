//! `mount_volume`: a data volume that outlives its host. Found by its owner tags or created; attached; made a
//! file system only when it is provably ours and blank; mounted.
//!
//! Rules (design, section 8): never format what might hold data; never detach by force; grow only; another
//! zone or another instance is refused.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::{ApplyContext, ObserveContext, Scope};
use super::partial::Partial;
use super::primitive::{Port, Primitive, Refusal};
use crate::plan::{Action, Change, Decision, Effect};
use crate::providers::ports::{
    Instance, MountReport, MountRequest, TAG_FLEET, TAG_HOST, TAG_STATE, TAG_STEP, Tags, Volume,
    VolumeRequest, VolumeShape,
};
use crate::providers::{ErrorKind, ProviderError};
use crate::units::GiB;
use crate::value::Value;

/// How often a volume on its way is looked at.
const POLL: Duration = Duration::from_secs(5);

/// States of `clawd:state` in which a volume may be formatted.
const BLANK: &str = "blank";
/// Followed by the beginning of the token of the step that formats.
const FORMATTING: &str = "formatting:";
/// Hex digits of that token.
const FORMAT_TOKEN_DIGITS: usize = 16;
const FORMATTED: &str = "formatted";

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
    /// Size. It grows when this does, and never shrinks.
    #[schemars(range(min = 1, max = 65536))]
    size_gib: u64,
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
    /// Snapshot to make the volume from, when it is created.
    snapshot: Option<String>,
    /// An existing volume to take over, `vol-...`
    adopt: Option<String>,
    /// Who mounts.
    #[serde(default)]
    activate: Activate,
}

/// A mounted volume.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Mount", extend("x-clawd-step" = "mount_volume"))]
pub(super) struct Mount {
    /// `vol-...`
    pub(super) volume_id: String,
    /// The host's name.
    pub(super) host: String,
    /// The instance it is attached to.
    pub(super) instance: String,
    /// Where it is mounted.
    pub(super) path: String,
    /// Its availability zone.
    pub(super) zone: String,
    /// Its size in GiB.
    pub(super) size_gib: u64,
    /// UUID of the file system.
    pub(super) uuid: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    volume: Option<Volume>,
    /// The wanted instance, when it is known.
    instance: Option<Instance>,
    /// The instance the volume is attached to now, when it is another one.
    holder: Option<Instance>,
    mounted: Option<MountReport>,
}

impl FileSystem {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

impl VolumeType {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Gp3 => "gp3",
            Self::Io2 => "io2",
            Self::St1 => "st1",
        }
    }
}

impl Activate {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Mount => "mount",
        }
    }
}

fn is_gone(instance: &Instance) -> bool {
    matches!(instance.state.as_str(), "shutting-down" | "terminated")
}

/// Whether the mark on a volume allows making a file system on it. The host probes the device besides.
fn may_format(volume: &Volume) -> bool {
    volume.tags.get(TAG_STATE).is_some_and(|state| state == BLANK || state.starts_with(FORMATTING))
}

async fn find_volume(
    args: &Partial<'_, Args>,
    cx: &ObserveContext<'_>,
) -> Result<Option<Volume>, ProviderError> {
    if let Some(id) = args.str("adopt") {
        let volume = cx.ec2().volume(id).await?;
        return volume.map(Some).ok_or_else(|| {
            ProviderError::permanent(
                "ec2 DescribeVolumes",
                format!("the volume to adopt, {id}, does not exist"),
            )
        });
    }
    let scope = cx.scope();
    let Some(host) = args.str("host") else {
        return Ok(None);
    };
    let tags = [(TAG_FLEET, scope.target.fleet.as_str()), (TAG_STEP, scope.step.as_str()), (TAG_HOST, host)];
    let mut volumes = cx.ec2().volumes(&tags).await?;
    volumes.retain(|volume| !matches!(volume.state.as_str(), "deleted" | "deleting" | "error"));
    if volumes.len() > 1 {
        let ids: Vec<&str> = volumes.iter().map(|volume| volume.id.as_str()).collect();
        return Err(ProviderError::refused(
            "ec2 DescribeVolumes",
            format!("{} volumes carry the tags of {}: {}", ids.len(), scope.step, ids.join(", ")),
        )
        .help("remove the tags from all but the one with the data, or name it with `adopt`"));
    }
    Ok(volumes.pop())
}

impl Seen {
    /// What stands against the arguments, given what is there.
    fn refusals(&self, args: &Partial<'_, Args>) -> Result<(), Refusal> {
        if let Some(instance) = self.instance.as_ref().filter(|instance| is_gone(instance)) {
            return Err(Refusal::new(
                format!("the instance {} is {}", instance.id, instance.state),
                "apply the stack that launches its successor first",
            ));
        }
        let Some(volume) = &self.volume else { return Ok(()) };
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
            .filter(|size| *size < volume.size.0)
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
            && mounted.volume_id != volume.id
        {
            return Err(Refusal::new(
                format!("{path} is already the mount of {}, not of {}", mounted.volume_id, volume.id),
                "mount the volume elsewhere, or unmount the other one by hand",
            ));
        }
        if let (Some(mounted), Some(fs)) = (&self.mounted, args.str("fs"))
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
    fn changes(&self, args: &Partial<'_, Args>, volume: &Volume, fs: &str) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.instance.is_none() || volume.attached_to.as_deref() != args.str("instance") {
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
        match &self.mounted {
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
                changes.push(Change::write("path", Value::Null, args.planned("path")));
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
                let wanted = [("owner", &mounted.owner), ("group", &mounted.group), ("mode", &mounted.mode)];
                for (key, before) in wanted {
                    let default = if key == "mode" { default_mode() } else { default_owner() };
                    let after = args.get(key).cloned().unwrap_or_else(|| default.into());
                    if after.as_str() != Some(before) {
                        changes.push(Change::write(key, before.as_str().into(), after));
                    }
                }
            }
        }
        changes
    }
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
        "ec2:DescribeVolumes",
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
        let volume = find_volume(args, cx).await?;
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
        let holder = match volume.as_ref().and_then(|volume| volume.attached_to.as_deref()) {
            Some(id) if Some(id) != wanted => cx.ec2().instance(id).await?,
            _ => None,
        };
        let attached_here = instance.is_some()
            && volume.as_ref().is_some_and(|volume| volume.attached_to.as_deref() == wanted);
        let mounted = match (&instance, args.str("path")) {
            (Some(instance), Some(path)) if attached_here => cx.hosts().mounted(&instance.id, path).await?,
            _ => None,
        };
        Ok(Seen { volume, instance, holder, mounted })
    }

    fn decide(&self, args: &Partial<'_, Args>, seen: &Seen, _: Scope<'_>) -> Result<Decision, Refusal> {
        seen.refusals(args)?;
        if args.str("host").is_none() {
            return Ok(Decision::unknown("host is not known yet"));
        }
        let zone = match (&seen.volume, args.str("zone"), &seen.instance) {
            (Some(volume), _, _) => volume.zone.as_str().into(),
            (None, Some(zone), _) => zone.into(),
            (None, None, Some(instance)) => instance.zone.as_str().into(),
            (None, None, None) => Value::Unknown,
        };
        let uuid = seen.mounted.as_ref().map_or(Value::Unknown, |mounted| mounted.uuid.as_str().into());
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
            let mut changes = vec![
                Change::new("size_gib", args.planned("size_gib")),
                Change::new("zone", zone),
                Change::new("instance", args.planned("instance")),
                Change::new("path", args.planned("path")),
            ];
            if args.get("snapshot").is_none() {
                changes.push(Change {
                    path: "format".into(),
                    before: Value::Null,
                    after: fs.into(),
                    effect: Effect::Data,
                });
            }
            return Ok(
                Decision::new(Action::Create, "no volume carries this step's tags", planned).changes(changes)
            );
        };
        let changes = seen.changes(args, volume, fs);
        if changes.is_empty() {
            return Ok(Decision::no_op(format!("{} is mounted", volume.id), planned));
        }
        // A volume that an interrupted create of this very step left blank is still being created: its format
        // was approved with the create.
        if may_format(volume) && args.get("adopt").is_none() && seen.mounted.is_none() {
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
        let volume = match seen.volume {
            Some(volume) => volume,
            None => create(&args, &instance, cx).await?,
        };
        let volume = attach(volume, &instance, cx).await?;
        let shape = VolumeShape {
            size: GiB(args.size_gib.max(volume.size.0)),
            kind: args.kind.as_str().to_owned(),
            iops: args.iops,
            throughput: args.throughput,
        };
        let differs = shape.size > volume.size
            || shape.kind != volume.kind
            || shape.iops.is_some_and(|iops| volume.iops != Some(iops))
            || shape.throughput.is_some_and(|throughput| volume.throughput != Some(throughput));
        if differs {
            cx.progress(&format!("changing {} to {} of {}", volume.id, shape.size, shape.kind));
            cx.effect("ModifyVolume", &(&volume.id, &shape), |_| cx.ec2().modify_volume(&volume.id, &shape))
                .await?;
        }
        let report = mount(&args, &volume, &instance, cx).await?;
        Ok(Mount {
            volume_id: volume.id,
            host: args.host,
            instance: instance.id,
            path: args.path,
            zone: volume.zone,
            size_gib: args.size_gib.max(volume.size.0),
            uuid: report.uuid,
        })
    }
}

async fn create(args: &Args, instance: &Instance, cx: &ApplyContext<'_>) -> Result<Volume, ProviderError> {
    let mut tags = cx.owner_tags();
    tags.insert(TAG_HOST.to_owned(), args.host.clone());
    let state = if args.snapshot.is_some() { FORMATTED } else { BLANK };
    tags.insert(TAG_STATE.to_owned(), state.to_owned());
    let request = VolumeRequest {
        zone: args.zone.clone().unwrap_or_else(|| instance.zone.clone()),
        size: GiB(args.size_gib),
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
                Ok(volume
                    .is_some_and(|volume| !matches!(volume.state.as_str(), "deleted" | "deleting" | "error")))
            },
        )
        .await?;
    look_up(&id, cx).await
}

async fn look_up(id: &str, cx: &ApplyContext<'_>) -> Result<Volume, ProviderError> {
    cx.ec2().volume(id).await?.ok_or_else(|| {
        ProviderError::new(ErrorKind::Transient, "ec2 DescribeVolumes", format!("{id} is not visible"))
    })
}

/// Waits until the volume is free or attached here, and attaches it.
async fn attach(
    mut volume: Volume,
    instance: &Instance,
    cx: &ApplyContext<'_>,
) -> Result<Volume, ProviderError> {
    loop {
        match (volume.state.as_str(), volume.attached_to.as_deref()) {
            (_, Some(holder)) if holder == instance.id => return Ok(volume),
            ("available", None) => {
                cx.progress(&format!("attaching {} to {}", volume.id, instance.id));
                cx.effect("AttachVolume", &(&volume.id, &instance.id), |_| {
                    cx.ec2().attach_volume(&volume.id, &instance.id)
                })
                .await?;
            }
            ("creating", None) => cx.sleep(POLL).await?,
            // Held by an instance that goes away: `decide` refused every other holder.
            (_, Some(holder)) => {
                let gone = cx.ec2().instance(holder).await?.is_none_or(|holder| is_gone(&holder));
                if !gone {
                    return Err(ProviderError::refused(
                        "ec2 AttachVolume",
                        format!("{} is attached to {holder}, which runs", volume.id),
                    ));
                }
                cx.sleep(POLL).await?;
            }
            (state, None) => {
                return Err(ProviderError::permanent(
                    "ec2 AttachVolume",
                    format!("{} is {state}", volume.id),
                ));
            }
        }
        volume = look_up(&volume.id, cx).await?;
    }
}

/// Mounts on the host. The volume is marked before a file system is made and after, so that no later run
/// takes a volume with data for a blank one.
async fn mount(
    args: &Args,
    volume: &Volume,
    instance: &Instance,
    cx: &ApplyContext<'_>,
) -> Result<MountReport, ProviderError> {
    let format = may_format(volume) && args.adopt.is_none();
    let mark = |state: String| Tags::from([(TAG_STATE.to_owned(), state)]);
    if format {
        let ours = format!("{FORMATTING}{}", &cx.token("mkfs", &volume.id, 0)[..FORMAT_TOKEN_DIGITS]);
        let state = volume.tags.get(TAG_STATE).map_or("", String::as_str);
        if state != BLANK && state != ours {
            return Err(ProviderError::refused(
                "mount_volume",
                format!("{} is marked `{state}`: another step began to format it", volume.id),
            )
            .help("look at the volume; if it is empty, tag it clawd:state=blank"));
        }
        let tags = mark(ours);
        cx.effect("CreateTags formatting", &volume.id, |_| cx.ec2().tag(&volume.id, &tags)).await?;
    }
    let request = MountRequest {
        volume_id: volume.id.clone(),
        path: args.path.clone(),
        fs: args.fs.as_str().to_owned(),
        owner: args.owner.clone(),
        group: args.group.clone(),
        mode: args.mode.clone(),
        activate: args.activate.as_str().to_owned(),
        may_format: format,
    };
    cx.progress(&format!("mounting {} at {}", volume.id, args.path));
    // The size is part of the request's identity: a volume that grew is mounted again, to grow its file system.
    let fixed = (&request, &instance.id, args.size_gib);
    let report = cx
        .effect("host mount", &fixed, |token| {
            let request = &request;
            async move { cx.hosts().mount(&token, &instance.id, request).await }
        })
        .await?;
    let mut tags = cx.owner_tags();
    tags.insert(TAG_HOST.to_owned(), args.host.clone());
    tags.extend(mark(FORMATTED.to_owned()));
    if tags.iter().any(|(key, value)| volume.tags.get(key) != Some(value)) {
        cx.effect("CreateTags formatted", &volume.id, |_| cx.ec2().tag(&volume.id, &tags)).await?;
    }
    Ok(report)
}
