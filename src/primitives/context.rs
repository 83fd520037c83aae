//! What a primitive may reach: reading ports while observing; all ports, the effect log and waiting while
//! applying.
//!
//! `ObserveContext` has no way to a writing port, so planning cannot change anything managed.
//! `ApplyContext::effect` is the one way to call something that takes an idempotency token: it journals the
//! intent before the call and the result after it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use crate::digest::sha256_hex;
use crate::image::BlockSet;
use crate::plan::{Header, Target};
use crate::providers::ports::{
    Ec2, Ec2Read, Hosts, HostsRead, Nix, NixRead, Purpose, TAG_FLEET, TAG_STEP, Tags, Tofu, TofuRead, Upload,
    UploadRead, Watch,
};
use crate::providers::{ErrorKind, ProviderError, Providers};
use crate::value::Address;

/// The version of the token's recipe; a new recipe must never collide with an old one.
const TOKEN_VERSION: &str = "clawd-token-1";

/// How often a call is tried anew under the next generation when what it returns turns out dead.
const MAX_GENERATIONS: u32 = 16;

/// Whom a decision is for.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// Where the plan is applied.
    pub target: &'a Target,
    /// The step's address.
    pub step: &'a Address,
}

/// What a primitive sees while planning.
pub struct ObserveContext<'a> {
    providers: &'a Providers,
    header: &'a Header,
    step: &'a Address,
    purpose: Purpose,
}

impl<'a> ObserveContext<'a> {
    /// The context of one step.
    #[must_use]
    pub const fn new(
        providers: &'a Providers,
        header: &'a Header,
        step: &'a Address,
        purpose: Purpose,
    ) -> Self {
        Self { providers, header, step, purpose }
    }

    /// What the look is for. It must not change the action or its reason, only what is told beside them.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Reading nix.
    #[must_use]
    pub fn nix(&self) -> &dyn NixRead {
        &*self.providers.nix
    }

    /// Reading EC2.
    #[must_use]
    pub fn ec2(&self) -> &dyn Ec2Read {
        &*self.providers.ec2
    }

    /// Reading images and what is known of earlier uploads.
    #[must_use]
    pub fn upload(&self) -> &dyn UploadRead {
        &*self.providers.upload
    }

    /// Planning stacks.
    #[must_use]
    pub fn tofu(&self) -> &dyn TofuRead {
        &*self.providers.tofu
    }

    /// Reading what runs on hosts.
    #[must_use]
    pub fn hosts(&self) -> &dyn HostsRead {
        &*self.providers.hosts
    }

    /// Whom the observation is for.
    #[must_use]
    pub const fn scope(&self) -> Scope<'_> {
        Scope { target: &self.header.target, step: self.step }
    }

    /// Where a secret comes from.
    #[must_use]
    pub fn secret_source(&self, name: &str) -> Option<&str> {
        self.header.secrets.get(name).map(|source| source.from.as_str())
    }
}

/// The journal as primitives see it.
#[async_trait]
pub trait EffectLog: Send + Sync {
    /// Makes an intent durable; the call follows only after this returns.
    async fn intent(&self, step: &Address, effect: &Effect) -> Result<(), ProviderError>;
    /// Records what a call returned.
    async fn done(&self, step: &Address, effect: &Effect, result: &str) -> Result<(), ProviderError>;
    /// Notes a part of something large that the provider has. Losing the note costs sending the part again.
    fn part(&self, step: &Address, of: &str, part: &str);
    /// The parts that were noted, by this run and by earlier ones.
    fn parts(&self, of: &str) -> Vec<String>;
    /// Tells people what a step is doing.
    fn progress(&self, step: &Address, message: &str);
}

/// Tells people how a long call goes, and the journal which blocks of a snapshot arrived.
pub struct Watching<'a> {
    log: &'a dyn EffectLog,
    step: &'a Address,
    snapshot: Option<&'a str>,
}

impl Watch for Watching<'_> {
    fn progress(&self, message: &str) {
        self.log.progress(self.step, message);
    }

    fn stored(&self, blocks: &BlockSet) {
        if let Some(snapshot) = self.snapshot {
            self.log.part(self.step, snapshot, &blocks.to_string());
        }
    }
}

/// One call that changes something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Effect {
    /// The API call, `CreateVolume`.
    pub call: &'static str,
    /// The idempotency token.
    pub token: String,
    /// Which incarnation of the thing the token stands for.
    pub generation: u32,
}

/// What a primitive sees while applying.
pub struct ApplyContext<'a> {
    providers: &'a Providers,
    header: &'a Header,
    step: &'a Address,
    log: &'a dyn EffectLog,
    /// Seconds this try may spend waiting.
    timeout: Duration,
    waited_ms: AtomicU64,
}

impl<'a> ApplyContext<'a> {
    /// The context of one try of one step.
    #[must_use]
    pub const fn new(
        providers: &'a Providers,
        header: &'a Header,
        step: &'a Address,
        log: &'a dyn EffectLog,
        timeout: Duration,
    ) -> Self {
        Self { providers, header, step, log, timeout, waited_ms: AtomicU64::new(0) }
    }

    /// Nix.
    #[must_use]
    pub fn nix(&self) -> &dyn Nix {
        &*self.providers.nix
    }

    /// EC2.
    #[must_use]
    pub fn ec2(&self) -> &dyn Ec2 {
        &*self.providers.ec2
    }

    /// Uploading images.
    #[must_use]
    pub fn upload(&self) -> &dyn Upload {
        &*self.providers.upload
    }

    /// Stacks.
    #[must_use]
    pub fn tofu(&self) -> &dyn Tofu {
        &*self.providers.tofu
    }

    /// Hosts.
    #[must_use]
    pub fn hosts(&self) -> &dyn Hosts {
        &*self.providers.hosts
    }

    /// Where the plan is applied.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.header.target
    }

    /// Where a secret comes from.
    #[must_use]
    pub fn secret_source(&self, name: &str) -> Option<&str> {
        self.header.secrets.get(name).map(|source| source.from.as_str())
    }

    /// The step's address.
    #[must_use]
    pub const fn step(&self) -> &Address {
        self.step
    }

    /// The tags that mark a resource as this step's.
    #[must_use]
    pub fn owner_tags(&self) -> Tags {
        Tags::from([
            (TAG_FLEET.to_owned(), self.target().fleet.clone()),
            (TAG_STEP.to_owned(), self.step.to_string()),
        ])
    }

    /// Tells people what is going on.
    pub fn progress(&self, message: &str) {
        self.log.progress(self.step, message);
    }

    /// Who is told how a long call goes; with a snapshot, its blocks are noted as they arrive.
    #[must_use]
    pub const fn watch<'s>(&'s self, snapshot: Option<&'s str>) -> Watching<'s> {
        Watching { log: self.log, step: self.step, snapshot }
    }

    /// The blocks of a snapshot that the journals say have arrived. A part that cannot be read is sent again.
    #[must_use]
    pub fn stored(&self, snapshot: &str) -> BlockSet {
        let parts = self.log.parts(snapshot);
        parts
            .iter()
            .filter_map(|part| part.parse::<BlockSet>().ok())
            .flat_map(|set| set.iter().collect::<Vec<_>>())
            .collect()
    }

    /// Waits on the providers' clock.
    ///
    /// # Errors
    /// When the step has waited longer than its timeout.
    pub async fn sleep(&self, duration: Duration) -> Result<(), ProviderError> {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let waited = self.waited_ms.fetch_add(millis, Ordering::Relaxed).saturating_add(millis);
        if Duration::from_millis(waited) > self.timeout {
            return Err(timed_out(self.step, self.timeout));
        }
        self.providers.clock.sleep(duration).await;
        Ok(())
    }

    /// The idempotency token of a call. It does not depend on the plan: an edited comment must not make a
    /// second volume. `fixed` are the parameters that make it another thing when they differ.
    #[must_use]
    pub fn token(&self, call: &str, fixed: &impl Serialize, generation: u32) -> String {
        let Target { account, region, fleet, profile: _ } = self.target();
        let fixed = serde_json::to_vec(fixed).expect("request parameters have a JSON form");
        let recipe = serde_json::json!([
            TOKEN_VERSION,
            account,
            region,
            fleet,
            self.step.as_str(),
            call,
            sha256_hex(&fixed),
            generation,
        ]);
        sha256_hex(recipe.to_string().as_bytes())
    }

    /// Makes one call under its token: intent first, durable; then the call; then its result.
    ///
    /// # Errors
    /// What the call or the journal returned.
    pub async fn effect<T, F>(
        &self,
        call: &'static str,
        fixed: &(impl Serialize + Sync),
        send: impl FnOnce(String) -> F + Send,
    ) -> Result<T, ProviderError>
    where
        T: Serialize + Send,
        F: Future<Output = Result<T, ProviderError>> + Send,
    {
        self.effect_at(call, fixed, 0, send).await
    }

    async fn effect_at<T, F>(
        &self,
        call: &'static str,
        fixed: &(impl Serialize + Sync),
        generation: u32,
        send: impl FnOnce(String) -> F + Send,
    ) -> Result<T, ProviderError>
    where
        T: Serialize + Send,
        F: Future<Output = Result<T, ProviderError>> + Send,
    {
        let effect = Effect { call, token: self.token(call, fixed, generation), generation };
        self.log.intent(self.step, &effect).await?;
        let result = send(effect.token.clone()).await?;
        let shown = serde_json::to_string(&result).unwrap_or_default();
        self.log.done(self.step, &effect, &shown).await?;
        Ok(result)
    }

    /// Creates something under a token. A provider answers a known token with the thing it made then; when
    /// that one is gone by now, the next generation makes a new one.
    ///
    /// # Errors
    /// What the calls returned; too many dead generations.
    pub async fn create<F, G>(
        &self,
        call: &'static str,
        fixed: &(impl Serialize + Sync),
        send: impl Fn(String) -> F + Send + Sync,
        alive: impl Fn(String) -> G + Send + Sync,
    ) -> Result<String, ProviderError>
    where
        F: Future<Output = Result<String, ProviderError>> + Send,
        G: Future<Output = Result<bool, ProviderError>> + Send,
    {
        for generation in 0..MAX_GENERATIONS {
            let id = self.effect_at(call, fixed, generation, &send).await?;
            if alive(id.clone()).await? {
                return Ok(id);
            }
        }
        Err(ProviderError::permanent(
            call,
            format!("what {MAX_GENERATIONS} calls in a row made for {} is gone or failed", self.step),
        )
        .help("something deletes what this step creates; find it before running again"))
    }
}

/// A step that ran out of its time.
#[must_use]
pub fn timed_out(step: &Address, timeout: Duration) -> ProviderError {
    let limit = crate::units::Seconds(timeout.as_secs());
    ProviderError::new(ErrorKind::TimedOut, step.as_str(), format!("not done within its timeout of {limit}"))
        .help("run again: it goes on from what is there; a longer `timeout` on the step gives it more time")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::providers::model::{ModelError, StackModel};
    use crate::providers::sim::{self, Settings};
    use crate::value::Map;

    struct NoModel;

    impl StackModel for NoModel {
        fn resources(&self, _: &std::path::Path, _: &str, _: &Map) -> Result<Map, ModelError> {
            Ok(Map::new())
        }

        fn outputs(&self, _: &std::path::Path, _: &str, _: &Map, _: &Map) -> Result<Map, ModelError> {
            Ok(Map::new())
        }
    }

    struct NoLog;

    #[async_trait]
    impl EffectLog for NoLog {
        async fn intent(&self, _: &Address, _: &Effect) -> Result<(), ProviderError> {
            Ok(())
        }

        async fn done(&self, _: &Address, _: &Effect, _: &str) -> Result<(), ProviderError> {
            Ok(())
        }

        fn part(&self, _: &Address, _: &str, _: &str) {}

        fn parts(&self, _: &str) -> Vec<String> {
            Vec::new()
        }

        fn progress(&self, _: &Address, _: &str) {}
    }

    fn target(fleet: &str, profile: &str) -> Target {
        Target { profile: profile.into(), fleet: fleet.into(), account: "1".into(), region: "r".into() }
    }

    fn token(target: &Target, step: &str, call: &str, fixed: &str, generation: u32) -> String {
        let dir = tempfile::tempdir().unwrap();
        let world = dir.path().join("w");
        let providers =
            sim::providers(dir.path().into(), world, "r".into(), Arc::new(NoModel), Settings::default())
                .unwrap();
        let step: Address = step.parse().unwrap();
        let header = Header {
            script: String::new(),
            target: target.clone(),
            inputs: crate::plan::Digest::of_bytes(b""),
            params: Map::new(),
            outputs: Map::new(),
            secrets: std::collections::BTreeMap::new(),
            budget: crate::plan::Budget::default(),
            profile_budget: None,
            warnings: Vec::new(),
        };
        ApplyContext::new(&providers, &header, &step, &NoLog, Duration::from_secs(1))
            .token(call, &fixed, generation)
    }

    #[test]
    fn a_token_names_the_thing_and_nothing_else() {
        let base = token(&target("f", "p"), "a.x", "CreateVolume", "40", 0);
        assert_eq!(base, token(&target("f", "other profile"), "a.x", "CreateVolume", "40", 0));
        assert_eq!(base.len(), 64, "EC2 takes at most 64 characters");
        for other in [
            token(&target("g", "p"), "a.x", "CreateVolume", "40", 0),
            token(&target("f", "p"), "a.y", "CreateVolume", "40", 0),
            token(&target("f", "p"), "a.x", "CopyImage", "40", 0),
            token(&target("f", "p"), "a.x", "CreateVolume", "41", 0),
            token(&target("f", "p"), "a.x", "CreateVolume", "40", 1),
        ] {
            assert_ne!(base, other);
        }
    }
}
