//! What a bucket of states is, what it must be, and what lies between.

#![deny(clippy::disallowed_methods)]

use aws_sdk_s3::types::{
    BlockedEncryptionTypes, BucketVersioningStatus, LifecycleRule, ObjectOwnership,
    PublicAccessBlockConfiguration, ServerSideEncryption, ServerSideEncryptionByDefault,
    ServerSideEncryptionRule, Tag, TransitionDefaultMinimumObjectSize,
};

/// What is to be there.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) bucket: String,
    pub(super) fleet: String,
    pub(super) region: String,
}

impl Wanted {
    pub(super) fn arn(&self) -> String {
        let partition = match &self.region {
            region if region.starts_with("cn-") => "aws-cn",
            region if region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        };
        format!("arn:{partition}:s3:::{}", self.bucket)
    }
}

/// What a bucket is set to.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) ownership: Option<ObjectOwnership>,
    pub(super) versioning: Option<BucketVersioningStatus>,
    pub(super) encryption: Option<ServerSideEncryptionRule>,
    pub(super) policy: Option<String>,
    pub(super) public_access: Option<PublicAccessBlockConfiguration>,
    pub(super) lifecycle: Lifecycle,
    pub(super) tags: Vec<Tag>,
}

/// The lifecycle rules of a bucket. They are written all at once, with what is said beside them.
#[derive(Debug, Clone, Default)]
pub(super) struct Lifecycle {
    pub(super) rules: Vec<LifecycleRule>,
    pub(super) least_size: Option<TransitionDefaultMinimumObjectSize>,
}

/// One setting, as it has to be written.
#[derive(Debug, Clone)]
pub(super) enum Write {
    Ownership,
    Versioning,
    /// With the kinds of encryption that are forbidden already.
    Encryption(Option<BlockedEncryptionTypes>),
    Policy(String),
    PublicAccess,
    Lifecycle(Lifecycle),
    Tags(Vec<Tag>),
}

/// A setting that is not as it must be.
#[derive(Debug, Clone)]
pub struct BucketChange {
    /// The setting.
    pub setting: &'static str,
    /// What it is, when it is anything.
    pub before: Option<String>,
    /// What it will be.
    pub after: String,
    pub(super) write: Write,
}

/// What is to be done about a bucket.
#[derive(Debug, Clone)]
pub struct BucketPlan {
    /// Whether the bucket is there.
    pub exists: bool,
    /// The settings that differ; all of them when it is not there.
    pub changes: Vec<BucketChange>,
    /// What people should know and clawd leaves alone.
    pub notes: Vec<String>,
}

impl BucketPlan {
    /// Whether anything is to be done.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.exists || !self.changes.is_empty()
    }
}

impl Write {
    /// Encryption with S3's own key.
    pub(super) fn encryption(blocked: Option<BlockedEncryptionTypes>) -> ServerSideEncryptionRule {
        let by_default = ServerSideEncryptionByDefault::builder().sse_algorithm(ServerSideEncryption::Aes256);
        ServerSideEncryptionRule::builder()
            .apply_server_side_encryption_by_default(
                by_default.build().expect("a default with an algorithm is whole"),
            )
            .bucket_key_enabled(true)
            .set_blocked_encryption_types(blocked)
            .build()
    }

    /// Nothing of the bucket is public, whatever policies and lists say.
    pub(super) fn no_public_access() -> PublicAccessBlockConfiguration {
        PublicAccessBlockConfiguration::builder()
            .block_public_acls(true)
            .ignore_public_acls(true)
            .block_public_policy(true)
            .restrict_public_buckets(true)
            .build()
    }
}
