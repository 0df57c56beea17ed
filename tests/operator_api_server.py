"""An API server for the operator's tests: versions, uids, preconditions, merge patches; its caller can die at a write.

It keeps to what the real one was seen to do: names are unique, a patch that carries a resourceVersion or a uid is
refused when another one is there, a deleted object stays until whoever holds it lets it go.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tollgate_operator.kube import AlreadyExists, Conflict, NotFound

Body = dict[str, Any]
START = datetime(2026, 1, 1, tzinfo=UTC)


def stamp(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


class CrashedError(Exception):
    """The operator's process died at this call."""


@dataclass
class Crash:
    """The operator dies at its `at`-th write from now on, before or after the API server took it."""

    at: int
    after: bool


@dataclass
class ApiServer:
    """Objects by path, and everything that ever happened to them."""

    now: datetime = START
    objects: dict[str, Body] = field(default_factory=dict)
    events: list[tuple[str, Body, bool]] = field(default_factory=list)
    writes: list[tuple[str, str]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    crash: Crash | None = None
    _version: int = 100
    _uids: int = 0

    async def get(self, path: str) -> Body:
        if path not in self.objects:
            raise NotFound(404, "NotFound", path)
        return copy.deepcopy(self.objects[path])

    async def list(self, path: str, label_selector: str | None = None, field_selector: str | None = None) -> list[Body]:
        wanted = dict(part.split("=", 1) for part in (label_selector or "").split(",") if part)
        return [
            copy.deepcopy(body)
            for name, body in self.objects.items()
            if name.rsplit("/", 1)[0] == path
            and all(body["metadata"].get("labels", {}).get(k) == v for k, v in wanted.items())
        ]

    async def create(self, path: str, body: Mapping[str, Any]) -> Body:
        self._written("create", path)
        if path.endswith("/events"):
            self.told.append(body["reason"])
            return dict(body)
        name = f"{path}/{body['metadata']['name']}"
        if name in self.objects:
            raise AlreadyExists(409, "AlreadyExists", name)
        made = self.put(name, dict(copy.deepcopy(dict(body))), new=True)
        self._taken()
        return made

    async def merge_patch(self, path: str, body: Mapping[str, Any]) -> Body:
        self._written("patch", path)
        status = path.endswith("/status")
        name = path.removesuffix("/status")
        if name not in self.objects:
            raise NotFound(404, "NotFound", path)
        old = self.objects[name]
        meta = body.get("metadata", {})
        for key in ("uid", "resourceVersion"):
            if key in meta and meta[key] != old["metadata"][key]:
                raise Conflict(409, "Conflict", f"{name}: {key}")
        patch = {k: v for k, v in body.items() if (k == "status") == status or k == "metadata"}
        patch["metadata"] = {k: v for k, v in meta.items() if k not in ("uid", "resourceVersion")}
        made = self.put(name, merged(old, patch))
        self._taken()
        return made

    async def delete(
        self, path: str, uid: str | None = None, propagation: str = "Foreground", grace: int | None = None
    ) -> None:
        self._written("delete", path)
        if path not in self.objects:
            raise NotFound(404, "NotFound", path)
        if uid is not None and self.objects[path]["metadata"]["uid"] != uid:
            raise Conflict(409, "Conflict", path)
        self.mark_deleted(path)
        self._taken()

    async def apply(self, path: str, body: Mapping[str, Any], field_manager: str, force: bool = True) -> Body:
        raise AssertionError("a run applies nothing")

    def _written(self, verb: str, path: str) -> None:
        self.writes.append((verb, path))
        if self.crash is not None:
            self.crash.at -= 1
            if self.crash.at <= 0 and not self.crash.after:
                self.crash = None
                raise CrashedError

    def _taken(self) -> None:
        if self.crash is not None and self.crash.at <= 0:
            self.crash = None
            raise CrashedError

    def put(self, name: str, body: Body, *, new: bool = False) -> Body:
        self._version += 1
        meta = body["metadata"]
        if new:
            self._uids += 1
            meta.update(uid=f"{self._uids:08x}-0000-4000-8000-000000000000", creationTimestamp=stamp(self.now))
            meta.setdefault("generation", 1)
        elif body.get("spec") != self.objects[name].get("spec"):
            meta["generation"] = meta.get("generation", 1) + 1
        meta["resourceVersion"] = str(self._version)
        self.objects[name] = body
        self.events.append((name, copy.deepcopy(body), False))
        return copy.deepcopy(body)

    def change(self, name: str, patch: Body) -> None:
        """A write by somebody else than the operator."""
        self.put(name, merged(self.objects[name], patch))

    def mark_deleted(self, name: str) -> None:
        body = self.objects[name]
        if "deletionTimestamp" in body["metadata"]:
            return
        grace = body["spec"].get("terminationGracePeriodSeconds", 0) if "/pods/" in name else 0
        at = stamp(self.now + timedelta(seconds=grace))
        self.change(name, {"metadata": {"deletionTimestamp": at, "deletionGracePeriodSeconds": grace}})

    def remove(self, name: str) -> None:
        self._version += 1
        body = self.objects.pop(name)
        body["metadata"]["resourceVersion"] = str(self._version)
        self.events.append((name, copy.deepcopy(body), True))

    def of(self, kind: str) -> Iterator[tuple[str, Body]]:
        yield from [(n, b) for n, b in self.objects.items() if f"/{kind}/" in n]


def merged(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    result = dict(old) if isinstance(old, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result
