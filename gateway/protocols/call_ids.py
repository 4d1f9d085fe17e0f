"""
Call ids that a Messages client may keep.

Its history may go to Anthropic itself, which takes ``A-Z a-z 0-9 _ -`` alone, while
other servers want their ids back as they were (Kimi K2 reads ``functions.read:0``). So
an id with other characters is written in that alphabet, and read back from it.
"""

from __future__ import annotations

import base64
import binascii
import re

TAG = "gwid_"
_NARROW = re.compile(r"[A-Za-z0-9_-]+")


def narrow(call_id: str) -> str:
    """*call_id* in the narrow alphabet; unchanged where it is."""
    if not call_id or _NARROW.fullmatch(call_id):
        return call_id
    text = base64.urlsafe_b64encode(call_id.encode("utf-8", "surrogatepass"))
    return TAG + text.decode().rstrip("=")


def wide(call_id: str) -> str:
    """The way back of ``narrow``."""
    if not call_id.startswith(TAG):
        return call_id
    body = call_id[len(TAG) :]
    try:
        text = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        original = text.decode("utf-8", "surrogatepass")
    except (binascii.Error, ValueError):
        return call_id
    return original if narrow(original) == call_id else call_id
