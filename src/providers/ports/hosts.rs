//! What runs on hosts: mounts and memory directories. And the form in which a host is asked, wherever it is: a small file with a
//! version and a token, answered in one line.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Answer;
use crate::providers::error::{ErrorKind, ProviderError};
use crate::units::{GiB, Seconds};

/// The version of the form of [`HostSpec`] and [`HostReply`].
pub const HOST_FORMAT: u32 = 1;

/// How long a spec may be, in bytes: what carries it to a host has limits of its own.
pub const HOST_SPEC_LIMIT: usize = 16 << 10;

/// How long an answer may be, in bytes: SSM cuts off what is longer.
pub const HOST_REPLY_LIMIT: usize = 8 << 10;

/// Directories that a host does not work without: nothing is mounted over them.
pub const NEVER_A_MOUNT: [&str; 16] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/nix",
    "/nix/store",
    "/proc",
    "/root",
    "/run",
    "/sys",
    "/usr",
    "/var",
    "/var/lib",
];

/// What a host is asked. It holds no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostSpec<R> {
    /// [`HOST_FORMAT`].
    pub version: u32,
    /// The idempotency token of what changes something: the same again is answered with what was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What is asked.
    pub request: R,
}

impl<R> HostSpec<R> {
    /// A spec of this version.
    #[must_use]
    pub const fn new(token: Option<String>, request: R) -> Self {
        Self { version: HOST_FORMAT, token, request }
    }
}

/// What a host answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReply<T> {
    /// [`HOST_FORMAT`].
    pub version: u32,
    /// The token of the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: HostOutcome<T>,
}

/// What came of what a host was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostOutcome<T> {
    /// It is so.
    Ok(T),
    /// It is not.
    Error(HostError),
}

/// Why a host could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostError {
    /// What it means for the next try.
    pub kind: ErrorKind,
    /// What happened.
    pub message: String,
    /// The next move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl From<ProviderError> for HostError {
    fn from(error: ProviderError) -> Self {
        Self { kind: error.kind, message: error.message, help: error.help }
    }
}

impl HostError {
    /// The error as the port's answer.
    #[must_use]
    pub fn of(self, operation: &str) -> ProviderError {
        let error = ProviderError::new(self.kind, operation, self.message);
        match self.help {
            Some(help) => error.help(help),
            None => error,
        }
    }
}

/// What is to be mounted on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountRequest {
    /// What is mounted.
    pub source: MountSource,
    /// Where.
    pub path: String,
    /// Owner of the mount's root.
    pub owner: String,
    /// Group of the mount's root.
    pub group: String,
    /// Mode of the mount's root, octal digits.
    pub mode: String,
    /// `unit` or `mount`.
    pub activate: String,
}

/// What can be mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountSource {
    /// A volume of this host's own.
    Volume(VolumeSource),
    /// A file system that hosts share, by TLS.
    Efs(EfsSource),
}

impl MountSource {
    /// Its id, `vol-...` or `fs-...`.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Volume(volume) => &volume.id,
            Self::Efs(efs) => &efs.id,
        }
    }
}

/// A volume to mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeSource {
    /// The volume, which identifies the device.
    pub id: String,
    /// The volume's size, which the device must have.
    pub size: GiB,
    /// `ext4` or `xfs`.
    pub fs: String,
    /// Whether the caller's rules allow making a file system on it.
    pub may_format: bool,
}

/// An EFS file system to mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EfsSource {
    /// `fs-...`
    pub id: String,
    /// `fsap-...`: the directory of this host in it.
    pub access_point: String,
}

/// What is to be unmounted on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnmountRequest {
    /// The volume that must be what is mounted there.
    pub volume_id: String,
    /// Where.
    pub path: String,
    /// `unit` or `mount`.
    pub activate: String,
}

/// A question for what is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountedRequest {
    /// Where.
    pub path: String,
}

/// What is mounted on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountReport {
    /// The id of the volume or file system; the kernel's name of whatever else it is.
    pub source: String,
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
#[serde(deny_unknown_fields)]
pub struct MemoryConfig {
    /// Absolute directory.
    pub dir: String,
    /// Where the volume is mounted that it lies on.
    pub mount: String,
    /// `s3://bucket/prefix` or `file:///dir`.
    pub remote: String,
    /// The host's name, the owner of its daily notes.
    pub host: String,
    /// Canonical files beyond the built-in ones.
    pub canonical: Vec<String>,
    /// Whether the host keeps in step by itself.
    pub watch: bool,
}

/// A question for how a memory stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryRequest {
    /// Absolute directory.
    pub dir: String,
}

/// What a round would do. Only the first names of each kind; the last one may say how many more there are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemoryPending {
    /// Written to the shared memory.
    pub push: Vec<String>,
    /// Written here.
    pub pull: Vec<String>,
    /// Made of both.
    pub merge: Vec<String>,
    /// Removed on one side.
    pub remove: Vec<String>,
}

/// The state of a memory directory on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// The configuration in force.
    pub config: MemoryConfig,
    /// Whether the last round ended in step.
    pub in_step: bool,
    /// How long ago the last round with this remote ended; `None` when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<Seconds>,
    /// Whether the shared memory keeps what is overwritten, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<bool>,
    /// Files put aside for a person.
    pub conflicts: u32,
    /// Files in the directory; information only, agents write all the time.
    pub files: u32,
    /// What a round would do now, where that could be found out; information, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<MemoryPending>,
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
    /// Unmounts a volume, never by force. One that is not mounted is a success.
    async fn unmount(&self, token: &str, instance: &str, request: &UnmountRequest) -> Answer<()>;
    /// Configures the memory directory and runs one round.
    async fn keep_memory(&self, token: &str, instance: &str, config: &MemoryConfig) -> Answer<MemoryStatus>;
}
