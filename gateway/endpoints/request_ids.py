"""The ids of requests: a client's own, or a new one."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

# A key fits, too, and an id is in every log line: the gateway's own, and those of the
# vendors whose form cannot be mistaken.
_KEY = r"(?:gw-[A-Za-z0-9_-]{43}|sk-[A-Za-z0-9_-]{32,}|AIza[A-Za-z0-9_-]{35})\Z"
_REQUEST_ID = re.compile(rf"(?!{_KEY})[A-Za-z0-9._-]{{8,128}}")


def request_id_of(headers: Mapping[str, str], unix_s: float) -> str:
    """The client's own id where it is one, else a new UUID."""
    given = headers.get("x-request-id", "")
    if given and _REQUEST_ID.fullmatch(given):
        return given
    return new_uuid(unix_s)


def new_uuid(unix_s: float) -> str:
    """
    A UUID of version 7: the time in milliseconds, then 74 bits of chance. Unique, not
    secret. Ids that grow with the time fall into one place of the ledger's index.

    Source: RFC 9562, 5.7
    """
    ms, bits = int(unix_s * 1000), random.getrandbits(74)
    return "%08x-%04x-7%03x-%04x-%012x" % (
        ms >> 16,
        ms & 0xFFFF,
        bits >> 62,
        0x8000 | bits >> 48 & 0x3FFF,
        bits & 0xFFFF_FFFF_FFFF,
    )
