//! EC2: images, snapshots, volumes, instances.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Answer, Tags};
use crate::units::GiB;

/// An AMI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `ami-...`
    pub id: String,
    /// Its name, unique in account and region.
    pub name: String,
    /// `pending`, `available`, `failed`, `deregistered`.
    pub state: String,
    /// Why it is in that state, where EC2 says so.
    pub state_reason: Option<String>,
    /// The snapshot behind its root device.
    pub snapshot_id: String,
    /// CPU architecture.
    pub architecture: String,
    /// Firmware.
    pub boot_mode: String,
    /// Root device name.
    pub root_device: String,
    /// Its tags.
    pub tags: Tags,
    /// When it was made, seconds since the epoch.
    pub created: i64,
    /// When it counts as outdated, seconds since the epoch.
    pub deprecated: Option<i64>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// `snap-...`
    pub id: String,
    /// `pending`, `completed`, `error`.
    pub state: String,
    /// Why it is in that state, where EC2 says so.
    pub state_reason: Option<String>,
    /// The size of a volume made from it.
    pub size: GiB,
    /// The volume it was made of, where it was made of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_id: Option<String>,
    /// The key it is encrypted with; nothing when it is not encrypted.
    pub kms_key: Option<String>,
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
    /// Whether it is leaving that instance.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// The snapshot it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
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
    /// Provisioned operations per second of the root volume.
    pub iops: Option<u32>,
    /// Provisioned MiB per second of the root volume.
    pub throughput: Option<u32>,
    /// Whether instances must use IMDSv2.
    pub imdsv2: bool,
    /// Whether it has drivers for enhanced networking.
    pub ena: bool,
    /// Tags at creation.
    pub tags: Tags,
}

/// A copy of an AMI into another region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageCopy {
    /// The AMI to copy.
    pub source: String,
    /// The region it is in.
    pub source_region: String,
    /// The copy's name.
    pub name: String,
    /// Shown in the console.
    pub description: String,
    /// Tags at creation.
    pub tags: Tags,
}

/// Who uses an AMI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageUse {
    /// The AMI.
    pub image_id: String,
    /// `i-...` or `lt-...`
    pub by: String,
    /// The fleet's host, when an instance uses it that carries the tag.
    pub host: Option<String>,
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

/// A snapshot of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotRequest {
    /// The volume.
    pub volume_id: String,
    /// Shown in the console.
    pub description: String,
    /// Tags at creation.
    pub tags: Tags,
}

/// How far a change of a volume's size or performance has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Modification {
    /// There is none, or it has its effect, though EC2 may still be moving data.
    Done,
    /// It has no effect yet.
    Modifying,
    /// It failed; the volume is as it was.
    Failed,
}

/// Reading EC2.
#[async_trait]
pub trait Ec2Read: Send + Sync {
    /// Images of this account that carry all these tags.
    async fn images(&self, tags: &[(&str, &str)]) -> Answer<Vec<Image>>;
    /// The image of this account with this name.
    async fn image_named(&self, name: &str) -> Answer<Option<Image>>;
    /// One image, whoever's it is.
    async fn image(&self, id: &str) -> Answer<Option<Image>>;
    /// The accounts that may launch an image, sorted; `all` when it is public.
    async fn launch_permissions(&self, image: &str) -> Answer<Vec<String>>;
    /// What launches from images: instances that are not terminated, and launch templates.
    async fn image_uses(&self) -> Answer<Vec<ImageUse>>;
    /// One snapshot.
    async fn snapshot(&self, id: &str) -> Answer<Option<Snapshot>>;
    /// Snapshots of this account that carry all these tags.
    async fn snapshots(&self, tags: &[(&str, &str)]) -> Answer<Vec<Snapshot>>;
    /// The key that encrypts what is made without one; nothing when such things are not encrypted.
    async fn default_key(&self) -> Answer<Option<String>>;
    /// Volumes that carry all these tags.
    async fn volumes(&self, tags: &[(&str, &str)]) -> Answer<Vec<Volume>>;
    /// One volume.
    async fn volume(&self, id: &str) -> Answer<Option<Volume>>;
    /// How far the latest change of a volume has come.
    async fn modification(&self, volume: &str) -> Answer<Modification>;
    /// One instance.
    async fn instance(&self, id: &str) -> Answer<Option<Instance>>;
    /// Everything that carries the fleet's tag.
    async fn owned(&self, fleet: &str) -> Answer<Vec<Owned>>;
    /// The same in another region.
    fn read_in(&self, region: &str) -> Arc<dyn Ec2Read>;
}

/// Changing EC2.
#[async_trait]
pub trait Ec2: Ec2Read {
    /// Registers an AMI. Takes no token: the name is deterministic and duplicates are refused.
    async fn register_image(&self, request: &ImageRequest) -> Answer<String>;
    /// Copies an AMI into this region; idempotent under the token. Returns the copy's id.
    async fn copy_image(&self, token: &str, request: &ImageCopy) -> Answer<String>;
    /// Lets exactly these accounts launch an image; `all` makes it public.
    async fn set_launch_permissions(&self, image: &str, add: &[String], remove: &[String]) -> Answer<()>;
    /// Says when an image counts as outdated, seconds since the epoch.
    async fn deprecate_image(&self, image: &str, at: i64) -> Answer<()>;
    /// Deregisters an image. One that is gone is a success.
    async fn deregister_image(&self, image: &str) -> Answer<()>;
    /// Deletes a snapshot. One that is gone is a success.
    async fn delete_snapshot(&self, snapshot: &str) -> Answer<()>;
    /// Creates a volume; idempotent under the token. Returns its id.
    async fn create_volume(&self, token: &str, request: &VolumeRequest) -> Answer<String>;
    /// Attaches a volume. Takes no token: already attached there, and not leaving, is a success.
    async fn attach_volume(&self, volume: &str, instance: &str) -> Answer<()>;
    /// Detaches a volume from an instance, never by force. One that is not attached there is a success.
    async fn detach_volume(&self, volume: &str, instance: &str) -> Answer<()>;
    /// Deletes a volume. One that is gone is a success.
    async fn delete_volume(&self, volume: &str) -> Answer<()>;
    /// Begins a snapshot of a volume. Takes no token: whoever calls looks for one with its tags first. Returns its id.
    async fn create_snapshot(&self, request: &SnapshotRequest) -> Answer<String>;
    /// Changes a volume's size and performance; never shrinks. Already so is a success.
    async fn modify_volume(&self, volume: &str, wanted: &VolumeShape) -> Answer<()>;
    /// Sets tags.
    async fn tag(&self, id: &str, tags: &Tags) -> Answer<()>;
    /// The same in another region.
    fn in_region(&self, region: &str) -> Arc<dyn Ec2>;
}
