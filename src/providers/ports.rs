//! The ports: what primitives may ask of the outside. Each port has a reading half, which is all a primitive
//! sees while planning, and a writing half for applying.
//!
//! Rules for adapters: a failed read is an error, never an empty answer; a write that takes a token is
//! idempotent under it; errors carry their kind honestly, because retries depend on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::error::ProviderError;
use crate::units::{Bytes, GiB};
use crate::value::{Map, Value};

/// The answer of a port.
pub type Answer<T> = Result<T, ProviderError>;

/// Tags as EC2 has them.
pub type Tags = BTreeMap<String, String>;

/// The tag that names the fleet a resource belongs to.
pub const TAG_FLEET: &str = "clawd:fleet";
/// The tag that names the step that created a resource.
pub const TAG_STEP: &str = "clawd:step";
/// The tag that names the host a resource belongs to.
pub const TAG_HOST: &str = "clawd:host";
/// The tag that holds the content hash of an AMI or snapshot.
pub const TAG_CONTENT: &str = "clawd:content";
/// The tag that says whether a volume may be formatted.
pub const TAG_STATE: &str = "clawd:state";

/// Everything outside, with all rights. Primitives see it through their contexts only.
#[derive(Clone)]
pub struct Providers {
    /// Nix evaluation and builds.
    pub nix: Arc<dyn Nix>,
    /// Images, snapshots, volumes, instances.
    pub ec2: Arc<dyn Ec2>,
    /// OpenTofu stacks.
    pub tofu: Arc<dyn Tofu>,
    /// What runs on a host.
    pub hosts: Arc<dyn Hosts>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Time as the executor sees it; the simulator's clock is virtual.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Seconds since the Unix epoch.
    fn now(&self) -> i64;
    /// Waits.
    async fn sleep(&self, duration: Duration);
    /// Ends a run: an adapter that keeps its own time writes it down.
    ///
    /// # Errors
    /// When what the adapter keeps on disk cannot be written.
    fn settle(&self) -> Answer<()> {
        Ok(())
    }
    /// Begins again to see what other processes changed. Called before planning and after taking the lock.
    ///
    /// # Errors
    /// When what the adapter keeps on disk cannot be read.
    fn refresh(&self) -> Answer<()> {
        Ok(())
    }
}

/// What nix says of an image before it is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Derivation {
    /// The derivation's store path.
    pub drv_path: String,
    /// The output's store path: the identity of the image.
    pub store_path: String,
    /// CPU architecture, `x86_64` or `arm64`.
    pub architecture: String,
    /// Firmware the image boots with, `uefi` or `legacy-bios`.
    pub boot_mode: String,
}

/// A built image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltImage {
    /// The image file inside the store path.
    pub path: String,
    /// Its logical size.
    pub size: Bytes,
    /// Its sha256, lower-case hex.
    pub sha256: String,
}

/// What identifies an image to build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageSource<'a> {
    /// Flake reference with attribute, `.#clawdinator-image`.
    pub flake: &'a str,
    /// The image format asked for.
    pub format: &'a str,
    /// NixOS image variant, when the attribute is a host configuration.
    pub variant: Option<&'a str>,
    /// The nix system, `x86_64-linux`.
    pub system: &'a str,
}

/// Reading nix: evaluation and the store.
#[async_trait]
pub trait NixRead: Send + Sync {
    /// Evaluates the image's derivation without building it.
    async fn derivation(&self, source: &ImageSource<'_>) -> Answer<Derivation>;
    /// The built image, when the store holds it.
    async fn built(&self, derivation: &Derivation) -> Answer<Option<BuiltImage>>;
}

/// Building with nix.
#[async_trait]
pub trait Nix: NixRead {
    /// Builds exactly this derivation; building what is built is a success.
    async fn realise(&self, derivation: &Derivation) -> Answer<BuiltImage>;
}

/// An AMI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `ami-...`
    pub id: String,
    /// Its name, unique in account and region.
    pub name: String,
    /// `pending`, `available`, `failed`, `deregistered`.
    pub state: String,
    /// The snapshot behind its root device.
    pub snapshot_id: String,
    /// Its tags.
    pub tags: Tags,
    /// When it was made, seconds since the epoch.
    pub created: i64,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// `snap-...`
    pub id: String,
    /// `pending`, `completed`, `error`.
    pub state: String,
    /// The size of a volume made from it.
    pub size: GiB,
    /// Its tags.
    pub tags: Tags,
    /// When it was started, seconds since the epoch.
    pub created: i64,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// `vol-...`
    pub id: String,
    /// Availability zone.
    pub zone: String,
    /// Size.
    pub size: GiB,
    /// `gp3`, ...
    pub kind: String,
    /// `creating`, `available`, `in-use`, `deleted`, `error`.
    pub state: String,
    /// Provisioned operations per second, where they were asked for.
    pub iops: Option<u32>,
    /// Provisioned MiB per second, where they were asked for.
    pub throughput: Option<u32>,
    /// The instance it is attached to.
    pub attached_to: Option<String>,
    /// Its tags.
    pub tags: Tags,
    /// When it was made, seconds since the epoch.
    pub created: i64,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// `i-...`
    pub id: String,
    /// Availability zone.
    pub zone: String,
    /// The AMI it runs.
    pub image_id: String,
    /// `pending`, `running`, `stopping`, `stopped`, `shutting-down`, `terminated`.
    pub state: String,
    /// Its tags.
    pub tags: Tags,
    /// When it was launched, seconds since the epoch.
    pub created: i64,
}

/// Something that carries the fleet's tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// `ami`, `snapshot`, `volume`, `instance`.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// The step that created it, from its tag.
    pub step: Option<String>,
    /// Its size, where it has one.
    pub size: Option<GiB>,
    /// When it was made, seconds since the epoch.
    pub created: i64,
}

/// What a snapshot is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotRequest {
    /// The image file.
    pub path: String,
    /// Its sha256: what the snapshot is bound to.
    pub sha256: String,
    /// Its logical size.
    pub size: Bytes,
    /// `ebs_direct` or `vmimport`.
    pub method: String,
    /// The key that encrypts it.
    pub kms_key: Option<String>,
    /// Tags at creation.
    pub tags: Tags,
}

/// What an AMI is registered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageRequest {
    /// Deterministic name.
    pub name: String,
    /// Description shown in the console.
    pub description: String,
    /// The root snapshot.
    pub snapshot_id: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// `uefi`, `uefi-preferred` or `legacy-bios`.
    pub boot_mode: String,
    /// Root device name.
    pub root_device: String,
    /// Root volume type.
    pub volume_type: String,
    /// Root volume size.
    pub size: GiB,
    /// Tags at creation.
    pub tags: Tags,
}

/// What a volume is created with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeRequest {
    /// Availability zone.
    pub zone: String,
    /// Size.
    pub size: GiB,
    /// `gp3`, ...
    pub kind: String,
    /// Provisioned operations per second.
    pub iops: Option<u32>,
    /// Provisioned MiB per second.
    pub throughput: Option<u32>,
    /// The key that encrypts it.
    pub kms_key: Option<String>,
    /// The snapshot it is made from.
    pub snapshot: Option<String>,
    /// Tags at creation.
    pub tags: Tags,
}

/// What of a volume can be changed in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeShape {
    /// Size.
    pub size: GiB,
    /// `gp3`, ...
    pub kind: String,
    /// Provisioned operations per second; as it is when `None`.
    pub iops: Option<u32>,
    /// Provisioned MiB per second; as it is when `None`.
    pub throughput: Option<u32>,
}

/// Reading EC2.
#[async_trait]
pub trait Ec2Read: Send + Sync {
    /// Images that carry all these tags.
    async fn images(&self, tags: &[(&str, &str)]) -> Answer<Vec<Image>>;
    /// The image with this name.
    async fn image_named(&self, name: &str) -> Answer<Option<Image>>;
    /// One snapshot.
    async fn snapshot(&self, id: &str) -> Answer<Option<Snapshot>>;
    /// Volumes that carry all these tags.
    async fn volumes(&self, tags: &[(&str, &str)]) -> Answer<Vec<Volume>>;
    /// One volume.
    async fn volume(&self, id: &str) -> Answer<Option<Volume>>;
    /// One instance.
    async fn instance(&self, id: &str) -> Answer<Option<Instance>>;
    /// Everything that carries the fleet's tag.
    async fn owned(&self, fleet: &str) -> Answer<Vec<Owned>>;
}

/// Changing EC2.
#[async_trait]
pub trait Ec2: Ec2Read {
    /// Uploads an image file into a new snapshot; idempotent under the token. Returns the snapshot's id.
    async fn import_snapshot(&self, token: &str, request: &SnapshotRequest) -> Answer<String>;
    /// Registers an AMI. Takes no token: the name is deterministic and duplicates are refused.
    async fn register_image(&self, request: &ImageRequest) -> Answer<String>;
    /// Creates a volume; idempotent under the token. Returns its id.
    async fn create_volume(&self, token: &str, request: &VolumeRequest) -> Answer<String>;
    /// Attaches a volume. Takes no token: already attached there is a success.
    async fn attach_volume(&self, volume: &str, instance: &str) -> Answer<()>;
    /// Changes a volume's size and performance; never shrinks. Already so is a success.
    async fn modify_volume(&self, volume: &str, wanted: &VolumeShape) -> Answer<()>;
    /// Sets tags.
    async fn tag(&self, id: &str, tags: &Tags) -> Answer<()>;
}

/// What a stack is planned from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StackRequest {
    /// The module's directory, relative to the project.
    pub dir: String,
    /// The workspace.
    pub workspace: String,
    /// Input variables; leaves may be unknown while planning.
    pub vars: Map,
    /// Plan to destroy everything.
    pub destroy: bool,
    /// Values that stand for unknown variables in a speculative plan.
    pub placeholders: Map,
}

/// One resource change of a stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceChange {
    /// The resource's address in the stack.
    pub address: String,
    /// `create`, `update`, `replace`, `destroy`.
    pub action: String,
    /// Attribute diffs: path, before, after.
    pub attributes: Vec<(String, Value, Value)>,
}

/// The plan of a stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StackPlan {
    /// The state's serial the plan was made on.
    pub serial: u64,
    /// Whether the state holds no resources.
    pub empty: bool,
    /// The changes, sorted by address.
    pub changes: Vec<ResourceChange>,
    /// Outputs after the changes; unknown leaves where only applying tells.
    pub outputs: Value,
    /// Whether placeholders stood for unknown variables.
    pub speculative: bool,
}

/// Why a stack could not be planned.
#[derive(Debug, Clone, PartialEq)]
pub enum StackError {
    /// The shape of the stack depends on what is not known yet, or a speculative plan failed.
    Undecided(String),
    /// Reading failed.
    Provider(ProviderError),
}

impl From<ProviderError> for StackError {
    fn from(error: ProviderError) -> Self {
        Self::Provider(error)
    }
}

/// Planning stacks.
#[async_trait]
pub trait TofuRead: Send + Sync {
    /// Plans a stack without taking its lock.
    async fn plan(&self, request: &StackRequest) -> Result<StackPlan, StackError>;
}

/// Applying stacks.
#[async_trait]
pub trait Tofu: TofuRead {
    /// Applies exactly this plan; a state that moved since is refused. Returns the outputs.
    async fn apply(&self, request: &StackRequest, plan: &StackPlan) -> Answer<Map>;
}

/// What is to be mounted on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRequest {
    /// The volume, which identifies the device.
    pub volume_id: String,
    /// Where.
    pub path: String,
    /// `ext4` or `xfs`.
    pub fs: String,
    /// Owner of the mount's root.
    pub owner: String,
    /// Group of the mount's root.
    pub group: String,
    /// Mode of the mount's root, octal digits.
    pub mode: String,
    /// `unit` or `mount`.
    pub activate: String,
    /// Whether the caller's rules allow making a file system on it.
    pub may_format: bool,
}

/// What is mounted on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountReport {
    /// The volume.
    pub volume_id: String,
    /// Where.
    pub path: String,
    /// The file system.
    pub fs: String,
    /// The file system's UUID.
    pub uuid: String,
    /// Owner of the mount's root.
    pub owner: String,
    /// Group of the mount's root.
    pub group: String,
    /// Mode of the mount's root, octal digits.
    pub mode: String,
    /// How much of the volume the file system spans.
    pub size: GiB,
}

/// How a host keeps a memory directory in step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryConfig {
    /// Absolute directory.
    pub dir: String,
    /// `s3://bucket/prefix` or `file:///dir`.
    pub remote: String,
    /// The host's name, the owner of its daily notes.
    pub host: String,
    /// Canonical files beyond the built-in ones.
    pub canonical: Vec<String>,
    /// Whether the host keeps in step by itself.
    pub watch: bool,
}

/// The state of a memory directory on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// The configuration in force.
    pub config: MemoryConfig,
    /// Whether the last round ended in step.
    pub in_step: bool,
    /// Files put aside for a person.
    pub conflicts: u32,
    /// Files in the directory; information only, agents write all the time.
    pub files: u32,
}

/// Reading what runs on hosts.
#[async_trait]
pub trait HostsRead: Send + Sync {
    /// What is mounted at a path of an instance.
    async fn mounted(&self, instance: &str, path: &str) -> Answer<Option<MountReport>>;
    /// How a memory directory of an instance stands.
    async fn memory(&self, instance: &str, dir: &str) -> Answer<Option<MemoryStatus>>;
}

/// Changing what runs on hosts.
#[async_trait]
pub trait Hosts: HostsRead {
    /// Mounts a volume, making a file system first where that is allowed and the volume is blank.
    async fn mount(&self, token: &str, instance: &str, request: &MountRequest) -> Answer<MountReport>;
    /// Configures the memory directory and runs one round.
    async fn keep_memory(&self, token: &str, instance: &str, config: &MemoryConfig) -> Answer<MemoryStatus>;
}
