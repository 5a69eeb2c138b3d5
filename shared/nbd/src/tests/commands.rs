//! The transmission phase, command by command.

use std::rc::Rc;

use bytes::Bytes;

use super::*;
use crate::protocol::flag;
use crate::{Errno, Extent, Part};

const STRUCTURED: &[u32] = &[option::STRUCTURED_REPLY];

#[test]
fn a_read_has_three_forms() {
    with_memory(|mut raw| async move {
        raw.go(&[]).await;
        raw.request(0, 0, 0x1122, 8, 3).await;
        let expected = b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\x11\x22\0\0\0";
        assert_eq!(raw.bytes(19).await, expected);
    });
    with_memory(|mut raw| async move {
        raw.go(STRUCTURED).await;
        raw.request(flag::DF, 0, 0x1122, 8, 3).await;
        let expected =
            b"\x66\x8e\x33\xef\0\x01\0\x01\0\0\0\0\0\0\x11\x22\0\0\0\x0b\0\0\0\0\0\0\0\x08\0\0\0";
        assert_eq!(raw.bytes(31).await, expected);
    });
    with_memory(|mut raw| async move {
        raw.go(&[option::EXTENDED_HEADERS]).await;
        raw.send(&extended(0, 0, 0x1122, 8, 3)).await;
        let expected = b"\x6e\x8a\x27\x8c\0\x01\0\x01\0\0\0\0\0\0\x11\x22\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x0b\0\0\0\0\0\0\0\x08\0\0\0";
        assert_eq!(raw.bytes(43).await, expected);
    });
}

fn extended(flags: u16, command: u16, cookie: u64, offset: u64, len: u64) -> Vec<u8> {
    let mut bytes = compact(flags, command, cookie, offset, 0);
    bytes.truncate(24);
    bytes[..4].copy_from_slice(&0x21e4_1c71_u32.to_be_bytes());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes
}

#[test]
fn every_command_is_carried_out() {
    let export = Rc::new(MemoryExport::with_description(description()));
    let memory = Rc::clone(&export);
    with_server(export, Limits::default(), |mut raw, server| async move {
        raw.go(STRUCTURED).await;
        raw.request(flag::FUA, 1, 1, 100, 5).await;
        raw.send(b"hello").await;
        assert_eq!(raw.simple().await, (0, 1));
        assert_eq!(memory.flushes(), 1);
        raw.request(0, 3, 2, 0, 0).await;
        assert_eq!(raw.simple().await, (0, 2));
        assert_eq!(memory.flushes(), 2);
        raw.request(0, 0, 3, 99, 7).await;
        let (flags, kind, cookie, payload) = raw.chunk().await;
        assert_eq!((flags, kind, cookie), (1, 1, 3));
        assert_eq!(payload, [&99_u64.to_be_bytes()[..], b"\0hello\0"].concat());
        raw.request(0, 4, 4, 100, 2).await;
        assert_eq!(raw.simple().await, (0, 4));
        raw.request(flag::NO_HOLE | flag::FUA, 6, 5, 102, 2).await;
        assert_eq!(raw.simple().await, (0, 5));
        raw.request(0, 5, 6, 0, 4096).await;
        assert_eq!(raw.simple().await, (0, 6));
        raw.request(flag::FAST_ZERO | flag::NO_HOLE, 6, 7, 0, 4096).await;
        assert_eq!(raw.error_chunk(7).await, Errno::NotSupported as u32);
        let mut content = [1; 6];
        memory.read(100, &mut content);
        assert_eq!(content, *b"\0\0\0\0o\0");
        let stats = server.connections();
        assert_eq!(stats[0].export, "first");
        let counts = stats[0].counts;
        assert_eq!((counts.reads, counts.writes, counts.flushes, counts.trims), (1, 1, 1, 1));
        assert_eq!((counts.zeroes, counts.others, counts.errors), (2, 1, 1));
        assert_eq!((counts.read_bytes, counts.written_bytes, stats[0].in_flight), (7, 5, 0));
        raw.request(0, 2, 8, 0, 0).await;
        raw.closed().await;
    });
}

#[test]
fn refused_requests_keep_the_connection() {
    with_memory(|mut raw| async move {
        raw.go(STRUCTURED).await;
        let end = SIZE - 4;
        let cases = [
            (0, 0, end, 8, Errno::Invalid),
            (0, 4, end, 8, Errno::Invalid),
            (0, 6, end, 8, Errno::NoSpace),
            (0, 5, end, 8, Errno::Invalid),
            (0, 0, 0, (1 << 20) + 1, Errno::Overflow),
            (0, 0, 0, 0, Errno::Invalid),
            (0, 7, 0, 4096, Errno::Invalid),
            (0, 99, 0, 4096, Errno::Invalid),
            (0, 3, 1, 0, Errno::Invalid),
            (1 << 12, 0, 0, 1, Errno::Invalid),
        ];
        for (cookie, (flags, command, offset, len, errno)) in cases.into_iter().enumerate() {
            raw.request(flags, command, cookie as u64, offset, len).await;
            assert_eq!(raw.error_chunk(cookie as u64).await, errno as u32, "{command} {offset}");
        }
        // The payload of a refused write is thrown away, also when it is longer than announced.
        for (offset, len, errno) in [(end, 8_usize, Errno::NoSpace), (0, 3 << 20, Errno::Invalid)] {
            raw.request(0, 1, 50, offset, len as u32).await;
            let payload = vec![0x25; len];
            let (mut reader, mut writer) = tokio::io::split(raw.pipe);
            let sent = async { writer.write_all(&payload).await.expect("the server reads") };
            let mut head = [0; 20];
            let read = async { reader.read_exact(&mut head).await.expect("an answer") };
            tokio::join!(sent, read);
            raw.pipe = reader.unsplit(writer);
            let len = u32::from_be_bytes(head[16..].try_into().expect("4 bytes"));
            assert_eq!(raw.bytes(len as usize).await[..4], (errno as u32).to_be_bytes());
        }
        raw.request(0, 3, 60, 0, 0).await;
        assert_eq!(raw.simple().await, (0, 60));
    });
}

#[test]
fn a_payload_beyond_reason_or_a_wrong_magic_ends_the_connection() {
    with_memory(|mut raw| async move {
        raw.go(&[]).await;
        raw.request(0, 1, 1, 0, u32::MAX).await;
        raw.closed().await;
    });
    with_memory(|mut raw| async move {
        raw.go(&[]).await;
        raw.request(0, 3, 1, 0, 0).await;
        raw.send(&[0; 28]).await;
        assert_eq!(raw.simple().await, (0, 1), "what came before is answered");
        raw.closed().await;
    });
}

#[test]
fn requests_may_arrive_in_any_cut() {
    let mut script = Vec::new();
    for i in 0..4_u64 {
        script.extend_from_slice(&compact(0, 1, i, i * 3, 3));
        script.extend_from_slice(&[i as u8; 3]);
    }
    script.extend_from_slice(&compact(0, 0, 9, 0, 12));
    for cut in [1, 2, 27, 28, 29, 31, 62, script.len()] {
        let script = script.clone();
        with_memory(|mut raw| async move {
            raw.go(&[]).await;
            for part in script.chunks(cut) {
                raw.send(part).await;
                settle().await;
            }
            for i in 0..4 {
                assert_eq!(raw.simple().await, (0, i));
            }
            assert_eq!(raw.simple().await, (0, 9));
            assert_eq!(raw.bytes(12).await, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
        });
    }
}

#[test]
fn answers_may_come_later_in_any_order_and_a_dropped_one_is_an_error() {
    let export = Rc::new(HeldExport::default());
    let held = Rc::clone(&export);
    with_server(export, Limits::default(), |mut raw, server| async move {
        raw.go(STRUCTURED).await;
        for cookie in 0..3 {
            raw.request(0, 0, cookie, cookie * 10, 10).await;
        }
        settle().await;
        assert_eq!(server.connections()[0].in_flight, 3);
        assert_eq!(server.connections()[0].in_flight_bytes, 30);
        let (_, first) = held.take();
        let (_, second) = held.take();
        let (_, third) = held.take();
        third.data(Bytes::from_static(b"0123456789"));
        assert_eq!(raw.chunk().await.2, 2);
        drop(first);
        assert_eq!(raw.error_chunk(0).await, Errno::Io as u32);
        let given_back = second.fill(|_| Ok(false)).expect_err("it would have to wait");
        given_back.parts(vec![Part::Data(Bytes::from_static(b"abc")), Part::Hole(7)]);
        let (flags, kind, cookie, payload) = raw.chunk().await;
        assert_eq!((flags, kind, cookie, payload.len()), (0, 1, 1, 11));
        let (flags, kind, cookie, payload) = raw.chunk().await;
        assert_eq!((flags, kind, cookie), (1, 2, 1));
        assert_eq!(payload, [&13_u64.to_be_bytes()[..], &7_u32.to_be_bytes()].concat());
        assert_eq!(server.connections()[0].in_flight, 0);
    });
}

#[test]
fn holes_are_spelled_out_where_the_client_wants_one_piece() {
    for (options, flags, head) in [(STRUCTURED, flag::DF, 28), (&[][..], 0, 16)] {
        let export = Rc::new(HeldExport::default());
        let held = Rc::clone(&export);
        with_server(export, Limits::default(), |mut raw, _| async move {
            raw.go(options).await;
            raw.request(flags, 0, 1, 0, 6).await;
            settle().await;
            let parts = vec![Part::Hole(2), Part::Data(Bytes::from_static(b"ab")), Part::Hole(2)];
            held.take().1.parts(parts);
            assert_eq!(raw.bytes(head + 6).await[head..], *b"\0\0ab\0\0");
        });
    }
}

#[test]
fn an_export_that_answers_wrongly_costs_only_its_command() {
    let export = Rc::new(HeldExport::default());
    let held = Rc::clone(&export);
    with_server(export, Limits::default(), |mut raw, _| async move {
        raw.go(STRUCTURED).await;
        let wrong: [fn(Reply); 4] = [
            |reply| reply.done(),
            |reply| reply.data(Bytes::from_static(b"short")),
            |reply| drop(reply.fill(|_| Err(Errno::NoMemory))),
            |reply| reply.error_because(Errno::Perm, "because"),
        ];
        for (answer, errno) in wrong.into_iter().zip([5, 5, 12, 1]) {
            raw.request(0, 0, 1, 0, 8).await;
            settle().await;
            answer(held.take().1);
            assert_eq!(raw.error_chunk(1).await, errno);
        }
        raw.request(0, 3, 2, 0, 0).await;
        settle().await;
        held.take().1.data(Bytes::from_static(b"for a flush"));
        assert_eq!(raw.error_chunk(2).await, 5);
    });
}

#[test]
fn block_status_answers_each_context() {
    let set = [
        &named("first", &2_u32.to_be_bytes())[..],
        &named(BASE_ALLOCATION, &[]),
        &named("test:dirty", &[]),
    ]
    .concat();
    let export = Rc::new(HeldExport::default());
    let held = Rc::clone(&export);
    with_server(export, Limits::default(), |mut raw, _| async move {
        raw.greet(3).await;
        raw.outcome(option::STRUCTURED_REPLY, &[]).await;
        raw.outcome(option::SET_META_CONTEXT, &set).await;
        raw.outcome(option::GO, &named("first", &[0, 0])).await;
        raw.request(0, 7, 1, 0, 4096).await;
        settle().await;
        let (command, mut reply) = held.take();
        assert!(matches!(command, Command::BlockStatus { contexts, .. } if contexts == [0, 1]));
        reply.extents(1, &[Extent { len: 8192, flags: 1 }]);
        reply.extents(0, &[Extent { len: 1024, flags: 3 }, Extent { len: u64::MAX, flags: 0 }]);
        reply.extents(7, &[Extent { len: 1, flags: 0 }]);
        reply.done();
        let dirty = [&1_u32.to_be_bytes()[..], b"\0\0\x20\0\0\0\0\x01"].concat();
        assert_eq!(raw.chunk().await, (0, 5, 1, dirty));
        let base = b"\0\0\0\0\0\0\x04\0\0\0\0\x03\0\x0f\xfc\0\0\0\0\0".to_vec();
        assert_eq!(raw.chunk().await, (0, 5, 1, base));
        assert_eq!(raw.chunk().await, (1, 0, 1, Vec::new()));
        // One context unanswered: an error, not a success with a hole in it.
        raw.request(0, 7, 2, 0, 4096).await;
        settle().await;
        held.take().1.done();
        assert_eq!(raw.error_chunk(2).await, 5);
    });
}

#[test]
fn extended_block_status_has_64_bits_and_payloads_elsewhere_are_skipped() {
    with_memory(|mut raw| async move {
        raw.greet(3).await;
        raw.outcome(option::EXTENDED_HEADERS, &[]).await;
        let one =
            [&named("first", &1_u32.to_be_bytes())[..], &named(BASE_ALLOCATION, &[])].concat();
        raw.outcome(option::SET_META_CONTEXT, &one).await;
        raw.outcome(option::GO, &named("first", &[0, 0])).await;
        raw.send(&extended(0, 7, 1, 0, SIZE)).await;
        let status = raw.bytes(32 + 8 + 16).await;
        assert_eq!(status[4..8], [0, 0, 0, 6]);
        assert_eq!(status[32..40], [0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(status[40..48], SIZE.to_be_bytes());
        assert_eq!(status[48..], 3_u64.to_be_bytes());
        assert_eq!(raw.bytes(32).await[4..8], [0, 1, 0, 0]);
        raw.send(&extended(flag::PAYLOAD_LEN, 7, 2, 0, 12)).await;
        raw.send(&[0; 12]).await;
        let error = raw.bytes(32).await;
        assert_eq!(error[4..8], [0, 1, 0x80, 1]);
        let len = u64::from_be_bytes(error[24..].try_into().expect("8 bytes"));
        assert_eq!(raw.bytes(len as usize).await[..4], 22_u32.to_be_bytes());
        raw.send(&extended(flag::PAYLOAD_LEN, 0, 3, 0, 1 << 40)).await;
        raw.closed().await;
    });
}
