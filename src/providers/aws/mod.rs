//! The adapters for AWS, by its SDK: EC2, EBS direct, S3, STS.
//!
//! Region and account are pinned by the profile; who the credentials belong to is asked of STS before the first call, and
//! another account is refused. The SDK retries what may be retried by itself a few times; a call without a token that is
//! read back afterwards is sent once. Never reads the environment itself: the SDK's credential chain does, and `cli` hands
//! over the endpoint.

#![allow(clippy::disallowed_methods)] // this is where it is done

mod blocks;
mod bootstrap;
mod convert;
mod ec2;
mod error;
mod memory;
mod objects;
mod rate;
mod upload;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::{Builder, tls};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use tokio::sync::OnceCell;

use super::error::ProviderError;
use super::ports::{Answer, Ec2, Identity, MemoryStore, Upload};

pub use bootstrap::{Bootstrap, BucketChange, BucketPlan};

/// A connection that does not come about in this time is tried anew.
const CONNECT: Duration = Duration::from_secs(5);

/// A server that says nothing for this long counts as hung, when the profile does not say otherwise.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// One attempt of one call: a block of 512 KiB or a part of some MiB passes even a slow line in this time.
const ATTEMPT: Duration = Duration::from_secs(120);

/// Attempts of one call that the SDK makes by itself.
const ATTEMPTS: u32 = 4;

/// Puts of blocks per second that EBS allows an account by default.
pub const PUTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(1000).expect("a thousand is not zero");

/// Where and as whom.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The profile's name, for messages.
    pub profile: String,
    /// The account that the profile pins.
    pub account: String,
    /// The region that the profile pins; on a host, empty means the chain's own.
    pub region: String,
    /// Another endpoint than AWS's own, for all services.
    pub endpoint: Option<String>,
    /// Credentials that are none, for test servers on this machine.
    pub test_credentials: bool,
    /// Puts of blocks per second that the account is allowed.
    pub puts_per_second: NonZeroU32,
    /// How long a server may say nothing.
    pub answer_timeout: Duration,
    /// What can be computed again.
    pub cache: PathBuf,
}

/// Who talks to AWS: the configuration once it is known to be the right account's.
pub(crate) struct Session {
    settings: Settings,
    http: SharedHttpClient,
    /// Loaded at the first call, and anew when the credentials turn out to have expired.
    config: Mutex<Option<SdkConfig>>,
    checked: OnceCell<()>,
}

/// The adapters over one session. Nothing is called yet: credentials and account are looked at with the first call.
#[must_use]
pub fn adapters(settings: Settings) -> (Arc<dyn Ec2>, Arc<dyn Upload>, Arc<dyn Identity>) {
    let session = Arc::new(Session::new(settings));
    let ec2 = Arc::new(ec2::Regional::home(Arc::clone(&session)));
    (ec2, Arc::new(upload::Uploader::new(Arc::clone(&session))), session)
}

/// The shared memory in S3, for a host: whose role it has is who it is, so no account is pinned. `probe` is a key that this host
/// may write.
#[must_use]
pub fn memory_store(settings: Settings, bucket: &str, prefix: &str, probe: &str) -> Arc<dyn MemoryStore> {
    memory::store(settings, bucket, prefix, probe)
}

#[async_trait]
impl Identity for Session {
    async fn check(&self) -> Answer<()> {
        self.config().await.map(|_| ())
    }
}

impl Session {
    fn new(settings: Settings) -> Self {
        let http = Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .build_https();
        Self { settings, http, config: Mutex::new(None), checked: OnceCell::new() }
    }

    /// A session of whoever the credentials belong to.
    fn of_host(settings: Settings) -> Self {
        Self { checked: OnceCell::new_with(Some(())), ..Self::new(settings) }
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    async fn load(&self) -> SdkConfig {
        let Settings { region, endpoint, test_credentials, answer_timeout, .. } = &self.settings;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .read_timeout(*answer_timeout)
            .operation_attempt_timeout(ATTEMPT)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(self.http.clone())
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS));
        if !region.is_empty() {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Ok(name) = AppName::new("clawd") {
            loader = loader.app_name(name);
        }
        if let Some(endpoint) = endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if *test_credentials {
            loader = loader.credentials_provider(aws_sdk_sts::config::Credentials::new(
                "test", "test", None, None, "clawd",
            ));
        }
        loader.load().await
    }

    /// The configuration, once STS has said that it is the pinned account's.
    async fn config(&self) -> Answer<SdkConfig> {
        let known = self.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let config = match known {
            Some(config) => config,
            None => {
                let config = self.load().await;
                self.config.lock().unwrap_or_else(PoisonError::into_inner).insert(config).clone()
            }
        };
        self.checked.get_or_try_init(|| self.ask(&config)).await?;
        Ok(config)
    }

    async fn ask(&self, config: &SdkConfig) -> Answer<()> {
        const OPERATION: &str = "sts GetCallerIdentity";
        let identity = aws_sdk_sts::Client::new(config)
            .get_caller_identity()
            .send()
            .await
            .map_err(|error| self.failed(OPERATION, &error))?;
        let (found, wanted) = (identity.account().unwrap_or_default(), &self.settings.account);
        if found == wanted {
            return Ok(());
        }
        let (profile, arn) = (&self.settings.profile, identity.arn().unwrap_or("nobody"));
        Err(ProviderError::refused(
            OPERATION,
            format!("the credentials are {arn} of account {found}, the profile `{profile}` is for account {wanted}"),
        )
        .help(format!("use credentials of {wanted}, or name another profile; nothing was looked at or changed")))
    }

    /// Forgets the credentials: the next call asks the chain again.
    fn forget(&self) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The configuration for another region.
    async fn config_in(&self, region: &str) -> Answer<SdkConfig> {
        let config = self.config().await?;
        if region == self.settings.region {
            return Ok(config);
        }
        Ok(config.into_builder().region(Region::new(region.to_owned())).build())
    }
}
