//! L3: the primitives, one file each, and the registry. Adding one is a file and a line below; the Rhai
//! function, argument checks, plan lines, schema, reference page, retry, journal and the example's test
//! follow from it.
//!
//! Primitives name no Rhai and no AWS SDK type; they see the world through the ports of their context.

pub mod context;
pub mod partial;
pub mod primitive;
pub mod schema;

mod ami_identity;
mod build_image;
mod find_ami;
mod import_ami;
mod mount_decision;
mod mount_volume;
mod placement;
mod prune_amis;
mod release_volume;
mod snapshot;
mod stack_module;
mod sync_memory;
mod tofu_apply;
mod volume;

use std::sync::LazyLock;

use indexmap::IndexMap;

pub use context::{ApplyContext, EffectLog, ObserveContext, Scope};
pub use partial::Partial;
pub use primitive::{
    ErasedPrimitive, Inspection, Port, Primitive, ProjectFiles, Refusal, Registered, StepError,
};
pub use schema::Schema;

/// All primitives by name, in the order of the documentation.
#[derive(Debug)]
pub struct Registry(IndexMap<&'static str, Registered>);

static ALL: LazyLock<Registry> = LazyLock::new(|| {
    Registry(IndexMap::from_iter([
        Registered::entry(build_image::BuildImage),
        Registered::entry(import_ami::ImportAmi),
        Registered::entry(find_ami::FindAmi),
        Registered::entry(prune_amis::PruneAmis),
        Registered::entry(tofu_apply::TofuApply),
        Registered::entry(mount_volume::MountVolume),
        Registered::entry(release_volume::ReleaseVolume),
        Registered::entry(sync_memory::SyncMemory),
    ]))
});

impl Registry {
    /// Every primitive there is.
    #[must_use]
    pub fn all() -> &'static Self {
        &ALL
    }

    /// The primitive with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Registered> {
        self.0.get(name)
    }

    /// The primitives in order.
    pub fn iter(&self) -> impl Iterator<Item = &Registered> {
        self.0.values()
    }

    /// Their names in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }
}
