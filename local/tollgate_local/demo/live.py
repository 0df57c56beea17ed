"""The newest state of an object, as the demo shows it: its status, and between two status writes what Prometheus has.

The operator writes progress and spend at most once a minute. Its /metrics are newer (a scrape of the pod each 5 s), and
spend grows by price x time, which is the reader's to add.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tollgate_local.api import Api, ApiError
from tollgate_local.demo.kubectl import DemoError

PLURALS = {"trainingrun": "trainingruns", "promotionpolicy": "promotionpolicies"}
METRICS = "/api/v1/namespaces/tollgate-system/services/tollgate-metrics:8080/proxy/metrics"
_SERIES = re.compile(r'^tollgate_run_(step|steps|loss)\{namespace="([^"]+)",run="([^"]+)"\} (\S+)$', re.MULTILINE)
_FIELDS = {"step": "step", "steps": "totalSteps", "loss": "loss"}

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Watcher:
    """Looks at objects of one namespace."""

    api: Api
    namespace: str

    def wait(
        self, kind: str, name: str, done: Callable[[Object], bool], seconds: float, seen: Callable[[Object], None]
    ) -> Object:
        """Looks twice a second until `done`, showing each state.

        Raises: DemoError after `seconds`, with the last status.
        """
        path = f"/apis/tollgate.dev/v1alpha1/namespaces/{self.namespace}/{PLURALS[kind]}/{name}"
        deadline = time.monotonic() + seconds
        found: Object = {}
        while time.monotonic() < deadline:
            found = self.api.get(path)
            if done(found):
                return found
            seen(self._newest(found) if kind == "trainingrun" else found)
            time.sleep(0.5)
        raise DemoError(
            f"{kind} {name} did not get where it must within {seconds:.0f} s; its status: {found.get('status')}"
        )

    def _newest(self, run: Object) -> Object:
        """The run with step and loss from the operator's metrics and spend as of now, while it trains."""
        status = run.get("status", {})
        if status.get("phase") != "Running":
            return run
        progress = {**status.get("progress", {}), **self._progress(run["metadata"]["name"])}
        return {**run, "status": {**status, "progress": progress, "cost": _spend_now(status.get("cost", {}))}}

    def _progress(self, name: str) -> Object:
        try:
            code, text = self.api.call("GET", METRICS, timeout=2)
        except (OSError, ApiError):
            return {}  # only the display is older then
        if code != 200:
            return {}
        found = _SERIES.findall(str(text))
        return {
            _FIELDS[what]: float(value) if what == "loss" else int(float(value))
            for what, namespace, run, value in found
            if (namespace, run) == (self.namespace, name)
        }


def _spend_now(cost: Object) -> Object:
    if not {"spentUSD", "ratePerHourUSD", "updatedAt"} <= cost.keys():
        return cost
    since = datetime.now(UTC) - datetime.fromisoformat(cost["updatedAt"])
    spent = float(cost["spentUSD"]) + float(cost["ratePerHourUSD"]) * max(0.0, since.total_seconds()) / 3600
    return {**cost, "spentUSD": f"{spent:.2f}"}
