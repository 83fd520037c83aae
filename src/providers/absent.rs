//! Ports for which a profile has no adapter: every call says so. Nothing is ever taken for absent in the world because the
//! adapter is.

use async_trait::async_trait;

use super::error::ProviderError;
use super::ports::{
    Answer, Hosts, HostsRead, MemoryConfig, MemoryStatus, MountReport, MountRequest, Purpose, StackError,
    StackPlan, StackRequest, Tofu, TofuRead, Watch,
};
use crate::value::Map;

/// No adapter.
pub struct Absent;

fn absent(operation: &str) -> ProviderError {
    ProviderError::permanent(operation, "this clawd has no adapter for it outside the simulator yet")
        .help("rehearse the plan with `--profile sim`, or leave the step out")
}

#[async_trait]
impl TofuRead for Absent {
    async fn plan(&self, _: &StackRequest, _: Purpose) -> Result<StackPlan, StackError> {
        Err(StackError::Provider(absent("tofu plan")))
    }
}

#[async_trait]
impl Tofu for Absent {
    async fn apply(&self, _: &StackRequest, _: &StackPlan, _: &dyn Watch) -> Answer<Map> {
        Err(absent("tofu apply"))
    }
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

    async fn keep_memory(&self, _: &str, _: &str, _: &MemoryConfig) -> Answer<MemoryStatus> {
        Err(absent("host memory"))
    }
}
