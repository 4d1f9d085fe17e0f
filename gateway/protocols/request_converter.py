"""
A client's request in the form that the account's protocol has for it.

Everything that cannot be carried is found out here, before any upstream call: what
would change the answer is refused, what is a hint is dropped and named.

    read (source) ─▶ Request ─▶ write (target) ─▶ Converted
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from gateway.errors import ClientError
from gateway.protocols import CODECS
from gateway.protocols.codec import ProtocolCodec
from gateway.protocols.compaction import summarising
from gateway.protocols.json_reader import Unsupported, encoded
from gateway.protocols.model import (
    Asked,
    Image,
    Message,
    Request,
    ToolResult,
    Tools,
    Written,
)
from gateway.protocols.options import Options
from gateway.protocols.reasoning_recall import Recall, returned
from gateway.protocols.token_estimate import estimate_tokens

Compaction = Literal["", "trigger", "endpoint"]


class Converted(NamedTuple):
    """
    A request for the upstream, and what the way back needs.

    ``dropped``: paths of the client's body that were left out. ``tools``, ``asked``:
    for the writer of the client's stream. ``maker``: see ``convert_request``.
    """

    body: dict[str, Any]
    dropped: tuple[str, ...]
    tools: Tools
    asked: Asked
    maker: str = ""

    def encoded(self) -> bytes:
        """
        The body as JSON.

        Raises:
            ClientError: it is nested too deeply.
        """
        return encoded(self.body)


def convert_request(
    source: str,
    target: str,
    body: dict[str, Any],
    *,
    model: str,
    upstream_model: str,
    options: Options | None = None,
    stream: bool | None = None,
    compact: bool = False,
    maker: str = "",
    recall: Recall | None = None,
) -> Converted:
    """
    Convert *body* of protocol *source* for an account that speaks *target*.

    Args:
        model: what the client calls the model; messages and answers name it.
        upstream_model: what the account calls it.
        options: what the account's models can do.
        stream: whether the upstream is to stream; None: as the client asked.
        compact: the body came to ``/v1/responses/compact``.
        maker: the account's server, for what only it can use (``opaque``).
        recall: gives the reasoning that the gateway kept of a call.

    Raises:
        ClientError: "unsupported_parameter", "invalid_request" (a wrong shape),
            "previous_response_not_found"; ``param`` is the path.
    """
    client = CODECS[source]
    try:
        request, asked = _read(client, body, model, compact)
        request.model = upstream_model
        request.stream = request.stream if stream is None else stream
        returned(request, maker, recall)
        written = _write(CODECS[target], request, asked, options or Options())
    except Unsupported as problem:
        raise unsupported(problem.path, model, target) from None
    asked.input_tokens = estimate_tokens(body) if client.counts_input_first else 1
    return Converted(written.body, written.dropped, written.tools, asked, maker)


def _read(
    client: ProtocolCodec, body: dict[str, Any], model: str, compact: bool
) -> tuple[Request, Asked]:
    """The client's *body*, and what it asks of the answer's form."""
    compaction = _compaction(client, body, compact)
    request = client.read_request(summarising(body) if compaction else body)
    asked = client.asked(body, request, model)
    asked.compaction = compaction
    return request, asked


def _compaction(
    client: ProtocolCodec, body: dict[str, Any], compact: bool
) -> Compaction:
    """How the client asks for a summary of the conversation; "" if it does not."""
    if compact:
        return "endpoint"
    return "trigger" if client.is_compaction(body) else ""


def _write(
    upstream: ProtocolCodec, request: Request, asked: Asked, options: Options
) -> Written:
    """*request* for the upstream; *asked* gets what only writing has shown."""
    if not options.images:
        _refuse_images(request, asked.model)
    written = upstream.write_request(request, options)
    asked.stop = tuple(request.stop)
    asked.cut = written.cut
    asked.web_search = any(tool.kind == "web_search" for tool in request.tools)
    return written


def _refuse_images(request: Request, model: str) -> None:
    """
    Raises:
        ClientError: the request shows an image to a model that reads text only.
    """
    for item in request.items:
        parts = item.parts if isinstance(item, (Message, ToolResult)) else ()
        for part in parts:
            if isinstance(part, Image):
                raise ClientError(
                    "unsupported_parameter",
                    f"'{part.path}' is an image, but model '{model}' reads text only",
                    param=part.path,
                )


def unsupported(path: str, model: str, protocol: str) -> ClientError:
    """The refusal of what *protocol* has no counterpart for."""
    sentence = (
        f"'{path}' is not supported for model '{model}' "
        f"(its upstream speaks {protocol})"
    )
    return ClientError("unsupported_parameter", sentence, param=path)
