"""Analyses in a terminal: tables and bars that fit the width, plain text where there is no terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tollgate_trainer.dataset.measure import Measure
from tollgate_trainer.dataset.statistics import Bin, Conversations, Origin, Statistics

LABELS_SHOWN = 20
LEAST_FOR_HISTOGRAM = 8
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def analysis(
    console: Console, source: str, measure: Measure, limit: int | None, figures: Mapping[str, Statistics]
) -> None:
    """The whole answer of `tollgate dataset analyze`."""
    line(console, source, "bold")
    line(console, measure.how, "dim")
    for name, part in figures.items():
        console.print()
        heading(console, f"{name}: {plural(part.lengths.count, 'document')}")
        _facts(console, part, measure.unit, limit)
        if part.lengths.count >= LEAST_FOR_HISTOGRAM and part.lengths.least < part.lengths.most:
            console.print()
            _histogram(console, part, measure.unit, limit)
        if part.labels is not None:
            console.print()
            _labels(console, part)
        if part.conversations is not None:
            console.print()
            _roles(console, part.conversations)
        if len(part.sources) > 1:
            console.print()
            _sources(console, part.sources, measure.unit)


def line(console: Console, text: str, style: str = "") -> None:
    """Words exactly as given: no markup, no highlighting, wrapped at the width."""
    console.print(Text(text, style=style), soft_wrap=False)


def heading(console: Console, text: str) -> None:
    """A section's title."""
    line(console, text, "bold cyan")


def plural(count: int, word: str) -> str:
    """`1 document`, `2,000 documents`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def share(part: int, whole: int) -> str:
    """A percentage that is never rounded to 0 % or 100 % unless it is that."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "<0.1 %"
    if 99.9 < percent < 100:
        return ">99.9 %"
    return f"{percent:.1f} %" if percent % 100 else f"{percent:.0f} %"


def bar(console: Console, part: int, most: int, width: int) -> str:
    """A bar of at most `width` columns in eighths of a column; of # where the terminal has no blocks."""
    if part <= 0 or most <= 0:
        return ""
    if not console.encoding.lower().startswith("utf"):
        return "#" * max(round(width * part / most), 1)
    whole, rest = divmod(max(round(8 * width * part / most), 1), 8)
    return "█" * whole + _EIGHTHS[rest].strip()


def rows(console: Console, found: Sequence[tuple[str, str]]) -> None:
    """Name and value, a line each."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in found:
        table.add_row(Text(name), Text(value))
    console.print(table)


def bars(console: Console, title: str, found: Sequence[tuple[str, int, str]], whole: int) -> None:
    """A table of (name, count, remark) with shares and bars. whole: what the shares are of."""
    names = [Text(name, overflow="ellipsis", no_wrap=True) for name, _, _ in found]
    name_width = min(max([len(title), *(text.cell_len for text in names)]), max(console.width // 3, 12))
    remark_width = max((len(remark) for _, _, remark in found), default=0)
    room = console.width - name_width - 8 - 8 - 6 - (remark_width + 2 if remark_width else 0)
    most = max((count for _, count, _ in found), default=0)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(title, width=name_width, no_wrap=True)
    table.add_column("count", justify="right", min_width=8)
    table.add_column("share", justify="right", min_width=8)
    table.add_column("", no_wrap=True)
    for name, (_, count, remark) in zip(names, found, strict=True):
        drawn = Text(bar(console, count, most, min(max(room, 4), 60)), style="cyan")
        if remark:
            drawn.append(f" {remark}" if drawn.plain else remark, style="yellow")
        table.add_row(name, f"{count:,}", share(count, whole), drawn)
    console.print(table)


# --- parts ------------------------------------------------------------------------------------------------------------


def _facts(console: Console, part: Statistics, unit: str, limit: int | None) -> None:
    length, twice = part.lengths, part.duplicates
    found = [
        (
            unit,
            f"min {length.least:,}   mean {length.mean:,.1f}   p50 {length.p50:,}   p95 {length.p95:,}   "
            f"max {length.most:,}",
        ),
        (f"{unit} in all", f"{length.total:,}"),
    ]
    if limit is not None and part.longer_than_limit is not None:
        longer = part.longer_than_limit
        says = f"{longer:,} ({share(longer, length.count)}) are longer and would be cut" if longer else "none is longer"
        found.append((f"max_seq_length {limit:,}", says))
    if twice.normalised:
        text = f"{twice.exact:,} exact, {twice.normalised:,} with case and white space ignored"
        where = ", ".join(twice.worst[:3]) + (", ..." if len(twice.worst) > 3 else "")
        found.append(("duplicates", f"{text} ({share(twice.normalised, length.count)})"))
        found.append(("most frequent", f"{len(twice.worst):,} times: {where}"))
    else:
        found.append(("duplicates", "none"))
    if part.unlabelled:
        found.append(("without a label", plural(part.unlabelled, "document")))
    if part.questions is not None:
        asked = part.questions
        found.append(
            ("questions", f"{asked.documents:,}, {asked.answers:,} answers; {asked.unanswered:,} have no answer")
        )
    if part.groups is not None:
        found.append(("groups", f"{part.groups:,}"))
    rows(console, found)


def _histogram(console: Console, part: Statistics, unit: str, limit: int | None) -> None:
    found = []
    for each in part.histogram:
        remark = f"<- max_seq_length {limit:,}" if limit is not None and _holds(each, limit) else ""
        found.append((_range(each), each.count, remark))
    bars(console, unit, found, part.lengths.count)


def _holds(each: Bin, limit: int) -> bool:
    return each.start <= limit and (each.end is None or limit < each.end)


def _range(each: Bin) -> str:
    if each.end is None:
        return f"{each.start:,} and more"
    return f"{each.start:,}" if each.end == each.start + 1 else f"{each.start:,} - {each.end - 1:,}"


def _labels(console: Console, part: Statistics) -> None:
    assert part.labels is not None
    counts = list(part.labels.items())
    found = [(name, count, "") for name, count in counts[:LABELS_SHOWN]]
    if rest := counts[LABELS_SHOWN:]:
        found.append((f"{len(rest):,} more labels", sum(count for _, count in rest), ""))
    bars(console, plural(len(counts), "label"), found, part.lengths.count - part.unlabelled)


def _roles(console: Console, talks: Conversations) -> None:
    bars(console, "role", [(role, count, "") for role, count in talks.roles.items()], sum(talks.roles.values()))
    turns = talks.turns
    found = [("turns", f"min {turns.least:,}   mean {turns.mean:.1f}   p50 {turns.p50:,}   max {turns.most:,}")]
    found.append(("with a system turn", f"{talks.with_system:,} of {plural(talks.count, 'conversation')}"))
    if talks.ends_elsewhere:
        found.append(("do not end with the assistant", f"{talks.ends_elsewhere:,}"))
    rows(console, found)


def _sources(console: Console, sources: Mapping[str, Origin], unit: str) -> None:
    total = sum(each.length for each in sources.values())
    found = [
        (name or "(no name)", each.documents, f"{share(each.length, total)} of the {unit}")
        for name, each in sources.items()
    ]
    bars(console, "source", found, sum(each.documents for each in sources.values()))
