"""Where the config file is, unless a command says so; imported by the parent, too."""

from __future__ import annotations

from pathlib import Path

PLACES = (Path("config.toml"), Path("/etc/gateway/config.toml"))


def default_path() -> Path:
    """``./config.toml`` where there is one, else ``/etc/gateway/config.toml``."""
    return next((path for path in PLACES if path.exists()), PLACES[-1])
