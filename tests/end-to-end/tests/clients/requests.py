"""Requests to our server by libnbd, one by one; ends with `done`, or with an assertion that names what broke.

The package python3-libnbd (the library behind `nbdsh`) has to be installed.
"""

import errno
import sys

import nbd

MIB = 1 << 20


def fails(wanted, call, *arguments):
    """The call fails with one of the `wanted` errors."""
    try:
        call(*arguments)
    except nbd.Error as error:
        assert error.errnum in wanted, f"{call} {arguments}: {error}"
        return
    raise AssertionError(f"{call} {arguments}: went through")


def connect(export="", strict=True):
    handle = nbd.NBD()
    handle.set_export_name(export)
    for context in ("base:allocation", "grainhaul:dirty"):
        handle.add_meta_context(context)
    if not strict:
        handle.set_strict_mode(0)
    handle.connect_unix(sys.argv[1])
    return handle


def extents(handle, length, offset):
    """What each context says of a range: name to list of (length, flags)."""
    seen = {}

    def extent(context, _offset, entries, _error):
        pairs = list(zip(entries[0::2], entries[1::2]))
        seen.setdefault(context, []).extend(pairs)

    handle.block_status(length, offset, extent)
    return seen


def listed():
    """The default export is there under its alias too; an unknown one is refused in words."""
    handle = nbd.NBD()
    handle.set_opt_mode(True)
    handle.connect_unix(sys.argv[1])
    names = []
    handle.opt_list(lambda name, _description: names.append(name))
    assert names, "no export is listed"
    for name in names:
        handle.set_export_name(name)
        handle.opt_info()
        assert handle.get_size() == 32 * MIB, name
    handle.set_export_name("nobody")
    fails({errno.ENOENT}, handle.opt_info)
    handle.opt_abort()
    connect(names[0]).shutdown()


def announced(handle):
    assert handle.get_size() == 32 * MIB
    for can in ("flush", "fua", "trim", "zero", "cache", "multi_conn", "df", "fast_zero"):
        assert getattr(handle, f"can_{can}")(), can
    assert not handle.is_read_only()
    assert handle.get_structured_replies_negotiated()
    assert handle.get_block_size(nbd.SIZE_MINIMUM) == 1
    assert handle.get_block_size(nbd.SIZE_PREFERRED) >= 4096
    assert handle.get_block_size(nbd.SIZE_MAXIMUM) >= 32 * MIB


def reads_what_was_written(handle):
    data = bytes(range(256)) * 16
    handle.pwrite(data, 12345)
    assert handle.pread(4096, 12345) == data
    handle.pwrite(data, MIB - 100, nbd.CMD_FLAG_FUA)
    assert handle.pread(4096, MIB - 100) == data
    chunks = []
    handle.pread_structured(4096, 12345, lambda part, at, kind, _error: chunks.append((part, at, kind)))
    assert b"".join(part for part, _, _ in chunks) == data
    whole = []
    handle.pread_structured(
        8 * MIB, 0, lambda part, _at, _kind, _error: whole.append(len(part)), nbd.CMD_FLAG_DF
    )
    assert whole == [8 * MIB], "DF wants one chunk"
    handle.cache(MIB, 0)
    handle.flush()


def makes_zeros(handle):
    for flags in (0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA, nbd.CMD_FLAG_FAST_ZERO):
        handle.pwrite(b"x" * 8192, 2 * MIB)
        try:
            handle.zero(4096, 2 * MIB + 100, flags)
        except nbd.Error as error:
            assert flags == nbd.CMD_FLAG_FAST_ZERO and error.errnum == errno.ENOTSUP, error
            continue
        expected = b"x" * 100 + bytes(4096) + b"x" * (8192 - 4196)
        assert handle.pread(8192, 2 * MIB) == expected, flags
    handle.pwrite(b"y" * MIB, 3 * MIB)
    handle.trim(MIB, 3 * MIB, nbd.CMD_FLAG_FUA)
    assert handle.pread(MIB, 3 * MIB) == bytes(MIB), "trimmed bytes read as zeros"


def tells_its_state(handle):
    handle.pwrite(b"z" * 4096, 24 * MIB)
    seen = extents(handle, 32 * MIB, 0)
    assert set(seen) == {"base:allocation", "grainhaul:dirty"}, seen
    for context, entries in seen.items():
        assert entries and all(length > 0 for length, _ in entries), (context, entries)
    at, dirty = 0, False
    for length, flags in extents(handle, 32 * MIB, 0)["grainhaul:dirty"]:
        if at <= 24 * MIB < at + length:
            dirty = flags != 0
        at += length
    assert dirty, "what was written is shown as dirty"


def refuses_what_is_wrong():
    handle = connect(strict=False)
    size = handle.get_size()
    fails({errno.EINVAL}, handle.pread, 4096, size)
    fails({errno.EINVAL}, handle.pread, 4096, size - 1)
    fails({errno.ENOSPC, errno.EINVAL}, handle.pwrite, bytes(4096), size - 1)
    fails({errno.ENOSPC, errno.EINVAL}, handle.zero, 4096, size - 1)
    fails({errno.EINVAL}, handle.trim, 4096, size)
    fails({errno.EINVAL}, handle.pread, 4096, 1 << 62)
    fails({errno.EINVAL}, handle.pwrite, bytes(512), 0, 1 << 9)
    assert len(handle.pread(512, 0)) == 512, "and it still serves"
    handle.shutdown()


def several_connections_see_the_same():
    one, two = connect(), connect()
    one.pwrite(b"shared" * 100, 30 * MIB)
    two.flush()
    assert two.pread(600, 30 * MIB) == b"shared" * 100
    two.shutdown()
    assert one.pread(6, 30 * MIB) == b"shared"


handle = connect()
listed()
announced(handle)
reads_what_was_written(handle)
makes_zeros(handle)
tells_its_state(handle)
refuses_what_is_wrong()
several_connections_see_the_same()
handle.shutdown()
print("done")
