"""The examples that the README names: manifests that load, and a data script that runs nothing of what it reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tollgate.manifest.loader import load_file
from tollgate_trainer.data.documents import Form, read
from trainer_fixtures import REPOSITORY

EXAMPLES = REPOSITORY / "examples"


@pytest.mark.parametrize("name", ["manifest.yaml", "manifest-lora.yaml", "manifest-moe-lora.yaml"])
def test_the_example_manifests_are_valid_and_can_be_trained_by_this_version(name: str) -> None:
    assert load_file(EXAMPLES / name).manifest.reproducibility.deterministic


def test_the_data_is_the_same_each_time_and_both_formats_tell_the_same(tmp_path: Path) -> None:
    made = []
    for folder in ("first", "second"):
        command = [sys.executable, str(EXAMPLES / "make_stdlib_qa.py"), "--out", str(tmp_path / folder)]
        subprocess.run(command, check=True, capture_output=True)
        made.append({path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()})
    assert made[0] == made[1]
    texts = read(tmp_path / "first" / "stdlib-qa.json", Form("conversations"), "qa")
    chats = read(tmp_path / "first" / "stdlib-chat.jsonl", Form("chat"), "chat")
    assert len(texts) >= 1000
    assert [document.text for document in texts] == [document.text for document in chats]
    assert len({document.hash for document in texts}) == len(texts)
    assert json.loads(made[0]["stdlib-qa.json"])["conversations"][0].keys() == {"text"}
