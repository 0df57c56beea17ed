"""Documents without their personal data: redacted before they are split, tokenised or shown to anybody."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from tollgate_trainer.data.document import Answer, Document, Message
from tollgate_trainer.data.privacy import Finding, Moved, find, replaced


def redacted(document: Document, counts: Counter[str]) -> Document:
    """The document with a mark in place of each finding in its text, question and turns; `counts` grows by kind.

    An answer moves with its text; one that cuts into a finding takes the whole mark. Labels, groups and origins are
    kept as they are.
    """
    if document.completion is not None and document.messages is not None:
        prompt, completion = (_clean(turn.content, counts) for turn in document.messages)
        made = Document.of_completion(prompt, completion, document.origin, document.group)
        return replace(made, source=document.source, label=document.label)
    if document.messages is not None:
        turns = tuple(Message(turn.role, _clean(turn.content, counts)) for turn in document.messages)
        made = Document.of_chat(turns, document.origin, document.group)
        return replace(made, source=document.source, label=document.label)
    findings = _found(document.text, counts)
    question = document.question if document.question is None else _clean(document.question, counts)
    if not findings:
        return document if question == document.question else replace(document, question=question)
    text, moved = replaced(document.text, findings), Moved(tuple(findings))
    return replace(document, text=text, question=question, answers=_moved(document.answers, text, moved))


def _moved(answers: tuple[Answer, ...] | None, text: str, moved: Moved) -> tuple[Answer, ...] | None:
    if answers is None:
        return None
    spans = [moved.span(answer.start, answer.start + len(answer.text)) for answer in answers]
    return tuple(Answer(text[start:end], start) for start, end in spans)


def _clean(text: str, counts: Counter[str]) -> str:
    return replaced(text, _found(text, counts))


def _found(text: str, counts: Counter[str]) -> list[Finding]:
    findings = find(text)
    counts.update(finding.kind for finding in findings)
    return findings
