//! The upload port: snapshots through EBS direct, images through S3 and `ImportSnapshot`, and what is kept of both on this
//! machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ebs::config::retry::RetryConfig;
use aws_sdk_ebs::types::{ChecksumAggregationMethod, ChecksumAlgorithm, Tag};
use aws_sdk_ec2::types::{SnapshotDiskContainer, UserBucket};
use aws_smithy_types::base64;

use super::Session;
use super::blocks::Puts;
use super::convert::tag_specification;
use super::error::{code, is_absent};
use super::objects::Objects;
use super::rate::Rate;
use crate::image::{BlockMap, Manifest};
use crate::providers::error::ProviderError;
use crate::providers::ports::{
    Answer, BlockUpload, Blocks, Completion, DiskFile, ImportRequest, ImportTask, ObjectPlace, SnapshotStart,
    Upload, UploadRead, Watch,
};
use crate::providers::process::disk::{block_map, blocking};

/// The upload adapter.
pub(crate) struct Uploader {
    session: Arc<Session>,
    rate: Rate,
}

/// Writes a file whole or not at all.
fn keep(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(&fresh, bytes).and_then(|()| fs::rename(&fresh, path))
}

/// Keeps what was found out about an image. A cache that cannot be written costs time only.
fn keep_blocks(file: &Path, image: &DiskFile, blocks: &BlockMap) {
    let manifest =
        Manifest { snapshot_id: String::new(), sha256: image.sha256.clone(), blocks: blocks.clone() };
    if let Err(error) = keep(file, &manifest.encode()) {
        tracing::warn!(%error, "the blocks of an image were not kept");
    }
}

impl Uploader {
    pub(super) fn new(session: Arc<Session>) -> Self {
        let rate = Rate::new(session.settings().puts_per_second.get());
        Self { session, rate }
    }

    async fn ebs(&self) -> Answer<aws_sdk_ebs::Client> {
        Ok(aws_sdk_ebs::Client::new(&self.session.config().await?))
    }

    async fn ec2(&self) -> Answer<aws_sdk_ec2::Client> {
        Ok(aws_sdk_ec2::Client::new(&self.session.config().await?))
    }

    fn objects(&self) -> Objects<'_> {
        Objects { session: &self.session }
    }

    fn blocks_file(&self, image: &DiskFile) -> PathBuf {
        self.session.settings().cache.join("blocks").join(format!("{}.blocks", image.sha256))
    }

    fn keep_blocks(&self, image: &DiskFile, map: &BlockMap) {
        keep_blocks(&self.blocks_file(image), image, map);
    }

    fn manifest_file(&self, snapshot: &str) -> PathBuf {
        self.session.settings().cache.join("manifests").join(format!("{snapshot}.blocks"))
    }

    /// Where a manifest lies in the bucket: `shelf` is `bucket/prefix`.
    fn manifest_object(shelf: &str, snapshot: &str) -> ObjectPlace {
        let (bucket, prefix) = shelf.split_once('/').unwrap_or((shelf, "clawd"));
        ObjectPlace { bucket: bucket.to_owned(), key: format!("{prefix}/manifests/{snapshot}.blocks") }
    }
}

#[async_trait]
impl UploadRead for Uploader {
    async fn blocks(&self, image: &DiskFile) -> Answer<BlockMap> {
        let image = image.clone();
        let kept = self.blocks_file(&image);
        blocking(move || {
            let known = fs::read(&kept).ok().and_then(|bytes| Manifest::decode(&bytes).ok());
            if let Some(known) = known.filter(|it| it.sha256 == image.sha256 && it.blocks.size == image.size)
            {
                return Ok(known.blocks);
            }
            let blocks = block_map(Path::new(&image.path), image.size)?;
            keep_blocks(&kept, &image, &blocks);
            Ok(blocks)
        })
        .await?
    }

    async fn manifest(&self, snapshot: &str, bucket: Option<&str>) -> Answer<Option<Manifest>> {
        let read = |bytes: &[u8]| Manifest::decode(bytes).ok().filter(|it| it.snapshot_id == snapshot);
        if let Some(found) = fs::read(self.manifest_file(snapshot)).ok().and_then(|bytes| read(&bytes)) {
            return Ok(Some(found));
        }
        let Some(shelf) = bucket else { return Ok(None) };
        let bytes = self.objects().get(&Self::manifest_object(shelf, snapshot)).await?;
        Ok(bytes.and_then(|bytes| read(&bytes)))
    }

    async fn import_task(&self, id: &str) -> Answer<Option<ImportTask>> {
        const OPERATION: &str = "ec2 DescribeImportSnapshotTasks";
        let found = match self.ec2().await?.describe_import_snapshot_tasks().import_task_ids(id).send().await
        {
            Ok(found) => found,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(self.session.failed(OPERATION, &error)),
        };
        let task = found.import_snapshot_tasks().iter().find(|task| task.import_task_id() == Some(id));
        Ok(task.and_then(|task| task.snapshot_task_detail()).map(|detail| ImportTask {
            id: id.to_owned(),
            state: detail.status().unwrap_or_default().to_owned(),
            message: detail.status_message().unwrap_or_default().to_owned(),
            progress: detail.progress().map(str::to_owned),
            snapshot_id: detail.snapshot_id().map(str::to_owned),
        }))
    }
}

#[async_trait]
impl Upload for Uploader {
    async fn start_snapshot(&self, token: &str, request: &SnapshotStart) -> Answer<String> {
        const OPERATION: &str = "ebs StartSnapshot";
        let SnapshotStart { description, size, parent, kms_key, timeout, tags } = request;
        let tags = tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
        let started = self
            .ebs()
            .await?
            .start_snapshot()
            .client_token(token)
            .description(description)
            .volume_size(i64::try_from(size.0).unwrap_or(i64::MAX))
            .set_parent_snapshot_id(parent.clone())
            .set_encrypted(kms_key.is_some().then_some(true))
            .set_kms_key_arn(kms_key.clone())
            .timeout(i32::try_from(timeout.0 / 60).unwrap_or(i32::MAX))
            .set_tags(Some(tags))
            .send()
            .await
            .map_err(|error| self.session.failed(OPERATION, &error))?;
        let block = started.block_size().and_then(|size| usize::try_from(size).ok());
        if block != Some(crate::image::BLOCK_SIZE) {
            let message =
                format!("EBS wants blocks of {block:?} bytes, this clawd makes {}", crate::image::BLOCK_SIZE);
            return Err(ProviderError::permanent(OPERATION, message));
        }
        let id = started
            .snapshot_id()
            .ok_or_else(|| ProviderError::permanent(OPERATION, "the answer has no id"))?;
        Ok(id.to_owned())
    }

    async fn put_blocks(&self, upload: &BlockUpload, watch: &dyn Watch) -> Answer<BlockMap> {
        let config = self.session.config().await?;
        // Blocks are tried again one by one here, where throttling slows all of them down.
        let config =
            aws_sdk_ebs::config::Builder::from(&config).retry_config(RetryConfig::disabled()).build();
        let client = aws_sdk_ebs::Client::from_conf(config);
        let map = Puts { session: &self.session, client, rate: &self.rate }.run(upload, watch).await?;
        if upload.blocks == Blocks::WithData {
            self.keep_blocks(&upload.image, &map);
        }
        Ok(map)
    }

    async fn complete_snapshot(&self, completion: &Completion) -> Answer<()> {
        const OPERATION: &str = "ebs CompleteSnapshot";
        let Completion { snapshot, blocks, checksum } = completion;
        let completed = self
            .ebs()
            .await?
            .complete_snapshot()
            .snapshot_id(snapshot)
            .changed_blocks_count(i32::try_from(*blocks).unwrap_or(i32::MAX))
            .checksum(base64::encode(checksum))
            .checksum_algorithm(ChecksumAlgorithm::ChecksumAlgorithmSha256)
            .checksum_aggregation_method(ChecksumAggregationMethod::ChecksumAggregationLinear)
            // It takes no token: sent again, it would be refused for its own first effect.
            .customize()
            .config_override(aws_sdk_ebs::Config::builder().retry_config(RetryConfig::disabled()))
            .send()
            .await;
        completed.map(|_| ()).map_err(|error| {
            let mismatch = code(&error) == Some("ValidationException");
            let error = self.session.failed(OPERATION, &error);
            if mismatch {
                let message = format!("{snapshot}, {blocks} blocks: {}", error.message);
                ProviderError { message, ..error }
            } else {
                error
            }
        })
    }

    async fn keep_manifest(&self, manifest: &Manifest, bucket: Option<&str>) -> Answer<()> {
        let bytes = manifest.encode();
        let file = self.manifest_file(&manifest.snapshot_id);
        keep(&file, &bytes).map_err(|error| {
            ProviderError::permanent("manifest", format!("cannot write {}: {error}", file.display()))
        })?;
        match bucket {
            Some(shelf) => {
                self.objects().put(&Self::manifest_object(shelf, &manifest.snapshot_id), bytes).await
            }
            None => Ok(()),
        }
    }

    async fn put_object(&self, image: &DiskFile, place: &ObjectPlace, watch: &dyn Watch) -> Answer<()> {
        self.objects().upload(image, place, watch).await
    }

    async fn remove_object(&self, place: &ObjectPlace) -> Answer<()> {
        self.objects().remove(place).await
    }

    async fn import_snapshot(&self, token: &str, request: &ImportRequest) -> Answer<String> {
        const OPERATION: &str = "ec2 ImportSnapshot";
        let ImportRequest { description, object, format, role, kms_key, tags } = request;
        let bucket = UserBucket::builder().s3_bucket(&object.bucket).s3_key(&object.key).build();
        let disk = SnapshotDiskContainer::builder()
            .description(description)
            .format(format.to_ascii_uppercase())
            .user_bucket(bucket)
            .build();
        let started = self
            .ec2()
            .await?
            .import_snapshot()
            .client_token(token)
            .description(description)
            .disk_container(disk)
            .role_name(role)
            .set_encrypted(kms_key.is_some().then_some(true))
            .set_kms_key_id(kms_key.clone())
            .tag_specifications(tag_specification("import-snapshot-task", tags))
            .send()
            .await
            .map_err(|error| self.session.failed(OPERATION, &error))?;
        let id = started
            .import_task_id()
            .ok_or_else(|| ProviderError::permanent(OPERATION, "the answer has no id"))?;
        Ok(id.to_owned())
    }
}
