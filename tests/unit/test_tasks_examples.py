"""The examples of tasks: their data is what their manifests ask for."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tollgate.manifest.loader import load_file
from tollgate_trainer.data import load_documents

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "tasks"

SOURCE = '''
def first(numbers):
    """Look at the numbers one by one. Returns the first of them, or None."""

def second(numbers):
    """Say nothing about what comes back from a call; the numbers are printed only."""

class Third:
    """What a class is for does not say what it returns, so it is asked only for its category."""
'''


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_tasks_data", EXAMPLES / "make_tasks_data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("task", ["classification", "span", "joint"])
def test_the_data_that_the_script_makes_is_read_by_the_manifest(tmp_path: Path, script: ModuleType, task: str) -> None:
    library, data = tmp_path / "library", tmp_path / "data"
    library.mkdir()
    data.mkdir()
    for number, module in enumerate(("queue", "json", "socket", "statistics")):
        text = SOURCE.replace("the numbers", f"the numbers of {number}").replace("what it", f"what {number}")
        (library / f"{module}.py").write_text(text)
    things = list(script.collect(library))
    assert {thing.name for thing in things} == {"first", "second", "Third"}
    asked = [thing for thing in things if thing.callable]
    script.write(data / "categories.jsonl", map(script.labelled, things))
    script.write(data / "returns.jsonl", map(script.spanned, asked))
    script.write(data / "both.jsonl", (script.labelled(thing) | script.spanned(thing) for thing in asked))
    manifest = load_file(EXAMPLES / f"{task}.yaml").manifest
    documents = load_documents(manifest, tmp_path)
    every = [*documents.train, *documents.validation]
    assert len(every) == (len(things) if task == "classification" else len(asked))
    if task != "span":
        assert {document.label for document in every} == {"concurrency", "text", "internet", "numbers"}
    if task != "classification":
        answers = {document.answers[0].text for document in every if document.answers}
        assert answers == {"the first of them, or None"}
        assert sum(not document.answers for document in every) == len(asked) / 2
