"""`tollgate dataset preview` on a screen: the rendered documents, coloured by what becomes of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from tollgate_trainer.data.document import Document
from tollgate_trainer.dataset.lesson import Part, Segment, Sums, mark_of
from tollgate_trainer.dataset.show import heading, line, plural, rows, share

STYLES = {Part.TRAINED: "bold green", Part.READ: "", Part.CUT: "red strike"}
WORDS = {Part.TRAINED: "trained: carries loss", Part.READ: "read only", Part.CUT: "cut off by max_seq_length"}
LONGEST = 3000
"""Characters of a segment that are shown; the middle of a longer one is left out."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One document to show: as segments of tokens, or without a loss mask (segments None) as its fields."""

    number: int
    document: Document
    segments: Sequence[Segment] | None
    tokens: int | None


def preview(console: Console, chosen: Sequence[Shown], whole: int, name: str) -> None:
    """The legend, then each chosen document."""
    if any(one.segments is not None for one in chosen):
        legend(console)
    for one in chosen:
        title = f"{name} {one.number + 1:,} of {whole:,}, {one.document.origin}"
        if one.segments is None:
            _fields(console, title, one.document)
            continue
        counts = {part: sum(s.tokens for s in one.segments if s.part is part) for part in Part}
        total = sum(counts.values())
        cut = f", {counts[Part.CUT]:,} cut off" if counts[Part.CUT] else ""
        console.print()
        heading(console, title)
        line(console, f"{plural(total, 'token')}, {counts[Part.TRAINED]:,} trained{cut}", "dim")
        console.print(rendered(console, one.segments))


def legend(console: Console) -> None:
    """What the colours, or the marks in their place, mean."""
    text = Text()
    for part in Part:
        text.append_text(_marked(console, Segment(part, WORDS[part], 0)))
        text.append("   ")
    console.print(text)


def rendered(console: Console, segments: Sequence[Segment]) -> Text:
    """The segments in one text; with marks instead of colours where there is no terminal."""
    text = Text()
    for segment in segments:
        text.append_text(_marked(console, segment))
    return text


def _marked(console: Console, segment: Segment) -> Text:
    shown = segment.text
    if len(shown) > LONGEST:
        half = LONGEST // 2
        shown = f"{shown[:half]} ... {len(shown) - LONGEST:,} characters ... {shown[-half:]}"
    if console.is_terminal and not console.no_color:
        return Text(shown, style=STYLES[segment.part])
    begin, end = mark_of(segment.part)
    return Text(f"{begin}{shown}{end}")


def _fields(console: Console, title: str, document: Document) -> None:
    console.print()
    heading(console, title)
    if document.label is not None:
        line(console, f"label: {document.label}", "bold green")
    if document.question is not None:
        line(console, f"question: {document.question}", "bold")
    text, places = document.text, sorted(document.answers or (), key=lambda answer: answer.start)
    pieces, last = [], 0
    for answer in places:
        if answer.start < last:
            continue  # inside the one before
        end = answer.start + len(answer.text)
        pieces += [Segment(Part.READ, text[last : answer.start], 0), Segment(Part.TRAINED, text[answer.start : end], 0)]
        last = end
    console.print(rendered(console, [*pieces, Segment(Part.READ, text[last:], 0)]))
    if document.answers == ():
        line(console, "no answer in this text", "yellow")


def totals(console: Console, name: str, sums: Sums, limit: int | None) -> None:
    """The figures over the whole split."""
    console.print()
    heading(console, f"{name} as a whole: {plural(sums.documents, 'document')}")
    cut = (
        f"{sums.cut_tokens:,} tokens of {plural(sums.cut_documents, 'document')} "
        f"({share(sums.cut_documents, sums.documents)})"
        if sums.cut_tokens
        else "nothing"
    )
    rows(
        console,
        [
            ("trained tokens", f"{sums.trained:,} of {sums.tokens:,} ({share(sums.trained, sums.tokens)})"),
            (
                f"cut off at {limit:,}" if limit is not None else "cut off",
                cut if limit is not None else "no limit given",
            ),
            ("without anything to learn", plural(sums.untaught, "document") if sums.untaught else "none"),
        ],
    )


def warn(console: Console, messages: Sequence[str]) -> None:
    """So that nobody overlooks it."""
    for message in messages:
        console.print()
        if console.is_terminal:
            console.print(Panel(Text(message), title="WARNING", border_style="bold red", style="bold"))
        else:
            line(console, f"WARNING: {message}")
