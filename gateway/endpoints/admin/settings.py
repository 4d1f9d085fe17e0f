"""``/api/v1/config``, ``/reload`` and ``/restart``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from gateway.config.schema import Config
from gateway.endpoints.admin.application import OperationSource
from gateway.endpoints.admin.errors import AdminError, ConfigMistake
from gateway.endpoints.admin.operations import AdminCall, Operation
from gateway.endpoints.live_config import LiveConfig

MASK = "***"
SECRET_KEYS = frozenset({"token", "metrics_token", "api_key"})


class ProcessControl(Protocol):
    """
    What the process around the workers does. An outcome has ``ok``; then ``changed``
    and ``restart_needed``, else ``mistakes`` or a ``reason``.
    """

    async def reload(self) -> Mapping[str, Any]:
        """Read the config again, on every worker."""

    async def restart(self) -> Mapping[str, Any]:
        """Replace the workers by new ones with the code on disk."""

    async def processes(self) -> Mapping[str, Any]:
        """The parent's ``pid``, when it began (``started_at``), and its ``workers``."""


@dataclass(frozen=True, slots=True)
class ReloadAnswer:
    """The keys that hold from now on, and those that keep their old value."""

    changed: list[str]
    restart_needed: list[str]


@dataclass(frozen=True, slots=True)
class RestartAnswer:
    """The new workers serve; the old ones may still finish what they have."""

    restarted: bool


class ConfigOperations(OperationSource):
    """
    Args:
        control: None where the process has no parent.
    """

    def __init__(self, live: LiveConfig, control: ProcessControl | None) -> None:
        self._live = live
        self._control = control

    def operations(self) -> Iterable[Operation]:
        yield Operation(
            "GET",
            "/config",
            "The config that is in force; secrets are masked",
            self._config,
            answer=dict[str, Any],
        )
        yield Operation(
            "POST",
            "/reload",
            "Read the config again, by the rules of a start",
            self._reload,
            answer=ReloadAnswer,
            errors=(422, 503),
        )
        yield Operation(
            "POST",
            "/restart",
            "Replace the workers by new ones with the code on disk",
            self._restart,
            answer=RestartAnswer,
            errors=(503,),
        )

    async def _config(self, call: AdminCall) -> dict[str, Any]:
        return shown(self._live.config)

    async def _reload(self, call: AdminCall) -> ReloadAnswer:
        outcome = await self._asked().reload()
        if not outcome["ok"]:
            raise _rejected(outcome)
        answer = ReloadAnswer(outcome["changed"], outcome["restart_needed"])
        call.changed("config", None, dataclasses.asdict(answer))
        return answer

    async def _restart(self, call: AdminCall) -> RestartAnswer:
        outcome = await self._asked().restart()
        if not outcome["ok"]:
            reason = outcome.get("reason", "")
            raise AdminError(503, "restart_failed", f"Nothing has changed: {reason}")
        call.changed("workers", None, "restarted")
        return RestartAnswer(True)

    def _asked(self) -> ProcessControl:
        if self._control is None:
            raise AdminError(503, "not_available", "This process has no parent to ask")
        return self._control


def _rejected(outcome: Mapping[str, Any]) -> AdminError:
    if "mistakes" not in outcome:
        reason = outcome.get("reason", "")
        return AdminError(503, "reload_failed", f"The old config serves on: {reason}")
    mistakes = [ConfigMistake.of(text) for text in outcome["mistakes"]]
    return AdminError(
        422,
        "invalid_config",
        f"The config has {len(mistakes)} mistakes; the old one serves on",
        mistakes=mistakes,
    )


# --- what is shown --------------------------------------------------------------------


def shown(config: Config) -> dict[str, Any]:
    """*config* as in its file, with each secret masked."""
    document: dict[str, Any] = _masked(dataclasses.asdict(config))
    return document


def _masked(value: Any, key: str = "") -> Any:
    """
    Without secrets: tokens, passwords, and the values of an account's headers, of which
    any may be one. A user's key is named by the first digits of its hash.
    """
    if key in SECRET_KEYS:
        return MASK if value else ""
    if key == "headers":
        return dict.fromkeys(value, MASK)
    if key in ("url", "base_url"):
        return _without_password(value)
    if key == "key_sha256":
        return [digest[:8] for digest in value]
    if isinstance(value, Mapping):
        return {name: _masked(item, name) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(one) for one in value]
    return value


def _without_password(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.scheme.startswith("sqlite"):
            return url
        host = parts.netloc.rpartition("@")[2]
        user = parts.username or ""
        secret = f":{MASK}" if parts.password else ""
        netloc = f"{user}{secret}@{host}" if user else host
        # A password may be in the query, too.
        return urlunsplit((parts.scheme, netloc, parts.path, "", ""))
    except ValueError:
        return MASK
