//! L1, pure: disk images as data: what format bytes are in, which blocks a snapshot needs, the manifest that is kept
//! of an upload, and what a NixOS image says of itself.
//!
//! Never reads a file: adapters read, this module says what was read. Failure modes: bytes of another format, a
//! manifest of another version or with a wrong checksum; both are told apart from "nothing there".

#![deny(clippy::disallowed_methods)]

pub mod blocks;
pub mod format;
pub mod info;
pub mod manifest;

pub use blocks::{BLOCK_SIZE, BlockHash, BlockMap, BlockSet};
pub use format::DiskFormat;
pub use manifest::Manifest;
