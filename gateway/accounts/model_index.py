"""The configured accounts: by name, and by the models that they serve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from gateway.accounts.affinity import Fitting
from gateway.config.schema import Account

MAX_MODELS = 1000  # whose accounts are remembered: clients make names up


def serves(account: Account, model: str) -> bool:
    """Whether the config lets *account* serve the client's *model*."""
    if model in account.rename:
        return True
    return any(fnmatchcase(model, glob) for glob in account.models)


class ModelIndex:
    """
    Which accounts serve a model, remembered by its name.

    Attributes:
        by_name: every account by its name.
    """

    def __init__(self, accounts: Iterable[Account]) -> None:
        self.replace(accounts)

    def replace(self, accounts: Iterable[Account]) -> None:
        """Take up the accounts of a changed config."""
        self.by_name: Mapping[str, Account] = {one.name: one for one in accounts}
        self._serving: dict[str, list[Account]] = {}
        self._fitting: dict[str, Fitting] = {}
        self._verify: dict[tuple[str, str], bool] = {}  # by account and model

    def serving(self, model: str) -> list[Account]:
        """The accounts that the config lets serve the client's *model*."""
        found = self._serving.get(model)
        if found is None:
            found = [one for one in self.by_name.values() if serves(one, model)]
            if len(self._serving) >= MAX_MODELS:
                self._serving.clear()
            self._serving[model] = found
        return found

    def fitting(self, model: str) -> Fitting:
        """The names of ``serving``."""
        found = self._fitting.get(model)
        if found is None:
            found = frozenset([account.name for account in self.serving(model)])
            if len(self._fitting) >= MAX_MODELS:
                self._fitting.clear()
            self._fitting[model] = found
        return found

    def native(self, model: str, protocol: str) -> list[str]:
        """The names of those of ``serving`` that speak *protocol* themselves."""
        return [
            account.name
            for account in self.serving(model)
            if account.is_native(protocol)
        ]

    def verifies(self, account: Account, model: str) -> bool:
        """Whether *account* refuses thinking without a signature, as Anthropic does."""
        known = self._verify.get((account.name, model))
        if known is None:
            known = not account.options(account.upstream_model(model)).thinking_back
            if len(self._verify) >= MAX_MODELS:
                self._verify.clear()
            self._verify[account.name, model] = known
        return known

    def names(self, account: str, model: str) -> bool:
        """Whether the config names the upstream *model* for *account*."""
        found = self.by_name.get(account)
        return found is not None and found.names(model)
