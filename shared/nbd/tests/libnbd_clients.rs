//! nbdinfo, nbdsh and nbdcopy (libnbd) against the server.

mod harness;

use std::rc::Rc;

use harness::{Served, noise, on_one_thread, run_tool, try_tool};
use nbd::{Export, MemoryExport};

#[test]
fn nbdinfo_shows_what_was_announced() {
    on_one_thread(async {
        let (served, _) = Served::memory(64 << 20).await;
        let list = run_tool("nbdinfo", &["--list", &served.uri()]).await;
        for expected in [
            "export=\"disk\"",
            "a volume in memory",
            "export-size: 67108864",
            "base:allocation",
            "can_df: true",
            "can_fast_zero: true",
            "can_multi_conn: true",
            "can_trim: true",
            "is_read_only: false",
            "block_size_preferred: 4096",
            "block_size_maximum: 33554432",
        ] {
            assert!(list.contains(expected), "{expected} in\n{list}");
        }
        assert!(list.contains("newstyle-fixed without TLS, using structured packets"), "{list}");
    });
}

#[test]
fn nbdinfo_maps_data_and_holes() {
    on_one_thread(async {
        let (served, memory) = Served::memory(1 << 20).await;
        memory.write(128 << 10, &noise(64 << 10, 1));
        let map = run_tool("nbdinfo", &["--map", &served.uri()]).await;
        let rows: Vec<Vec<&str>> =
            map.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
        let expected = [["0", "131072", "3"], ["131072", "65536", "0"], ["196608", "851968", "3"]];
        assert_eq!(rows, expected, "{map}");
    });
}

#[test]
fn nbdinfo_is_told_that_an_export_is_unknown() {
    on_one_thread(async {
        let (served, _) = Served::memory(1 << 20).await;
        let uri = served.uri().replace("/disk", "/nobody");
        let output = try_tool("nbdinfo", &[&uri]).await;
        assert!(!output.status.success());
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(words.contains("for export: nobody"), "{words}");
    });
}

#[test]
fn nbdsh_uses_every_command() {
    on_one_thread(async {
        let (served, memory) = Served::memory(8 << 20).await;
        served
            .nbdsh(
                r"
import errno
h.set_strict_mode(0)
h.add_meta_context('base:allocation')
h.connect_uri(uri)
assert h.get_size() == 8 << 20
assert h.get_structured_replies_negotiated()
h.pwrite(b'x' * 5000, 4095, nbd.CMD_FLAG_FUA)
assert h.pread(5002, 4094) == b'\0' + b'x' * 5000 + b'\0'
assert h.pread(16, 4096, nbd.CMD_FLAG_DF) == b'x' * 16
h.flush()
h.cache(65536, 0)
h.trim(65536, 0)
assert h.pread(8192, 4096) == bytes(8192)
h.pwrite(b'y' * 131072, 0)
h.zero(65536, 0, nbd.CMD_FLAG_NO_HOLE)
h.zero(65536, 65536, nbd.CMD_FLAG_FAST_ZERO)
seen = []
def extent(context, offset, entries, error):
    assert context == 'base:allocation' and error.value == 0
    seen.append(entries)
h.block_status(1 << 20, 0, extent)
h.block_status(1 << 20, 0, extent, nbd.CMD_FLAG_REQ_ONE)
assert seen == [[65536, 0, (1 << 20) - 65536, 3], [65536, 0]], seen
def expect(number, call):
    try:
        call()
    except nbd.Error as e:
        assert e.errnum == number, (e, number)
    else:
        assert False, 'no error'
end = h.get_size()
expect(errno.EINVAL, lambda: h.pread(512, end))
expect(errno.ENOSPC, lambda: h.pwrite(b'z' * 512, end - 511))
expect(errno.ENOSPC, lambda: h.zero(512, end))
expect(errno.EINVAL, lambda: h.trim(512, end))
expect(errno.EINVAL, lambda: h.cache(512, end))
expect(errno.ENOTSUP, lambda: h.zero(65536, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE))
expect(errno.EOVERFLOW, lambda: h.pread((32 << 20) + 512, 0))
expect(errno.EINVAL, lambda: h.pread(512, 0, nbd.CMD_FLAG_REQ_ONE))
assert h.pread(1, 0) == b'\0'
h.shutdown()
",
            )
            .await;
        assert_eq!(memory.flushes(), 2);
    });
}

#[test]
fn nbdsh_without_structured_replies_and_with_export_name() {
    on_one_thread(async {
        let (served, memory) = Served::memory(1 << 20).await;
        memory.write(0, b"content");
        served
            .nbdsh(
                r"
h.set_request_structured_replies(False)
h.connect_uri(uri)
assert not h.get_structured_replies_negotiated() and not h.can_df()
assert h.pread(7, 0) == b'content'
h.shutdown()
for flags in [nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE, 0]:
    h = nbd.NBD()
    h.set_handshake_flags(flags)
    h.connect_uri(uri)
    assert h.pread(7, 0) == b'content' and h.get_size() == 1 << 20
    h.shutdown()
h = nbd.NBD()
h.set_opt_mode(True)
h.connect_uri(uri)
h.opt_info()
h.set_export_name('nobody')
try:
    h.opt_go()
except nbd.Error:
    pass
else:
    assert False, 'an unknown export'
h.opt_abort()
",
            )
            .await;
    });
}

#[test]
fn a_flush_covers_several_connections() {
    on_one_thread(async {
        let (served, memory) = Served::memory(4 << 20).await;
        served
            .nbdsh(
                r"
handles = [h] + [nbd.NBD() for _ in range(3)]
for one in handles:
    one.connect_uri(uri)
assert h.can_multi_conn()
for i, one in enumerate(handles):
    cookies = [one.aio_pwrite(nbd.Buffer.from_bytearray(bytearray([i + 1] * 4096)),
        (i * 64 + j) * 4096) for j in range(64)]
    while one.aio_in_flight() > 0:
        one.poll(-1)
    assert all(one.aio_command_completed(cookie) for cookie in cookies)
h.flush()
for i, one in enumerate(handles):
    assert handles[-1 - i].pread(64 * 4096, i * 64 * 4096) == bytes([i + 1] * 64 * 4096)
for one in handles:
    one.shutdown()
",
            )
            .await;
        assert_eq!(memory.flushes(), 1);
    });
}

#[test]
fn nbdcopy_there_and_back_over_several_connections() {
    on_one_thread(async {
        let (served, memory) = Served::memory(16 << 20).await;
        let (from, back) = (served.path("from"), served.path("back"));
        let mut content = noise(16 << 20, 7);
        content[3 << 20..9 << 20].fill(0);
        std::fs::write(&from, &content).expect("room for the image");
        run_tool("nbdcopy", &["--connections=4", "--flush", &from, &served.uri()]).await;
        let mut copied = vec![0; content.len()];
        memory.read(0, &mut copied);
        assert!(copied == content, "the export holds the image");
        assert!(memory.flushes() >= 1);
        run_tool("nbdcopy", &["--connections=4", &served.uri(), &back]).await;
        assert!(std::fs::read(&back).expect("the copy") == content, "the image came back");
    });
}

#[test]
fn a_client_that_dies_with_writes_in_flight_harms_nobody() {
    on_one_thread(async {
        let memory = Rc::new(MemoryExport::new(4 << 20));
        let served = Served::new(Rc::clone(&memory) as Rc<dyn Export>).await;
        served
            .nbdsh(
                r"
import os
h.connect_uri(uri)
for i in range(100):
    h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b'w' * 32768)), i * 32768)
os._exit(0)
",
            )
            .await;
        while !served.server.connections().is_empty() {
            tokio::task::yield_now().await;
        }
        // Each write was done whole or not at all.
        for i in 0..100 {
            let mut block = vec![0; 32768];
            memory.read(i * 32768, &mut block);
            assert!(block.iter().all(|byte| *byte == block[0]), "half a write at {i}");
        }
        served.nbdsh("h.connect_uri(uri)\nassert h.get_size() == 4 << 20\nh.shutdown()").await;
    });
}
