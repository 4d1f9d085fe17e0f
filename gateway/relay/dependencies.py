"""The parts of the gateway that every attempt works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.accounting.settlement import Accounting
from gateway.accounts.accounts import Accounts
from gateway.accounts.kept_reasoning import KeptReasoning
from gateway.admission.interface import SlotSource
from gateway.config.schema import UpstreamLimits
from gateway.relay.conversation import Conversations
from gateway.relay.drains import Drains
from gateway.relay.upstream import Upstream


@dataclass(slots=True)
class Dependencies:
    """
    Made once; all requests share it.

    Attributes:
        limits: replaced by a reload; an attempt keeps those that it began with.
    """

    accounts: Accounts
    registry: SlotSource
    upstream: Upstream
    accounting: Accounting
    drains: Drains
    conversations: Conversations
    limits: UpstreamLimits
    kept_reasoning: KeptReasoning = field(default_factory=KeptReasoning)
