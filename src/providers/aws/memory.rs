//! The shared memory in S3: objects below a prefix, written by conditional writes only. Nothing is ever deleted, and a bucket with
//! versions keeps what was overwritten.

use std::cmp::Ordering;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::BucketVersioningStatus;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::sync::OnceCell;

use super::error::{code, is_absent, status};
use super::objects::Objects;
use super::{Session, Settings};
use crate::providers::error::{ErrorKind, ProviderError};
use crate::providers::ports::{Answer, Condition, Listed, MemoryStore, Put, Stored};

/// Keys of one part of a listing: a page has 1,000, and so room for some that came since.
const PART: usize = 990;

/// Parts that are listed at once.
const PARTS_AT_ONCE: usize = 16;

/// How the names of clawd's own objects begin.
const OWN: &str = ".clawd";

/// A prefix of a bucket as a store.
pub(super) struct S3Store {
    session: Session,
    bucket: String,
    /// Ends with `/`, or is empty.
    prefix: String,
    /// Where a probe may write: below the prefix, a key of this host's own.
    probe: String,
    probed: OnceCell<()>,
}

/// A shared memory in S3. `probe` is a key that this host may write.
pub(super) fn store(settings: Settings, bucket: &str, prefix: &str, probe: &str) -> Arc<dyn MemoryStore> {
    let prefix = match prefix.trim_matches('/') {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    };
    Arc::new(S3Store {
        session: Session::of_host(settings),
        bucket: bucket.to_owned(),
        prefix,
        probe: probe.to_owned(),
        probed: OnceCell::new(),
    })
}

impl S3Store {
    fn objects(&self) -> Objects<'_> {
        Objects { session: &self.session }
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// A bucket that is not there, or elsewhere, said so that a person can do something.
    fn explained(&self, error: ProviderError, status: Option<u16>, code: Option<&str>) -> ProviderError {
        match (status, code) {
            (_, Some("NoSuchBucket")) => {
                ProviderError::permanent(error.operation, format!("there is no bucket {}", self.bucket))
                    .help("applying `tofu/base` makes the memory's; its output `memory_remote` names it")
            }
            (Some(301), _) | (_, Some("PermanentRedirect" | "AuthorizationHeaderMalformed")) => {
                ProviderError::permanent(
                    error.operation,
                    format!("the bucket {} is in another region", self.bucket),
                )
                .help("set AWS_REGION to the bucket's")
            }
            _ if error.message.contains("A region must be set") => {
                ProviderError::permanent(error.operation, "no region is set")
                    .help("set AWS_REGION to the bucket's")
            }
            _ => error,
        }
    }

    /// The objects after one key, up to another and with it, in order.
    async fn list_part(&self, after: Option<String>, to: Option<String>) -> Answer<Vec<Listed>> {
        const OPERATION: &str = "s3 ListObjectsV2";
        let client = self.objects().client().await?;
        let mut pages = client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(&self.prefix)
            .set_start_after(after.map(|after| self.key(&after)))
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| {
                self.explained(self.session.failed(OPERATION, &error), status(&error), code(&error))
            })?;
            for object in page.contents() {
                let key = object.key().and_then(|key| key.strip_prefix(&self.prefix)).unwrap_or_default();
                // S3 lists by the bytes of keys, as texts are compared here.
                let order = to.as_deref().map_or(Ordering::Less, |to| key.cmp(to));
                if order == Ordering::Greater {
                    return Ok(found);
                }
                let is_own = key.rsplit('/').next().is_some_and(|name| name.starts_with(OWN));
                // A console makes a "directory" an object of its own.
                if is_own || key.is_empty() || key.ends_with('/') {
                    continue;
                }
                found
                    .push(Listed { key: key.to_owned(), tag: object.e_tag().unwrap_or_default().to_owned() });
                if order == Ordering::Equal {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// Refuses a server that takes a conditional write whatever the condition: there, the last writer would win.
    async fn probe(&self) -> Answer<()> {
        const OPERATION: &str = "s3 PutObject";
        let refused = || {
            ProviderError::refused(
                OPERATION,
                format!("the server of s3://{}/{} does not honour conditional writes", self.bucket, self.prefix),
            )
            .help("syncing there would lose writes; use S3, or a server that honours If-Match and If-None-Match")
        };
        // Whether it is there already or not, a second creation has to be refused.
        self.write(&self.probe, b"probe\n", Condition::Absent).await?;
        if self.write(&self.probe, b"probe\n", Condition::Absent).await? != Put::Lost {
            return Err(refused());
        }
        let another = "\"00000000000000000000000000000000\"";
        if self.write(&self.probe, b"probe\n", Condition::Is(another)).await? != Put::Lost {
            return Err(refused());
        }
        Ok(())
    }

    async fn write(&self, key: &str, content: &[u8], condition: Condition<'_>) -> Answer<Put> {
        const OPERATION: &str = "s3 PutObject";
        let client = self.objects().client().await?;
        let put = client.put_object().bucket(&self.bucket).key(self.key(key));
        let put = match condition {
            Condition::Absent => put.if_none_match("*"),
            Condition::Is(tag) => put.if_match(tag),
        };
        match put.body(ByteStream::from(content.to_vec())).send().await {
            Ok(answer) => match answer.e_tag() {
                Some(tag) => Ok(Put::Done(tag.to_owned())),
                None => Err(ProviderError::permanent(OPERATION, format!("{key}: the answer names no ETag"))),
            },
            // 412: something else is there. 409: somebody writes it at this moment. 404: If-Match and nothing is there.
            Err(error) => match (status(&error), code(&error)) {
                (Some(412 | 409), _) | (_, Some("NoSuchKey")) => Ok(Put::Lost),
                (status, name) => Err(self.explained(self.session.failed(OPERATION, &error), status, name)),
            },
        }
    }
}

#[async_trait]
impl MemoryStore for S3Store {
    async fn list(&self, known: &[&str]) -> Answer<Vec<Listed>> {
        // The last key of each part but the last, which ends where the memory does.
        let bounds: Vec<String> = known.chunks_exact(PART).map(|part| part[PART - 1].to_owned()).collect();
        let from = std::iter::once(None).chain(bounds.iter().cloned().map(Some));
        let to = bounds.iter().cloned().map(Some).chain(std::iter::once(None));
        let parts: Vec<_> = from.zip(to).map(|(from, to)| self.list_part(from, to)).collect();
        let parts: Vec<Vec<Listed>> = stream::iter(parts).buffered(PARTS_AT_ONCE).try_collect().await?;
        Ok(parts.into_iter().flatten().collect())
    }

    async fn get(&self, key: &str) -> Answer<Option<Stored>> {
        const OPERATION: &str = "s3 GetObject";
        let client = self.objects().client().await?;
        let answer = match client.get_object().bucket(&self.bucket).key(self.key(key)).send().await {
            Ok(answer) => answer,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => {
                return Err(self.explained(
                    self.session.failed(OPERATION, &error),
                    status(&error),
                    code(&error),
                ));
            }
        };
        let tag = answer.e_tag().unwrap_or_default().to_owned();
        let content = answer.body.collect().await.map_err(|error| {
            ProviderError::new(ErrorKind::Transient, OPERATION, format!("{key} broke off: {error}"))
        })?;
        Ok(Some(Stored { content: content.to_vec(), tag }))
    }

    async fn keeps_versions(&self) -> Answer<Option<bool>> {
        const OPERATION: &str = "s3 GetBucketVersioning";
        let client = self.objects().client().await?;
        match client.get_bucket_versioning().bucket(&self.bucket).send().await {
            Ok(found) => Ok(Some(found.status() == Some(&BucketVersioningStatus::Enabled))),
            // A host's role need not be allowed to ask.
            Err(error) if status(&error) == Some(403) => Ok(None),
            Err(error) => {
                Err(self.explained(self.session.failed(OPERATION, &error), status(&error), code(&error)))
            }
        }
    }

    async fn put(&self, key: &str, content: &[u8], condition: Condition<'_>) -> Answer<Put> {
        self.probed.get_or_try_init(|| self.probe()).await?;
        self.write(key, content, condition).await
    }
}
