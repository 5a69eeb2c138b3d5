//! The NBD server against a client's bytes, over a socket pair, with a volume in memory behind it.
//!
//! The first byte says how the stream begins: raw, or after a handshake that went well (structured
//! replies or extended headers), so that the rest are requests. The connection must end once the client has
//! said everything.

use std::rc::Rc;

use nbd::{
    BASE_ALLOCATION, BlockSizes, Description, Export, Features, Limits, MemoryExport, Server,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::{Allocation, Target, stage};

/// This target.
pub const TARGET: Target = Target {
    name: "nbd_server",
    run,
    seeds,
    // The socket's buffers of our own (one option of 64 KiB, 1 MiB of replies, 1 MiB of commands in
    // flight), and the volume of 1 MiB that writes fill.
    allocation: Allocation { constant_bytes: 6 << 20, per_byte: 64 },
};

const GREETING: &[u8] = &[0, 0, 0, 3];

fn run(data: &[u8]) {
    let (mode, rest) = data.split_first().unwrap_or((&0, &[]));
    let head = match mode % 3 {
        0 => Vec::new(),
        1 => [GREETING, &option(8, &[]), &go()].concat(),
        _ => [GREETING, &option(11, &[]), &go()].concat(),
    };
    stage::run(serve([&head, rest].concat()));
}

async fn serve(bytes: Vec<u8>) {
    let description = Description {
        size_bytes: 1 << 20,
        text: "fuzz".into(),
        read_only: false,
        blocks: BlockSizes { minimum: 1, preferred: 4096, max_payload: 64 << 10 },
        features: Features::ALL,
        contexts: vec![BASE_ALLOCATION.into(), "test:dirty".into()],
    };
    let export: Rc<dyn Export> = Rc::new(MemoryExport::with_description(description));
    let limits = Limits { command_bytes: 1 << 20, ..Limits::default() };
    let server = Server::new(vec![("first".into(), export)], limits, None).expect("a fine export");
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let (mut replies, mut requests) = ours.into_split();
    let send = async move {
        // The server may hang up before it has read everything.
        drop(requests.write_all(&bytes).await);
        drop(requests);
    };
    let drain = async move {
        let mut scratch = vec![0; 64 << 10];
        while replies.read(&mut scratch).await.is_ok_and(|len| len > 0) {}
    };
    tokio::join!(server.serve_connected(theirs), send, drain);
    assert!(server.connections().is_empty(), "a connection outlived its client");
}

fn option(code: u32, data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u32).to_be_bytes();
    [&b"IHAVEOPT"[..], &code.to_be_bytes(), &len, data].concat()
}

fn go() -> Vec<u8> {
    option(7, &[&5u32.to_be_bytes()[..], b"first", &[0, 0]].concat())
}

fn request(flags: u16, command: u16, offset: u64, len: u32, data: &[u8]) -> Vec<u8> {
    let head = [&0x2560_9513_u32.to_be_bytes()[..], &flags.to_be_bytes(), &command.to_be_bytes()];
    let tail = [&7u64.to_be_bytes()[..], &offset.to_be_bytes(), &len.to_be_bytes(), data];
    [head.concat(), tail.concat()].concat()
}

fn extended(flags: u16, command: u16, offset: u64, len: u64, data: &[u8]) -> Vec<u8> {
    let head = [&0x21e4_1c71_u32.to_be_bytes()[..], &flags.to_be_bytes(), &command.to_be_bytes()];
    let tail = [&7u64.to_be_bytes()[..], &offset.to_be_bytes(), &len.to_be_bytes(), data];
    [head.concat(), tail.concat()].concat()
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let context = [&5u32.to_be_bytes()[..], b"first", &1u32.to_be_bytes(), &15u32.to_be_bytes()];
    let context = [&context.concat()[..], b"base:allocation"].concat();
    let with = |mode: u8, parts: &[Vec<u8>]| [vec![mode], parts.concat()].concat();
    let requests = [
        request(1, 1, 4096, 512, &[0x5a; 512]),
        request(0, 0, 4000, 1024, &[]),
        request(0, 3, 0, 0, &[]),
        request(0, 4, 0, 8192, &[]),
        request(2, 6, 0, 65536, &[]),
        request(0, 5, 0, 4096, &[]),
        request(8, 7, 0, 1 << 20, &[]),
        request(0, 2, 0, 0, &[]),
    ];
    let modern = [
        extended(1 << 5, 1, 4096, 512, &[0x5a; 512]),
        extended(0, 0, 4000, 1024, &[]),
        extended(0, 6, 0, 1 << 20, &[]),
        extended(0, 3, 0, 0, &[]),
        extended(0, 2, 0, 0, &[]),
    ];
    let greeted = [GREETING.to_vec(), option(3, &[]), option(8, &[]), option(10, &context), go()];
    let asked = [GREETING.to_vec(), option(6, &go()[16..]), option(9, &context), option(2, &[])];
    let by_name = [GREETING.to_vec(), option(1, b"first"), request(0, 0, 0, 512, &[])];
    let status = [greeted.concat(), request(0, 7, 0, 1 << 20, &[])];
    vec![
        ("requests".into(), with(1, &requests)),
        ("extended".into(), with(2, &modern)),
        ("contexts".into(), with(0, &status)),
        ("options".into(), with(0, &asked)),
        ("export-name".into(), with(0, &by_name)),
        ("far-read".into(), with(1, &[request(0, 0, u64::MAX, u32::MAX, &[])])),
        ("long-write".into(), with(1, &[request(0, 1, 0, u32::MAX, &[1; 100])])),
        ("long-option".into(), with(0, &[GREETING.to_vec(), option(3, &[0; 70_000])])),
    ]
}
