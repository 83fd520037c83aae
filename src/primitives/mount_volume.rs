//! `mount_volume`: a data volume that outlives its host. Found by its owner tags or created; attached; made a
//! file system only when it is provably ours and blank; mounted. Or a file system that hosts share, mounted.
//!
//! Rules (design, section 8): never format what might hold data; never detach by force; grow only; another
//! zone or another instance is refused. What is made from a snapshot takes the place of a volume that stays.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::{ApplyContext, ObserveContext, Scope};
use super::mount_decision::Seen;
use super::partial::Partial;
use super::primitive::{Port, Primitive, Refusal};
use super::volume::{
    BLANK, FORMATTED, FORMATTING, POLL, RELEASED, RELEASING, SUPERSEDED, attach, is_alive, look_up, mark,
    may_format, of_step, only, state, tag, take_away,
};
use crate::plan::Decision;
use crate::providers::ProviderError;
use crate::providers::ports::{
    EfsSource, Instance, Modification, MountReport, MountRequest, MountSource, TAG_HOST, TAG_STATE, Volume,
    VolumeRequest, VolumeShape, VolumeSource,
};
use crate::units::GiB;

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

pub(super) fn default_owner() -> String {
    "clawd".to_owned()
}

pub(super) fn default_mode() -> String {
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
    #[schemars(regex(pattern = r"^(/\.?[A-Za-z0-9_-][A-Za-z0-9._-]*)+$"))]
    path: String,
    /// Size. It grows when this does, and never shrinks. Every volume has one; a file system on EFS has none.
    #[schemars(range(min = 1, max = 65536))]
    size_gib: Option<u64>,
    /// Availability zone; the instance's own when not given.
    zone: Option<String>,
    /// File system.
    #[serde(default)]
    fs: FileSystem,
    /// EBS volume type; gp3 when a volume is made, and as it is otherwise.
    #[serde(rename = "type")]
    kind: Option<VolumeType>,
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
        let held =
            |it: &Option<Volume>| it.as_ref()?.attached_to.clone().filter(|id| Some(id.as_str()) != wanted);
        let holder = match held(&volume).or_else(|| held(&old)) {
            Some(id) => cx.ec2().instance(&id).await?,
            None => None,
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
        seen.decide(args, scope)
    }

    async fn apply(&self, args: Args, seen: Seen, cx: &ApplyContext<'_>) -> Result<Mount, ProviderError> {
        let instance =
            seen.instance.ok_or_else(|| ProviderError::permanent(Self::NAME, "the instance is not known"))?;
        if let Some(efs) = &args.efs {
            return mount_efs(&args, efs, &instance, cx).await;
        }
        let size = args.size_gib.unwrap_or(0);
        let mut volume = match seen.volume {
            Some(volume) => volume,
            None => create(&args, &instance, cx).await?,
        };
        // A volume may fail a moment after it was made; until then nothing else moves.
        while volume.state == "creating" {
            cx.sleep(POLL).await?;
            volume = look_up(&volume.id, cx).await?;
        }
        if let Some(old) = &seen.old {
            // The new one is there before the old one leaves; both at once would be two volumes of one label.
            if !matches!(volume.state.as_str(), "available" | "in-use") {
                let message = format!("{} is {}", volume.id, volume.state);
                return Err(ProviderError::permanent("ec2 CreateVolume", message)
                    .help("the old volume stays where it is; look at the snapshot and its key"));
            }
            take_away(old, &args.path, args.activate.as_str(), cx).await?;
            tag("CreateTags superseded", &old.id, &mark(format!("{SUPERSEDED}{}", volume.id)), cx).await?;
        }
        if state(&volume).starts_with(RELEASING) || state(&volume).starts_with(RELEASED) {
            // Before anybody can write to it: no later release takes an old snapshot for what is on it.
            tag("CreateTags in use", &volume.id, &mark(FORMATTED), cx).await?;
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
        kind: args.kind.map_or_else(|| volume.kind.clone(), |kind| kind.as_str().to_owned()),
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
        kind: args.kind.unwrap_or_default().as_str().to_owned(),
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
