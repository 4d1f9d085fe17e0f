"""
System messages for servers whose templates take one, and only in front.

    system, developer, user, …, developer, user
          ╰── one system message    ╰── a marked turn of the user
"""

from __future__ import annotations

from gateway.protocols.json_reader import Unsupported
from gateway.protocols.model import Item, Message, Refusal, Request, Text

SYSTEM_MARK = "[System message]"
"""How a turn of the user begins that the client sent as a system message."""


def hoist(request: Request) -> None:
    """
    Move the leading system messages into the instructions, and make turns of the
    user of the later ones.

    Raises:
        Unsupported: a system message that is no text.
    """
    items: list[Item] = []
    for item in request.items:
        if not isinstance(item, Message) or item.role not in ("system", "developer"):
            items.append(item)
        elif items:
            items += _turn(item)
        else:
            request.instructions += _texts(item)
    request.items = items


def _texts(message: Message) -> list[Text]:
    texts: list[Text] = []
    for part in message.parts:
        if isinstance(part, Refusal):
            texts.append(Text(part.text, path=part.path))
        elif isinstance(part, Text):
            texts.append(part)
        else:
            raise Unsupported(part.path or message.path)
    return texts


def _turn(message: Message) -> list[Item]:
    """A later *message* as a turn of the user; none if it is blank."""
    text = "\n\n".join(part.text for part in _texts(message))
    if not text.strip():
        return []
    said = Text(f"{SYSTEM_MARK}\n\n{text}", path=message.path)
    return [Message("user", [said], path=message.path)]
