//! Tests of the server over a pipe in memory, byte by byte as the specification has them.
//!
//! Here: the raw client that they share. The connection's future is awaited beside the test's own,
//! so that a panic in it fails the test.

mod commands;
mod hostile;
mod lifecycle;
mod options;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::protocol::{OPTION_REPLY_MAGIC, REQUEST_MAGIC, option, reply};
use crate::stream::Stream;
use crate::{
    BASE_ALLOCATION, BlockSizes, Command, Description, Export, Features, Limits, MemoryExport,
    Reply, Server,
};

/// No test of this file waits so long unless something hangs.
const HANG: Duration = Duration::from_secs(20);

/// Size of the exports in these tests, in bytes.
const SIZE: u64 = 1 << 20;

fn description() -> Description {
    Description {
        size_bytes: SIZE,
        text: "a test".into(),
        read_only: false,
        blocks: BlockSizes { minimum: 1, preferred: 4096, max_payload: 1 << 20 },
        features: Features::ALL,
        contexts: vec![BASE_ALLOCATION.into(), "test:dirty".into()],
    }
}

/// Keeps every command until the test answers it.
#[derive(Default)]
struct HeldExport {
    held: RefCell<VecDeque<(Command, Reply)>>,
}

impl HeldExport {
    fn take(&self) -> (Command, Reply) {
        self.held.borrow_mut().pop_front().expect("a command was submitted")
    }

    fn count(&self) -> usize {
        self.held.borrow().len()
    }
}

impl Export for HeldExport {
    fn describe(&self) -> Description {
        description()
    }

    fn submit(&self, command: Command, reply: Reply) {
        self.held.borrow_mut().push_back((command, reply));
    }
}

fn server_of(export: Rc<dyn Export>, limits: Limits) -> Server {
    let second: Rc<dyn Export> = Rc::new(MemoryExport::new(512));
    Server::new(vec![("first".into(), export), ("second".into(), second)], limits, None)
        .expect("fine exports")
}

/// Runs a test on a local task set and fails it when it hangs.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(HANG, test).await.expect("the test hangs")
    })
}

/// Runs `test` with a raw client connected to a server of `export`. Ends when both have ended.
fn with_server<F: Future<Output = ()>>(
    export: Rc<dyn Export>,
    limits: Limits,
    test: impl FnOnce(Raw, Server) -> F,
) {
    run(async {
        let server = server_of(export, limits);
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let served = server.serve(Stream::Pipe(theirs), None);
        tokio::join!(served, test(Raw { pipe: ours }, server.clone()));
    });
}

fn with_memory<F: Future<Output = ()>>(test: impl FnOnce(Raw) -> F) {
    let export = Rc::new(MemoryExport::with_description(description()));
    with_server(export, Limits::default(), |raw, _| test(raw));
}

/// Lets the other tasks run until they all wait.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// A client that sends and reads bytes.
struct Raw {
    pipe: DuplexStream,
}

impl Raw {
    async fn send(&mut self, bytes: &[u8]) {
        self.pipe.write_all(bytes).await.expect("the server reads");
    }

    async fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.pipe.read_exact(&mut bytes).await.expect("the server answers");
        bytes
    }

    /// The server has closed the connection without another byte.
    async fn closed(&mut self) {
        let mut rest = Vec::new();
        self.pipe.read_to_end(&mut rest).await.expect("an orderly end");
        assert_eq!(rest, b"", "bytes before the end");
    }

    async fn greet(&mut self, flags: u32) {
        assert_eq!(self.bytes(18).await, b"NBDMAGICIHAVEOPT\0\x03");
        self.send(&flags.to_be_bytes()).await;
    }

    async fn option(&mut self, code: u32, data: &[u8]) {
        let header = [&b"IHAVEOPT"[..], &code.to_be_bytes(), &(data.len() as u32).to_be_bytes()];
        self.send(&[&header.concat()[..], data].concat()).await;
    }

    /// The next option reply: its type and data.
    async fn reply(&mut self, code: u32) -> (u32, Vec<u8>) {
        let head = self.bytes(20).await;
        assert_eq!(head[..8], OPTION_REPLY_MAGIC.to_be_bytes());
        assert_eq!(head[8..12], code.to_be_bytes());
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("4 bytes"));
        (number(12), self.bytes(number(16) as usize).await)
    }

    /// Sends an option and collects its replies up to the last one.
    async fn ask(&mut self, code: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.option(code, data).await;
        let mut replies = Vec::new();
        loop {
            let (kind, data) = self.reply(code).await;
            replies.push((kind, data));
            if kind == reply::ACK || kind & reply::ERROR != 0 {
                return replies;
            }
        }
    }

    /// The type of the last reply to an option.
    async fn outcome(&mut self, code: u32, data: &[u8]) -> u32 {
        self.ask(code, data).await.last().expect("a reply").0
    }

    /// Into the transmission phase of the first export after these options.
    async fn go(&mut self, options: &[u32]) {
        self.greet(3).await;
        for code in options {
            assert_eq!(self.outcome(*code, &[]).await, reply::ACK);
        }
        assert_eq!(self.outcome(option::GO, &named("first", &[0, 0])).await, reply::ACK);
    }

    /// A compact request.
    async fn request(&mut self, flags: u16, command: u16, cookie: u64, offset: u64, len: u32) {
        self.send(&compact(flags, command, cookie, offset, len)).await;
    }

    /// A simple reply: its error and cookie.
    async fn simple(&mut self) -> (u32, u64) {
        let bytes = self.bytes(16).await;
        assert_eq!(bytes[..4], 0x6744_6698_u32.to_be_bytes());
        let error = u32::from_be_bytes(bytes[4..8].try_into().expect("4 bytes"));
        (error, u64::from_be_bytes(bytes[8..].try_into().expect("8 bytes")))
    }

    /// A structured chunk: flags, type, cookie, payload.
    async fn chunk(&mut self) -> (u16, u16, u64, Vec<u8>) {
        let head = self.bytes(20).await;
        assert_eq!(head[..4], 0x668e_33ef_u32.to_be_bytes());
        let number = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let cookie = u64::from_be_bytes(head[8..16].try_into().expect("8 bytes"));
        let len = u32::from_be_bytes(head[16..].try_into().expect("4 bytes"));
        (number(4), number(6), cookie, self.bytes(len as usize).await)
    }

    /// The error of a structured error chunk that ends a reply.
    async fn error_chunk(&mut self, cookie: u64) -> u32 {
        let (flags, kind, of, payload) = self.chunk().await;
        assert_eq!((flags, kind, of), (1, 0x8001, cookie));
        u32::from_be_bytes(payload[..4].try_into().expect("4 bytes"))
    }
}

/// A name with its length, and what follows it.
fn named(name: &str, rest: &[u8]) -> Vec<u8> {
    [&(name.len() as u32).to_be_bytes(), name.as_bytes(), rest].concat()
}

fn compact(flags: u16, command: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&command.to_be_bytes());
    bytes.extend_from_slice(&cookie.to_be_bytes());
    bytes.extend_from_slice(&offset.to_be_bytes());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes
}
