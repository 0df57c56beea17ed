"""A model's backup in a store that speaks S3: what lies there is what was told, and nothing else is."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from s3_server import BUCKET, CANARY, Server, s3_server
from tollgate_cli.main import main
from tollgate_trainer.models.digest import digest_of, inventory


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as server:
        yield server


def saved(folder: Path) -> Path:
    """A model folder with its record; the weights are some bytes, nobody loads them here."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 1000)
    files = inventory(folder)
    record = {"digest": digest_of(files), "manifest_digest": "m", "dataset_digest": "d"}
    (folder / "model_info.json").write_text(json.dumps(record | {"files": [asdict(one) for one in files]}))
    return folder


def test_a_backup_in_a_store_has_the_digest_that_was_told(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    folder = saved(tmp_path / "model")
    assert main(["model", "backup", str(folder), f"s3://{BUCKET}/models/tiny.tar", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sorted(server.names("models/")) == ["models/tiny.tar", "models/tiny.tar.sha256"]
    data = server.client().get_object(Bucket=BUCKET, Key="models/tiny.tar")["Body"].read()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (told["bytes"], told["sha256"])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        weights = tar.extractfile("model/model.safetensors")
        assert weights is not None
        assert weights.read() == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("target", "words"),
    [("s3://nowhere-of-ours/m.tar", "NoSuchBucket"), (f"s3://{BUCKET}/models/", "names no object")],
)
def test_a_store_that_does_not_take_it_is_told_without_a_secret(
    tmp_path: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
    words: str,
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    assert main(["model", "backup", str(saved(tmp_path / "model")), target]) == 64
    complaint = capsys.readouterr().err
    assert words in complaint
    assert CANARY not in complaint
