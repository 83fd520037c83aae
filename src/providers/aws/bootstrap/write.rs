//! Writing one setting of a bucket. Each call sets a whole setting, so that making it twice is making it once.

use aws_sdk_s3::types::{
    BlockedEncryptionTypes, BucketLifecycleConfiguration, BucketVersioningStatus, ObjectOwnership,
    OwnershipControls, OwnershipControlsRule, ServerSideEncryptionConfiguration, Tag, Tagging,
    VersioningConfiguration,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::bucket::Bucket;
use super::model::{Lifecycle, Write};
use crate::providers::ports::Answer;

impl Bucket<'_> {
    /// Writes one setting.
    pub(super) async fn write(&self, write: &Write) -> Answer<()> {
        match write {
            Write::Ownership => self.put_ownership().await,
            Write::Versioning => self.put_versioning().await,
            Write::Encryption(blocked) => self.put_encryption(blocked.clone()).await,
            Write::Policy(document) => self.put_policy(document).await,
            Write::PublicAccess => self.put_public_access().await,
            Write::Lifecycle(lifecycle) => self.put_lifecycle(lifecycle).await,
            Write::Tags(tags) => self.put_tags(tags).await,
        }
    }

    fn written<T, E>(&self, operation: &str, answer: Result<T, SdkError<E, HttpResponse>>) -> Answer<()>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        match answer {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(operation, &error)),
        }
    }

    async fn put_ownership(&self) -> Answer<()> {
        let rule = OwnershipControlsRule::builder().object_ownership(ObjectOwnership::BucketOwnerEnforced);
        let rule = rule.build().expect("a rule with an owner is whole");
        let controls =
            OwnershipControls::builder().rules(rule).build().expect("controls with a rule are whole");
        let put = self.client.put_bucket_ownership_controls().ownership_controls(controls);
        let answer = put.bucket(self.name()).expected_bucket_owner(self.owner()).send().await;
        self.written("s3 PutBucketOwnershipControls", answer)
    }

    async fn put_versioning(&self) -> Answer<()> {
        let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let put = self.client.put_bucket_versioning().versioning_configuration(enabled);
        let answer = put.bucket(self.name()).expected_bucket_owner(self.owner()).send().await;
        self.written("s3 PutBucketVersioning", answer)
    }

    async fn put_encryption(&self, blocked: Option<BlockedEncryptionTypes>) -> Answer<()> {
        let rules = ServerSideEncryptionConfiguration::builder().rules(Write::encryption(blocked));
        let encryption = rules.build().expect("a configuration with a rule is whole");
        let put = self.client.put_bucket_encryption().server_side_encryption_configuration(encryption);
        let answer = put.bucket(self.name()).expected_bucket_owner(self.owner()).send().await;
        self.written("s3 PutBucketEncryption", answer)
    }

    async fn put_policy(&self, document: &str) -> Answer<()> {
        let put = self.client.put_bucket_policy().policy(document);
        let answer = put.bucket(self.name()).expected_bucket_owner(self.owner()).send().await;
        self.written("s3 PutBucketPolicy", answer)
    }

    async fn put_public_access(&self) -> Answer<()> {
        let put = self.client.put_public_access_block();
        let put = put.public_access_block_configuration(Write::no_public_access());
        let answer = put.bucket(self.name()).expected_bucket_owner(self.owner()).send().await;
        self.written("s3 PutPublicAccessBlock", answer)
    }

    async fn put_lifecycle(&self, Lifecycle { rules, least_size }: &Lifecycle) -> Answer<()> {
        let rules = BucketLifecycleConfiguration::builder().set_rules(Some(rules.clone()));
        let configuration = rules.build().expect("a configuration with rules is whole");
        let put = self
            .client
            .put_bucket_lifecycle_configuration()
            .lifecycle_configuration(configuration)
            .set_transition_default_minimum_object_size(least_size.clone());
        let answer = put.bucket(self.name()).expected_bucket_owner(self.owner()).send().await;
        self.written("s3 PutBucketLifecycleConfiguration", answer)
    }

    async fn put_tags(&self, tags: &[Tag]) -> Answer<()> {
        let tagging = Tagging::builder().set_tag_set(Some(tags.to_vec()));
        let tagging = tagging.build().expect("a set of tags is whole");
        let put = self.client.put_bucket_tagging().tagging(tagging);
        let answer = put.bucket(self.name()).expected_bucket_owner(self.owner()).send().await;
        self.written("s3 PutBucketTagging", answer)
    }
}
