"""One manifest, all ways in: from the file, through kubectl and back from the API server it is the same."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml
from kind_objects import ABSENT, RUN, changed, collection

from tollgate.manifest.errors import ManifestError
from tollgate.manifest.loader import load_document, load_file
from tollgate.manifest.normal import normalise
from tollgate.manifest.reading import read_yaml
from tollgate.manifest.scalars import plain
from tollgate_local.cluster import Cluster

pytestmark = pytest.mark.integration

MANIFEST = """\
# every kind of value that may change on its way
name: counsel
description: "no"
version: 1.2.3
created_at: "2024-01-01"
dataset:
  path: train.jsonl
  size_bytes: 9007199254740991
  commit_hash: "0123"
model:
  config: {model_type: llama, rope_theta: 1e+4, scale: 1.0, odd: -0.0, tiny: 5e-324, big: 1.5e15, hex: 0x1F, none: null,
           text: "\\u20ac \\U0001F600", list: [.5, +3, -7, 2., 1E5, True, ~text], nested: {b: 1, a: {}}}
hyperparameters:
  learning_rate: 1e-4
  num_train_epochs: 2.0
  weight_decay:
resources: {max_budget_usd: 1.10}
"""


def test_a_manifest_has_one_digest_from_the_file_from_kubectl_and_from_the_api_server(
    kinds: Cluster, namespace: str, tmp_path: Path
) -> None:
    plain = tmp_path / "manifest.yaml"
    plain.write_text(MANIFEST, encoding="utf-8")
    wanted = load_file(plain)

    run = changed(RUN, "spec.manifest", ABSENT)
    run["metadata"] = {"name": "one-digest", "namespace": namespace}
    indented = "".join(f"    {line}\n" for line in MANIFEST.splitlines())
    text = yaml.safe_dump(run, sort_keys=False).replace("spec:\n", f"spec:\n  manifest:\n{indented}", 1)
    whole = tmp_path / "run.yaml"
    whole.write_text(text, encoding="utf-8")
    assert load_file(whole).digest == wanted.digest

    applied = kinds.kubectl("apply", "-f", str(whole))
    assert "created" in applied.stdout
    path = f"{collection(run, namespace)}/one-digest"
    from_server = load_document(kinds.api.get(path)["spec"]["manifest"], "API server")
    assert from_server.digest == wanted.digest
    assert from_server.manifest == wanted.manifest

    as_json = tmp_path / "manifest.json"
    as_json.write_text(json.dumps(wanted.document), encoding="utf-8")
    assert load_file(as_json).digest == wanted.digest

    again = tmp_path / "from-server.yaml"
    again.write_text(kinds.kubectl("-n", namespace, "get", "trun", "one-digest", "-o", "yaml").stdout, encoding="utf-8")
    assert load_file(again).digest == wanted.digest


def test_kubectl_reads_every_plain_scalar_that_the_loader_accepts_as_the_loader_does(
    kinds: Cluster, namespace: str
) -> None:
    chance = random.Random(3)
    made = {"".join(chance.choices("0123456789abefnosxyEINOTXY_.:+-~", k=chance.randint(1, 9))) for _ in range(6000)}
    taken = sorted(text for text in made if readable(text))
    assert len(taken) > 1000
    run = changed(RUN, "metadata", {"name": "scalars", "namespace": namespace})
    lines = "".join(f"    - {text}\n" for text in taken)
    text = yaml.safe_dump(run, sort_keys=False).replace("  manifest:\n", f"  manifest:\n    scalars:\n{lines}", 1)
    stored = json.loads(kinds.kubectl("create", "-f", "-", "-o", "json", stdin=text).stdout)["spec"]["manifest"][
        "scalars"
    ]
    differ = [
        (text, here, there)
        for text, here, there in zip(taken, normalise({"v": list(map(plain, taken))})[0]["v"], stored, strict=True)
        if (type(here), here) != (type(there), there)
    ]
    assert differ == []


def readable(text: str) -> bool:
    """Whether this is one plain scalar that the loader takes (and not null, which it drops)."""
    try:
        reading = read_yaml(f"- {text}\n", "scalar")
    except ManifestError:
        return False
    alone = not reading.found and isinstance(reading.value, list) and isinstance(reading.value[0], str | int | float)
    return alone and not normalise({"v": reading.value[0]})[1] and reading.value[0] == plain(text)
