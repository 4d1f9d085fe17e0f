"""What the parent has to know of a config."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from gateway.config.load import ConfigSource, ServedConfig, needs_engine, worker_count
from gateway.config.schema import SharedSettings


def settings_of(
    served: ServedConfig, started: ConfigSource, folder: Path
) -> dict[str, Any]:
    """
    What the parent has to know of a config: what is its own affair, and ``served``,
    which it hands to other workers as it is.

    Args:
        started: what the first config was made of. Keys that need a restart keep its
            values, also in a worker that is started later.
    """
    server, admin = served.config.server, served.config.admin
    return {
        "listen": {
            "public": server.listen,
            "admin": [absolute(one, folder) for one in (admin.listen if admin else ())],
        },
        "workers": worker_count(served.config),
        "engine": needs_engine(served.config),
        "shared": _mark_of(served.config.shared),
        "log_level": server.log_level,
        "log_format": server.log_format,
        "drain_timeout_s": server.drain_timeout_s,
        "served": {
            "source": served.source._asdict(),
            "started": started._asdict(),
            "key": served.key,
            "admin_token": served.admin_token,
        },
    }


def _mark_of(shared: SharedSettings) -> str:
    """What two configs of the same engine have in common; it holds no secret."""
    place = "\n".join((shared.prefix, shared.url)) if shared.url else ""
    return hashlib.sha256(place.encode()).hexdigest()


def absolute(address: str, folder: Path) -> str:
    """A unix path of the admin side starts at the folder of the config file."""
    if not address.startswith("unix:"):
        return address
    return f"unix:{os.fspath(folder / address[5:])}"
