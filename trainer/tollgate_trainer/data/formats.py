"""What a record says: each format as a function from a record to documents. Errors name origin and field."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tollgate_trainer.data import mending
from tollgate_trainer.data.document import ROLES, Document, Message
from tollgate_trainer.data.spans import Tally, answers_of
from tollgate_trainer.refusal import DatasetRefused

TABLES = ("classification", "span", "joint")
"""Formats with a target beside the text; their names are those of the tasks."""


@dataclass(frozen=True, slots=True)
class Form:
    """The format of a file and the names of its fields; see `dataset` in the manifest."""

    format: str = "auto"
    text: str = "text"
    label: str = "label"
    question: str = "question"
    answer: str = "answer"
    answer_start: str = "answer_start"
    group: str | None = None


def documents_of(record: Any, origin: str, form: Form, tally: Tally) -> Iterator[Document]:
    """The documents of a record: one, or in `conversations` several.

    Raises: DatasetRefused.
    """
    if not isinstance(record, dict):
        raise DatasetRefused(
            f"{origin}: expected an object, found {type(record).__name__}; expected {expected(form)}",
            "dataset.format",
        )
    found = _format_of(record, form) if form.format == "auto" else form.format
    read = READERS.get(found)
    documents = read(record, origin, form, tally) if read is not None else None
    if documents is None:
        raise DatasetRefused(
            f"{origin}: {_misnamed(record, form, found)}",
            "dataset.format",
        )
    yield from documents


def _misnamed(record: dict[str, Any], form: Form, found: str) -> str:
    if not record:
        return "the record is empty"
    none = "of no format" if found == "auto" else f"not of format {found}"
    meant = mending.keys(record, form.text) if found == "auto" else ""
    return f"the keys {sorted(map(str, record))} are {none}{meant or f'; expected {expected(form)}'}"


def _format_of(record: dict[str, Any], form: Form) -> str:
    keys = (
        ("conversations", "conversations"),
        ("messages", "chat"),
        (form.text, "text"),
        ("completion", "prompt_completion"),
        ("output", "prompt_completion"),
    )
    return next((format for key, format in keys if key in record), "auto")


def expected(form: Form) -> str:
    """What a record of the format looks like, for messages."""
    text, ask = f'"{form.text}": ...', f'"{form.question}": ...'
    answer = f'"{form.answer}": ... (empty: no answer), "{form.answer_start}": N'
    known = {
        "conversations": f'{{"conversations": [{{"{form.text}": ...}}]}}',
        "chat": '{"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}',
        "prompt_completion": '{"prompt": ..., "completion": ...} or {"instruction": ..., "input": ..., "output": ...}',
        "text": f"{{{text}}} per line, or a .txt file with blank lines between documents",
        "classification": f'{{{text}, "{form.label}": ...}}',
        "span": f"{{{text}, {ask}, {answer}}}",
        "joint": f'{{{text}, "{form.label}": ..., {ask}, {answer}}}',
    }
    return known.get(form.format, "one of " + "; ".join(f"{name}: {shape}" for name, shape in known.items()))


# --- formats ----------------------------------------------------------------------------------------------------------
# Each answers None when the record is of another format altogether.


def _conversations(record: dict[str, Any], origin: str, form: Form, _: Tally) -> Iterator[Document] | None:
    if not isinstance(record.get("conversations"), list):
        return None
    group = _group(record, origin, form)

    def each() -> Iterator[Document]:
        for index, entry in enumerate(record["conversations"]):
            where = f"{origin}.conversations[{index}]"
            if not isinstance(entry, dict):
                raise DatasetRefused(f"{where}: expected an object, found {type(entry).__name__}", "dataset.format")
            own = _group(entry, where, form) if form.group in entry else group
            yield Document(_text(entry, where, form), where, group=own)

    return each()


def _plain(record: dict[str, Any], origin: str, form: Form, _: Tally) -> Iterator[Document]:
    yield Document(_text(record, origin, form), origin, group=_group(record, origin, form))


def _chat(record: dict[str, Any], origin: str, form: Form, _: Tally) -> Iterator[Document] | None:
    messages = record.get("messages")
    if not isinstance(messages, list):
        return None
    turns = []
    for index, entry in enumerate(messages):
        where = f"{origin}.messages[{index}]"
        if not isinstance(entry, dict) or "content" not in entry:
            raise DatasetRefused(f'{where}: expected {{"role": ..., "content": text}}', "dataset.format")
        if not isinstance(entry["content"], str):
            raise DatasetRefused(f"{where}: {mending.content(entry['content'])}", "dataset.format")
        if entry.get("role") not in ROLES:
            said = entry.get("role")
            raise DatasetRefused(
                f"{where}: role {said!r} is not one of {', '.join(ROLES)}{mending.role(said)}", "dataset.format"
            )
        turns.append(Message(entry["role"], entry["content"]))
    if not any(turn.role == "assistant" and turn.content.strip() for turn in turns):
        raise DatasetRefused(
            f"{origin}: no assistant message with content, so there is nothing to learn; remove this conversation",
            "dataset.path",
        )
    return iter([Document.of_chat(tuple(turns), origin, group=_group(record, origin, form))])


def _prompt_completion(record: dict[str, Any], origin: str, form: Form, _: Tally) -> Iterator[Document] | None:
    if "completion" in record:
        prompt, completion = _filled(record, "prompt", origin), _filled(record, "completion", origin)
    elif "output" in record:
        prompt, completion = _filled(record, "instruction", origin), _filled(record, "output", origin)
        more = record.get("input")
        if more is not None and not isinstance(more, str):
            raise DatasetRefused(f"{origin}: the field 'input' is {type(more).__name__}, not text", "dataset.format")
        prompt = f"{prompt}\n\n{more}" if more else prompt
    else:
        return None
    return iter([Document.of_completion(prompt, completion, origin, group=_group(record, origin, form))])


def _classification(record: dict[str, Any], origin: str, form: Form, _: Tally) -> Iterator[Document]:
    text, label = _text(record, origin, form), _label(record, origin, form)
    yield Document(text, origin, label=label, group=_group(record, origin, form))


def _span(record: dict[str, Any], origin: str, form: Form, tally: Tally) -> Iterator[Document]:
    text = _text(record, origin, form, "context")
    answers = answers_of(record, text, origin, form.answer, form.answer_start, tally)
    if answers is None:
        return  # none of its answers stands in the text; counted
    yield Document(
        text,
        origin,
        question=_filled(record, _either(record, form.question, "question", "criterion"), origin),
        label=_label(record, origin, form) if form.format == "joint" else None,
        answers=answers,
        group=_group(record, origin, form),
    )


READERS: dict[str, Callable[[dict[str, Any], str, Form, Tally], Iterator[Document] | None]] = {
    "conversations": _conversations,
    "chat": _chat,
    "prompt_completion": _prompt_completion,
    "text": _plain,
    "classification": _classification,
    "span": _span,
    "joint": _span,
}


# --- fields -----------------------------------------------------------------------------------------------------------


def _either(record: dict[str, Any], asked: str, default: str, other: str) -> str:
    """The field that was asked for; its other usual name where nobody asked for one."""
    return other if asked == default and asked not in record and other in record else asked


def _text(entry: dict[str, Any], where: str, form: Form, other: str = "text") -> str:
    name = _either(entry, form.text, "text", other)
    value = entry.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DatasetRefused(f"{where}: the text field {name!r} {_problem(entry, name)}", "dataset.text_field")
    return value


def _filled(record: dict[str, Any], name: str, origin: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DatasetRefused(f"{origin}: the field {name!r} {_problem(record, name)}", "dataset.format")
    return value


def _problem(record: dict[str, Any], name: str) -> str:
    if record.get(name) is None:
        return f"is missing (keys: {sorted(map(str, record))})"
    value = record[name]
    return "is empty" if isinstance(value, str) else f"is missing as text: it holds {type(value).__name__} {value!r}"


def _label(record: dict[str, Any], origin: str, form: Form) -> str:
    """The class as text; numbers are names here, and a whole one is the same class in every file type."""
    value = record.get(form.label)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or value == "" or not isinstance(value, str | int):
        raise DatasetRefused(
            f"{origin}: the label field {form.label!r} {_unfit(record, form.label)}", "dataset.label_field"
        )
    return str(value).strip()


def _unfit(record: dict[str, Any], name: str) -> str:
    if name not in record:
        return f"is missing (keys: {sorted(map(str, record))})"
    return "is empty" if record[name] in (None, "") else f"holds {record[name]!r}; a label is text or a whole number"


def _group(record: dict[str, Any], origin: str, form: Form) -> str | None:
    if form.group is None:
        return None
    value = record.get(form.group)
    if value is None or value == "" or not isinstance(value, str | int):
        raise DatasetRefused(
            f"{origin}: the group field {form.group!r} {_unfit(record, form.group)}; every record needs one, else it "
            "cannot be kept on one side of the split",
            "dataset.group_field",
        )
    return str(value)
