"""What may be wrong with documents that can be read: one function per check, each pure, each answering findings."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tollgate_trainer.data import privacy
from tollgate_trainer.data.document import Document, Message
from tollgate_trainer.dataset import leakage
from tollgate_trainer.dataset.leakage import Leakage
from tollgate_trainer.dataset.lesson import Sums, warnings
from tollgate_trainer.dataset.statistics import duplicates
from tollgate_trainer.refusal import DatasetRefused

EXAMPLES = 3
LONG = 90


class Severity(StrEnum):
    """error: the run would be refused or its figures worthless. warning: look at it. note: how far a check went."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """count: of what the message counts; examples: where it is and what it looks like, a few of them."""

    severity: Severity
    check: str
    message: str
    fix: str = ""
    count: int = 0
    examples: tuple[str, ...] = ()


def unreadable(part: str, problems: Sequence[DatasetRefused], stopped: Sequence[str]) -> Iterator[Finding]:
    """Records that the trainer would refuse, told together when it is the same field that mends them."""
    by_field: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        by_field[problem.field or "dataset"].append(str(problem.args[0]))
    for field, messages in by_field.items():
        many = "1 problem" if len(messages) == 1 else f"{len(messages):,} problems"
        yield Finding(
            Severity.ERROR,
            "records",
            f"{part}: {many} with {field}; the trainer reads all records or none",
            "Correct or remove these records.",
            len(messages),
            tuple(short(message, 240) for message in messages[:EXAMPLES]),
        )
    for name in stopped:
        yield Finding(Severity.NOTE, "records", f"{name} was not read beyond the last problem named above")


def repeated(part: str, documents: Sequence[Document]) -> Iterator[Finding]:
    """Documents that occur more than once in one split."""
    found = duplicates(documents)
    if found.normalised:
        yield Finding(
            Severity.WARNING,
            "duplicates",
            f"{part}: {found.normalised:,} of {len(documents):,} documents repeat another one "
            f"({found.exact:,} to the letter)",
            "Remove them unless the weight is meant.",
            found.normalised,
            (f"{len(found.worst):,} times: {', '.join(found.worst[:4])}",),
        )


# What UTF-8 becomes when it is read as Windows-1252 or Latin-1: quotes and dashes, accented letters, emoji; and U+FFFD.
_WRONG = re.compile("\u00e2(?:\u20ac|\u0080)|\u00c3[\u0080-\u00bf]|\u00f0\u0178|\ufffd")


def miscoded(part: str, documents: Sequence[Document]) -> Iterator[Finding]:
    """Texts that were decoded wrongly before they came here."""
    found = [(document.origin, match) for document in documents if (match := _WRONG.search(document.text))]
    if found:
        yield Finding(
            Severity.WARNING,
            "characters",
            f"{part}: {len(found):,} of {len(documents):,} documents were once read with a wrong encoding",
            "Export them again as UTF-8; the model would learn to write them.",
            len(found),
            tuple(
                f"{origin}: {short(match.string[max(match.start() - 10, 0) : match.end() + 20])}"
                for origin, match in found[:EXAMPLES]
            ),
        )


def too_long(part: str, documents: Sequence[Document], sums: Sums, limit: int) -> Iterator[Finding]:
    """What max_seq_length cuts off, and what the loss mask leaves. sums: over `documents`."""
    chat = any(document.messages for document in documents)
    if not any(document.label is not None or document.question is not None for document in documents):
        for message in warnings(sums, chat, limit):
            grave = sums.untaught == sums.documents or (chat and sums.everything)
            severity = Severity.ERROR if grave else Severity.WARNING
            yield Finding(severity, "loss", f"{part}: {message}", "`tollgate dataset preview` shows it.", sums.untaught)
    if not sums.cut_documents:
        return
    many = f"{sums.cut_documents:,} of {sums.documents:,} documents ({sums.cut_documents / sums.documents:.1%})"
    if any(document.question is not None for document in documents):
        yield Finding(
            Severity.NOTE,
            "length",
            f"{part}: {many} are longer than max_seq_length {limit:,} and are read in several windows",
            count=sums.cut_documents,
        )
        return
    yield Finding(
        Severity.WARNING,
        "length",
        f"{part}: {many} are longer than max_seq_length {limit:,} and lose {sums.cut_tokens:,} tokens",
        "Raise hyperparameters.max_seq_length, or split long documents; `tollgate dataset analyze` shows lengths.",
        sums.cut_documents,
    )


def leaks(name: str, held_out: Sequence[Document], train: Sequence[Document], threshold: float) -> Iterator[Finding]:
    """Documents of a held-out split, `name`, that are trained on, to the letter or nearly."""
    same = leakage.exact(held_out, train)
    if same.pairs:
        yield Finding(
            Severity.ERROR,
            "leakage",
            f"{name}: {same.documents:,} of {len(held_out):,} documents are training documents too; judging on them is "
            "judging memory",
            "Remove them from one of the two; `tollgate dataset split` never parts them.",
            same.documents,
            tuple(
                f"{pair.left.origin} is {pair.right.origin}: {short(pair.left.text)}" for pair in same.worst[:EXAMPLES]
            ),
        )
    close = leakage.near(held_out, train, threshold)
    if close.pairs:
        yield _near(name, len(held_out), close, threshold)


def _near(name: str, documents: int, close: Leakage, threshold: float) -> Finding:
    return Finding(
        Severity.WARNING,
        "leakage",
        f"{name}: {close.documents:,} of {documents:,} documents are nearly training documents: {close.pairs:,} "
        f"{'pair shares' if close.pairs == 1 else 'pairs share'} {threshold:.0%} or more of their five-word runs",
        "Keep them on one side: give related records a common dataset.group_field, or remove them.",
        close.pairs,
        tuple(
            f"{pair.jaccard:.0%}  {pair.left.origin}: {short(pair.left.text)}\n"
            f"     {pair.right.origin}: {short(pair.right.text)}"
            for pair in close.worst[:EXAMPLES]
        ),
    )


def parted_groups(name: str, held_out: Sequence[Document], train: Sequence[Document]) -> Iterator[Finding]:
    """Groups that stand on both sides."""
    ours = Counter(document.group for document in held_out if document.group is not None)
    theirs = {document.group for document in train if document.group is not None}
    if both := sorted(group for group in ours if group in theirs):
        yield Finding(
            Severity.ERROR,
            "groups",
            f"{name}: {len(both):,} of {len(ours):,} groups are in the training split too",
            "Split again by the group field: `tollgate dataset split --group-field`.",
            len(both),
            tuple(f"group {short(group)}" for group in both[:EXAMPLES]),
        )


def personal(part: str, documents: Sequence[Document], redacted: bool) -> Iterator[Finding]:
    """What looks like personal data, by kind; examples are masked. redacted: whether the run replaces it."""
    counts: Counter[str] = Counter()
    carriers: Counter[str] = Counter()
    examples: dict[str, list[str]] = defaultdict(list)
    for document in documents:
        texts = (document.text,) if document.question is None else (document.text, document.question)
        kinds = set()
        for text in texts:
            for found in privacy.find(text):
                counts[found.kind] += 1
                kinds.add(found.kind)
                if len(examples[found.kind]) < EXAMPLES:
                    examples[found.kind].append(f"{document.origin}: {masked(text[found.start : found.end])}")
        carriers.update(kinds)
    for kind, count in sorted(counts.items()):
        yield Finding(
            Severity.NOTE if redacted else Severity.WARNING,
            "personal data",
            f"{part}: what looks like {_NAMES.get(kind, kind)}: {count:,}, in {carriers[kind]:,} of {len(documents):,} "
            "documents" + ("; the run replaces it" if redacted else ""),
            "" if redacted else "Remove it, or have it replaced: dataset.privacy_preservation_enabled: true.",
            count,
            tuple(examples[kind]),
        )


_NAMES = {"email": "an e-mail address", "phone": "a telephone number", "card": "a payment card", "iban": "an IBAN"}


def masked(text: str) -> str:
    """The shape of a text without its content: every letter and digit but the first is a star."""
    return text[:1] + re.sub(r"[^\W_]", "*", text[1:])


def labels(parts: Sequence[tuple[str, Sequence[Document]]], least: int) -> Iterator[Finding]:
    """Labels with few examples to learn from, held-out labels that are never taught, texts with two labels.

    Args: parts: the first is the one that is trained on; least: examples that a label should have.
    """
    name, train = parts[0]
    counts = Counter(document.label for document in train if document.label is not None)
    if not counts:
        return
    if len(counts) == 1:
        yield Finding(
            Severity.ERROR, "labels", f"{name}: there is only one label, {next(iter(counts))!r}", "Add the others."
        )
    yield from _spellings(name, counts)
    if few := sorted((count, label) for label, count in counts.items() if count < least):
        yield Finding(
            Severity.WARNING,
            "labels",
            f"{name}: {len(few):,} of {len(counts):,} labels have fewer than {least:,} examples",
            "Add examples, or merge labels (--min-per-label sets the number).",
            len(few),
            tuple(f"{label!r}: {count:,}" for count, label in few[:EXAMPLES]),
        )
    for held_out, documents in parts[1:]:
        if strangers := sorted({d.label for d in documents if d.label is not None} - counts.keys()):
            yield Finding(
                Severity.ERROR,
                "labels",
                f"{held_out}: {len(strangers):,} labels do not occur in {name}, so they can't be learned",
                "Add examples of them to the training split, or correct their spelling.",
                len(strangers),
                tuple(map(repr, strangers[:EXAMPLES])),
            )
    by_text: dict[tuple[str, str | None], dict[str, str]] = defaultdict(dict)
    for document in train:
        if document.label is not None:
            by_text[document.hash, document.question].setdefault(document.label, document.origin)
    if torn := [found for found in by_text.values() if len(found) > 1]:
        yield Finding(
            Severity.WARNING,
            "labels",
            f"{name}: {len(torn):,} texts occur with different labels",
            "Decide on one.",
            len(torn),
            tuple(", ".join(f"{origin} {label!r}" for label, origin in found.items()) for found in torn[:EXAMPLES]),
        )


def _spellings(name: str, labels: Iterable[str]) -> Iterator[Finding]:
    by_letters: dict[str, list[str]] = defaultdict(list)
    for label in sorted(labels):
        by_letters[label.casefold()].append(label)
    if alike := [" and ".join(map(repr, found)) for found in by_letters.values() if len(found) > 1]:
        yield Finding(
            Severity.WARNING,
            "labels",
            f"{name}: labels that differ in upper and lower case alone: {len(alike):,}; each is a class of its own",
            "Write them alike.",
            len(alike),
            tuple(alike[:EXAMPLES]),
        )


def turns(part: str, documents: Sequence[Document]) -> Iterator[Finding]:
    """Conversations whose turns are in an order that is rarely meant."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for document in documents:
        for problem in _turn_problems(document.messages or ()):
            kinds[problem].append(document.origin)
    for problem, origins in kinds.items():
        many = "1 conversation" if len(origins) == 1 else f"{len(origins):,} conversations"
        yield Finding(
            Severity.WARNING, "roles", f"{part}: {many}: {problem}", "", len(origins), tuple(origins[:EXAMPLES])
        )


def _turn_problems(messages: Sequence[Message]) -> Iterator[str]:
    roles = [message.role for message in messages]
    if not roles:
        return
    if "system" in roles[1:]:
        yield "a system turn stands after the first; many templates refuse it"
    if any(one == other != "system" for one, other in itertools.pairwise(roles)):
        yield "two turns of one role follow each other; many templates refuse it"
    if next((role for role in roles if role != "system"), "") == "assistant":
        yield "the assistant speaks first, so its first turn answers nothing"
    if roles[-1] != "assistant":
        yield "the last turn is not the assistant's; nothing is learned from it"
    if any(not message.content.strip() for message in messages):
        yield "a turn is empty"


def short(text: str, most: int = LONG) -> str:
    """A text in one line of at most `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."
