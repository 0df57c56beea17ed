"""What the launcher was told: its environment and command line, parsed once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tollgate.contract import Env, Files, Role, StopReason

COMPLETION_INDEX = "JOB_COMPLETION_INDEX"  # set by Kubernetes in the pods of an Indexed Job
TERMINATION_LOG = "TOLLGATE_TERMINATION_LOG"  # where the last words go; default: what the kubelet mounts
RENDEZVOUS_SECONDS = "TOLLGATE_RENDEZVOUS_SECONDS"  # how long the name of node 0 may take to resolve; default 600
TEST_TIMER_OFF = "TOLLGATE_TEST_TIMER_OFF"  # test hook: "1" disables the launcher's timer, and nothing else
DEFAULT_TERMINATION_LOG = Path("/dev/termination-log")
DEFAULT_GRACE = 30.0


class SettingsError(ValueError):
    """The launcher was started wrongly; the message names the variable, its value and what is expected."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One attempt on one node. Times in seconds.

    `stop_after` counts from the mtime of `manifest` (when the pod's volume was made) until the process group is dead;
    None means no limit. `grace` lies between SIGTERM and SIGKILL.
    """

    command: tuple[str, ...]
    run: str
    namespace: str
    uid: str
    attempt: int
    role: Role
    node_index: int
    manifest: Path
    manifest_digest: str
    output_root: Path
    stop_after: float | None
    stop_reason: StopReason
    grace: float
    take_over: bool
    pod: str
    termination_log: Path | None
    rendezvous_seconds: float

    @property
    def evaluating(self) -> bool:
        """Whether this is an evaluation, which sees the output folder read-only but for `evaluation` and `report`."""
        return self.role is Role.EVALUATE

    @property
    def outcomes(self) -> Path:
        """Folder in which the processes of this attempt leave their words."""
        if self.evaluating:
            return self.output_root / "evaluation"
        return self.output_root / Files.OUTCOMES / f"attempt-{self.attempt}"

    @property
    def result(self) -> Path:
        """Where node 0 leaves the last words in full."""
        return self.output_root / ("evaluation/result.json" if self.evaluating else Files.RESULT)

    @property
    def seconds_used(self) -> Path:
        """The stopwatch of this node. One file per node, so that each has one writer."""
        path = self.output_root / ("evaluation/seconds-used.json" if self.evaluating else Files.SECONDS_USED)
        return path if self.node_index == 0 else path.with_name(f"{path.stem}-{self.node_index}.json")


def parse(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Settings from `-- CMD...` and the environment of the contract.

    Raises: SettingsError naming the first variable that is missing or wrong.
    """
    if not arguments or arguments[0] != "--" or len(arguments) < 2:
        raise SettingsError(
            f"usage: tollgate-launch -- COMMAND [ARGUMENT...]; got {' '.join(arguments) or 'no arguments'}"
        )
    timer_off = environ.get(TEST_TIMER_OFF) == "1"
    return Settings(
        command=tuple(arguments[1:]),
        run=_text(environ, Env.RUN),
        namespace=environ.get(Env.NAMESPACE, "local"),
        uid=_text(environ, Env.UID),
        attempt=int(_number(environ, Env.ATTEMPT, least=1, whole=True)),
        role=_role(environ),
        node_index=int(_number(environ, COMPLETION_INDEX, default=environ.get(Env.NODE_INDEX, "0"), whole=True)),
        manifest=_absolute(environ, Env.MANIFEST),
        manifest_digest=_text(environ, Env.MANIFEST_SHA256),
        output_root=_absolute(environ, Env.OUTPUT_ROOT),
        stop_after=_number(environ, Env.STOP_AFTER_SECONDS)
        if environ.get(Env.STOP_AFTER_SECONDS) and not timer_off
        else None,
        stop_reason=_reason(environ),
        grace=_number(environ, Env.GRACE_SECONDS, default=str(DEFAULT_GRACE)),
        take_over=environ.get(Env.TAKE_OVER, "").lower() == "true",
        pod=environ.get(Env.POD_NAME) or f"{os.uname().nodename}-{os.getpid()}",
        termination_log=_termination_log(environ),
        rendezvous_seconds=_number(environ, RENDEZVOUS_SECONDS, default="600"),
    )


def _text(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set; the launcher is started by the operator or by `tollgate run`")
    return value


def _absolute(environ: Mapping[str, str], name: str) -> Path:
    path = Path(_text(environ, name))
    if not path.is_absolute():
        raise SettingsError(f"{name}={path} must be an absolute path")
    return path


def _number(
    environ: Mapping[str, str], name: str, *, default: str | None = None, least: float = 0, whole: bool = False
) -> float:
    text = environ.get(name) or default or _text(environ, name)
    try:
        value: float = int(text) if whole else float(text)
    except ValueError:
        value = float("nan")
    if not least <= value < float("inf"):
        kind = "a whole number" if whole else "a number of seconds"
        raise SettingsError(f"{name}={text} must be {kind}, at least {least:g}")
    return value


def _role(environ: Mapping[str, str]) -> Role:
    text = environ.get(Env.ROLE) or Role.TRAIN
    try:
        return Role(text)
    except ValueError as error:
        raise SettingsError(f"{Env.ROLE}={text} must be one of {', '.join(Role)}") from error


def _reason(environ: Mapping[str, str]) -> StopReason:
    text = environ.get(Env.STOP_REASON) or StopReason.RUNTIME
    try:
        return StopReason(text)
    except ValueError as error:
        raise SettingsError(f"{Env.STOP_REASON}={text} must be one of {', '.join(StopReason)}") from error


def _termination_log(environ: Mapping[str, str]) -> Path | None:
    if text := environ.get(TERMINATION_LOG):
        return Path(text)
    # The kubelet mounts the file; where it is not mounted nobody reads it, and /dev is no place for ours.
    return DEFAULT_TERMINATION_LOG if DEFAULT_TERMINATION_LOG.exists() else None
