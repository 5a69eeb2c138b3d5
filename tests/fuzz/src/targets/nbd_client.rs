//! The NBD client against a server's bytes, over a socket pair.
//!
//! The first byte chooses what the client asks for, and whether the stream begins raw or after a handshake
//! that went well. What the client hands out must be as long as what was asked for.

use bytes::Bytes;
use nbd::{BASE_ALLOCATION, Client, ConnectOptions, ZeroFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::{Allocation, Target, stage};

/// This target.
pub const TARGET: Target = Target {
    name: "nbd_client",
    run,
    seeds,
    // Buffers of both ends and of a read of 4 KiB; the server's stream is bounded by what was asked for.
    allocation: Allocation { constant_bytes: 4 << 20, per_byte: 64 },
};

const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

fn run(data: &[u8]) {
    let (mode, rest) = data.split_first().unwrap_or((&0, &[]));
    let options = ConnectOptions {
        export: "first".into(),
        simple: mode % 3 == 0,
        extended: mode % 3 == 2,
        contexts: if mode & 8 != 0 { vec![BASE_ALLOCATION.into()] } else { Vec::new() },
        tls: None,
    };
    let head = if mode & 4 != 0 { handshake(&options) } else { Vec::new() };
    stage::run(ask([&head, rest].concat(), options));
}

async fn ask(bytes: Vec<u8>, options: ConnectOptions) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let (mut requests, mut replies) = ours.into_split();
    let send = async move {
        drop(replies.write_all(&bytes).await);
        drop(replies);
    };
    let drain = async move {
        let mut scratch = vec![0; 64 << 10];
        while requests.read(&mut scratch).await.is_ok_and(|len| len > 0) {}
    };
    let client = async move {
        let Ok(client) = Client::connected(theirs, &options).await else { return };
        let (read, status, write, flush, trim, zero) = tokio::join!(
            client.read(0, 4096),
            client.block_status(0, 65536, false),
            client.write(512, Bytes::from_static(&[7; 512]), true),
            client.flush(),
            client.trim(0, 4096, false),
            client.zero(0, 4096, ZeroFlags::default()),
        );
        if let Ok(read) = read {
            assert_eq!(read.len(), 4096, "a read of another length");
        }
        if let Ok(extents) = status {
            assert!(extents.keys().all(|name| name == BASE_ALLOCATION), "a context not asked for");
        }
        drop((write, flush, trim, zero));
        client.disconnect().await;
    };
    tokio::join!(client, send, drain);
}

fn reply(code: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let head = [code.to_be_bytes(), kind.to_be_bytes(), (data.len() as u32).to_be_bytes()];
    [&REPLY_MAGIC.to_be_bytes()[..], &head.concat(), data].concat()
}

/// What a server says up to the first reply of the transmission phase.
fn handshake(options: &ConnectOptions) -> Vec<u8> {
    let mut out = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
    if options.extended {
        out.extend(reply(11, 1, &[]));
    } else if !options.simple {
        out.extend(reply(8, 1, &[]));
    }
    if !options.contexts.is_empty() && !options.simple {
        out.extend(reply(10, 4, &[&1u32.to_be_bytes()[..], b"base:allocation"].concat()));
        out.extend(reply(10, 1, &[]));
    }
    let export = [&[0, 0][..], &(1u64 << 20).to_be_bytes(), &0x0fed_u16.to_be_bytes()].concat();
    out.extend(reply(7, 3, &export));
    out.extend(reply(7, 1, &[]));
    out
}

fn chunk(flags: u16, kind: u16, cookie: u64, payload: &[u8]) -> Vec<u8> {
    let head = [&0x668e_33ef_u32.to_be_bytes()[..], &flags.to_be_bytes(), &kind.to_be_bytes()];
    let len = (payload.len() as u32).to_be_bytes();
    [&head.concat()[..], &cookie.to_be_bytes(), &len, payload].concat()
}

fn extended(flags: u16, kind: u16, cookie: u64, payload: &[u8]) -> Vec<u8> {
    let head = [&0x6e8a_278c_u32.to_be_bytes()[..], &flags.to_be_bytes(), &kind.to_be_bytes()];
    let tail = [cookie.to_be_bytes(), 0u64.to_be_bytes(), (payload.len() as u64).to_be_bytes()];
    [&head.concat()[..], &tail.concat(), payload].concat()
}

fn simple(error: u32, cookie: u64, data: &[u8]) -> Vec<u8> {
    let head = [&0x6744_6698_u32.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes()];
    [&head.concat()[..], data].concat()
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let data = [&0u64.to_be_bytes()[..], &[9; 4096]].concat();
    let hole = [&0u64.to_be_bytes()[..], &4096u32.to_be_bytes()].concat();
    let extents = [1u32, 65536, 3].map(u32::to_be_bytes).concat();
    let error = [&22u32.to_be_bytes()[..], &3u16.to_be_bytes(), b"bad"].concat();
    let with = |mode: u8, parts: &[Vec<u8>]| [vec![mode], parts.concat()].concat();
    let mut found = vec![("greeting".into(), with(0, &[handshake(&ConnectOptions::default())]))];
    // Where the cookies begin is the client's business, so each seed answers several.
    for first in 0..2u64 {
        let structured = [
            chunk(1, 1, first, &data),
            chunk(1, 5, first + 1, &extents),
            chunk(1, 0x8001, first + 2, &error),
        ];
        let holes =
            [chunk(0, 2, first, &hole), chunk(1, 0, first, &[]), chunk(1, 0, first + 2, &[])];
        let modern = [extended(1, 1, first, &data), extended(1, 0, first + 2, &[])];
        let plain =
            [simple(0, first, &[1; 4096]), simple(22, first + 1, &[]), simple(0, first + 2, &[])];
        found.push((format!("structured-{first}"), with(4 + 8 + 4, &structured)));
        found.push((format!("hole-{first}"), with(4 + 3, &holes)));
        found.push((format!("extended-{first}"), with(4 + 1, &modern)));
        found.push((format!("simple-{first}"), with(4 + 2, &plain)));
    }
    found
}
