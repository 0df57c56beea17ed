"""Leadership by a coordination.k8s.io Lease: at most one operator acts.

Time is judged by how long a record was seen unchanged on our own monotonic clock, never by the clocks of two machines.
Each write is a PUT that carries the resourceVersion it rests on. Who cannot renew in time stops before others may take
over.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from tollgate_operator import paths
from tollgate_operator.kube import AlreadyExists, ApiError, Conflict, KubeApi, NotFound, Object
from tollgate_operator.reading import mapping, number, text

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT: Final = 5.0


class LeaseLostError(Exception):
    """Somebody else holds the Lease, or it could not be renewed in time. The process has to stop."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. Others may take over after `duration` without a renewal; the holder gives up after `deadline`."""

    duration: float = 30.0
    deadline: float = 20.0
    retry: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.retry < self.deadline < self.duration:
            raise ValueError(
                "lease timing must be 0 < retry < deadline < duration, not "
                f"{self.retry:g}, {self.deadline:g}, {self.duration:g}"
            )


@dataclass(frozen=True, slots=True)
class Seen:
    """A version of the Lease and when we first saw it, on our monotonic clock."""

    version: str
    holder: str
    duration: float
    since: float


def observe(lease: Object, before: Seen | None, now: float, default_duration: float) -> Seen:
    """What we know of the Lease now. A version that was seen already keeps the time of its first sight."""
    meta, spec = mapping(lease.get("metadata")), mapping(lease.get("spec"))
    version = text(meta.get("resourceVersion"))
    if before is not None and before.version == version:
        return before
    duration = number(spec.get("leaseDurationSeconds"))
    return Seen(version, text(spec.get("holderIdentity")), float(duration or default_duration), now)


def free(seen: Seen, identity: str, now: float) -> bool:
    """Whether `identity` may take the Lease: nobody holds it, it is ours, or it was seen unchanged for its duration.

    Ours: the identity is the pod's name, so a container that was restarted takes up its own Lease at once.
    """
    return seen.holder in ("", identity) or now - seen.since > seen.duration


class Elector:
    """Acquires, holds and releases one Lease."""

    def __init__(
        self,
        api: KubeApi,
        namespace: str,
        name: str,
        identity: str,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._timing = timing or Timing()
        self._clock = clock
        self._renewed: float | None = None

    @property
    def leading(self) -> bool:
        """Whether the Lease is ours and was renewed within the deadline."""
        return self._renewed is not None and self._clock() - self._renewed < self._timing.deadline

    async def acquire(self) -> None:
        """Returns once the Lease is ours. Errors of the API are logged and waited out; Forbidden is one of them."""
        seen: Seen | None = None
        told = ""
        while True:
            started = self._clock()
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT):
                    lease = await self._read()
                    if lease is None:
                        await self._write(None, started)
                        return
                    seen = observe(lease, seen, started, self._timing.duration)
                    if free(seen, self._identity, started):
                        await self._write(lease, started)
                        return
                if told != seen.holder:
                    logger.info("waiting for the lease %s/%s, held by %s", self._namespace, self._name, seen.holder)
                    told = seen.holder
            except (Conflict, AlreadyExists):
                logger.info("another process was quicker to take the lease %s/%s", self._namespace, self._name)
            except (ApiError, TimeoutError) as error:
                logger.warning(
                    "cannot read or take the lease %s/%s: %s", self._namespace, self._name, error or "timeout"
                )
            await self._pause()

    async def hold(self) -> None:
        """Renews for ever. Raises: LeaseLostError when somebody else took it, or no renewal went through in time."""
        while True:
            await self._pause()
            started = self._clock()
            try:
                async with asyncio.timeout(self._patience()):
                    lease = await self._read()
                    if lease is not None and text(mapping(lease.get("spec")).get("holderIdentity")) != self._identity:
                        self._renewed = None
                        raise LeaseLostError(
                            f"the lease {self._namespace}/{self._name} is held by "
                            f"{text(mapping(lease.get('spec')).get('holderIdentity')) or 'nobody'} now"
                        )
                    await self._write(lease, started)
            except (ApiError, TimeoutError) as error:
                if not self.leading:
                    raise LeaseLostError(
                        f"the lease {self._namespace}/{self._name} was not renewed for {self._timing.deadline:g} s: "
                        f"{error or 'timeout'}"
                    ) from error
                logger.warning("the lease was not renewed, trying again: %s", error or "timeout")

    async def release(self) -> None:
        """Lets others have the Lease at once. Best effort: what fails here runs out by itself."""
        if not self.leading:
            return
        self._renewed = None
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                lease = await self._read()
                if lease is None or text(mapping(lease.get("spec")).get("holderIdentity")) != self._identity:
                    return
                spec = {**mapping(lease.get("spec")), "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._api.replace(paths.lease(self._namespace, self._name), {**lease, "spec": spec})
        except (ApiError, TimeoutError) as error:
            logger.warning("the lease was not released, it runs out by itself: %s", error or "timeout")

    def _patience(self) -> float:
        """How long one renewal may take: no longer than our leadership lasts."""
        left = self._timing.deadline - (self._clock() - (self._renewed or 0.0))
        return max(min(REQUEST_TIMEOUT, left), 0.1)

    async def _pause(self) -> None:
        await asyncio.sleep(self._timing.retry * random.uniform(0.8, 1.2))

    async def _read(self) -> Object | None:
        try:
            return await self._api.get(paths.lease(self._namespace, self._name))
        except NotFound:
            return None

    async def _write(self, lease: Object | None, started: float) -> None:
        """Creates or renews; leadership counts from `started`, before the request went out."""
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = mapping((lease or {}).get("spec"))
        ours = text(spec.get("holderIdentity")) == self._identity
        renewed = {
            **spec,
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._timing.duration)),
            "renewTime": now,
            "acquireTime": spec.get("acquireTime") if ours and spec.get("acquireTime") else now,
            "leaseTransitions": (number(spec.get("leaseTransitions")) or 0) + (0 if ours or lease is None else 1),
        }
        if lease is None:
            meta = {"name": self._name, "namespace": self._namespace}
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": renewed}
            await self._api.create(paths.leases(self._namespace), body)
        else:
            await self._api.replace(paths.lease(self._namespace, self._name), {**lease, "spec": renewed})
        self._renewed = started
