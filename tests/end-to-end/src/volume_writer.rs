//! An application in small: a thread that writes random blocks through NBD, flushes now and then, and
//! remembers everything ([`History`]), so that afterwards a raw volume can be judged: is what was
//! flushed there, and is the volume as it was at one instant?
//!
//! One connection, one command at a time, so the order of the writes is known. When the server goes
//! away it connects again until it is told to stop; a write that was not answered may or may not
//! have happened, and the history knows that.

mod history;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use nbd::{Client, ConnectOptions, ZeroFlags};

use crate::Random;

pub use history::{History, Verdict};

/// How long to wait before connecting again.
const AGAIN: Duration = Duration::from_millis(20);
/// A command that takes longer ends the connection: a server that hangs must not hang the writer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to write where.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// The server's Unix socket.
    pub socket: PathBuf,
    /// The export; empty for the default one.
    pub export: String,
    /// Unit of writing in bytes, a power of two from 512; writes are of 1 to 8 of them.
    pub block_bytes: u64,
    /// Only the first so many bytes are written.
    pub span_bytes: u64,
    /// Pause between two writes.
    pub pause: Duration,
    /// A flush after about so many writes.
    pub flush_every: u64,
    /// Seed of places and contents.
    pub seed: u64,
}

impl WriterOptions {
    /// Blocks of 4 KiB over all of the default export, without a pause, a flush every 20 writes.
    pub fn new(socket: impl Into<PathBuf>) -> WriterOptions {
        WriterOptions {
            socket: socket.into(),
            export: String::new(),
            block_bytes: 4096,
            span_bytes: u64::MAX,
            pause: Duration::ZERO,
            flush_every: 20,
            seed: 1,
        }
    }
}

struct Shared {
    stop: AtomicBool,
    history: Mutex<History>,
    connections: AtomicU64,
    last_error: Mutex<Option<String>>,
}

/// A running writer. Dropping it stops it.
pub struct VolumeWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl VolumeWriter {
    /// Starts the thread; it connects as soon as the server is there.
    pub fn start(options: WriterOptions) -> VolumeWriter {
        VolumeWriter::resume(options, History::default())
    }

    /// Starts the thread with what an earlier one remembered of the same export.
    pub fn resume(options: WriterOptions, history: History) -> VolumeWriter {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            history: Mutex::new(history),
            connections: AtomicU64::new(0),
            last_error: Mutex::new(None),
        });
        let own = shared.clone();
        let thread = std::thread::spawn(move || run(&options, &own));
        VolumeWriter { shared, thread: Some(thread) }
    }

    /// Writes that were answered so far.
    pub fn writes(&self) -> u64 {
        self.shared.history().answered()
    }

    /// Connections made so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The last thing that went wrong, in words.
    pub fn last_error(&self) -> Option<String> {
        self.shared.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `count` more writes were answered.
    ///
    /// # Panics
    /// When that takes longer than `timeout`.
    pub fn wait_for_writes(&self, count: u64, timeout: Duration) {
        let goal = self.writes() + count;
        let what = format!("{count} writes (last error: {:?})", self.last_error());
        crate::wait_for(&what, timeout, || (self.writes() >= goal).then_some(()));
    }

    /// What is remembered so far.
    pub fn history(&self) -> History {
        self.shared.history().clone()
    }

    /// Ends the thread after the command under way and a last flush, if the server answers it, and
    /// returns what it remembers.
    pub fn stop(mut self) -> History {
        self.end();
        self.history()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                assert!(ended.is_ok(), "the writer's thread has panicked");
            }
        }
    }
}

impl Drop for VolumeWriter {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

fn run(options: &WriterOptions, shared: &Shared) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|e| panic!("volume writer: {e}"));
    let mut random = Random::new(options.seed);
    tokio::task::LocalSet::new().block_on(&runtime, async {
        while !shared.stopping() {
            if let Err(error) = connection(options, shared, &mut random).await {
                shared.failed(error);
                tokio::time::sleep(AGAIN).await;
            }
        }
    });
}

/// Writes until told to stop or something fails.
async fn connection(
    options: &WriterOptions,
    shared: &Shared,
    random: &mut Random,
) -> Result<(), String> {
    let connect = ConnectOptions { export: options.export.clone(), ..ConnectOptions::default() };
    let client = patient(Client::connect_unix(&options.socket, &connect)).await?;
    shared.connections.fetch_add(1, Ordering::SeqCst);
    let blocks = client.size_bytes().min(options.span_bytes) / options.block_bytes;
    if blocks == 0 {
        return Err("the export is smaller than a block".into());
    }
    shared.history().begin(options.block_bytes);
    while !shared.stopping() {
        if random.below(options.flush_every.max(1)) == 0 {
            flush(&client, shared).await?;
        }
        write(&client, options, shared, random, blocks).await?;
        if !options.pause.is_zero() {
            tokio::time::sleep(options.pause).await;
        }
    }
    flush(&client, shared).await
}

async fn flush(client: &Client, shared: &Shared) -> Result<(), String> {
    let covers = shared.history().newest();
    patient(client.flush()).await?;
    shared.history().flushed(covers);
    Ok(())
}

async fn write(
    client: &Client,
    options: &WriterOptions,
    shared: &Shared,
    random: &mut Random,
    blocks: u64,
) -> Result<(), String> {
    let first = random.below(blocks);
    let count = (1 + random.below(8)).min(blocks - first);
    let (offset, len) = (first * options.block_bytes, count * options.block_bytes);
    if shared.history().lacks(first, count) {
        let before = patient(client.read(offset, len as u32)).await?;
        shared.history().initial(first, &before);
    }
    let kind = random.below(16);
    let mut data = vec![0; len as usize];
    if kind > 0 {
        random.fill(&mut data);
    }
    let number = shared.history().sent(first, &data);
    match kind {
        0 => patient(client.zero(offset, len, ZeroFlags::default())).await?,
        1 => patient(client.write(offset, Bytes::from(data), true)).await?,
        _ => patient(client.write(offset, Bytes::from(data), false)).await?,
    }
    shared.history().answer(number, kind == 1);
    Ok(())
}

async fn patient<T>(work: impl Future<Output = Result<T, nbd::Error>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    }
}
