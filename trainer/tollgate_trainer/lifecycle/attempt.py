"""Who this process is: the contract's environment, parsed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tollgate.contract import Env, StopReason
from tollgate_trainer.refusal import ManifestRefused

DEFAULT_GRACE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One process of one attempt. Instants are epoch seconds, spans seconds; ranks as torchrun gives them."""

    run: str
    namespace: str
    uid: str
    number: int
    node_index: int
    manifest: Path
    manifest_digest: str | None
    dataset_root: Path
    output_root: Path
    started_at: float | None
    deadline: float | None
    deadline_reason: StopReason
    grace: float
    stop_margin: float
    metrics_address: tuple[str, int] | None
    fresh: bool
    replan: int
    rank: int
    local_rank: int
    world: int
    profile: bool = False
    local_world: int = 1

    @classmethod
    def parse(cls, environ: Mapping[str, str]) -> Attempt:
        """The attempt that the launcher describes.

        Raises: ManifestRefused when a variable is missing or cannot be understood.
        """
        port = environ.get(Env.METRICS_PORT, "")
        return cls(
            run=_required(environ, Env.RUN),
            namespace=environ.get(Env.NAMESPACE, ""),
            uid=_required(environ, Env.UID),
            number=_whole(environ, Env.ATTEMPT, None),
            node_index=_whole(environ, Env.NODE_INDEX, 0),
            manifest=Path(_required(environ, Env.MANIFEST)),
            manifest_digest=environ.get(Env.MANIFEST_SHA256) or None,
            dataset_root=Path(_required(environ, Env.DATASET_ROOT)),
            output_root=Path(_required(environ, Env.OUTPUT_ROOT)),
            started_at=_seconds(environ, Env.STARTED_AT, None),
            deadline=_seconds(environ, Env.DEADLINE, None),
            deadline_reason=_stop_reason(environ),
            grace=_seconds(environ, Env.GRACE_SECONDS, DEFAULT_GRACE_SECONDS) or 0.0,
            stop_margin=_seconds(environ, Env.STOP_MARGIN_SECONDS, 0.0) or 0.0,
            metrics_address=(environ.get(Env.POD_IP) or "127.0.0.1", _whole(environ, Env.METRICS_PORT, None))
            if port
            else None,
            fresh=environ.get(Env.FRESH, "").lower() == "true",
            replan=_whole(environ, Env.REPLAN, 0),
            rank=_whole(environ, "RANK", 0),
            local_rank=_whole(environ, "LOCAL_RANK", 0),
            world=_whole(environ, "WORLD_SIZE", 1),
            profile=environ.get(Env.PROFILE, "").lower() == "true",
            local_world=_whole(environ, "LOCAL_WORLD_SIZE", 1),
        )

    @property
    def leads(self) -> bool:
        """True in the one process that writes what is written once."""
        return self.rank == 0


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise ManifestRefused(
            f"the environment variable {name} is not set; start training by `tollgate run` or the launcher"
        )
    return value


def _whole(environ: Mapping[str, str], name: str, default: int | None) -> int:
    value = environ.get(name, "") if default is not None else _required(environ, name)
    try:
        return int(value) if value else default or 0
    except ValueError as error:
        raise ManifestRefused(f"the environment variable {name}={value!r} is not a whole number") from error


def _seconds(environ: Mapping[str, str], name: str, default: float | None) -> float | None:
    value = environ.get(name, "")
    try:
        return float(value) if value else default
    except ValueError as error:
        raise ManifestRefused(f"the environment variable {name}={value!r} is not a number") from error


def _stop_reason(environ: Mapping[str, str]) -> StopReason:
    value = environ.get(Env.STOP_REASON) or StopReason.RUNTIME
    try:
        return StopReason(value)
    except ValueError as error:
        known = ", ".join(reason.value for reason in StopReason)
        raise ManifestRefused(f"the environment variable {Env.STOP_REASON}={value!r} is not one of {known}") from error
