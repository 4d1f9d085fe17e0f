"""
The choice of an account for a request, or the error where there is none.

This file knows no clock: times are monotonic seconds, given by the caller.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from gateway.accounts import refusals
from gateway.accounts.affinity import Affinity
from gateway.accounts.choice import (
    AccountQuery,
    Choice,
    LoadOf,
    Restrictions,
    candidates,
)
from gateway.accounts.health import Health
from gateway.accounts.model_index import ModelIndex
from gateway.accounts.proof_owners import ProofOwners
from gateway.accounts.verdict import Verdict
from gateway.errors import ClientError, GatewayError
from gateway.protocols import PROTOCOLS


class Chooser:
    """
    Args:
        load: the accounts' slots at this moment.
    """

    def __init__(
        self,
        index: ModelIndex,
        health: Health,
        affinity: Affinity,
        owners: ProofOwners,
        load: LoadOf,
    ) -> None:
        self._index = index
        self._health = health
        self._affinity = affinity
        self._owners = owners
        self._load = load

    def choose(
        self,
        query: AccountQuery,
        document: dict[str, Any],
        tried: Collection[str],
        now: float,
        *,
        native_only: bool = False,
    ) -> Choice:
        """
        The accounts that the request may go to next, best first.

        Args:
            document: its body.
            tried: the accounts that it was sent to before.
            native_only: it goes on from a response that only an account can know.
        """
        serving = self._index.serving(query.model)
        # Where there is one account, no other could answer.
        owners: Collection[str] = ()
        if len(serving) > 1 and PROTOCOLS[query.protocol].keeps_responses:
            owners = self._makers(query, document, now, native_only)
        restrictions = Restrictions(tried, owners, self._index.fitting(query.model))
        choice = candidates(
            serving,
            query,
            restrictions,
            self._health,
            self._affinity,
            self._load,
            now,
        )
        return choice._replace(bound=owners) if owners else choice

    def _makers(
        self,
        query: AccountQuery,
        document: dict[str, Any],
        now: float,
        native_only: bool,
    ) -> list[str]:
        """
        The only accounts that can answer a Responses request: the one that made the
        previous response, or those that may have made the compaction in place of the
        history. Empty: any account can, or none is known.
        """
        native = self._index.native(query.model, query.protocol)
        ident = document.get("previous_response_id")
        if isinstance(ident, str):
            maker = self._affinity.maker(query.user, ident, now)
            if maker in native:
                return [maker]
            if native_only:
                return native
        if proof := _compaction_in(query, document):
            latest = self.latest(query)
            likely = [
                name
                for name in native
                if not self._owners.is_foreign(query.user, proof, name, latest)
            ]
            # An account that cannot read it gives a better error than the gateway.
            return likely or native
        return []

    def latest(self, query: AccountQuery) -> str:
        """The account of the session's last answer, of those that fit the model."""
        fitting = self._index.fitting(query.model)
        return self._affinity.latest(query.session.key, fitting, query.model)

    def others_serve(
        self, model: str, accounts: Iterable[str], tried: Iterable[str]
    ) -> bool:
        """Whether one of *accounts* not *tried* yet is known to have *model*."""
        left = set(accounts) - set(tried)
        return any(self._health.has_served(name, model) for name in left)

    def others_may_read(
        self, query: AccountQuery, document: dict[str, Any], tried: Collection[str]
    ) -> bool:
        """
        Whether *document* goes on from a compaction that an account which has not been
        tried may have made.
        """
        if not _compaction_in(query, document):
            return False
        native = self._index.native(query.model, query.protocol)
        return bool(set(native) - set(tried))

    # --- where there is none ---------------------------------------------------------

    def check_model(self, model: str) -> None:
        """
        Refuse a model that no account serves, before anything is waited for.

        Raises:
            ClientError: "model_not_found".
        """
        if not self._index.serving(model):
            raise _no_model(model)

    def refusal(self, query: AccountQuery, choice: Choice, now: float) -> GatewayError:
        """The error where *choice* is empty: no such model, or every account is out."""
        model = query.model
        if not choice.fitting:
            return _no_model(model)
        error = refusals.refusal(self._health, choice.fitting, model, now, query.user)
        if error.code == "cooling_down":
            error.message = f"Every account for model {model} is cooling down"
        if error.code == "accounts_paused":
            error.message = f"The operator has paused every account for model {model}"
        return error

    def last_error(
        self,
        query: AccountQuery,
        verdict: Verdict,
        fitting: Iterable[str],
        now: float,
    ) -> GatewayError:
        """The client's error after the last *verdict*, when no account is left."""
        return refusals.last_error(
            self._health, verdict, fitting, query.model, now, query.user
        )


def _compaction_in(query: AccountQuery, document: dict[str, Any]) -> str:
    """The proof of the compaction that a request goes on from; "" for none."""
    proofs = PROTOCOLS[query.protocol].proofs
    return proofs.compaction_in(document) if proofs else ""


def _no_model(model: str) -> ClientError:
    return ClientError("model_not_found", f"No account serves the model '{model}'")
