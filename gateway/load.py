"""Read the config file and its secrets from the disk and the environment."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.config import Config
from gateway.config_file import ConfigError, parse

PLACES = (Path("config.toml"), Path("/etc/gateway/config.toml"))


def default_path() -> Path:
    """``./config.toml`` where there is one, else ``/etc/gateway/config.toml``."""
    return next((path for path in PLACES if path.exists()), PLACES[-1])


def load(path: Path) -> Config:
    """
    The config in the file *path*.

    Raises:
        ConfigError: with every mistake.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {_reason(error)}"]) from None
    folder = path.resolve().parent

    def secret(reference: str) -> str:
        return _secret(reference, folder)

    return parse(text, secret)


def _secret(reference: str, folder: Path) -> str:
    kind, _, name = reference.partition(":")
    if kind == "env":
        if name not in os.environ:
            raise LookupError(f"the environment variable {name} is not set")
        return os.environ[name]
    try:
        return (folder / os.path.expandvars(name)).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LookupError(f"{name} cannot be read: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
