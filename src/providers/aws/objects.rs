//! Objects in S3: images on their way to `ImportSnapshot`, and manifests.
//!
//! An image is uploaded in parts, several at once, each with its sha256, which S3 checks. An upload that was interrupted
//! goes on with the parts that S3 lists. Objects carry the image's sha256, so a whole one is not sent again.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, Part};
use aws_smithy_types::base64;
use futures_util::StreamExt as _;
use futures_util::stream;
use sha2::{Digest as _, Sha256};

use super::Session;
use super::error::{is_absent, status};
use crate::providers::error::{ErrorKind, ProviderError};
use crate::providers::ports::{Answer, DiskFile, ObjectPlace, Watch};
use crate::providers::process::disk::blocking;
use crate::units::Bytes;

/// The least size of a part; S3 takes 10,000 parts of 5 MiB to 5 GiB.
const LEAST_PART: u64 = 8 << 20;
const MOST_PARTS: u64 = 10_000;

/// Parts on their way at once: with their buffers they bound the memory.
const AT_ONCE: usize = 4;

/// The object metadata that holds the image's sha256.
const SHA256: &str = "clawd-sha256";

/// Objects through one session.
pub(super) struct Objects<'a> {
    pub(super) session: &'a Session,
}

fn part_size(size: u64) -> u64 {
    const MIB: u64 = 1 << 20;
    size.div_ceil(MOST_PARTS).div_ceil(MIB).saturating_mul(MIB).max(LEAST_PART)
}

/// Reads a part and hashes it.
fn read_part(file: &File, path: &str, offset: u64, length: usize) -> Answer<(Vec<u8>, String)> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)
        .map_err(|error| ProviderError::permanent("image file", format!("cannot read {path}: {error}")))?;
    let checksum = base64::encode(Sha256::digest(&bytes));
    Ok((bytes, checksum))
}

impl Objects<'_> {
    pub(super) async fn client(&self) -> Answer<Client> {
        let config = self.session.config().await?;
        // A test server has no host name per bucket.
        let path_style = self.session.settings().endpoint.is_some();
        let config = aws_sdk_s3::config::Builder::from(&config).force_path_style(path_style).build();
        Ok(Client::from_conf(config))
    }

    /// Refuses a bucket that is not there, or where the import could not read it.
    async fn check_bucket(&self, client: &Client, bucket: &str) -> Answer<()> {
        const OPERATION: &str = "s3 HeadBucket";
        let region = &self.session.settings().region;
        let elsewhere = |found: &str| {
            ProviderError::refused(
                OPERATION,
                format!("the bucket {bucket} is in {found}, the profile's region is {region}"),
            )
            .help(format!("EC2 imports from buckets in its own region only: name one in {region}"))
        };
        match client.head_bucket().bucket(bucket).send().await {
            Ok(answer) => match answer.bucket_region() {
                Some(found) if found != region => Err(elsewhere(found)),
                _ => Ok(()),
            },
            Err(error) => {
                let header =
                    error.raw_response().and_then(|answer| answer.headers().get("x-amz-bucket-region"));
                if let Some(found) = header.filter(|found| found != region) {
                    return Err(elsewhere(found));
                }
                if status(&error) == Some(404) {
                    return Err(ProviderError::permanent(OPERATION, format!("there is no bucket {bucket}"))
                        .help("name a bucket that exists, in the profile's region"));
                }
                Err(self.session.failed(OPERATION, &error))
            }
        }
    }

    /// A small object; `None` when it is not there.
    pub(super) async fn get(&self, place: &ObjectPlace) -> Answer<Option<Vec<u8>>> {
        const OPERATION: &str = "s3 GetObject";
        let client = self.client().await?;
        let answer = match client.get_object().bucket(&place.bucket).key(&place.key).send().await {
            Ok(answer) => answer,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(self.session.failed(OPERATION, &error)),
        };
        let bytes = answer.body.collect().await.map_err(|error| {
            ProviderError::new(ErrorKind::Transient, OPERATION, format!("{} broke off: {error}", place.key))
        })?;
        Ok(Some(bytes.to_vec()))
    }

    /// Puts a small object.
    pub(super) async fn put(&self, place: &ObjectPlace, bytes: Vec<u8>) -> Answer<()> {
        let checksum = base64::encode(Sha256::digest(&bytes));
        let client = self.client().await?;
        let put = client.put_object().bucket(&place.bucket).key(&place.key).checksum_sha256(checksum);
        match put.body(ByteStream::from(bytes)).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.session.failed("s3 PutObject", &error)),
        }
    }

    pub(super) async fn remove(&self, place: &ObjectPlace) -> Answer<()> {
        let client = self.client().await?;
        match client.delete_object().bucket(&place.bucket).key(&place.key).send().await {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(self.session.failed("s3 DeleteObject", &error)),
        }
    }

    /// Uploads an image, unless it is there.
    pub(super) async fn upload(
        &self,
        image: &DiskFile,
        place: &ObjectPlace,
        watch: &dyn Watch,
    ) -> Answer<()> {
        let client = self.client().await?;
        self.check_bucket(&client, &place.bucket).await?;
        if self.is_there(&client, image, place).await? {
            watch.progress(&format!("s3://{}/{} holds it already", place.bucket, place.key));
            return Ok(());
        }
        let upload = match self.unfinished(&client, place).await? {
            Some(upload) => upload,
            None => self.begin(&client, image, place).await?,
        };
        let there = self.parts(&client, place, &upload).await?;
        let parts = self.put_parts(&client, image, place, &upload, &there, watch).await?;
        let whole = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let completed = client
            .complete_multipart_upload()
            .bucket(&place.bucket)
            .key(&place.key)
            .upload_id(&upload)
            .multipart_upload(whole)
            .customize()
            .config_override(aws_sdk_s3::Config::builder().retry_config(RetryConfig::disabled()))
            .send()
            .await;
        match completed {
            Ok(_) => Ok(()),
            // It takes no token: an answer that was lost is found by looking.
            Err(error) => {
                let error = self.session.failed("s3 CompleteMultipartUpload", &error);
                if self.is_there(&client, image, place).await? { Ok(()) } else { Err(error) }
            }
        }
    }

    async fn is_there(&self, client: &Client, image: &DiskFile, place: &ObjectPlace) -> Answer<bool> {
        match client.head_object().bucket(&place.bucket).key(&place.key).send().await {
            Ok(found) => {
                let hash = found.metadata().and_then(|metadata| metadata.get(SHA256));
                let size = found.content_length().and_then(|length| u64::try_from(length).ok());
                Ok(hash == Some(&image.sha256) && size == Some(image.size.0))
            }
            Err(error) if is_absent(&error) || status(&error) == Some(404) => Ok(false),
            Err(error) => Err(self.session.failed("s3 HeadObject", &error)),
        }
    }

    /// An upload of this key that was begun and not completed; the newest, when there are several.
    async fn unfinished(&self, client: &Client, place: &ObjectPlace) -> Answer<Option<String>> {
        let listed = client
            .list_multipart_uploads()
            .bucket(&place.bucket)
            .prefix(&place.key)
            .send()
            .await
            .map_err(|error| self.session.failed("s3 ListMultipartUploads", &error))?;
        let mut own: Vec<_> = listed.uploads().iter().filter(|it| it.key() == Some(&place.key)).collect();
        own.sort_by_key(|it| it.initiated().map(|at| (at.secs(), at.subsec_nanos())));
        Ok(own.last().and_then(|it| it.upload_id()).map(str::to_owned))
    }

    async fn begin(&self, client: &Client, image: &DiskFile, place: &ObjectPlace) -> Answer<String> {
        const OPERATION: &str = "s3 CreateMultipartUpload";
        let begun = client
            .create_multipart_upload()
            .bucket(&place.bucket)
            .key(&place.key)
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .metadata(SHA256, &image.sha256)
            .send()
            .await
            .map_err(|error| self.session.failed(OPERATION, &error))?;
        let id = begun
            .upload_id()
            .ok_or_else(|| ProviderError::permanent(OPERATION, "the answer has no upload id"))?;
        Ok(id.to_owned())
    }

    async fn parts(&self, client: &Client, place: &ObjectPlace, upload: &str) -> Answer<Vec<Part>> {
        let mut found = Vec::new();
        let mut pages = client
            .list_parts()
            .bucket(&place.bucket)
            .key(&place.key)
            .upload_id(upload)
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.session.failed("s3 ListParts", &error))?;
            found.extend(page.parts().iter().cloned());
        }
        Ok(found)
    }

    async fn put_parts(
        &self,
        client: &Client,
        image: &DiskFile,
        place: &ObjectPlace,
        upload: &str,
        there: &[Part],
        watch: &dyn Watch,
    ) -> Answer<Vec<CompletedPart>> {
        let path = PathBuf::from(&image.path);
        let file = File::open(&path).map_err(|error| {
            ProviderError::permanent("image file", format!("cannot read {}: {error}", image.path))
        })?;
        let file = Arc::new(file);
        let (size, each) = (image.size.0, part_size(image.size.0));
        let count = size.div_ceil(each).max(1);
        let mut parts = stream::iter(0..count)
            .map(|at| {
                let file = Arc::clone(&file);
                async move {
                    let offset = at * each;
                    let length = usize::try_from(each.min(size - offset)).unwrap_or(usize::MAX);
                    let shown = image.path.clone();
                    let (bytes, checksum) =
                        blocking(move || read_part(&file, &shown, offset, length)).await??;
                    let number = i32::try_from(at + 1).unwrap_or(i32::MAX);
                    let found = there.iter().find(|part| {
                        part.part_number() == Some(number)
                            && part.checksum_sha256() == Some(checksum.as_str())
                    });
                    let tag = match found.and_then(Part::e_tag) {
                        Some(tag) => tag.to_owned(),
                        None => self.put_part(client, place, upload, number, bytes, &checksum).await?,
                    };
                    Ok::<_, ProviderError>(
                        CompletedPart::builder()
                            .part_number(number)
                            .e_tag(tag)
                            .checksum_sha256(checksum)
                            .build(),
                    )
                }
            })
            .buffered(AT_ONCE);
        let mut done = Vec::new();
        while let Some(part) = parts.next().await {
            done.push(part?);
            let percent = done.len() as u64 * 100 / count;
            watch.progress(&format!("{percent} %: {} of {count} parts of {}", done.len(), Bytes(each)));
        }
        Ok(done)
    }

    async fn put_part(
        &self,
        client: &Client,
        place: &ObjectPlace,
        upload: &str,
        number: i32,
        bytes: Vec<u8>,
        checksum: &str,
    ) -> Answer<String> {
        const OPERATION: &str = "s3 UploadPart";
        let sent = client
            .upload_part()
            .bucket(&place.bucket)
            .key(&place.key)
            .upload_id(upload)
            .part_number(number)
            .checksum_sha256(checksum)
            .body(ByteStream::from(bytes))
            .send()
            .await
            .map_err(|error| self.session.failed(OPERATION, &error))?;
        let tag =
            sent.e_tag().ok_or_else(|| ProviderError::permanent(OPERATION, "the answer has no ETag"))?;
        Ok(tag.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_few_enough_and_large_enough() {
        assert_eq!(part_size(1), LEAST_PART);
        assert_eq!(part_size(LEAST_PART * MOST_PARTS), LEAST_PART);
        let large = 1_u64 << 42;
        assert!(large.div_ceil(part_size(large)) <= MOST_PARTS);
    }
}
