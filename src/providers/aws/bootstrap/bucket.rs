//! One bucket through the SDK: what it is set to, and setting it. Every call names the account that the bucket must belong to,
//! so S3 refuses one of a stranger, also where the stranger would let us in.

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration, ObjectOwnership,
    PublicAccessBlockConfiguration, ServerSideEncryptionRule, Tag,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::decide::decide;
use super::model::{BucketPlan, Lifecycle, Seen, Wanted};
use crate::providers::aws::Session;
use crate::providers::aws::error::{code, status};
use crate::providers::aws::objects::Objects;
use crate::providers::error::ProviderError;
use crate::providers::ports::Answer;

/// The one region whose name S3 does not take when a bucket is made in it.
const FIRST_REGION: &str = "us-east-1";

/// A bucket, there or not.
pub(super) struct Bucket<'a> {
    session: &'a Session,
    pub(super) client: Client,
    wanted: &'a Wanted,
}

impl<'a> Bucket<'a> {
    /// Asks who the credentials belong to; the bucket is not looked at yet.
    pub(super) async fn open(session: &'a Session, wanted: &'a Wanted) -> Answer<Self> {
        let client = Objects { session }.client().await?;
        Ok(Self { session, client, wanted })
    }

    pub(super) fn name(&self) -> &'a str {
        &self.wanted.bucket
    }

    /// The account that the profile pins.
    pub(super) fn owner(&self) -> &'a str {
        &self.session.settings().account
    }

    /// Looks, and decides what is to be done.
    pub(super) async fn plan(&self) -> Answer<BucketPlan> {
        let seen = if self.is_there().await? { Some(self.look().await?) } else { None };
        decide(self.wanted, seen.as_ref())
    }

    /// Makes the bucket, private to the account.
    pub(super) async fn create(&self) -> Answer<()> {
        const OPERATION: &str = "s3 CreateBucket";
        let region = self.wanted.region.as_str();
        let place = (region != FIRST_REGION).then(|| {
            let constraint = BucketLocationConstraint::from(region);
            CreateBucketConfiguration::builder().location_constraint(constraint).build()
        });
        let created = self
            .client
            .create_bucket()
            .bucket(self.name())
            .object_ownership(ObjectOwnership::BucketOwnerEnforced)
            .set_create_bucket_configuration(place)
            .send()
            .await;
        match created {
            Ok(_) => Ok(()),
            Err(error) => match code(&error) {
                // By a call of ours whose answer was lost, or by somebody else of the account.
                Some("BucketAlreadyOwnedByYou") => Ok(()),
                Some("BucketAlreadyExists") => Err(self.not_ours(OPERATION)),
                _ => Err(self.failed(OPERATION, &error)),
            },
        }
    }

    async fn is_there(&self) -> Answer<bool> {
        const OPERATION: &str = "s3 HeadBucket";
        let region = self.wanted.region.as_str();
        let head = self.client.head_bucket().bucket(self.name()).expected_bucket_owner(self.owner());
        let error = match head.send().await {
            Ok(answer) => {
                return match answer.bucket_region() {
                    Some(found) if found != region => Err(self.elsewhere(OPERATION, found)),
                    _ => Ok(true),
                };
            }
            Err(error) => error,
        };
        let header = error.raw_response().and_then(|answer| answer.headers().get("x-amz-bucket-region"));
        match (status(&error), header) {
            (Some(404), _) => Ok(false),
            // A refusal of S3 to HEAD has no body, so no code.
            (Some(403), _) => Err(self.not_ours(OPERATION)),
            (_, Some(found)) if found != region => Err(self.elsewhere(OPERATION, found)),
            _ => Err(self.failed(OPERATION, &error)),
        }
    }

    fn not_ours(&self, operation: &str) -> ProviderError {
        let message =
            format!("the bucket {} is not one that account {} may look at", self.name(), self.owner());
        let profile = &self.session.settings().profile;
        ProviderError::refused(operation, message).help(format!(
            "all accounts share the names of buckets: when it is another account's, set `state_bucket` in the profile `{profile}` \
             to a free name; when it is yours, the caller's policy lacks s3:ListBucket"
        ))
    }

    fn elsewhere(&self, operation: &str, found: &str) -> ProviderError {
        let (name, region) = (self.name(), &self.wanted.region);
        let message = format!("the bucket {name} is in {found}, the profile's region is {region}");
        let profile = &self.session.settings().profile;
        ProviderError::refused(operation, message).help(format!(
            "a bucket cannot move: set `state_bucket` in the profile `{profile}` to another name, or its `region` to {found}"
        ))
    }

    /// An error of a call, with the bucket in it.
    pub(super) fn failed<E>(&self, operation: &str, error: &SdkError<E, HttpResponse>) -> ProviderError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let error = self.session.failed(operation, error);
        ProviderError { message: format!("bucket {}: {}", self.name(), error.message), ..error }
    }

    /// An answer; nothing where S3 says by this code that nothing was ever set.
    fn or_nothing<T, E>(
        &self,
        operation: &str,
        nothing: &str,
        answer: Result<T, SdkError<E, HttpResponse>>,
    ) -> Answer<Option<T>>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if code(&error) == Some(nothing) => Ok(None),
            Err(error) => Err(self.failed(operation, &error)),
        }
    }

    async fn look(&self) -> Answer<Seen> {
        let (ownership, versioning, encryption, policy, public_access, lifecycle, tags) = tokio::try_join!(
            self.ownership(),
            self.versioning(),
            self.encryption(),
            self.policy(),
            self.public_access(),
            self.lifecycle(),
            self.tags(),
        )?;
        Ok(Seen { ownership, versioning, encryption, policy, public_access, lifecycle, tags })
    }

    async fn ownership(&self) -> Answer<Option<ObjectOwnership>> {
        let get = self.client.get_bucket_ownership_controls();
        let answer = get.bucket(self.name()).expected_bucket_owner(self.owner()).send().await;
        let found =
            self.or_nothing("s3 GetBucketOwnershipControls", "OwnershipControlsNotFoundError", answer)?;
        let rule = found.and_then(|it| it.ownership_controls).and_then(|it| it.rules.into_iter().next());
        Ok(rule.map(|rule| rule.object_ownership))
    }

    async fn versioning(&self) -> Answer<Option<BucketVersioningStatus>> {
        let get = self.client.get_bucket_versioning();
        let answer = get.bucket(self.name()).expected_bucket_owner(self.owner()).send().await;
        answer.map(|it| it.status).map_err(|error| self.failed("s3 GetBucketVersioning", &error))
    }

    async fn encryption(&self) -> Answer<Option<ServerSideEncryptionRule>> {
        const NOTHING: &str = "ServerSideEncryptionConfigurationNotFoundError";
        let get = self.client.get_bucket_encryption();
        let answer = get.bucket(self.name()).expected_bucket_owner(self.owner()).send().await;
        let found = self.or_nothing("s3 GetBucketEncryption", NOTHING, answer)?;
        let rules = found.and_then(|it| it.server_side_encryption_configuration).map(|it| it.rules);
        Ok(rules.and_then(|rules| rules.into_iter().next()))
    }

    async fn policy(&self) -> Answer<Option<String>> {
        let get = self.client.get_bucket_policy();
        let answer = get.bucket(self.name()).expected_bucket_owner(self.owner()).send().await;
        Ok(self.or_nothing("s3 GetBucketPolicy", "NoSuchBucketPolicy", answer)?.and_then(|it| it.policy))
    }

    async fn public_access(&self) -> Answer<Option<PublicAccessBlockConfiguration>> {
        const NOTHING: &str = "NoSuchPublicAccessBlockConfiguration";
        let get = self.client.get_public_access_block();
        let answer = get.bucket(self.name()).expected_bucket_owner(self.owner()).send().await;
        let found = self.or_nothing("s3 GetPublicAccessBlock", NOTHING, answer)?;
        Ok(found.and_then(|it| it.public_access_block_configuration))
    }

    async fn lifecycle(&self) -> Answer<Lifecycle> {
        const OPERATION: &str = "s3 GetBucketLifecycleConfiguration";
        let get = self.client.get_bucket_lifecycle_configuration();
        let answer = get.bucket(self.name()).expected_bucket_owner(self.owner()).send().await;
        let found = self.or_nothing(OPERATION, "NoSuchLifecycleConfiguration", answer)?;
        let lifecycle = found.map(|it| Lifecycle {
            rules: it.rules.unwrap_or_default(),
            least_size: it.transition_default_minimum_object_size,
        });
        Ok(lifecycle.unwrap_or_default())
    }

    async fn tags(&self) -> Answer<Vec<Tag>> {
        let get = self.client.get_bucket_tagging();
        let answer = get.bucket(self.name()).expected_bucket_owner(self.owner()).send().await;
        let found = self.or_nothing("s3 GetBucketTagging", "NoSuchTagSet", answer)?;
        Ok(found.map(|it| it.tag_set).unwrap_or_default())
    }
}
