"""The ConfigMap that consumers of a stage read: which model, and the digests to check it by."""

from __future__ import annotations

from typing import Any, Final

from tollgate.api.promotion_policy import Holder
from tollgate.contract import GROUP

LABEL_STAGE: Final = f"{GROUP}/stage"
"""On every projected ConfigMap; the chart's admission policy lets only the operator write what carries it."""
ANNOTATION_POLICY: Final = f"{GROUP}/policy"
LONGEST_NAME: Final = 253


def config_map_name(policy: str, stage: str) -> str:
    """Where consumers find a stage."""
    return f"model-{policy}-{stage}"


def data(holder: Holder) -> dict[str, str]:
    """What the ConfigMap says. `modelPath` is relative to the root of the claim in `modelURI`."""
    return {
        "run": holder.run,
        "runUID": holder.run_uid,
        "modelURI": holder.model_uri,
        "modelPath": holder.model_path,
        "modelDigest": holder.model_digest,
        "evidenceDigest": holder.evidence_digest,
        "since": holder.model_dump(mode="json", by_alias=True)["since"],
    }


def config_map(namespace: str, policy: str, stage: str, holder: Holder) -> dict[str, Any]:
    """The projection of one stage. It has no owner: deleting a policy must not take the model from its consumers."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": config_map_name(policy, stage),
            "namespace": namespace,
            "labels": {LABEL_STAGE: stage, "app.kubernetes.io/managed-by": "tollgate"},
            "annotations": {ANNOTATION_POLICY: policy},
        },
        "data": data(holder),
    }


def model_uri(claim: str, *parts: str) -> tuple[str, str]:
    """(`pvc://<claim>/<path>`, `<path>`) of a folder on a claim of the run's namespace; empty parts are left out."""
    path = "/".join(stripped for part in parts if (stripped := part.strip("/")))
    return f"pvc://{claim}/{path}", path
