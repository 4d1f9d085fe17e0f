"""
Cut a byte stream into whole Server-Sent Events, wherever the chunks break.

A half-received event is never handed out, so whoever writes only what came from here
can stop between any two writes and still leave a well-formed stream. Bytes pass as
they are: line ends, comments, unknown fields, a leading byte order mark.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import re

MAX_EVENT_BYTES = 32 * 1024 * 1024

# A blank line: one line end directly after another. CRLF is one line end.
_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\n\n|\n\r\n|\r\r\n|\r\r|\n\r|\r\n\r")


class EventTooLarge(Exception):
    """One event is larger than ``MAX_EVENT_BYTES``."""
