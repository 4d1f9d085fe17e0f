"""
Redaction of foreign text, before it enters the log, the ledger or an answer.

Upstreams, proxies, databases, libraries and clients quote what they were sent: keys,
passwords, prompts.

Rule 1: every secret that the gateway knows is taken out, in each form in which it may
        be quoted: as it is, URL-encoded, escaped in JSON, Python or HTML, and inside
        base64.
Rule 2: so is what looks like a key or follows a credential's name.
Rule 3: so is what repeats the request's own body: it is the prompt.
Rule 4: so is long quoted text; the rest is bounded.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Collection, Iterable, Iterator
from urllib.parse import quote, quote_plus

REDACTED = "[redacted]"
MAX_DETAIL_CHARS = 300  # of foreign text in log and ledger
MAX_QUOTE_CHARS = 200  # of foreign text in a client's answer
MAX_READ_CHARS = 4000  # of foreign text that are read
MAX_QUOTED_CHARS = 80  # between quotation marks; longer is no name but a text
MIN_SECRET_CHARS = 3
SHORT_SECRET_CHARS = 8  # a shorter one is taken out only where it is a whole word
MIN_BASE64_CHARS = 8  # of what is looked for inside base64
MAX_COMPARED_BYTES = 4 * 1024 * 1024  # of a body in which words are looked for
SCAN_BYTES = 8 * 1024 * 1024  # that are searched for one text: some milliseconds
SMALL_BODY_BYTES = 16 * 1024
SMALL_WINDOW, WINDOW = 6, 12  # characters; twice as many in one run are the prompt's

# Header values of an account that are no secrets, and that upstreams complain about.
_LOOKS_LIKE_A_KEY = re.compile(
    r"""(?<![A-Za-z0-9])(?:
      (?:sk|rk|gw|sess)-[\w*.…-]{6,}         # OpenAI, Anthropic, OpenRouter; ours
    | (?:sk|rk)_(?:live|test)_\w{6,}
    | AIza[\w*-]{16,} | ya29\.[\w.*-]{10,}   # Google
    | gh[oprsu]_\w{16,} | github_pat_\w{16,} | glpat-[\w-]{16,}
    | hf_\w{16,} | gsk_\w{16,} | xai-\w{16,} | nvapi-[\w-]{16,} | r8_\w{16,}
    | xox[a-z]-[\w-]{8,}                     # Slack
    | (?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}   # AWS
    | eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?   # a JWT
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?(?:-----END|\Z)
    )""",
    re.X | re.S,
)
# The same in a tenth of the time, and too often.
_BEGINS_LIKE_A_KEY = re.compile(
    "sk[-_]|rk[-_]|gw-|sess-|AIza|ya29|gho_|ghp_|ghr_|ghs_|ghu_|github_pat|glpat-|hf_"
    "|gsk_|xai-|nvapi-|r8_|xox|AKIA|ASIA|ABIA|ACCA|eyJ|-----BEGIN"
)
_SCHEME = re.compile(
    r"\b(Bearer|Basic|Digest|Negotiate)\b[\s:=]+(?=[^\s,;]*[0-9A-Z_.=*-])[^\s,;'\"]{6,}"
)
_NAMED = re.compile(
    r"""(?<![\w-])
    ((?:proxy-)?authorization|(?:x-)?(?:goog-)?api[-_]?key|(?:set-)?cookie
     |[\w-]*[-_]token|[\w-]*secret|passw(?:or)?d|pwd)
    (["']?\s*[:=]\s*["']?)
    (?:(?:Bearer|Basic|Digest|Negotiate)\s+)?
    [^\s"',;&}\])]+""",
    re.X | re.I,
)
_USERINFO = re.compile(r"(?<=://)[^\s/@'\"]+@")
# What is about the operator, not about the request.
_INTERNAL = re.compile(
    r"""[a-z][a-z0-9+.-]*://\S+                          # URLs
    | \barn:\S+
    | [\w.+-]+@[\w-]+(?:\.[\w-]+)+                      # e-mail
    | \b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b              # IPv4
    | (?<![\w:])\[?(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}\]?(?::\d+)?(?![\w:])  # IPv6
    | \blocalhost\b(?::\d+)?
    | \b(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+          # names of hosts
      (?:com|net|org|io|ai|app|dev|cloud|de|eu|uk|us|cn|jp|fr|co|me|so|gg|tech|xyz
       |local|localdomain|internal|intranet|private|corp|home|lan|svc|cluster|arpa)
      \b(?::\d+)?
    | \b[a-z][\w-]*:(?:80|443|\d{4,5})\b               # a host's name and port
    | (?<![\w/])~?(?:/[\w.@+-]+)+/?                     # paths
    | \b[a-z]:\\[^\s"']+
    | \b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b   # UUIDs
    | \b(?:org|proj|wrkspc|acct|cus)[-_]\w[\w-]*        # ids
    | \b(?:user|req|team|workspace|account|key|apikey|sub|tenant|project)[-_]
      (?=[\w-]*\d)\w[\w-]*
    | \b(?:organi[sz]ation|project|workspace|tenant|subscription|account|deployment)
      (?:\s+(?:id|named?))?[\s:=]+
      (?:(['"`“])[^'"`”]{1,100}['"`”]|(?=[\w.-]*\d)[\w.-]+)
    | \b\d{9,}\b                                       # numbers of accounts
    """,
    re.X | re.I,
)
_LAST_WORD = re.compile(r"\S*\Z")
_NAME = re.compile(r"[\w.:/-]{1,64}")
# What a body escapes, and the marks around something quoted.
_BETWEEN = re.compile(r"([\x00-\x1f\x7f\\\\\"'`“”]+|\[redacted\])")
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_QUOTED = re.compile(
    r"(\")[^\"]{%(n)d,}(\"|\Z)|(`)[^`]{%(n)d,}(`|\Z)|(“)[^”]{%(n)d,}(”|\Z)"
    r"|(?<!\w)(')[^']{%(n)d,}('(?!\w)|\Z)" % {"n": MAX_QUOTED_CHARS + 1}
)


class Redaction:
    """
    Args:
        secrets: what must never be written.

    Attributes:
        secrets: the same.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.secrets = frozenset(secrets)
        self._raw = tuple(self.secrets)
        forms = {form for secret in self.secrets for form in _forms(secret)}
        self._forms = sorted(forms, key=len, reverse=True)
        self._forms_bytes = [form.encode() for form in self._forms]
        # A short one is a word of its own, or it would break others: "none", "test".
        # What goes on behind it may be a longer key, or the rest of its base64.
        self._known = rf"(?:{'|'.join(map(_pattern, self._forms)) or '(?!)'})[\w*=-]*"

    def clean(self, text: str) -> str:
        """*text* without secrets: known ones, and what looks like one."""
        text = _NAMED.sub(rf"\1\2{REDACTED}", self.clean_own(text))
        return _SCHEME.sub(rf"\1 {REDACTED}", text)

    def clean_own(self, text: str) -> str:
        """
        *text* of ours, which may hold a secret, but no credential behind its name.

        A mistake of the config begins with a path, as ``account[0].api_key: ``; what
        follows is a sentence.
        """
        if any(form in text for form in self._forms):
            text = re.sub(self._known, REDACTED, text)
        text = _LOOKS_LIKE_A_KEY.sub(REDACTED, text)
        return _USERINFO.sub(REDACTED + "@", text)

    def quote(self, text: str) -> str:
        """
        *text* as a client may read it, at most MAX_QUOTE_CHARS: besides secrets, what
        is about the operator is taken out: addresses, paths, ids, e-mail.
        """
        text = _cut(text)
        text = _INTERNAL.sub(REDACTED, self.clean(text))
        text = _BLANKS.sub(" ", text).strip().replace('"', "'")
        return _bounded(text, MAX_QUOTE_CHARS)

    def clean_id(self, text: str) -> str:
        """*text*, an id or a name from outside, without secrets; quick."""
        if _BEGINS_LIKE_A_KEY.search(text):
            return self.clean(text)
        for secret in self._raw:  # ``any`` would take twice as long
            if secret in text:
                return self.clean(text)
        return text

    def clean_bytes(self, data: bytes) -> bytes:
        """*data* without the secrets that are known; else byte for byte the same."""
        if not any(form in data for form in self._forms_bytes):
            return data
        return re.sub(self._known.encode(), REDACTED.encode(), data)

    def detail(self, text: str, own: bytes = b"", keep: Collection[str] = ()) -> str:
        """
        *text* in one line of at most MAX_DETAIL_CHARS, without secrets and prompts.

        Args:
            own: the body of the request that *text* is about.
            keep: names that may be said although the body holds them.
        """
        text = without_own_words(self.clean(_cut(text)), own, keep)
        text = _QUOTED.sub(_ellipsis, _BLANKS.sub(" ", text).strip())
        return _bounded(text, MAX_DETAIL_CHARS)


def _cut(text: str) -> str:
    """*text*, or its first MAX_READ_CHARS without the word that is cut there."""
    if len(text) <= MAX_READ_CHARS:
        return text
    return _LAST_WORD.sub("", text[:MAX_READ_CHARS])


def _bounded(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _ellipsis(found: re.Match[str]) -> str:
    marks = [mark for mark in found.groups() if mark]
    return f"{marks[0]}…{marks[-1]}"


def _pattern(form: str) -> str:
    pattern = re.escape(form)
    return rf"(?<!\w){pattern}(?!\w)" if len(form) < SHORT_SECRET_CHARS else pattern


def _forms(secret: str) -> Iterator[str]:
    """*secret* in every form in which it may be quoted."""
    yield secret
    yield from (quote(secret), quote(secret, safe=""), quote_plus(secret))
    yield from (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    yield json.dumps(secret)[1:-1].replace("/", "\\/")
    yield from (repr(secret)[1:-1], repr(secret.encode())[2:-1], html.escape(secret))
    data = secret.encode()
    # Inside base64 it begins at any of three offsets: the bytes before it decide on the
    # first characters, the bytes behind it on the last.
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + data).decode()
        first = (0, 2, 3)[before]
        core = whole[first : (before + len(data)) * 8 // 6]
        if len(core) >= MIN_BASE64_CHARS:
            yield from (core, core.replace("+", "-").replace("/", "_"))


# --- the request's own words ----------------------------------------------------------


def without_own_words(text: str, body: bytes, keep: Collection[str] = ()) -> str:
    """
    *text* without what it repeats of *body*, JSON as a client sent it.

    Names of the body's fields, and *keep*, may stay. Time is bounded by SCAN_BYTES:
    the larger the body, the longer must be what is found. Of a body above
    MAX_COMPARED_BYTES no words are kept, only the text before the first colon.
    """
    if not body:
        return text
    if len(body) > MAX_COMPARED_BYTES:
        head, colon, _ = text.partition(":")
        return f"{head[:MAX_QUOTED_CHARS]}: …" if colon else "…"
    size = SMALL_WINDOW if len(body) <= SMALL_BODY_BYTES else WINDOW
    step = max(SMALL_WINDOW, len(text) * len(body) // SCAN_BYTES)
    pieces = _BETWEEN.split(text)  # each second one is a separator
    pieces[::2] = [
        _without_runs(piece, body, size, step, keep) for piece in pieces[::2]
    ]
    return "".join(pieces)


def _without_runs(
    text: str, body: bytes, size: int, step: int, keep: Collection[str]
) -> str:
    """*text* with an ellipsis in place of each run that *body* holds."""
    kept, at, done = "", 0, 0
    while at + size <= len(text):
        if not _is_in(text[at : at + size], body):
            at += step
            continue
        start, end = _run(text, at, at + size, done, body)
        run = text[start:end]
        if len(run) >= 2 * size and not _is_name(run.strip(" .,:;()"), body, keep):
            kept += text[done:start] + "…"
            done = end
        at = max(end, at + step)
    return kept + text[done:]


def _run(text: str, start: int, end: int, least: int, body: bytes) -> tuple[int, int]:
    """The longest part of *text* around *start* … *end* that *body* holds."""
    low, high = end, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if _is_in(text[start:middle], body):
            low = middle
        else:
            high = middle - 1
    end, low, high = low, least, start
    while low < high:
        middle = (low + high) // 2
        if _is_in(text[middle:end], body):
            high = middle
        else:
            low = middle + 1
    return low, end


def _is_name(run: str, body: bytes, keep: Collection[str]) -> bool:
    """Whether *run* is a name: one of *keep*, or of a field in *body*."""
    if run in keep:
        return True
    if not _NAME.fullmatch(run):
        return False
    return re.search(rb'"%b"\s*:' % re.escape(run.encode()), body) is not None


def _is_in(text: str, body: bytes) -> bool:
    """Whether *body* holds *text*, its letters escaped or not."""
    if text.encode("utf-8", "surrogatepass") in body:
        return True
    return not text.isascii() and json.dumps(text)[1:-1].encode() in body
