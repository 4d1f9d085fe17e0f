"""
What the body of a model request says, parsed once.

Everything that is wrong with it is the client's own mistake and names what is wrong.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.errors import ClientError
from gateway.protocols.lossless_json import has_long_number, loads


class RequestBody:
    """
    What every model request says.

    Attributes:
        data: its bytes.
    """

    __slots__ = ("data", "model", "stream", "_document", "_exact")

    def __init__(
        self, data: bytes, document: dict[str, Any], model: str, stream: bool
    ) -> None:
        self.data = data
        self.model = model
        self.stream = stream
        self._document: dict[str, Any] | None = document
        self._exact = False

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
        self._document = None


def parse(data: bytes) -> RequestBody:
    """
    *data* as a model request.

    Raises:
        ClientError: "invalid_request", with the field that is wrong.
    """
    document = parse_object(data)
    model = document.get("model")
    if model is None:
        raise _invalid("model", "'model' is missing")
    if not isinstance(model, str) or not model:
        raise _invalid("model", "'model' must be a non-empty string")
    if len(model) > 256 or not model.isprintable():
        raise _invalid("model", "'model' is not the name of a model")
    stream = document.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise _invalid("stream", "'stream' must be true or false")
    return RequestBody(data, document, model, bool(stream))


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
