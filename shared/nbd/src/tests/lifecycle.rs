//! Limits, disconnects and shutdown.

use std::rc::Rc;
use std::time::Duration;

use super::*;

fn held() -> (Rc<HeldExport>, Rc<HeldExport>) {
    let export = Rc::new(HeldExport::default());
    (Rc::clone(&export), export)
}

#[test]
fn commands_in_flight_are_bounded_and_the_rest_waits_in_the_socket() {
    let (export, held) = held();
    let limits = Limits { commands: 4, ..Limits::default() };
    with_server(export, limits, |mut raw, _| async move {
        raw.go(&[]).await;
        for cookie in 0..10 {
            raw.request(0, 3, cookie, 0, 0).await;
        }
        settle().await;
        assert_eq!(held.count(), 4);
        for cookie in 0..10 {
            held.take().1.done();
            assert_eq!(raw.simple().await, (0, cookie));
            settle().await;
            assert!(held.count() <= 4);
        }
    });
}

#[test]
fn bytes_in_flight_are_bounded_but_one_command_always_runs() {
    let (export, held) = held();
    let limits = Limits { command_bytes: 1000, ..Limits::default() };
    with_server(export, limits, |mut raw, _| async move {
        raw.go(&[]).await;
        for len in [5000, 600, 400, 1] {
            raw.request(0, 0, u64::from(len), 0, len).await;
        }
        settle().await;
        assert_eq!(held.count(), 1, "more than the limit, but alone");
        for (expected, then) in [(5000, 2), (600, 2), (400, 1), (1, 0)] {
            let (command, reply) = held.take();
            assert!(matches!(command, Command::Read { len, .. } if len == expected));
            reply.error(crate::Errno::Io);
            assert_eq!(raw.simple().await, (5, u64::from(expected)));
            settle().await;
            assert_eq!(held.count(), then);
        }
    });
}

#[test]
fn a_client_that_does_not_read_stops_the_server_from_reading() {
    let export = Rc::new(MemoryExport::with_description(description()));
    let limits = Limits { reply_bytes: 100_000, ..Limits::default() };
    with_server(export, limits, |mut raw, server| async move {
        raw.go(&[]).await;
        for cookie in 0..100 {
            raw.request(0, 0, cookie, 0, 50_000).await;
        }
        settle().await;
        let reads = server.connections()[0].counts.reads;
        // Two fill the limit; the pipe between holds one and a half.
        assert!((2..=5).contains(&reads), "{reads} reads were taken up");
        for cookie in 0..100 {
            assert_eq!(raw.simple().await, (0, cookie));
            raw.bytes(50_000).await;
        }
    });
}

#[test]
fn what_is_in_flight_runs_to_its_end_when_the_client_goes() {
    let (export, held) = held();
    with_server(export, Limits::default(), |mut raw, server| async move {
        raw.go(&[]).await;
        raw.request(0, 1, 1, 0, 3).await;
        raw.send(b"abc").await;
        raw.request(0, 1, 2, 3, 3).await;
        raw.send(b"de").await;
        settle().await;
        drop(raw);
        settle().await;
        let (command, reply) = held.take();
        assert_eq!(held.count(), 0, "half a write is not a write");
        assert!(matches!(command, Command::Write { data, .. } if *data == *b"abc"));
        assert_eq!(server.connections().len(), 1, "the connection waits for its command");
        reply.done();
        settle().await;
        assert_eq!(server.connections().len(), 0);
    });
}

#[test]
fn a_goodbye_waits_for_what_is_in_flight() {
    let (export, held) = held();
    with_server(export, Limits::default(), |mut raw, _| async move {
        raw.go(&[]).await;
        raw.request(0, 3, 1, 0, 0).await;
        raw.request(0, 2, 2, 0, 0).await;
        settle().await;
        held.take().1.done();
        assert_eq!(raw.simple().await, (0, 1));
        raw.closed().await;
    });
}

#[test]
fn shutdown_finishes_what_is_in_flight_and_refuses_the_rest() {
    let (export, held) = held();
    with_server(export, Limits::default(), |mut raw, server| async move {
        raw.go(&[]).await;
        raw.request(0, 3, 1, 0, 0).await;
        settle().await;
        server.shutdown().await;
        raw.request(0, 1, 2, 0, 3).await;
        raw.send(b"abc").await;
        assert_eq!(raw.simple().await, (108, 2));
        held.take().1.done();
        assert_eq!(raw.simple().await, (0, 1));
        raw.closed().await;
    });
}

#[test]
fn a_client_that_does_not_take_its_farewell_is_let_go() {
    let (export, held) = held();
    let limits = Limits { farewell: Duration::from_millis(50), ..Limits::default() };
    with_server(export, limits, |mut raw, server| async move {
        raw.go(&[]).await;
        raw.request(0, 0, 1, 0, 1 << 20).await;
        raw.request(0, 2, 2, 0, 0).await;
        settle().await;
        held.take().1.data(vec![0; 1 << 20].into());
        while !server.connections().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(raw);
    });
}

#[test]
fn a_payload_outlives_its_call_and_does_not_pin_the_buffer() {
    let (export, held) = held();
    with_server(export, Limits::default(), |mut raw, _| async move {
        raw.go(&[]).await;
        let mut kept = Vec::new();
        for cookie in 0..4_u64 {
            raw.request(0, 1, cookie, 0, 100).await;
            raw.send(&[cookie as u8; 100]).await;
            settle().await;
            let (Command::Write { data, .. }, reply) = held.take() else { panic!("a write") };
            kept.push(data.into_bytes());
            reply.done();
        }
        for (cookie, data) in kept.iter().enumerate() {
            assert_eq!(**data, [cookie as u8; 100]);
        }
        raw.request(0, 1, 9, 0, 300_000).await;
        raw.send(&vec![7; 300_000]).await;
        settle().await;
        let (Command::Write { data, .. }, reply) = held.take() else { panic!("a write") };
        let data = data.into_bytes();
        raw.request(0, 3, 10, 0, 0).await;
        settle().await;
        assert!(data.iter().all(|byte| *byte == 7) && data.len() == 300_000);
        reply.done();
        held.take().1.done();
    });
}
