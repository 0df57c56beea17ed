"""The operator's settings: flags and environment, read once."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tollgate_operator.lease import Timing

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


class SettingsError(ValueError):
    """A setting that cannot be; the message names the flag and the fix."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a person can set. Durations are seconds. `namespaces` None: the whole cluster."""

    namespaces: tuple[str, ...] | None
    lease_namespace: str
    lease_name: str = "tollgate-operator"
    identity: str = ""
    lease_timing: Timing = field(default_factory=Timing)
    workers: int = 8
    resync: float = 300.0
    scrape: float = 5.0
    metrics_host: str = "0.0.0.0"
    metrics_port: int = 8080
    price_book: tuple[str, str] | None = None
    kubeconfig: str | None = None
    context: str | None = None

    @property
    def watches_lease(self) -> bool:
        """Whether the Lease lies where the watches look, so that its echo proves that they are alive."""
        return self.namespaces is None or self.lease_namespace in self.namespaces


def own_namespace(environment: Mapping[str, str], file: Path = NAMESPACE_FILE) -> str:
    """The namespace that this process runs in.

    Raises: SettingsError outside a pod when POD_NAMESPACE is not set either.
    """
    if named := environment.get("POD_NAMESPACE"):
        return named
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(
            "not in a pod, so the namespace of the lease has to be named: --lease-namespace tollgate-system"
        ) from error


def own_identity(environment: Mapping[str, str]) -> str:
    """The pod's name, which a restarted container keeps; outside a pod the host and process."""
    return environment.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}"


def object_reference(flag: str, text: str | None) -> tuple[str, str] | None:
    """`namespace/name` -> both. Raises: SettingsError for another form."""
    if not text:
        return None
    namespace, slash, name = text.partition("/")
    if not slash or not _NAME.fullmatch(namespace) or not _NAME.fullmatch(name):
        raise SettingsError(f"{flag}: {text!r} is not namespace/name, for example tollgate-system/prices")
    return namespace, name


def dns_name(flag: str, text: str) -> str:
    """The text if it can be the name of a Kubernetes object. Raises: SettingsError."""
    if not _NAME.fullmatch(text) or len(text) > 253:
        raise SettingsError(
            f"{flag}: {text!r} is not a name: lower-case letters, digits, '-' and '.', e.g. tollgate-system"
        )
    return text
