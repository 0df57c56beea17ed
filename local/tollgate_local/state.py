"""The state folder of one cluster: where everything lies, and the record of what runs there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tollgate_local.errors import LocalError
from tollgate_local.settings import LoopbackShape, NodeShape, Shape

__all__ = ["Ports", "Record", "StateFolder"]


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports on 127.0.0.1 (the API server's is on the link in the node shape)."""

    api: int
    etcd: int
    etcd_peer: int
    controller_manager: int
    scheduler: int


@dataclass(frozen=True, slots=True)
class Record:
    """What `up` decided, written before it starts anything, so that any later command can take it down again."""

    settings: Shape
    ports: Ports
    ready: bool = False
    """True once `up` came to its end."""

    @property
    def server(self) -> str:
        """The API server's URL."""
        host = self.settings.host_ip if isinstance(self.settings, NodeShape) else "127.0.0.1"
        return f"https://{host}:{self.ports.api}"


class StateFolder:
    """Paths below one state folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pki = root / "pki"
        self.logs = root / "logs"
        self.run = root / "run"
        self.etcd = root / "etcd"
        self.lock = root / "lock"
        self.kubeconfig = root / "kubeconfig"
        self.audit_log = root / "logs" / "audit.jsonl"
        self.sysctls = root / "run" / "sysctls.saved"
        self._record = root / "cluster.json"

    def node(self, name: str) -> Path:
        """The folder of one node: containerd's content, the kubelet's, rendered configuration."""
        return self.root / name

    def make(self) -> None:
        """Make the folders; private, because keys lie in them."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for folder in (self.pki, self.logs, self.run):
                folder.mkdir(exist_ok=True)
        except PermissionError as error:
            raise LocalError(f"{self.root} cannot be written; give another folder with --state") from error

    def write_record(self, record: Record) -> None:
        """Write the record in one step."""
        values = {
            "shape": record.settings.name,
            "settings": dataclasses.asdict(record.settings),
            "ports": dataclasses.asdict(record.ports),
            "ready": record.ready,
        }
        unfinished = self._record.with_suffix(".tmp")
        unfinished.write_text(json.dumps(values, default=str, indent=1))
        unfinished.rename(self._record)

    def read_record(self) -> Record | None:
        """The record, or None when nothing was ever started here (or all of it was taken down).

        Raises: LocalError when the file is not one of ours.
        """
        try:
            values = json.loads(self._record.read_text())
            kind = {"node": NodeShape, "loopback": LoopbackShape}[values["shape"]]
            return Record(_settings(kind, values["settings"]), Ports(**values["ports"]), bool(values["ready"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise LocalError(
                f"{self._record} cannot be read ({error}): another version wrote it. Take that cluster down with the "
                f"version that started it, or remove {self.root} if it does not run"
            ) from error

    def forget(self) -> None:
        """Remove the record: nothing runs here any more."""
        self._record.unlink(missing_ok=True)

    def clear_cluster(self) -> None:
        """Remove the cluster's objects and its pods' remains; images stay."""
        shutil.rmtree(self.etcd, ignore_errors=True)
        (self.pki / "service-accounts.key").unlink(missing_ok=True)
        for node in self.root.glob("node[0-9]"):
            shutil.rmtree(node / "kubelet", ignore_errors=True)
            shutil.rmtree(node / "cni", ignore_errors=True)

    def remove(self) -> None:
        """Remove everything; a server that ends removes files of its own meanwhile.

        Raises: OSError for what stays, such as a mount.
        """
        while self.root.exists():
            with contextlib.suppress(FileNotFoundError):  # it vanished under our hands; the next round finds the rest
                shutil.rmtree(self.root)


def _settings(kind: type[NodeShape] | type[LoopbackShape], values: dict[str, Any]) -> Shape:
    values = {**values, "state": Path(values["state"])}
    for name in ("apiserver_args", "controller_manager_args"):
        values[name] = tuple(values[name])
    if isinstance(values.get("stages"), str) and values["stages"].startswith("/"):
        values["stages"] = Path(values["stages"])
    return kind(**values)
