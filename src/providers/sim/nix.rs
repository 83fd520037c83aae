//! Simulated nix: a store path is a hash of the flake reference and of the flake's files, so a changed
//! `flake.nix` makes another image, as it does in nix.

use std::fs;
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;

use super::Sim;
use super::tables::Record;
use crate::digest::sha256_hex;
use crate::image::info::architecture;
use crate::providers::error::ProviderError;
use crate::providers::ports::{
    Answer, BuiltImage, Clock as _, Derivation, ImageSource, Nix, NixRead, Watch, Work,
};
use crate::units::{Bytes, Seconds};

/// How long a build takes.
const BUILD: Seconds = Seconds(120);

/// The size of every simulated image.
const SIZE: Bytes = Bytes(3 << 30);

/// The files of a flake that make another image when they change.
const FLAKE_FILES: [&str; 2] = ["flake.nix", "flake.lock"];

/// The format a built image has: the one that the attribute's name speaks of, so that each can be rehearsed. The
/// hash in a store path has hex digits only, which none of the words is made of.
fn format_of(store_path: &str) -> &'static str {
    let spoken_of = |format: &&'static str| store_path.contains(*format);
    ["qcow2", "vhd", "vmdk"].into_iter().find(spoken_of).unwrap_or("raw")
}

/// The name in a derivation's path, without hash and ending.
fn name(drv_path: &str) -> &str {
    let file = drv_path.rsplit('/').next().unwrap_or(drv_path).trim_end_matches(".drv");
    file.split_once('-').map_or(file, |(_, name)| name)
}

impl Sim {
    /// The content of a flake's files, read once per look at the world.
    fn flake_files(&self, dir: &str) -> Arc<[u8]> {
        let mut known = self.flakes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(content) = known.get(dir) {
            return Arc::clone(content);
        }
        // A flake elsewhere, by URL, has no files here; its reference alone is its identity.
        let read = |name: &&str| fs::read(self.root.join(dir).join(name)).unwrap_or_default();
        let content: Arc<[u8]> = FLAKE_FILES.iter().flat_map(read).collect();
        known.insert(dir.to_owned(), Arc::clone(&content));
        content
    }
}

#[async_trait]
impl NixRead for Sim {
    async fn derivation(&self, source: &ImageSource<'_>) -> Answer<Derivation> {
        self.faults.read("nix eval")?;
        let (dir, attribute) = source.flake.split_once('#').unwrap_or((source.flake, ""));
        if attribute.is_empty() {
            return Err(ProviderError::permanent(
                "nix eval",
                format!("`{}` names no attribute", source.flake),
            )
            .help("name the image's attribute, like `.#clawdinator-image`"));
        }
        let architecture = architecture(source.system).ok_or_else(|| {
            ProviderError::permanent(
                "nix eval",
                format!("`{}` is not a system images are built for", source.system),
            )
            .help("x86_64-linux and aarch64-linux are")
        })?;
        let mut identity = serde_json::to_vec(source)
            .map_err(|error| ProviderError::permanent("nix eval", error.to_string()))?;
        identity.extend_from_slice(&self.flake_files(dir));
        let hash = sha256_hex(&identity);
        Ok(Derivation {
            drv_path: format!("/nix/store/{}-{attribute}.drv", &hash[32..]),
            store_path: format!("/nix/store/{}-{attribute}", &hash[..32]),
            architecture: architecture.to_owned(),
            revision: None,
            dirty: false,
            features: Vec::new(),
        })
    }

    async fn built(&self, derivation: &Derivation) -> Answer<Option<BuiltImage>> {
        Ok(self.world.read(|tables| match tables.get("store", &derivation.store_path) {
            Some(Record::Store { row, .. }) => Some(row.clone()),
            _ => None,
        }))
    }

    async fn work(&self, _: &Derivation) -> Answer<Work> {
        Ok(Work { build: 1, fetch: 0, hindrance: None })
    }
}

#[async_trait]
impl Nix for Sim {
    async fn realise(&self, derivation: &Derivation, watch: &dyn Watch) -> Answer<BuiltImage> {
        if let Some(built) = self.built(derivation).await? {
            return Ok(built);
        }
        watch.progress(&format!("building {}", name(&derivation.drv_path)));
        self.sleep(BUILD.duration()).await;
        let format = format_of(&derivation.store_path);
        let ending = if format == "raw" { "img" } else { format };
        let built = BuiltImage {
            path: format!("{}/nixos.{ending}", derivation.store_path),
            size: SIZE,
            sha256: sha256_hex(derivation.store_path.as_bytes()),
            format: format.to_owned(),
            architecture: Some(derivation.architecture.clone()),
            boot_mode: None,
        };
        self.faults.write("nix build", || {
            self.world.commit(Sim::now(self), |draft| {
                draft.put(Record::Store { path: derivation.store_path.clone(), row: built.clone() });
                Ok(built)
            })
        })
    }
}
