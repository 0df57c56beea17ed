"""Kubernetes Events: what `kubectl describe` shows. At most one per transition, and never the only place of a fact."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from tollgate_operator.decision import EmitEvent

CONTROLLER: Final = "tollgate.dev/operator"
_MAX_NOTE: Final = 1024  # bytes, by the API's own validation


class Regarded(Protocol):
    """The object that an Event is about."""

    @property
    def api_version(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def namespace(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def uid(self) -> str: ...  # noqa: D102


def event_body(about: Regarded, event: EmitEvent, now: datetime) -> dict[str, Any]:
    """An events.k8s.io/v1 Event. Its name holds the time to the microsecond, as the official recorders do it."""
    moment = now.astimezone(UTC)
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"{about.name}.{int(moment.timestamp() * 1e6):x}.{event.reason.lower()}",
            "namespace": about.namespace,
        },
        "eventTime": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": CONTROLLER,
        "reportingInstance": f"{socket.gethostname()}-{os.getpid()}"[:128],
        "action": "Reconcile",
        "reason": event.reason,
        "type": event.type,
        "note": event.message.encode()[:_MAX_NOTE].decode(errors="ignore"),
        "regarding": {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "namespace": about.namespace,
            "name": about.name,
            "uid": about.uid,
        },
    }
