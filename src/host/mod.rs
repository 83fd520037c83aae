//! L4: what runs on a host itself, called by agents, by systemd and through the hosts port: its data volume, and the directory of the
//! shared memory.
//!
//! Reads and writes files and disks of this machine and nothing else; it knows no plan and no script. Failure modes: a directory that
//! is not mounted, a version that somebody else wrote first, names that would leave the directory, disks that are full, that hold
//! something or that cannot be read.

#![allow(clippy::disallowed_methods)] // this is where it is done

pub mod answers;
pub mod keep;
pub mod memory;
pub mod volume;
