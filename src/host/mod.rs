//! L4: what runs on a host itself, called by agents and by systemd: the directory of the shared memory.
//!
//! Reads and writes files of this machine and nothing else; it knows no plan and no script. Failure modes: a directory that is
//! not mounted, a version that somebody else wrote first, names that would leave the directory, disks that are full.

#![allow(clippy::disallowed_methods)] // this is where it is done

pub mod memory;
