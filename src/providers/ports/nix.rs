//! Nix: evaluating an image's derivation, and building exactly that one.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Answer;
use super::upload::Watch;
use crate::units::Bytes;

/// What identifies an image to build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageSource<'a> {
    /// Flake reference with attribute, `.#clawdinator-image`.
    pub flake: &'a str,
    /// NixOS image variant, when the attribute is a host configuration.
    pub variant: Option<&'a str>,
    /// The nix system, `x86_64-linux`.
    pub system: &'a str,
}

/// What nix says of an image before it is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Derivation {
    /// The derivation's store path.
    pub drv_path: String,
    /// The output's store path: the identity of the image.
    pub store_path: String,
    /// CPU architecture in EC2's words, `x86_64` or `arm64`.
    pub architecture: String,
    /// The flake's revision; nothing for a tree with uncommitted changes, or one that is not in git.
    pub revision: Option<String>,
    /// Whether the tree has changes that are not committed.
    pub dirty: bool,
    /// Features a builder must offer, `kvm`.
    pub features: Vec<String>,
}

/// What building a derivation takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Derivations to build.
    pub build: u64,
    /// Store paths to fetch from substituters.
    pub fetch: u64,
    /// Why no builder can build it, where none can: the missing features or system, and what there is.
    pub hindrance: Option<String>,
}

/// A built image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltImage {
    /// The image file inside the store path.
    pub path: String,
    /// Its logical size.
    pub size: Bytes,
    /// Its sha256, lower-case hex.
    pub sha256: String,
    /// What its bytes are: `raw`, `vhd`, `vhdx`, `vmdk`, `qcow2`, or the name of a compression.
    pub format: String,
    /// The CPU it says it is for, where it says so.
    pub architecture: Option<String>,
    /// The firmware it says it boots with, where it says so.
    pub boot_mode: Option<String>,
}

/// Reading nix: evaluation and the store.
#[async_trait]
pub trait NixRead: Send + Sync {
    /// Evaluates the image's derivation without building it.
    async fn derivation(&self, source: &ImageSource<'_>) -> Answer<Derivation>;
    /// The built image, when the store holds it. An output that holds no image, or more than one, is an error.
    async fn built(&self, derivation: &Derivation) -> Answer<Option<BuiltImage>>;
    /// What building it takes. Asked only when the store does not hold it.
    async fn work(&self, derivation: &Derivation) -> Answer<Work>;
}

/// Building with nix.
#[async_trait]
pub trait Nix: NixRead {
    /// Builds exactly this derivation; building what is built is a success.
    async fn realise(&self, derivation: &Derivation, watch: &dyn Watch) -> Answer<BuiltImage>;
}
