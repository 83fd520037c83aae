//! What runs on hosts: mounts and memory directories.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Answer;
use crate::units::GiB;

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
