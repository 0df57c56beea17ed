"""Small charts as inline SVG, made by pure functions: numbers in, markup out. Colours are the style sheet's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class Series:
    """A named line. style: a class of the style sheet (line-1, line-2, faint); dots: draw the points as well."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "line-1"
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """Size of a drawing in its own units, which are about pixels on the screen."""

    width: int
    height: int
    left: int = 52
    right: int = 14
    top: int = 12
    bottom: int = 30


WIDE = Frame(720, 250)
HALF = Frame(290, 180)
NARROW = Frame(350, 220)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that span [low, high], about `count` of them; ends that are as good as equal are spread."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"an axis from {low} to {high} can't be drawn")
    if high - low <= max(abs(low), abs(high)) * 1e-9 or high - low < 1e-30:
        spread = max(abs(low) * 0.1, 1e-30) if low else 1.0
        low, high = low - spread, high + spread
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def label(value: float) -> str:
    """A number as short as an axis needs it: 1.5k, 2M, 3e-05, 0.25."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4 or (size >= 1000 and value % 100 == 0):
        return f"{value / 1e3:.3g}k"
    if size and size < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-")
    return f"{value:.4g}"


def thin(points: Sequence[tuple[float, float]], most: int = _MOST_POINTS) -> list[tuple[float, float]]:
    """At most about `most` points that keep every visible extreme: the lowest and highest of each bucket."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / (most // 2))
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        bucket = points[start : start + size]
        ends = {min(bucket, key=lambda p: p[1]), max(bucket, key=lambda p: p[1])}
        kept += sorted(ends)
    return [points[0], *(p for p in kept if p not in (points[0], points[-1])), points[-1]]


def smooth(points: Sequence[tuple[float, float]], span: int) -> list[tuple[float, float]]:
    """A centred mean over `span` points, fewer at the ends: it does not lag behind as a running average would."""
    half = max(span // 2, 1)
    result = []
    for index, (x, _) in enumerate(points):
        reach = min(half, index, len(points) - 1 - index)
        window = points[index - reach : index + reach + 1]
        result.append((x, sum(y for _, y in window) / len(window)))
    return result


def line_chart(
    title: str, series: Sequence[Series], frame: Frame = WIDE, marks: Sequence[float] = (), x_name: str = "step"
) -> str:
    """Lines over steps with axes, a legend in words for screen readers, and a dashed line at each of `marks`.

    Answers "" when no series has a point: a chart of nothing is no chart.
    """
    drawn = [s for s in series if s.points]
    if not drawn:
        return ""
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    across = [t for t in ticks(min(xs), max(xs), 6 if frame.width > 500 else 4) if min(xs) <= t <= max(xs)]
    up = ticks(min(ys), max(ys), 5)
    low_x, high_x = min(xs), max(max(xs), min(xs) + 1)
    low_y, high_y = up[0], up[-1]

    def px(x: float) -> float:
        return frame.left + (x - low_x) / (high_x - low_x) * (frame.width - frame.left - frame.right)

    def py(y: float) -> float:
        return frame.height - frame.bottom - (y - low_y) / (high_y - low_y) * (frame.height - frame.top - frame.bottom)

    end = frame.width - frame.right
    parts = [
        f'<line class="grid" x1="{frame.left}" x2="{end}" y1="{py(t):.1f}" y2="{py(t):.1f}"/>'
        f'<text class="tick" x="{frame.left - 7}" y="{py(t) + 4:.1f}" text-anchor="end">{label(t)}</text>'
        for t in up
    ]
    parts += [
        f'<text class="tick" x="{px(t):.1f}" y="{frame.height - frame.bottom + 17}" text-anchor="middle">'
        f"{label(t)}</text>"
        for t in across
    ]
    base = frame.height - frame.bottom
    parts.append(f'<text class="tick" x="{frame.left - 7}" y="{base + 17}" text-anchor="end">{escape(x_name)}</text>')
    parts += [
        f'<line class="mark" x1="{px(m):.1f}" x2="{px(m):.1f}" y1="{frame.top}" y2="{base}">'
        f"<title>went on from {x_name} {m:g}</title></line>"
        for m in marks
        if low_x <= m <= high_x
    ]
    for s in drawn:
        points = thin(s.points)
        path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in points)
        if len(points) > 1:
            parts.append(f'<polyline class="{s.style}" points="{path}"/>')
        if s.dots or len(points) == 1:
            parts += [
                f'<circle class="{s.style} dot" cx="{px(x):.1f}" cy="{py(y):.1f}" r="3">'
                f"<title>{escape(s.name)} {y:.4g} at {x_name} {x:g}</title></circle>"
                for x, y in points
            ]
    words = "; ".join(f"{s.name} from {s.points[0][1]:.4g} to {s.points[-1][1]:.4g}" for s in drawn)
    return (
        f'<svg viewBox="0 0 {frame.width} {frame.height}" role="img" '
        f'aria-label="{escape(f"{title} by {x_name}: {words}", quote=True)}">{"".join(parts)}</svg>'
    )


def stacked_bar(parts: Sequence[tuple[str, float, str]], width: int = 720, height: int = 26) -> str:
    """One bar of (name, amount, style) parts in proportion; "" when there is nothing to show."""
    total = sum(amount for _, amount, _ in parts)
    if total <= 0:
        return ""
    at, drawn = 0.0, []
    for name, amount, style in parts:
        size = amount / total * width
        if size > 0:
            drawn.append(
                f'<rect class="{style}" x="{at:.2f}" y="0" width="{size:.2f}" height="{height}">'
                f"<title>{escape(name)}: {amount / total:.1%}</title></rect>"
            )
        at += size
    words = ", ".join(f"{name} {amount / total:.1%}" for name, amount, _ in parts if amount > 0)
    return (
        f'<svg class="bar" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(words, quote=True)}">{"".join(drawn)}</svg>'
    )


def interval(
    value: float,
    lower: float | None,
    upper: float | None,
    threshold: float | None,
    width: int = 220,
    within: tuple[float, float] | None = None,
) -> str:
    """A point with its bounds on a line of its own, and the threshold where a gate asks for one.

    Args: within: ends that the line reaches as well, so that several can be held against each other.
    """
    known: list[float] = [x for x in (value, lower, upper, threshold, *(within or ())) if x is not None]
    low, high = min(known), max(known)
    pad = (high - low) * 0.12 or abs(value) * 0.1 or 1.0
    low, high = low - pad, high + pad

    def px(x: float) -> float:
        return (x - low) / (high - low) * width

    parts = [f'<line class="grid" x1="0" x2="{width}" y1="11" y2="11"/>']
    if lower is not None and upper is not None:
        parts.append(f'<line class="span" x1="{px(lower):.1f}" x2="{px(upper):.1f}" y1="11" y2="11"/>')
    if threshold is not None:
        parts.append(
            f'<line class="threshold" x1="{px(threshold):.1f}" x2="{px(threshold):.1f}" y1="1" y2="21">'
            f"<title>threshold {threshold:.4g}</title></line>"
        )
    parts.append(f'<circle class="line-1 dot" cx="{px(value):.1f}" cy="11" r="4"/>')
    words = f"value {value:.4g}" + (f", threshold {threshold:.4g}" if threshold is not None else "")
    return f'<svg class="interval" viewBox="0 0 {width} 22" role="img" aria-label="{words}">{"".join(parts)}</svg>'
