//! Blocks into a snapshot: threads read the file in order into buffers that are used again, many puts are on their way at
//! once.
//!
//! The bytes are copied once, from the file into a buffer that the HTTP client sends from, and hashed there unless their hashes
//! came with the upload. Memory
//! is bounded by the puts on their way, whatever the image's size. Each block is tried again by itself; a failure that lasts
//! ends the whole.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc as std_mpsc;
use std::thread;
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
use crate::image::blocks::{hash_block, zero_hash};
use crate::image::{BLOCK_SIZE, BlockHash, BlockMap};
use crate::providers::error::{ErrorKind, ProviderError};
use crate::providers::ports::{Answer, BlockUpload, Blocks, Watch};
use crate::providers::process::disk::read_block;
use crate::units::Bytes;

const OPERATION: &str = "ebs PutSnapshotBlock";

/// Puts on their way at once.
const AT_ONCE: usize = 48;

/// Blocks that are read ahead.
const AHEAD: usize = 8;

/// Threads that read and hash.
const MOST_THREADS: usize = 4;

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

/// A block that was read: what to send of it, with its hash, or nothing when it holds zeroes that need not be sent.
type Read = Answer<(u32, Option<(Buffer, BlockHash)>)>;

/// What a thread reads.
#[derive(Clone)]
struct Reading {
    file: Arc<File>,
    path: Arc<str>,
    size: Bytes,
    /// The blocks to read, in order; threads take one after the other.
    blocks: Arc<[u32]>,
    next: Arc<AtomicUsize>,
    /// Hashes that are known. Without them blocks are hashed here, and those of zeroes are left out.
    known: Option<Arc<BlockMap>>,
}

impl Reading {
    /// Reads until all is read, or nobody takes any more.
    fn run(&self, taker: &mpsc::Sender<Read>) {
        let (home, returned) = std_mpsc::channel::<Vec<u8>>();
        let zero = zero_hash();
        while let Some(at) = self.blocks.get(self.next.fetch_add(1, Ordering::Relaxed)).copied() {
            let mut bytes = returned.try_recv().unwrap_or_else(|_| vec![0; BLOCK_SIZE]);
            let read = read_block(&self.file, at as usize, self.size, &mut bytes).map(|length| {
                bytes[length..].fill(0);
                let hash = match &self.known {
                    Some(map) => Some(map.hashes.get(at as usize).copied().flatten().unwrap_or(zero)),
                    None => hash_block(&bytes),
                };
                match hash {
                    Some(hash) => (at, Some((Buffer::from_owner(Lent { bytes, home: home.clone() }), hash))),
                    None => {
                        // Nothing is sent: the buffer is at home at once.
                        let _ = home.send(bytes);
                        (at, None)
                    }
                }
            });
            let read = read.map_err(|error| {
                ProviderError::permanent("image file", format!("cannot read {}: {error}", self.path))
            });
            if taker.blocking_send(read).is_err() {
                return;
            }
        }
    }
}

/// Reads blocks ahead on threads of their own: one where it only reads, several where it hashes.
fn read_ahead(upload: &BlockUpload) -> Answer<(mpsc::Receiver<Read>, u64)> {
    let path = &upload.image.path;
    let file = File::open(path)
        .map_err(|error| ProviderError::permanent("image file", format!("cannot read {path}: {error}")))?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (blocks, known, threads): (Arc<[u32]>, _, _) = match &upload.blocks {
        Blocks::These { map, send } => (send.iter().collect(), Some(Arc::new(map.clone())), 1),
        Blocks::WithData => {
            let count = u32::try_from(BlockMap::count_for(upload.image.size)).unwrap_or(u32::MAX);
            ((0..count).collect(), None, cores.clamp(1, MOST_THREADS))
        }
    };
    let total = blocks.len() as u64;
    let reading = Reading {
        file: Arc::new(file),
        path: path.as_str().into(),
        size: upload.image.size,
        blocks,
        next: Arc::default(),
        known,
    };
    let (taker, taken) = mpsc::channel(AHEAD);
    for _ in 0..threads {
        let (reading, taker) = (reading.clone(), taker.clone());
        thread::spawn(move || reading.run(&taker));
    }
    Ok((taken, total))
}

/// How an upload goes, for people and for the journal.
struct Told<'a> {
    watch: &'a dyn Watch,
    arrived: Vec<u32>,
    done: u64,
    total: u64,
    percent: u64,
}

impl Told<'_> {
    fn arrived(&mut self, at: u32) {
        self.arrived.push(at);
        if self.arrived.len() == NOTED {
            self.note();
        }
        self.passed();
    }

    /// One more block is behind us, sent or not.
    fn passed(&mut self) {
        self.done += 1;
        let percent = self.done * 100 / self.total.max(1);
        if percent >= self.percent + TOLD || self.done == self.total {
            self.percent = percent;
            let (done, total, bytes) = (self.done, self.total, Bytes(self.done * BLOCK_SIZE as u64));
            self.watch.progress(&format!("{percent} %: {done} of {total} blocks, {bytes}"));
        }
    }

    fn note(&mut self) {
        if !self.arrived.is_empty() {
            self.watch.stored(&self.arrived.drain(..).collect());
        }
    }
}

impl Puts<'_> {
    /// Puts the blocks of an upload; returns the image's blocks.
    pub(crate) async fn run(&self, upload: &BlockUpload, watch: &dyn Watch) -> Answer<BlockMap> {
        let (mut blocks, total) = read_ahead(upload)?;
        let mut map = match &upload.blocks {
            Blocks::These { map, .. } => map.clone(),
            Blocks::WithData => {
                let count = usize::try_from(total).unwrap_or(usize::MAX);
                BlockMap { size: upload.image.size, hashes: vec![None; count] }
            }
        };
        let found = upload.blocks == Blocks::WithData;
        let mut told = Told { watch, arrived: Vec::new(), done: 0, total, percent: 0 };
        let mut puts = FuturesUnordered::new();
        let mut reading = true;
        let outcome = loop {
            tokio::select! {
                Some(put) = puts.next(), if !puts.is_empty() => match put {
                    Ok(at) => told.arrived(at),
                    Err(error) => break Err(error),
                },
                block = blocks.recv(), if reading && puts.len() < AT_ONCE => match block {
                    Some(Ok((at, Some((bytes, hash))))) => {
                        if found {
                            map.hashes[at as usize] = Some(hash);
                        }
                        puts.push(self.put(&upload.snapshot, at, bytes, base64::encode(hash)));
                    }
                    Some(Ok((_, None))) => told.passed(),
                    Some(Err(error)) => break Err(error),
                    None => reading = false,
                },
                else => break Ok(()),
            }
        };
        told.note();
        outcome.map(|()| map)
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
            let error = self.session.failed(OPERATION, &error);
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
