//! The manifest of an upload: which snapshot holds which blocks. The next upload of a similar image compares itself with
//! it and sends only what differs.
//!
//! The form is a line of JSON, then 32 bytes per block (zeroes for a block of zeroes), then the sha256 of all before it.
//! A manifest is an accelerator: one that is missing, damaged or of another version means a full upload.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::blocks::{BLOCK_SIZE, BlockHash, BlockMap};
use crate::units::Bytes;

/// The version of the form.
const VERSION: u32 = 1;

/// How a block of zeroes is written; no data is known to have this sha256.
const ZERO: BlockHash = [0; 32];

/// The blocks of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The snapshot.
    pub snapshot_id: String,
    /// The sha256 of the image it holds, hex.
    pub sha256: String,
    /// The image's blocks.
    pub blocks: BlockMap,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    clawd_manifest: u32,
    snapshot_id: String,
    sha256: String,
    size: u64,
    block_size: usize,
}

/// Why bytes are not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Cut off or changed.
    #[error("the manifest is damaged: {0}")]
    Damaged(&'static str),
    /// Written by another clawd.
    #[error("the manifest has version {0}, this clawd reads version {VERSION}")]
    Version(u32),
}

impl Manifest {
    /// The manifest as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let header = Header {
            clawd_manifest: VERSION,
            snapshot_id: self.snapshot_id.clone(),
            sha256: self.sha256.clone(),
            size: self.blocks.size.0,
            block_size: BLOCK_SIZE,
        };
        let mut bytes = serde_json::to_vec(&header).expect("text and numbers have a JSON form");
        bytes.push(b'\n');
        for hash in &self.blocks.hashes {
            bytes.extend_from_slice(hash.as_ref().unwrap_or(&ZERO));
        }
        let sum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }

    /// Reads bytes back.
    ///
    /// # Errors
    /// When they are damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let (body, sum) = bytes.split_last_chunk::<32>().ok_or(ManifestError::Damaged("it is too short"))?;
        let end =
            body.iter().position(|byte| *byte == b'\n').ok_or(ManifestError::Damaged("it has no header"))?;
        let json: serde_json::Value = serde_json::from_slice(&body[..end])
            .map_err(|_| ManifestError::Damaged("its header is not JSON"))?;
        match json.get("clawd_manifest").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            other => {
                return Err(ManifestError::Version(other.and_then(|it| u32::try_from(it).ok()).unwrap_or(0)));
            }
        }
        if Sha256::digest(body)[..] != sum[..] {
            return Err(ManifestError::Damaged("its checksum does not match"));
        }
        let header: Header =
            serde_json::from_value(json).map_err(|_| ManifestError::Damaged("its header lacks something"))?;
        let (hashes, rest) = body[end + 1..].as_chunks::<32>();
        let size = Bytes(header.size);
        if !rest.is_empty()
            || hashes.len() as u64 != BlockMap::count_for(size)
            || header.block_size != BLOCK_SIZE
        {
            return Err(ManifestError::Damaged("its length does not match the image's size"));
        }
        let hashes = hashes.iter().map(|hash| (*hash != ZERO).then_some(*hash)).collect();
        Ok(Self { snapshot_id: header.snapshot_id, sha256: header.sha256, blocks: BlockMap { size, hashes } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let hashes = vec![Some([1; 32]), None, Some([3; 32])];
        let blocks = BlockMap { size: Bytes(2 * BLOCK_SIZE as u64 + 5), hashes };
        Manifest { snapshot_id: "snap-1".into(), sha256: "ab".into(), blocks }
    }

    #[test]
    fn manifests_read_back_and_any_damage_is_noticed() {
        let bytes = manifest().encode();
        assert_eq!(Manifest::decode(&bytes), Ok(manifest()));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Manifest::decode(&damaged).is_err(), "a changed byte {at}");
            assert!(Manifest::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn another_version_is_told_apart_from_damage() {
        let newer = String::from_utf8_lossy(&manifest().encode())
            .replace("\"clawd_manifest\":1", "\"clawd_manifest\":2");
        assert_eq!(Manifest::decode(newer.as_bytes()), Err(ManifestError::Version(2)));
    }
}
