"""Compressed bodies: decoded in bounded steps, that take turns."""

from __future__ import annotations

import asyncio
import gzip
import sys
import zlib
from collections import Counter

import pytest

from gateway import content_coding
from gateway.content_coding import (
    CALLS_A_STEP,
    PIECE_BYTES,
    CodingError,
    Decoder,
    DecodeScheduler,
    maybe_decoder,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PLAIN = b"".join(b"data: %d\n\n" % i for i in range(20_000))
SKIPPED = b"\x50\x2a\x4d\x18\x05\x00\x00\x00other"  # a zstd frame without content


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def decoder_of(coding: str) -> Decoder:
    decoder = maybe_decoder(coding)
    assert decoder
    return decoder


def steps(decoder: Decoder, data: bytes) -> list[bytes]:
    """What each step gives until *data* is used up."""
    decoder.feed(data)
    given = []
    while not decoder.hungry:
        given.append(decoder.step())
    return given


def gzips(*parts: bytes) -> bytes:
    return b"".join(map(gzip.compress, parts))


def frames(*parts: bytes) -> bytes:
    return b"".join(map(zstd.compress, parts))


WHOLE = [
    pytest.param("gzip", gzips(PLAIN), id="gzip"),
    pytest.param("gzip", gzips(PLAIN[:9], PLAIN[9:]), id="two-members"),
    pytest.param("gzip", gzips(b"", PLAIN[:9], b"", PLAIN[9:], b""), id="empty-ones"),
    pytest.param("gzip", gzips(PLAIN) + bytes(3000), id="padded"),
    pytest.param("deflate", zlib.compress(PLAIN), id="deflate"),
    pytest.param("deflate", bare_deflate(PLAIN), id="bare-deflate"),
    pytest.param("zstd", zstd.compress(PLAIN), id="zstd"),
    pytest.param("zstd", zstd.compress(PLAIN, 19), id="largest-window"),
    pytest.param("zstd", frames(PLAIN[:9], PLAIN[9:]), id="two-frames"),
    pytest.param(
        "zstd", frames(b"", PLAIN[:9], b"", PLAIN[9:], b""), id="empty-frames"
    ),
    pytest.param(
        "zstd", SKIPPED + frames(PLAIN[:9]) + SKIPPED + frames(PLAIN[9:]), id="skipped"
    ),
]


@pytest.mark.parametrize("size", [1, 100, 10**9])
@pytest.mark.parametrize("coding, packed", WHOLE)
def test_any_cutting_gives_the_same_bytes(
    coding: str, packed: bytes, size: int
) -> None:
    decoder, got = decoder_of(coding), bytearray()
    for i in range(0, len(packed), size):
        got += b"".join(steps(decoder, packed[i : i + size]))

    assert PLAIN == bytes(got)
    assert decoder.whole


@pytest.mark.parametrize("coding, packed", WHOLE)
def test_a_body_that_was_cut_is_not_whole(coding: str, packed: bytes) -> None:
    decoder = decoder_of(coding)
    assert not decoder.whole
    steps(decoder, packed.rstrip(b"\0")[:-9])

    assert not decoder.whole


@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize(
    "coding, packed",
    [
        pytest.param("gzip", gzips(PLAIN), id="gzip"),
        pytest.param("gzip", gzips(PLAIN) + bytes(9), id="gzip-padded"),
        pytest.param("deflate", zlib.compress(PLAIN), id="deflate"),
        pytest.param("deflate", bare_deflate(PLAIN), id="bare-deflate"),
        pytest.param("zstd", zstd.compress(PLAIN), id="zstd"),
    ],
)
def test_garbage_behind_the_end_is_an_error(
    coding: str, packed: bytes, apart: bool
) -> None:
    decoder = decoder_of(coding)

    with pytest.raises(CodingError):
        if apart:
            steps(decoder, packed)
            steps(decoder, b"garbage")
        else:
            steps(decoder, packed + b"garbage")


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_bytes_of_another_kind_are_an_error(coding: str) -> None:
    with pytest.raises(CodingError):
        steps(decoder_of(coding), b"neither gzip nor zstd")


def test_a_window_beyond_8_mib_is_an_error() -> None:
    """The sender says how much memory its frame needs; nothing else bounds it."""
    large = bytes(range(256)) * (40 * 1024 * 4)  # 40 MiB
    frame = zstd.compress(large, options={zstd.CompressionParameter.window_log: 25})

    with pytest.raises(CodingError, match="memory"):
        steps(decoder_of("zstd"), frame)


@pytest.mark.parametrize("coding", ["br", "compress", "gzip,zstd", "identity"])
def test_other_codings_have_no_decoder(coding: str) -> None:
    assert maybe_decoder(coding) is None


# --- bounded steps ---


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_much_from_little_comes_in_small_pieces(coding: str) -> None:
    zeros = bytes(PIECE_BYTES * 40 + 17)
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}

    lengths = [len(one) for one in steps(decoder_of(coding), pack[coding](zeros))]

    assert len(zeros) == sum(lengths)
    assert PIECE_BYTES >= max(lengths)


@pytest.mark.parametrize(
    "coding, nothing",
    [
        pytest.param("gzip", gzip.compress(b""), id="gzip"),
        pytest.param("zstd", zstd.compress(b""), id="zstd"),
        pytest.param("zstd", SKIPPED, id="skipped"),
    ],
)
def test_a_step_passes_over_a_bounded_number_of_empty_members(
    coding: str, nothing: bytes
) -> None:
    given = steps(decoder_of(coding), nothing * 1000)

    assert b"" == b"".join(given)
    assert len(given) >= 1000 / CALLS_A_STEP


def test_a_step_looks_at_a_bounded_part_of_what_was_fed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each call copies what it leaves, so a large rest would cost it each time."""
    sizes: list[int] = []
    made = zlib.decompressobj

    class Watched:
        def __init__(self, wbits: int) -> None:
            self._made = made(wbits)

        def decompress(self, data: bytes, limit: int) -> bytes:
            sizes.append(len(data))
            return self._made.decompress(data, limit)

        def __getattr__(self, name: str) -> object:
            return getattr(self._made, name)

    monkeypatch.setattr(zlib, "decompressobj", Watched)
    steps(decoder_of("gzip"), gzip.compress(b"x") * 20_000)

    assert content_coding.SLICE_BYTES == max(sizes)


# --- turns ---


async def test_one_step_is_taken_in_each_pass_of_the_loop() -> None:
    turns, loop = DecodeScheduler(), asyncio.get_running_loop()
    passes, taken = 0, []
    running = True

    def count() -> None:
        nonlocal passes
        passes += 1
        if running:
            loop.call_soon(count)

    async def body(name: int) -> None:
        for _ in range(10):
            await turns.wait()
            taken.append((passes, name))

    loop.call_soon(count)
    await asyncio.gather(*(body(name) for name in range(5)))
    running = False

    assert 50 == len(taken)
    assert 1 == max(Counter(at for at, _ in taken).values())
    rounds = [sorted(name for _, name in taken[i : i + 5]) for i in range(0, 50, 5)]
    assert [[0, 1, 2, 3, 4]] * 10 == rounds


async def test_a_body_that_leaves_its_turn_holds_up_no_other() -> None:
    turns = DecodeScheduler()
    leaving = asyncio.create_task(turns.wait())
    staying = asyncio.create_task(turns.wait())
    await asyncio.sleep(0)
    leaving.cancel()

    async with asyncio.timeout(5):
        await staying
        await turns.wait()
    assert leaving.cancelled()
