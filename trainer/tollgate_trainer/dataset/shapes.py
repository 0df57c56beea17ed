"""From one shape of record to another, where it makes sense; a record that does not fit says why. Pure.

Shapes: those of `dataset.format`, and two that other tools write: `sharegpt` ({"conversations": [{"from": ..., "value":
...}]}) and `alpaca` ({"instruction": ..., "input": ..., "output": ...}).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tollgate_trainer.data.document import Document
from tollgate_trainer.data.formats import TABLES

SHAREGPT, ALPACA = "sharegpt", "alpaca"
TEXT, CONVERSATIONS, CHAT, COMPLETION = "text", "conversations", "chat", "prompt_completion"
TARGETS = (CHAT, COMPLETION, TEXT, CONVERSATIONS, *TABLES)
READ_AS = {ALPACA: COMPLETION, SHAREGPT: CHAT}
"""What the trainer's reader makes of the shapes of other tools; it reads ShareGPT only after `chat_of_sharegpt`."""

_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "system": "system",
}
_OWN_KEYS = frozenset(
    ("conversations", "messages", "text", "prompt", "completion", "instruction", "input", "output", "from", "value")
)


class DoesNotFitError(Exception):
    """A record that has no such shape; the text says why."""


def shape_of(record: Mapping[str, Any], text_field: str) -> str | None:
    """The shape of a record by its keys; None when it is none of those that can be told without a manifest."""
    talk = record.get("conversations")
    if isinstance(talk, list):
        return SHAREGPT if any(isinstance(turn, Mapping) and "value" in turn for turn in talk) else CONVERSATIONS
    for key, shape in (("messages", CHAT), ("completion", COMPLETION), ("output", ALPACA), (text_field, TEXT)):
        if key in record:
            return shape
    return None


def chat_of_sharegpt(record: Mapping[str, Any]) -> dict[str, Any]:
    """{"messages": ...} with the record's other fields; roles by who speaks. Raises: DoesNotFitError."""
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise DoesNotFitError("`conversations` is no list of turns")
    messages = []
    for index, turn in enumerate(turns):
        if not isinstance(turn, Mapping) or not isinstance(turn.get("value"), str):
            raise DoesNotFitError(f'conversations[{index}] is not {{"from": ..., "value": text}}')
        speaker = turn.get("from")
        role = _SPEAKERS.get(str(speaker).casefold())
        if role is None:
            raise DoesNotFitError(f"conversations[{index}] is from {speaker!r}; known are {', '.join(_SPEAKERS)}")
        messages.append({"role": role, "content": turn["value"]})
    if not any(message["role"] == "assistant" and message["content"].strip() for message in messages):
        raise DoesNotFitError("the assistant says nothing, so there is nothing to learn")
    system = record.get("system")
    if isinstance(system, str) and system.strip() and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
        record = {key: value for key, value in record.items() if key != "system"}
    return {"messages": messages, **_others(record)}


def converted(record: Mapping[str, Any], document: Document, source: str, target: str) -> dict[str, Any]:
    """A record of the shape `target` that makes the same document; fields that belong to no shape are kept.

    Args: record: of shape `source` (ShareGPT already as chat); document: what the trainer reads in it.
    Raises: DoesNotFitError.
    """
    if target == source:
        return dict(record)
    make = _MAKERS.get((READ_AS.get(source, source), target))
    if make is None:
        raise DoesNotFitError(_WHY.get(target, f"a record of {source} has not what {target} needs"))
    return {**make(document), **_others(record)}


def _others(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in _OWN_KEYS}


def _chat(document: Document) -> dict[str, Any]:
    assert document.messages is not None
    return {"messages": [{"role": turn.role, "content": turn.content} for turn in document.messages]}


def _completion(document: Document) -> dict[str, Any]:
    assert document.messages is not None
    roles = [turn.role for turn in document.messages]
    if roles != ["user", "assistant"]:
        raise DoesNotFitError(
            f"it has the turns {', '.join(roles)}, and a prompt with its completion is one user turn and one answer"
        )
    prompt, completion = (turn.content for turn in document.messages)
    if not prompt.strip():
        raise DoesNotFitError("the user's turn is empty")
    return {"prompt": prompt, "completion": completion}


_MAKERS: dict[tuple[str, str], Callable[[Document], dict[str, Any]]] = {
    (COMPLETION, CHAT): _chat,
    (CHAT, CHAT): _chat,
    (CHAT, COMPLETION): _completion,
    (COMPLETION, COMPLETION): _completion,
    (TEXT, CONVERSATIONS): lambda document: {"conversations": [{"text": document.text}]},
    (CONVERSATIONS, TEXT): lambda document: {"text": document.text},
}
_WHY = {
    CHAT: "a text does not say which part is the question and which the answer",
    COMPLETION: "a text does not say where the prompt ends",
    TEXT: "as plain text it would be lost who says what; train on it as it is",
    CONVERSATIONS: "as plain text it would be lost who says what; train on it as it is",
    **dict.fromkeys(TABLES, "only a table with a text and its target has that; name its fields with --text-field"),
}
