//! Ports for which a profile has no adapter: every call says so. Nothing is ever taken for absent in the world because the
//! adapter is. One answer is no error: a profile without a cloud owns nothing in one, so its plans list nothing unmanaged.

use std::sync::Arc;

use async_trait::async_trait;

use super::error::ProviderError;
use super::ports::{
    Answer, BlockUpload, Completion, DiskFile, Ec2, Ec2Read, Hosts, HostsRead, Image, ImageCopy,
    ImageRequest, ImageUse, ImportRequest, ImportTask, Instance, MemoryConfig, MemoryStatus, Modification,
    MountReport, MountRequest, ObjectPlace, Owned, Snapshot, SnapshotRequest, SnapshotStart, Tags,
    UnmountRequest, Upload, UploadRead, Volume, VolumeRequest, VolumeShape, Watch,
};
use crate::image::{BlockMap, Manifest};

/// No adapter.
pub struct Absent;

fn absent(operation: &str) -> ProviderError {
    ProviderError::permanent(operation, "this clawd has no adapter for it outside the simulator yet")
        .help("rehearse the plan with `--profile sim`, or leave the step out")
}

#[async_trait]
impl HostsRead for Absent {
    async fn mounted(&self, _: &str, _: &str) -> Answer<Option<MountReport>> {
        Err(absent("host mount"))
    }

    async fn memory(&self, _: &str, _: &str) -> Answer<Option<MemoryStatus>> {
        Err(absent("host memory"))
    }
}

#[async_trait]
impl Hosts for Absent {
    async fn mount(&self, _: &str, _: &str, _: &MountRequest) -> Answer<MountReport> {
        Err(absent("host mount"))
    }

    async fn unmount(&self, _: &str, _: &str, _: &UnmountRequest) -> Answer<()> {
        Err(absent("host unmount"))
    }

    async fn keep_memory(&self, _: &str, _: &str, _: &MemoryConfig) -> Answer<MemoryStatus> {
        Err(absent("host memory"))
    }
}

/// No cloud: images, volumes and snapshots have no place.
pub struct NoCloud;

fn no_cloud<T>() -> Answer<T> {
    Err(ProviderError::permanent(
        "ec2",
        "this profile has no cloud: it runs OpenTofu and nix on this machine, nothing else",
    )
    .help("use a profile with `adapters = \"aws\"`, or rehearse with `--profile sim`"))
}

#[async_trait]
impl Ec2Read for NoCloud {
    async fn images(&self, _: &[(&str, &str)]) -> Answer<Vec<Image>> {
        no_cloud()
    }

    async fn image_named(&self, _: &str) -> Answer<Option<Image>> {
        no_cloud()
    }

    async fn image(&self, _: &str) -> Answer<Option<Image>> {
        no_cloud()
    }

    async fn launch_permissions(&self, _: &str) -> Answer<Vec<String>> {
        no_cloud()
    }

    async fn image_uses(&self) -> Answer<Vec<ImageUse>> {
        no_cloud()
    }

    async fn snapshot(&self, _: &str) -> Answer<Option<Snapshot>> {
        no_cloud()
    }

    async fn snapshots(&self, _: &[(&str, &str)]) -> Answer<Vec<Snapshot>> {
        no_cloud()
    }

    async fn default_key(&self) -> Answer<Option<String>> {
        no_cloud()
    }

    async fn volumes(&self, _: &[(&str, &str)]) -> Answer<Vec<Volume>> {
        no_cloud()
    }

    async fn volume(&self, _: &str) -> Answer<Option<Volume>> {
        no_cloud()
    }

    async fn modification(&self, _: &str) -> Answer<Modification> {
        no_cloud()
    }

    async fn instance(&self, _: &str) -> Answer<Option<Instance>> {
        no_cloud()
    }

    async fn owned(&self, _: &str) -> Answer<Vec<Owned>> {
        Ok(Vec::new())
    }

    fn read_in(&self, _: &str) -> Arc<dyn Ec2Read> {
        Arc::new(Self)
    }
}

#[async_trait]
impl Ec2 for NoCloud {
    async fn register_image(&self, _: &ImageRequest) -> Answer<String> {
        no_cloud()
    }

    async fn copy_image(&self, _: &str, _: &ImageCopy) -> Answer<String> {
        no_cloud()
    }

    async fn set_launch_permissions(&self, _: &str, _: &[String], _: &[String]) -> Answer<()> {
        no_cloud()
    }

    async fn deprecate_image(&self, _: &str, _: i64) -> Answer<()> {
        no_cloud()
    }

    async fn deregister_image(&self, _: &str) -> Answer<()> {
        no_cloud()
    }

    async fn delete_snapshot(&self, _: &str) -> Answer<()> {
        no_cloud()
    }

    async fn create_volume(&self, _: &str, _: &VolumeRequest) -> Answer<String> {
        no_cloud()
    }

    async fn attach_volume(&self, _: &str, _: &str) -> Answer<()> {
        no_cloud()
    }

    async fn detach_volume(&self, _: &str, _: &str) -> Answer<()> {
        no_cloud()
    }

    async fn delete_volume(&self, _: &str) -> Answer<()> {
        no_cloud()
    }

    async fn create_snapshot(&self, _: &SnapshotRequest) -> Answer<String> {
        no_cloud()
    }

    async fn modify_volume(&self, _: &str, _: &VolumeShape) -> Answer<()> {
        no_cloud()
    }

    async fn tag(&self, _: &str, _: &Tags) -> Answer<()> {
        no_cloud()
    }

    fn in_region(&self, _: &str) -> Arc<dyn Ec2> {
        Arc::new(Self)
    }
}

#[async_trait]
impl UploadRead for NoCloud {
    async fn blocks(&self, _: &DiskFile) -> Answer<BlockMap> {
        no_cloud()
    }

    async fn manifest(&self, _: &str, _: Option<&str>) -> Answer<Option<Manifest>> {
        no_cloud()
    }

    async fn import_task(&self, _: &str) -> Answer<Option<ImportTask>> {
        no_cloud()
    }
}

#[async_trait]
impl Upload for NoCloud {
    async fn start_snapshot(&self, _: &str, _: &SnapshotStart) -> Answer<String> {
        no_cloud()
    }

    async fn put_blocks(&self, _: &BlockUpload, _: &dyn Watch) -> Answer<BlockMap> {
        no_cloud()
    }

    async fn complete_snapshot(&self, _: &Completion) -> Answer<()> {
        no_cloud()
    }

    async fn keep_manifest(&self, _: &Manifest, _: Option<&str>) -> Answer<()> {
        no_cloud()
    }

    async fn put_object(&self, _: &DiskFile, _: &ObjectPlace, _: &dyn Watch) -> Answer<()> {
        no_cloud()
    }

    async fn remove_object(&self, _: &ObjectPlace) -> Answer<()> {
        no_cloud()
    }

    async fn import_snapshot(&self, _: &str, _: &ImportRequest) -> Answer<String> {
        no_cloud()
    }
}
