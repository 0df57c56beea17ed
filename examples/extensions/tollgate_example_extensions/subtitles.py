"""A dataset source: subtitle files (SubRip, .srt), a document for each scene."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

CUE = re.compile(r"(\d+):(\d\d):(\d\d),(\d{3}) --> (\d+):(\d\d):(\d\d),(\d{3})")
PAUSE = 4.0
"""Seconds without a line that end a scene."""


class Subtitles:
    """Lines of dialogue that follow each other within PAUSE are one document."""

    def records(self, file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(file:line, {"text": the scene}); read it with `dataset.format: text`."""
        scene: list[str] = []
        begun, ended = 1, float("-inf")
        for number, block in _blocks(file.read_text(encoding="utf-8-sig")):
            lines = block.splitlines()
            cue = next((index for index, line in enumerate(lines) if CUE.match(line)), None)
            if cue is None:
                raise ValueError(f"line {number}: a cue needs a line such as 00:00:01,000 --> 00:00:02,500")
            start, end = _seconds(lines[cue])
            if scene and start - ended > PAUSE:
                yield f"{file.name}:{begun}", {"text": "\n".join(scene)}
                scene = []
            if not scene:
                begun = number
            scene += lines[cue + 1 :]
            ended = end
        if scene:
            yield f"{file.name}:{begun}", {"text": "\n".join(scene)}


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """(number of its first line, block) of a text whose blocks are separated by blank lines."""
    for match in re.finditer(r"(?:[^\n]*\S[^\n]*(?:\n|$))+", text):
        yield text.count("\n", 0, match.start()) + 1, match.group().rstrip("\n")


def _seconds(line: str) -> tuple[float, float]:
    match = CUE.match(line)
    assert match is not None
    h, m, s, ms, h2, m2, s2, ms2 = (int(part) for part in match.groups())
    return h * 3600 + m * 60 + s + ms / 1000, h2 * 3600 + m2 * 60 + s2 + ms2 / 1000
