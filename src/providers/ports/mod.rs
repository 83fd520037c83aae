//! The ports: what primitives may ask of the outside. Each port has a reading half, which is all a primitive
//! sees while planning, and a writing half for applying.
//!
//! Rules for adapters: a failed read is an error, never an empty answer; a write that takes a token is
//! idempotent under it; errors carry their kind honestly, because retries depend on it.

mod clock;
mod ec2;
mod hosts;
mod identity;
mod memory;
mod nix;
mod secrets;
mod tofu;
mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use super::error::ProviderError;

pub use clock::Clock;
pub use ec2::{
    Ec2, Ec2Read, Image, ImageCopy, ImageRequest, ImageUse, Instance, Modification, Owned, Snapshot,
    SnapshotRequest, Volume, VolumeRequest, VolumeShape,
};
pub use hosts::{
    EfsSource, HOST_FORMAT, HOST_REPLY_LIMIT, HOST_SPEC_LIMIT, HostError, HostOutcome, HostReply, HostSpec,
    Hosts, HostsRead, MemoryConfig, MemoryPending, MemoryRequest, MemoryStatus, MountReport, MountRequest,
    MountSource, MountedRequest, NEVER_A_MOUNT, UnmountRequest, VolumeSource,
};
pub use identity::Identity;
pub use memory::{Condition, Listed, MemoryStore, Put, Stored};
pub use nix::{BuiltImage, Derivation, ImageSource, Nix, NixRead, Work};
pub use secrets::{SecretText, Secrets};
pub use tofu::{Basis, ResourceChange, StackError, StackPlan, StackRequest, Tofu, TofuRead};
pub use upload::{
    BlockUpload, Blocks, Completion, DiskFile, ImportRequest, ImportTask, ObjectPlace, SnapshotStart, Upload,
    UploadRead, Watch,
};

/// The answer of a port.
pub type Answer<T> = Result<T, ProviderError>;

/// What a look is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A plan that people read.
    Show,
    /// Comparing with what was shown, and acting: what only people want to know need not be found out.
    Act,
}

/// Tags as EC2 has them.
pub type Tags = BTreeMap<String, String>;

/// The tag that names the fleet a resource belongs to.
pub const TAG_FLEET: &str = "clawd:fleet";
/// The tag that names the step that created a resource.
pub const TAG_STEP: &str = "clawd:step";
/// The tag that names the host a resource belongs to.
pub const TAG_HOST: &str = "clawd:host";
/// The tag that holds the content hash of an AMI, or the sha256 of the image that a snapshot holds.
pub const TAG_CONTENT: &str = "clawd:content";
/// The tag that names the flake revision an AMI was built from.
pub const TAG_REVISION: &str = "clawd:revision";
/// The tag that says whether a volume may be formatted.
pub const TAG_STATE: &str = "clawd:state";
/// The tag that names the volume a snapshot is of.
pub const TAG_VOLUME: &str = "clawd:volume";
/// The tag that counts the snapshots that were made when a volume was released.
pub const TAG_RELEASE: &str = "clawd:release";
/// The tag that names the snapshot an unfinished one was begun on, or `none`.
pub const TAG_PARENT: &str = "clawd:parent";
/// The tag that names the key a snapshot was asked to be encrypted with, or `default`.
pub const TAG_KEY: &str = "clawd:key";
/// The tag that marks the snapshot of an AMI which is being deregistered.
pub const TAG_PRUNED: &str = "clawd:pruned";

/// Everything outside, with all rights. Primitives see it through their contexts only.
#[derive(Clone)]
pub struct Providers {
    /// Nix evaluation and builds.
    pub nix: Arc<dyn Nix>,
    /// Images, snapshots, volumes, instances.
    pub ec2: Arc<dyn Ec2>,
    /// The bytes of disk images on their way into snapshots.
    pub upload: Arc<dyn Upload>,
    /// OpenTofu stacks.
    pub tofu: Arc<dyn Tofu>,
    /// What runs on a host.
    pub hosts: Arc<dyn Hosts>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}
