"""Good objects of our kinds, changed copies of them, and where the API server keeps them."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

from tollgate.contract import API_VERSION
from tollgate_local.cluster import Cluster

CRDS = Path(__file__).parents[2] / "crds"
GROUP_PATH = f"/apis/{API_VERSION}"
_numbers = itertools.count(1)

Object = dict[str, Any]

RUN: Object = {
    "apiVersion": API_VERSION,
    "kind": "TrainingRun",
    "metadata": {"name": "good"},
    "spec": {
        "manifest": {"name": "counsel", "dataset": {"path": "train.jsonl"}, "hyperparameters": {"learning_rate": 1e-4}},
        "compute": {"profile": "cpu-small"},
        "storage": {
            "dataset": {"claimName": "datasets", "path": "care/v2"},
            "output": {"claimName": "models", "path": "counsel"},
        },
        "limits": {"maxCostUSD": "1.50", "maxRuntime": "1h30m", "stopMargin": "10m"},
    },
}
PROFILE: Object = {
    "apiVersion": API_VERSION,
    "kind": "ComputeProfile",
    "metadata": {"name": "good"},
    "spec": {"image": "registry.test/trainer:1", "cpu": 2, "memory": "4Gi", "pricePerNodeHourUSD": "0.25"},
}
POLICY: Object = {
    "apiVersion": API_VERSION,
    "kind": "PromotionPolicy",
    "metadata": {"name": "good"},
    "spec": {
        "stages": [
            {"name": "staging", "checks": [{"metric": "perplexity", "op": "<", "threshold": 20.5}], "maxAge": "24h"},
            {
                "name": "production",
                "requires": ["staging"],
                "checks": [{"metric": "accuracy", "op": ">=", "threshold": 1}],
            },
        ]
    },
}
ABSENT = object()
PATHS = {
    "TrainingRun": "trainingruns",
    "ComputeProfile": "computeprofiles",
    "PromotionPolicy": "promotionpolicies",
}


def changed(base: Object, path: str, value: object) -> Object:
    """A copy with one field set (or removed); list items by number."""
    document = copy.deepcopy(base)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    at: Any = document
    for part in parents:
        at = at[part] if isinstance(part, int) else at.setdefault(part, {})
    if value is ABSENT:
        del at[last]
    else:
        at[last] = value
    return document


def collection(document: Object, namespace: str) -> str:
    plural = PATHS[document["kind"]]
    return f"{GROUP_PATH}/{plural}" if plural == "computeprofiles" else f"{GROUP_PATH}/namespaces/{namespace}/{plural}"


def create(cluster: Cluster, namespace: str, document: Object) -> Any:
    """Create for good under a name of its own, refusing what would be pruned."""
    document = copy.deepcopy(document)
    if document["metadata"]["name"] == "good":
        document["metadata"]["name"] = f"good-{next(_numbers)}"
    return cluster.api.create(f"{collection(document, namespace)}?fieldValidation=Strict", document)


def conditions(cluster: Cluster, path: str) -> dict[str, str]:
    found = cluster.api.get(path).get("status", {}).get("conditions")
    return {c["type"]: c["status"] for c in found or []}
