"""The config and the users that are in force, with what a request looks up there."""

from __future__ import annotations

from gateway.config.cors import Origins
from gateway.config.schema import Config, User
from gateway.endpoints.auth import Keys
from gateway.ledger.runtime_users import RuntimeUsers


class LiveConfig:
    """
    Attributes:
        config: the whole of it, as the last reload left it.
        runtime: the users that were made at run time.
        users: all users by name; where both have one of a name, the config's.
        keys: whose each key is.
        used_keys: the hashes of those that a request has borne; ``LiveUsers`` takes
            them out.
        origins: the web pages that may read answers.
    """

    def __init__(self, config: Config) -> None:
        self.runtime = RuntimeUsers()
        self.used_keys: set[str] = set()
        self.replace(config)

    def replace(self, config: Config) -> None:
        """Take up a changed config."""
        self.config = config
        self.origins = Origins(config.server.allow_origins)
        self._merge()

    def replace_runtime(self, runtime: RuntimeUsers) -> None:
        """Take up what was changed at run time."""
        self.runtime = runtime
        self._merge()

    def is_configured(self, name: str) -> bool:
        """Whether the user *name* is the config's, so that it changes only there."""
        return any(user.name == name for user in self.config.user)

    def _merge(self) -> None:
        users: dict[str, User] = {user.name: user for user in self.runtime.users}
        for user in self.config.user:
            users.pop(user.name, None)
            users[user.name] = user  # behind the others: its keys win, too
        self.users = users
        self.keys = Keys(
            users.values(),
            self.config.limits,
            {
                digest: key.expires_at.timestamp()
                for digest, key in self.runtime.keys.items()
                if key.expires_at is not None
            },
            self.used_keys,
        )
