"""A stream's life: what passes, when it has begun, how it ends, at every break."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gateway.errors import Overloaded, UpstreamError
from gateway.protocols import PROTOCOLS
from gateway.protocols.stream_facts import StreamFacts
from gateway.protocols.stream_state import Batch, PassThrough, StreamState

STREAMS = Path(__file__).parent / "wire" / "streams"
ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("GATEWAY_SHARED", ROOT.parent / "shared"))
REQUEST_ID = "fd277bc5-ff7e-45d1-8aa9-f54e1df318f1"
NAMES = list(PROTOCOLS)
FIRST_OUTPUT = {
    "responses": b"gr\\u00fc",
    "chat": b"say [DONE]",
    "messages": b"quote: ",
}


def stream_of(name: str) -> bytes:
    return (STREAMS / f"{name}.sse").read_bytes()


def chunks(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def relayed(
    name: str, pieces: list[bytes], *, clean: bool = True
) -> tuple[bytes, Batch]:
    """What a client gets of *pieces* and then the end: its bytes, the last batch."""
    watch, got = PassThrough(PROTOCOLS[name], PROTOCOLS[name].new_facts()), b""
    for piece in pieces:
        batch = watch.feed(piece)
        got += batch.data + batch.terminal
        if batch.ending:
            return got, batch
    batch = watch.finish(clean=clean)
    return got + batch.data + batch.terminal, batch


@pytest.mark.parametrize("size", [1, 2, 97, 1 << 20])
@pytest.mark.parametrize("name", NAMES)
def test_a_whole_stream_passes_byte_for_byte(name: str, size: int) -> None:
    stream = stream_of(name)
    got, last = relayed(name, chunks(stream, size))

    assert stream == got
    assert last.ending and "ok" == last.ending.outcome


@pytest.mark.parametrize("data", [b"{", b'{"type":"x" ', b"{}", b'{"a":1}'])
@pytest.mark.parametrize(
    "name, terminal, outcome",
    [
        ("responses", b"response.completed", "failed"),
        ("messages", b"message_stop", "ok"),  # all but this was there
    ],
)
def test_a_terminal_in_name_alone_is_no_ending(
    name: str, terminal: bytes, outcome: str, data: bytes
) -> None:
    """A client that goes by the names must not see one ending and then another."""
    said = stream_of(name).replace(b"\r\n", b"\n")
    start = said.index(b"event: " + terminal)
    broken = said[:start] + b"event: %b\ndata: %b\n\n" % (terminal, data)
    got, last = relayed(name, chunks(broken, 97))

    assert last.ending and outcome == last.ending.outcome
    assert got == said[:start] + PROTOCOLS[name].last_word


@pytest.mark.parametrize("name", NAMES)
def test_usage_and_ids_are_learnt_on_the_way(name: str) -> None:
    facts = PROTOCOLS[name].new_facts()
    PassThrough(PROTOCOLS[name], facts).feed(stream_of(name))
    usage = facts.usage

    assert (11, 3, 7) == (usage.input_tokens, usage.cached_tokens, usage.output_tokens)
    assert facts.response_id and facts.model
    if name != "messages":
        assert 2 == usage.reasoning_tokens


@pytest.mark.parametrize("name", NAMES)
def test_output_begins_with_the_first_real_delta(name: str) -> None:
    watch, held = PassThrough(PROTOCOLS[name], PROTOCOLS[name].new_facts()), b""
    for piece in chunks(stream_of(name), 1):
        batch = watch.feed(piece)
        held += batch.data
        if batch.started:
            break

    assert FIRST_OUTPUT[name] in held
    assert 1 == held.count(FIRST_OUTPUT[name])


@pytest.mark.parametrize("clean", [True, False], ids=["eof", "reset"])
@pytest.mark.parametrize("name", NAMES)
def test_cut_anywhere_only_whole_events_are_out(name: str, clean: bool) -> None:
    """An ending can always follow, and no cut stream looks whole by accident."""
    stream = stream_of(name)
    whole_from = _whole_from(name, stream, clean)
    for cut in range(len(stream)):
        got, last = relayed(name, [stream[:cut]], clean=clean)

        assert last.ending
        failed = last.ending.outcome == "failed"
        assert failed == (cut < whole_from), f"cut at {cut}"
        assert not got or got.endswith(b"\n\n")
        if failed:  # what is out are the upstream's own bytes
            assert stream.startswith(got)


def _whole_from(name: str, stream: bytes, clean: bool) -> int:
    """From which cut on the answer is known to be whole."""
    if name == "responses":
        return len(stream) - (2 if clean else 0)
    last = b'"finish_reason":"stop"' if name == "chat" else b"event: message_delta"
    return stream.index(b"\n\n", stream.index(last)) + (0 if clean else 2)


@pytest.mark.parametrize(("lost", "outcome"), [(1, "ok"), (2, "ok"), (3, "failed")])
def test_a_terminal_that_lacks_its_blank_line_at_a_clean_end(
    lost: int, outcome: str
) -> None:
    stream = stream_of("responses")
    got, last = relayed("responses", [stream[:-lost]])

    assert last.ending and outcome == last.ending.outcome
    assert (got == stream) == (outcome == "ok")


def test_the_same_at_a_reset_is_a_cut() -> None:
    got, last = relayed("responses", [stream_of("responses")[:-1]], clean=False)

    assert last.ending and "failed" == last.ending.outcome


@pytest.mark.parametrize("name", NAMES)
def test_nothing_follows_the_terminal(name: str) -> None:
    stream = stream_of(name)
    got, _ = relayed(name, [stream + b"data: late\n\n"])

    assert stream == got


@pytest.mark.parametrize(
    ("name", "stream", "code"),
    [
        pytest.param("chat", b"", "upstream_empty", id="nothing"),
        pytest.param("chat", b"data: [DONE]\n\n", "upstream_empty", id="only-done"),
        pytest.param("messages", b": hi\n\n", "upstream_empty", id="only-comments"),
        pytest.param("responses", b"<html>no</html>", "upstream_malformed", id="html"),
        pytest.param("messages", b'\n {"a":1}', "upstream_malformed", id="json"),
        pytest.param("chat", b"data: {", "upstream_cut", id="half-an-event"),
        pytest.param(
            "responses",
            b'event: error\ndata: {"type":"error","message":"m","code":"c"}\n\n',
            "upstream_failed",
            id="error-without-failed",
        ),
        pytest.param(
            "chat",
            b'data: {"error":{"message":"m","type":"t"}}\n\n',
            "upstream_failed",
            id="chat-error-chunk",
        ),
        pytest.param(
            "chat", b'data: {"error":"text"}\n\n', "upstream_failed", id="error-text"
        ),
        pytest.param(
            "messages",
            b'event: error\ndata: {"type":"error","error":{"type":"api_error"}}\n\n',
            "upstream_failed",
            id="messages-error",
        ),
    ],
)
def test_what_is_no_answer_fails(name: str, stream: bytes, code: str) -> None:
    _, last = relayed(name, [stream])

    assert not last.started
    assert last.ending and last.ending.error
    assert code == last.ending.error.code


def test_the_usage_chunk_is_hidden_from_who_did_not_ask() -> None:
    facts = PROTOCOLS["chat"].new_facts()
    facts.hide_usage = True
    watch, got = PassThrough(PROTOCOLS["chat"], facts), b""
    for piece in chunks(stream_of("chat"), 50):
        batch = watch.feed(piece)
        got += batch.data + batch.terminal

    assert b"prompt_tokens" not in got
    assert got.endswith(b"data: [DONE]\n\n")
    assert 7 == facts.usage.output_tokens


def test_a_cut_by_the_limit_is_incomplete() -> None:
    stream = stream_of("chat").replace(b'"stop"', b'"length"')
    _, last = relayed("chat", [stream])

    assert last.ending and "incomplete" == last.ending.outcome


@pytest.mark.parametrize("together", [True, False], ids=["one-read", "each-its-own"])
def test_of_two_choices_both_must_finish(together: bool) -> None:
    chunk = (
        'data: {"choices":[{"index":%d,"delta":{"content":"x"},"finish_reason":%s}]}'
    )
    lines = [chunk % (0, "null"), chunk % (1, "null"), chunk % (0, '"stop"')]
    pieces = [f"{line}\n\n".encode() for line in lines]
    _, last = relayed("chat", [b"".join(pieces)] if together else pieces)

    assert last.ending and "failed" == last.ending.outcome


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("name", NAMES)
def test_needles_within_a_large_read_are_found(name: str, end: str) -> None:
    stream = stream_of(name)
    begin = stream.index(FIRST_OUTPUT[name])
    first = stream.index(b"\n\n", begin) + 2
    delta = stream[stream.rindex(b"\n\n", 0, begin) + 2 : first]
    whole = stream[:first] + delta * 50 + stream[first:]
    whole = whole.replace(b"\n", end.encode())
    for size in (40, 997, 1 << 20):
        got, last = relayed(name, chunks(whole, size))

        assert whole == got
        assert last.ending and "ok" == last.ending.outcome


@pytest.mark.parametrize("name", NAMES)
def test_the_state_follows_the_events(name: str) -> None:
    watch = PassThrough(PROTOCOLS[name], PROTOCOLS[name].new_facts())
    states = [watch.state]
    for piece in chunks(stream_of(name), 1):
        watch.feed(piece)
        if watch.state is not states[-1]:
            states.append(watch.state)

    assert [StreamState.WAITING, StreamState.STREAMING, StreamState.CLOSED] == states


# --- the vectors, where they are at hand --------------------------------------------


@pytest.fixture(scope="module")
def wirecheck() -> ModuleType:
    folder = SHARED / "vectors"
    if not folder.is_dir():
        pytest.skip(f"no vectors in {folder} (GATEWAY_SHARED names their parent)")
    sys.path.insert(0, str(folder))
    try:
        import wirecheck as module
    finally:
        sys.path.remove(str(folder))
    return module


def _vectors() -> list[pytest.ParameterSet]:
    return [
        pytest.param(name, path, id=f"{name}-{path.stem}")
        for name in NAMES
        for path in sorted((SHARED / "vectors" / name).glob("*.sse"))
    ] or [pytest.param("responses", Path("absent"), id="absent")]


@pytest.mark.parametrize(("name", "path"), _vectors())
def test_vectors_pass_whole_in_pieces_of_any_size(
    wirecheck: ModuleType, name: str, path: Path
) -> None:
    stream = path.read_bytes()
    expected = json.loads(path.with_suffix(".json").read_text())
    for size in (1, 2, 97, 1 << 20):
        got, last = relayed(name, chunks(stream, size))

        assert last.ending
        whole = last.ending.outcome != "failed"
        assert stream.startswith(got) or whole
        finish = (expected["expect"] or {}).get("finish")
        assert whole == (finish not in (None, "error"))


@pytest.mark.parametrize(("name", "path"), _vectors())
def test_vectors_cut_at_every_byte_end_legally(
    wirecheck: ModuleType, name: str, path: Path
) -> None:
    wire, stream = PROTOCOLS[name], path.read_bytes()
    frames: dict[bytes, bytes] = {}
    for cut in range(len(stream) + 1):
        facts = wire.new_facts()
        watch = PassThrough(wire, facts)
        batch = watch.feed(stream[:cut])
        got = batch.data + batch.terminal
        if not batch.ending:
            batch = watch.finish()
            got += batch.data + batch.terminal
        failed = batch.ending and batch.ending.outcome == "failed"
        if failed:  # the upstream's own words are passed on only where they may be
            got = got.removesuffix(batch.terminal)
            error = UpstreamError("upstream_cut")
            got += wire.failure_frame(error, REQUEST_ID, facts, "")
        frames[got] = got
    for got in frames:
        events = wirecheck.parse_sse([got])

        assert [] == [p for p in wirecheck.grammar(name, events) if "sequence" not in p]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wait", [None, 7.0], ids=["no-wait", "wait"])
def test_the_own_ending_has_the_form_that_clients_read(
    wirecheck: ModuleType, name: str, wait: float | None
) -> None:
    error = Overloaded("queue_timeout", retry_after_s=wait)
    frame = PROTOCOLS[name].failure_frame(error, REQUEST_ID, StreamFacts(), "m")

    assert [] == wirecheck.failure_ending(name, frame)


OVERLOAD = "Selected model is at capacity. Please try a different model."


def chat_text(*deltas: str, tool: bool = False) -> bytes:
    choices = [{"index": 0, "delta": {"content": delta}} for delta in deltas]
    if tool:
        call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}
        choices.append({"index": 0, "delta": {"tool_calls": [call]}})
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    frames = [b"data: " + json.dumps({"choices": [c]}).encode() for c in choices]
    return b"\n\n".join([*frames, b"data: [DONE]", b""])


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        pytest.param(chat_text(OVERLOAD), "upstream_overloaded", id="in-one"),
        pytest.param(chat_text(*OVERLOAD), "upstream_overloaded", id="by-letters"),
        pytest.param(chat_text(OVERLOAD, tool=True), "", id="and-a-call"),
        pytest.param(chat_text(OVERLOAD, " Or wait."), "", id="and-more"),
        pytest.param(chat_text("Selected", " files are here"), "", id="only-begins-so"),
    ],
)
def test_an_overload_sent_as_the_answer_is_no_answer(stream: bytes, code: str) -> None:
    got, last = relayed("chat", [stream])

    assert last.ending
    assert code == (last.ending.error.code if last.ending.error else "")
    assert code or stream == got
