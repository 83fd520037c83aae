//! The bytes of disk images on their way into snapshots: block by block through EBS direct, or as an object that
//! EC2 imports.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Answer, Tags};
use crate::image::{BlockMap, BlockSet, Manifest};
use crate::units::{Bytes, GiB, Seconds};

/// An image file on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFile {
    /// Its path.
    pub path: String,
    /// Its logical size.
    pub size: Bytes,
    /// Its sha256, hex.
    pub sha256: String,
}

/// Who is told how a long call goes.
pub trait Watch: Send + Sync {
    /// In words, for people.
    fn progress(&self, message: &str);
    /// Blocks that the provider has; what a later try need not send again.
    fn stored(&self, blocks: &BlockSet);
}

/// What a snapshot is begun with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotStart {
    /// Shown in the console.
    pub description: String,
    /// The size of a volume made from it.
    pub size: GiB,
    /// The snapshot whose blocks it begins with. Its encryption is the parent's then.
    pub parent: Option<String>,
    /// The key that encrypts it; never together with a parent.
    pub kms_key: Option<String>,
    /// The provider gives an unfinished snapshot up after this long without a block.
    pub timeout: Seconds,
    /// Tags at creation.
    pub tags: Tags,
}

/// Blocks to put into a snapshot that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockUpload {
    /// The snapshot.
    pub snapshot: String,
    /// The image.
    pub image: DiskFile,
    /// Which of its blocks to put.
    pub blocks: Blocks,
}

/// Which blocks to put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocks {
    /// Those that hold data: they are hashed on their way, so that the file is read once.
    WithData,
    /// These, with the hashes that are known of the image.
    These {
        /// The image's blocks.
        map: BlockMap,
        /// The blocks to put.
        send: BlockSet,
    },
}

/// What a snapshot is completed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Completion {
    /// The snapshot.
    pub snapshot: String,
    /// How many blocks it was sent, by whatever tries.
    pub blocks: u64,
    /// The linear checksum over them.
    pub checksum: [u8; 32],
}

/// An object in a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectPlace {
    /// The bucket.
    pub bucket: String,
    /// The key in it.
    pub key: String,
}

/// What EC2 imports a snapshot with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportRequest {
    /// Shown in the console.
    pub description: String,
    /// The uploaded image.
    pub object: ObjectPlace,
    /// `raw`, `vhd` or `vmdk`.
    pub format: String,
    /// The role EC2 reads the bucket with.
    pub role: String,
    /// The key that encrypts the snapshot.
    pub kms_key: Option<String>,
    /// Tags of the task.
    pub tags: Tags,
}

/// An import as EC2 tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportTask {
    /// `import-snap-...`
    pub id: String,
    /// `active`, `completed`, `deleting`, `deleted`.
    pub state: String,
    /// What EC2 says of it.
    pub message: String,
    /// Per cent done, where EC2 tells.
    pub progress: Option<String>,
    /// The snapshot, once there is one.
    pub snapshot_id: Option<String>,
}

impl ImportTask {
    /// Whether it failed or was cancelled.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(self.state.as_str(), "deleting" | "deleted")
    }
}

/// Reading images and what is known of earlier uploads.
#[async_trait]
pub trait UploadRead: Send + Sync {
    /// The blocks of an image. Reads the whole file once; an adapter may keep what it found, by sha256.
    async fn blocks(&self, image: &DiskFile) -> Answer<BlockMap>;
    /// The manifest that was kept for a snapshot, here or in the bucket; none that can be read means `None`.
    async fn manifest(&self, snapshot: &str, bucket: Option<&str>) -> Answer<Option<Manifest>>;
    /// An import task.
    async fn import_task(&self, id: &str) -> Answer<Option<ImportTask>>;
}

/// Sending images.
#[async_trait]
pub trait Upload: UploadRead {
    /// Begins a snapshot; idempotent under the token. Returns its id.
    async fn start_snapshot(&self, token: &str, request: &SnapshotStart) -> Answer<String>;
    /// Puts blocks into it, many at once. Putting a block again is a success. Returns the image's blocks.
    async fn put_blocks(&self, upload: &BlockUpload, watch: &dyn Watch) -> Answer<BlockMap>;
    /// Completes it. A snapshot that is complete already is a success.
    async fn complete_snapshot(&self, completion: &Completion) -> Answer<()>;
    /// Keeps a manifest, here and in the bucket when one is given.
    async fn keep_manifest(&self, manifest: &Manifest, bucket: Option<&str>) -> Answer<()>;
    /// Uploads the file as an object; one that is there with the same sha256 is a success, and an upload that was
    /// interrupted goes on.
    async fn put_object(&self, image: &DiskFile, place: &ObjectPlace, watch: &dyn Watch) -> Answer<()>;
    /// Removes an object; one that is not there is a success.
    async fn remove_object(&self, place: &ObjectPlace) -> Answer<()>;
    /// Has EC2 import an object; idempotent under the token. Returns the task's id.
    async fn import_snapshot(&self, token: &str, request: &ImportRequest) -> Answer<String>;
}
