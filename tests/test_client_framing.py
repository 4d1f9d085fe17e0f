"""What leaves for a client, as bytes."""

from __future__ import annotations

import pytest
from aiohttp.http import HttpVersion11

from gateway.client.framing import head_of


def test_a_head_is_a_status_and_its_headers() -> None:
    head = head_of(
        HttpVersion11, {"Server": "gateway", "x-codex-plan": "caf\u00e9 \udce9"}, True
    )

    *lines, date, _, _ = head.split(b"\r\n")
    assert [
        b"HTTP/1.1 200 OK",
        b"Server: gateway",
        b"x-codex-plan: caf\xc3\xa9 \xe9",
    ] == lines
    assert date.startswith(b"Date: ") and date.endswith(b" GMT")
    assert head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_no_header_breaks_out_of_its_line(end: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        head_of(HttpVersion11, {"Server": f"gateway{end}x-request-id: other"}, True)
