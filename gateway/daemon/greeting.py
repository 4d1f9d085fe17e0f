"""
The greeting: a first request to paste, for a config without users.

It is the one place where a key is shown, and that key is valid until the process stops.
"""

from __future__ import annotations

from pathlib import Path

from gateway import trial
from gateway.telemetry import log

# A file, since quotes would be escaped in a line of the log.
HELLO = Path(trial.__file__).with_name("hello.json")
TEXT = """
The gateway listens on {address}. There is no [[user]] in the config, so here is a key
that is good until the gateway stops:

    {key}

Paste this into another terminal:

    {curl}
"""


PAGE = """
See it arrive on the operator's page (this link logs in):

    {link}
"""


def greet(address: str, key: str, log_format: str, link: str = "") -> None:
    """
    Show *key*, a request that uses it, and where its arrival can be seen.

    Args:
        address: where the daemon listens, as a config writes it.
        key: "" where users were made at run time; then the link alone is shown.
        link: to the operator's page, with a throwaway token; "" for none.
        log_format: as in the config; a terminal gets prose, a log one event.
    """
    url, unix = f"http://{address}/v1/responses", ""
    if address.startswith("unix:"):
        url, unix = "http://localhost/v1/responses", f"--unix-socket {address[5:]} "
    curl = (
        f"curl -N {unix}{url} -H 'Authorization: Bearer {key}' "
        f"-H 'Content-Type: application/json' -d @{HELLO}"
    )
    if log.is_console(log_format):
        text = TEXT.format(address=address, key=key, curl=curl) if key else ""
        log.say(text + (PAGE.format(link=link) if link else ""))
    else:
        facts = {"key": key, "curl": curl} if key else {}
        page = {"page": link} if link else {}
        log.get().info("server.greeted", address=url, **facts, **page)
