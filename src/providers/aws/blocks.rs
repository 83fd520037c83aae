//! Blocks into a snapshot: one thread reads the file in order into buffers that are used again, many puts are on their way
//! at once.
//!
//! The bytes are copied once, from the file into a buffer that the HTTP client sends from. Hashes come with the upload. Memory
//! is bounded by the puts on their way, whatever the image's size. Each block is tried again by itself; a failure that lasts
//! ends the whole.

use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use aws_sdk_ebs::Client;
use aws_sdk_ebs::primitives::ByteStream;
use aws_sdk_ebs::types::ChecksumAlgorithm;
use aws_smithy_types::base64;
use bytes::Bytes as Buffer;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::Session;
use super::rate::Rate;
use crate::image::blocks::zero_hash;
use crate::image::{BLOCK_SIZE, BlockSet};
use crate::providers::error::{ErrorKind, ProviderError};
use crate::providers::ports::{Answer, BlockUpload, Watch};
use crate::providers::process::disk::read_block;
use crate::units::Bytes;

const OPERATION: &str = "ebs PutSnapshotBlock";

/// Puts on their way at once.
const AT_ONCE: usize = 48;

/// Blocks that are read ahead.
const AHEAD: usize = 8;

/// Tries of one block.
const TRIES: u32 = 8;

/// Per cent after which people are told.
const TOLD: u64 = 10;

/// Blocks after which the journal is told.
const NOTED: usize = 64;

/// Puts of an upload.
pub(crate) struct Puts<'a> {
    pub(crate) session: &'a Session,
    pub(crate) client: Client,
    pub(crate) rate: &'a Rate,
}

/// A buffer that goes back to the reader once it was sent.
struct Lent {
    bytes: Vec<u8>,
    home: std_mpsc::Sender<Vec<u8>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // The reader has gone when all is read.
        let _ = self.home.send(std::mem::take(&mut self.bytes));
    }
}

/// Reads blocks in order on a thread of its own. The thread ends with the last block, or when nobody takes any more.
fn read_ahead(path: PathBuf, size: Bytes, send: BlockSet) -> mpsc::Receiver<Answer<(u32, Buffer)>> {
    let (blocks, taken) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let (home, returned) = std_mpsc::channel::<Vec<u8>>();
        let failed = |error: std::io::Error| {
            ProviderError::permanent("image file", format!("cannot read {}: {error}", path.display()))
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) => {
                let _ = blocks.blocking_send(Err(failed(error)));
                return;
            }
        };
        for at in send.iter() {
            let mut bytes = returned.try_recv().unwrap_or_else(|_| vec![0; BLOCK_SIZE]);
            let read = read_block(&file, at as usize, size, &mut bytes).map(|length| {
                bytes[length..].fill(0);
                (at, Buffer::from_owner(Lent { bytes, home: home.clone() }))
            });
            if blocks.blocking_send(read.map_err(failed)).is_err() {
                return;
            }
        }
    });
    taken
}

impl Puts<'_> {
    /// Puts the blocks of an upload.
    pub(crate) async fn run(&self, upload: &BlockUpload, watch: &dyn Watch) -> Answer<()> {
        let total = upload.send.len();
        let zero = zero_hash();
        let mut blocks =
            read_ahead(PathBuf::from(&upload.image.path), upload.image.size, upload.send.clone());
        let mut puts = FuturesUnordered::new();
        let (mut reading, mut arrived, mut done, mut told) = (true, Vec::new(), 0_u64, 0);
        let outcome = loop {
            tokio::select! {
                Some(put) = puts.next(), if !puts.is_empty() => {
                    match put {
                        Ok(at) => arrived.push(at),
                        Err(error) => break Err(error),
                    }
                    done += 1;
                    if arrived.len() == NOTED {
                        watch.stored(&arrived.drain(..).collect());
                    }
                    let percent = done * 100 / total.max(1);
                    if percent >= told + TOLD || done == total {
                        told = percent;
                        let bytes = Bytes(done * BLOCK_SIZE as u64);
                        watch.progress(&format!("{percent} %: {done} of {total} blocks, {bytes}"));
                    }
                }
                block = blocks.recv(), if reading && puts.len() < AT_ONCE => match block {
                    Some(Ok((at, bytes))) => {
                        let hash = upload.map.hashes.get(at as usize).and_then(Option::as_ref).unwrap_or(&zero);
                        puts.push(self.put(&upload.snapshot, at, bytes, base64::encode(hash)));
                    }
                    Some(Err(error)) => break Err(error),
                    None => reading = false,
                },
                else => break Ok(()),
            }
        };
        if !arrived.is_empty() {
            watch.stored(&arrived.into_iter().collect());
        }
        outcome
    }

    /// Puts one block, again when it may help. A block that is there is put again without harm.
    async fn put(&self, snapshot: &str, at: u32, bytes: Buffer, checksum: String) -> Answer<u32> {
        let index = i32::try_from(at).map_err(|_| {
            ProviderError::permanent(OPERATION, format!("block {at} is beyond what EBS numbers"))
        })?;
        let mut tried = 1;
        loop {
            self.rate.turn().await;
            let sent = self
                .client
                .put_snapshot_block()
                .snapshot_id(snapshot)
                .block_index(index)
                .data_length(i32::try_from(BLOCK_SIZE).unwrap_or(i32::MAX))
                .checksum(&checksum)
                .checksum_algorithm(ChecksumAlgorithm::ChecksumAlgorithmSha256)
                .block_data(ByteStream::from(bytes.clone()))
                .send()
                .await;
            let Err(error) = sent else { return Ok(at) };
            let error = self.session.failed(OPERATION, error);
            let error =
                ProviderError { message: format!("block {at} of {snapshot}: {}", error.message), ..error };
            // Expired credentials are not this client's to renew: the next try of the step has others.
            if !error.kind.is_retryable() || tried == TRIES || error.message.contains("Expired") {
                return Err(error);
            }
            if error.kind == ErrorKind::Throttled {
                self.rate.slow_down();
            }
            let bound = Duration::from_millis(100).saturating_mul(1 << tried).min(Duration::from_secs(10));
            tokio::time::sleep(bound.mul_f64(fastrand::f64())).await;
            tried += 1;
        }
    }
}
