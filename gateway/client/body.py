"""
What the body of a model request says, parsed once.

Of a large one an outline is read alone, where its protocol has one: it is parsed when
somebody asks for more.

Everything that is wrong with it is the client's own mistake and names what is wrong.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.errors import ClientError
from gateway.protocols import outline
from gateway.protocols.lossless_json import has_long_number, loads
from gateway.protocols.reasoning_proofs import ReasoningProofs


class RequestBody:
    """
    What every model request says.

    Args:
        document: the parsed bytes; None where there is an outline.

    Attributes:
        data: its bytes.
    """

    __slots__ = ("data", "model", "stream", "_document", "_outline", "_exact")

    def __init__(
        self,
        data: bytes,
        document: dict[str, Any] | None,
        model: str,
        stream: bool,
        outline: dict[str, Any] | None = None,
    ) -> None:
        self.data = data
        self.model = model
        self.stream = stream
        self._document = document
        self._outline = outline
        self._exact = False

    @property
    def outline(self) -> dict[str, Any]:
        """See ``gateway.protocols.outline``; the document where there is none."""
        return self.document if self._outline is None else self._outline

    def is_outline(self, document: dict[str, Any]) -> bool:
        """Whether *document* is the outline, and lacks what the bytes say."""
        return document is self._outline

    @property
    def document(self) -> dict[str, Any]:
        """The parsed bytes, parsed again after they were forgotten."""
        if self._document is None:
            read = loads if self._exact else parse_object
            self._document = read(self.data)
        return self._document

    def keep_digits(self) -> bool:
        """
        From now on the document has its whole numbers as they were sent, for what
        is written again; says whether it is another one now.
        """
        if self._exact or not has_long_number(self.data):
            return False
        self._exact = True
        self._document = loads(self.data)
        return True

    def rest(self) -> None:
        """While the request waits: keep what it takes little room to keep."""
        self._document = None

    def forget_document(self) -> None:
        """Keep the bytes alone; what they are parsed to is several times as large."""
        self._document = self._outline = None


def parse(data: bytes, proofs: ReasoningProofs | None = None) -> RequestBody:
    """
    *data* as a model request.

    Args:
        proofs: of the request's protocol, where it has outlines.

    Raises:
        ClientError: "invalid_request", with the field that is wrong.
    """
    found = document = None
    if proofs is not None and len(data) >= outline.MIN_BYTES:
        found = outline.outline_of(data, proofs)
    said = found
    if said is None:
        said = document = parse_object(data)
    model = said.get("model")
    if model is None:
        raise _invalid("model", "'model' is missing")
    if not isinstance(model, str) or not model:
        raise _invalid("model", "'model' must be a non-empty string")
    if len(model) > 256 or not model.isprintable():
        raise _invalid("model", "'model' is not the name of a model")
    stream = said.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise _invalid("stream", "'stream' must be true or false")
    return RequestBody(data, document, model, bool(stream), found)


def parse_object(data: bytes) -> dict[str, Any]:
    """*data* as a JSON object; see ``parse``."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if not data.strip():
            raise ClientError("invalid_request", "The request body is empty") from None
        raise ClientError(
            "invalid_request", f"The request body is not valid JSON: {error}"
        ) from None
    if not isinstance(document, dict):
        raise ClientError("invalid_request", "The request body must be a JSON object")
    return document


def _invalid(param: str, message: str) -> ClientError:
    return ClientError("invalid_request", message, param=param)
