"""
Reasoning that only its maker can read, in the requests of a protocol's clients.

Responses carries reasoning encrypted, Messages signed. Clients send it back with every
later request, and an account that gets another's refuses the whole request.

Rule 1: a body that needs no change is not touched: it goes up byte for byte.
Rule 2: what remains is legal: whole items are dropped, never left empty.
Rule 3: unsigned reasoning is dropped only for servers that verify signatures; others
        want it back.
Rule 4: what the gateway wrapped for a converted answer means nothing to an account that
        speaks the client's protocol.
Rule 5: a compaction *is* the history: it is never dropped. One of the gateway's own is
        a text, and goes to such an account as that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

Document = dict[str, Any]

PROOF_CHARS = 48
"""The end of a proof names it: enough to distinguish it from every other."""
_OWN_MARK = "gw1."  # begins what the gateway itself wraps


class ProofFilter(NamedTuple):
    """
    What an account can read.

    Attributes:
        is_foreign: whether the proof of that name is another account's.
        native: the account speaks the client's protocol, and gets the body as it is.
        verifies: the account refuses reasoning that is not signed.
        thinking_off: this request goes without thinking.
    """

    is_foreign: Callable[[str], bool]
    native: bool = True
    verifies: bool = True
    thinking_off: bool = False


class FilteredBody(NamedTuple):
    """
    A body as an account can read it.

    Attributes:
        body: the client's own object if nothing was changed, else a copy that shares
            what did not change.
        removed: how many pieces were left out or rewritten.
        thinking_off: thinking was turned off.
    """

    body: Document
    removed: int = 0
    thinking_off: bool = False


class ReasoningProofs(Protocol):
    """
    Where the proofs are in one protocol's requests: a module ``proofs``.

    Attributes:
        are_signatures: the reasoning is readable text with a signature. Some servers do
            not verify it, and a request may go without thinking.
        conversation: the member of a request that holds the pieces of it.
    """

    are_signatures: bool
    conversation: str

    def proofs_in(self, body: Document) -> list[str]:
        """The names of all pieces of *body* that only their maker can read."""
        ...

    def filtered(self, body: Document, account: ProofFilter) -> FilteredBody:
        """*body* as *account* can read it."""
        ...

    def compaction_in(self, body: Document) -> str:
        """The proof of the latest compaction in *body*; "" if there is none."""
        ...

    def bound(self, pieces: Any) -> list[Document]:
        """
        Of *pieces*, a conversation as ``outline`` reads it, all that ``compaction_in``
        and ``filtered`` look at, without the texts.
        """
        ...

    def lacks_thinking(self, body: Document) -> bool:
        """Whether *body* lacks a piece of thinking that a server insists on."""
        ...


def proof_name(proof: object) -> str:
    """The name of *proof*; "" for anything but a text."""
    return proof[-PROOF_CHARS:] if isinstance(proof, str) else ""


def is_wrapped(proof: object) -> bool:
    """Whether the gateway wrapped *proof* for a converted answer."""
    return isinstance(proof, str) and proof.startswith(_OWN_MARK)
