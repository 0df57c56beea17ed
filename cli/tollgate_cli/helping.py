"""What stands at the end of a command's help: examples as they are typed, then what else is to be known."""

from __future__ import annotations

WIDTH = 78
"""Columns of an 80 column terminal that click leaves."""


def ending(*examples: str, then: str = "") -> str:
    """An epilog for click: each example on its own line, folded where a shell allows it; `then` is a paragraph.

    Args: examples: commands, perhaps with `  # a comment`; then: exit codes and the like.
    """
    lines = [line for example in examples for line in _folded(example)]
    told = f"\b\nExample{'s' if len(examples) > 1 else ''}:\n" + "\n".join(lines)
    return f"{told}\n\n{then}" if then else told


def _folded(example: str) -> list[str]:
    """The command in lines that a shell reads as one."""
    lines, line = [], " "
    for word in example.split(" "):
        if len(line) + len(word) + 3 > WIDTH and line.strip():
            lines.append(f"{line} \\")
            line = "     "
        line += f" {word}"
    assert not lines or "  # " not in example, f"a comment cannot be folded, shorten it: {example}"
    return [*lines, line]
