"""The config that is in force, with what every request looks up in it."""

from __future__ import annotations

from gateway.config.cors import Origins
from gateway.config.schema import Config
from gateway.endpoints.auth import Keys


class LiveConfig:
    """
    Attributes:
        config: the whole of it, as the last reload left it.
        keys: whose each key is.
        origins: the web pages that may read answers.
    """

    def __init__(self, config: Config) -> None:
        self.replace(config)

    def replace(self, config: Config) -> None:
        """Take up a changed config."""
        self.config = config
        self.keys = Keys(config.user, config.limits)
        self.origins = Origins(config.server.allow_origins)
