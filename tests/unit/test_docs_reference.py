"""The generated pages leave nobody alone with a field's name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import docs_pages

EMPTY = re.compile(r"^\| `([^`]+)` \|.*\|  \|$", re.MULTILINE)
AS_IN_A_POD = "spec.tolerations[]."


@pytest.mark.parametrize("page", ["manifest.md", "resources.md"])
def test_every_field_says_what_it_means(page: str) -> None:
    fields = EMPTY.findall(docs_pages.read(Path("docs/reference") / page))
    assert [name for name in fields if not name.startswith(AS_IN_A_POD)] == []
