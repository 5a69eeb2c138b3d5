//! Our client against our server over Unix sockets, and the sockets themselves.

mod harness;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use harness::{Served, noise, on_one_thread};
use nbd::{
    BASE_ALLOCATION, Client, ConnectOptions, Errno, Error, ErrorClass, Export, Extent, Limits,
    MemoryExport, Server, ZeroFlags,
};

fn options(simple: bool, extended: bool) -> ConnectOptions {
    let contexts = if simple { Vec::new() } else { vec![BASE_ALLOCATION.to_owned()] };
    ConnectOptions { export: "disk".into(), simple, extended, contexts, tls: None }
}

#[test]
fn every_command_in_every_style() {
    for (simple, extended) in [(true, false), (false, false), (false, true)] {
        on_one_thread(async {
            let (served, memory) = Served::memory(32 << 20).await;
            let client = served.client(&options(simple, extended)).await;
            assert_eq!((client.size_bytes(), client.is_extended()), (32 << 20, extended));
            assert!(client.is_multi_conn() && !client.is_read_only());
            let content = Bytes::from(noise(3 << 20, 5));
            client.write(1000, content.clone(), true).await.expect("written");
            assert!(client.read(1000, 3 << 20).await.expect("read") == content);
            client.flush().await.expect("flushed");
            assert_eq!(memory.flushes(), 2);
            client.cache(0, 4096).await.expect("cached");
            client.trim(0, 1 << 20, false).await.expect("trimmed");
            let zero = ZeroFlags { no_hole: true, ..ZeroFlags::default() };
            client.zero(1 << 20, 64 << 10, zero).await.expect("zeroed");
            assert!(client.read(0, 1 << 20).await.expect("read").iter().all(|b| *b == 0));
            let fast = client.zero(0, 4096, ZeroFlags { fast: true, ..zero }).await;
            assert!(matches!(fast, Err(Error::Command(Errno::NotSupported))));
            let status = client.block_status(0, 4 << 20, false).await;
            if simple {
                assert!(matches!(status, Err(Error::Command(Errno::Invalid))));
            } else {
                let hole = Extent { len: 1 << 20, flags: 3 };
                assert_eq!(status.expect("status")[BASE_ALLOCATION][0], hole);
            }
            let outside = client.read(32 << 20, 512).await.expect_err("outside");
            assert!(matches!(outside, Error::Command(Errno::Invalid)));
            assert_eq!(outside.class(), ErrorClass::Peer);
            client.disconnect().await;
            while !served.server.connections().is_empty() {
                tokio::task::yield_now().await;
            }
        });
    }
}

#[test]
fn extended_headers_trim_zero_and_map_beyond_4_gib() {
    on_one_thread(async {
        let size = 1_u64 << 44;
        let (served, memory) = Served::memory(size).await;
        memory.write(5 << 30, b"far");
        let client = served.client(&options(false, true)).await;
        let status = client.block_status(0, size, false).await.expect("status");
        let lens: Vec<u64> = status[BASE_ALLOCATION].iter().map(|e| e.len).collect();
        assert_eq!(lens, [5 << 30, 64 << 10, size - (5 << 30) - (64 << 10)]);
        client.trim(0, size, false).await.expect("trimmed");
        client.zero(0, size, ZeroFlags::default()).await.expect("zeroed");
        let status = client.block_status(0, size, true).await.expect("status");
        assert_eq!(status[BASE_ALLOCATION], [Extent { len: size, flags: 3 }]);
        let compact = served.client(&options(false, false)).await;
        assert!(matches!(compact.trim(0, size, false).await, Err(Error::Command(Errno::Overflow))));
        let status = compact.block_status(0, u64::from(u32::MAX), false).await.expect("status");
        assert_eq!(status[BASE_ALLOCATION], [Extent { len: 0xffff_0000, flags: 3 }]);
    });
}

#[test]
fn many_in_flight_on_several_connections() {
    on_one_thread(async {
        let (served, memory) = Served::memory(16 << 20).await;
        let mut tasks = Vec::new();
        for connection in 0..4_u64 {
            let client = served.client(&options(false, connection % 2 == 0)).await;
            for i in 0..64_u64 {
                let client = client.clone();
                let offset = (connection * 64 + i) * 65_536;
                tasks.push(tokio::task::spawn_local(async move {
                    let content = Bytes::from(noise(65_536, offset + 1));
                    client.write(offset, content.clone(), false).await.expect("written");
                    assert!(client.read(offset, 65_536).await.expect("read") == content);
                }));
            }
        }
        for task in tasks {
            task.await.expect("no task fails");
        }
        let mut block = vec![0; 65_536];
        memory.read(255 * 65_536, &mut block);
        assert!(block == noise(65_536, 255 * 65_536 + 1));
    });
}

#[test]
fn commands_of_a_dead_connection_end_with_an_error() {
    on_one_thread(async {
        let (served, _) = Served::memory(1 << 20).await;
        let client = served.client(&options(false, false)).await;
        served.server.shutdown().await;
        let error = client.read(0, 512).await.expect_err("the server is gone");
        assert!(matches!(error, Error::Closed), "{error}");
        let again = Client::connect_unix(&served.socket(), &options(false, false)).await;
        assert_eq!(again.map(drop).expect_err("nobody listens").class(), ErrorClass::Operator);
        assert!(!served.socket().exists(), "the socket file is gone");
    });
}

#[test]
fn a_refused_option_says_why() {
    on_one_thread(async {
        let (served, _) = Served::memory(1 << 20).await;
        let wrong = ConnectOptions { export: "nobody".into(), ..ConnectOptions::default() };
        let error = Client::connect_unix(&served.socket(), &wrong).await.map(drop);
        let error = error.expect_err("no such export").to_string();
        assert!(error.contains("GO") && error.contains("no export of that name"), "{error}");
    });
}

fn server() -> Server {
    let export: Rc<dyn Export> = Rc::new(MemoryExport::new(1 << 20));
    let limits = Limits { connections: 2, ..Limits::default() };
    Server::new(vec![("disk".into(), export)], limits, None).expect("fine exports")
}

#[test]
fn the_socket_is_private_and_replaced_only_when_stale() {
    on_one_thread(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("nbd.sock");
        let first = server();
        first.serve_unix(&socket).await.expect("the path is free");
        let mode = |path: &Path| std::fs::metadata(path).expect("the socket").permissions().mode();
        assert_eq!(mode(&socket) & 0o777, 0o600);
        let taken = server().serve_unix(&socket).await.expect_err("somebody answers");
        assert!(matches!(taken, Error::SocketInUse(_)));
        assert_eq!(taken.class(), ErrorClass::Operator);

        let stale = directory.path().join("stale.sock");
        drop(std::os::unix::net::UnixListener::bind(&stale).expect("a socket file"));
        let second = server();
        second.serve_unix(&stale).await.expect("nobody answers there");
        Client::connect_unix(&stale, &options(false, false)).await.expect("served");

        let file = directory.path().join("file");
        std::fs::write(&file, "precious").expect("a file");
        let refused = server().serve_unix(&file).await.expect_err("not a socket");
        assert!(matches!(refused, Error::NotASocket(_)));
        assert_eq!(std::fs::read(&file).expect("still there"), b"precious");
    });
}

#[test]
fn connections_beyond_the_limit_are_turned_away_until_a_place_is_free() {
    on_one_thread(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("nbd.sock");
        let server = server();
        server.serve_unix(&socket).await.expect("the path is free");
        let asked = options(false, false);
        let first = Client::connect_unix(&socket, &asked).await.expect("served");
        let second = Client::connect_unix(&socket, &asked).await.expect("served");
        Client::connect_unix(&socket, &asked).await.map(drop).expect_err("no place");
        first.disconnect().await;
        while server.connections().len() > 1 {
            tokio::task::yield_now().await;
        }
        Client::connect_unix(&socket, &asked).await.expect("a place is free again");
        second.flush().await.expect("the second was not disturbed");
    });
}

#[test]
fn plain_tcp_needs_loopback_and_the_flag() {
    on_one_thread(async {
        let export = || -> Rc<dyn Export> { Rc::new(MemoryExport::new(1 << 20)) };
        let make = |plain_loopback| {
            let limits = Limits { plain_loopback, ..Limits::default() };
            Server::new(vec![("disk".into(), export())], limits, None).expect("fine exports")
        };
        let loopback = "127.0.0.1:0".parse().expect("an address");
        let anywhere = "0.0.0.0:0".parse().expect("an address");
        let refused = |outcome: Result<_, Error>| matches!(outcome, Err(Error::PlainTcp(_)));
        assert!(refused(make(false).serve_tcp(loopback).await));
        assert!(refused(make(true).serve_tcp(anywhere).await));
        let server = make(true);
        let bound = server.serve_tcp(loopback).await.expect("bound");
        let client = Client::connect_tcp(bound, &options(false, true)).await.expect("served");
        client.write(0, Bytes::from_static(b"over tcp"), false).await.expect("written");
        assert_eq!(client.read(0, 8).await.expect("read"), "over tcp");
        assert_ne!(server.connections()[0].peer, "unix");
    });
}
