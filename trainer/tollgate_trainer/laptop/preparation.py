"""What a run on this machine needs before it starts: folders, attempt number, and a pod's environment."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click

from tollgate.contract import MAX_NAME, MAX_REPLANS, Env, ExitCode, FailureReason, Files, LastWords, Role
from tollgate.manifest import paths
from tollgate.manifest.loader import LoadedManifest
from tollgate_trainer.launcher.settings import TERMINATION_LOG
from tollgate_trainer.lifecycle import lease

NAMESPACE = "local"
LOCK = ".run.lock"
_ATTEMPT = re.compile(r"^attempt-(\d+)$")


class LaptopError(click.ClickException):
    """Something that the person at the keyboard can mend; exit code 64."""

    exit_code = ExitCode.USER


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a run on this machine lies and who it is. `scratch` is a folder that goes away afterwards; replans: how
    often memory ran out, each time the micro-batch is halved, as the operator has it.
    """

    loaded: LoadedManifest
    run: str
    uid: str
    attempt: int
    fresh: bool
    dataset_root: Path
    output: Path
    scratch: Path
    debug: bool = False
    profile: bool = False
    replans: int = 0

    @property
    def manifest_file(self) -> Path:
        """The canonical bytes, as they are mounted into a pod."""
        return self.scratch / "manifest.json"

    @property
    def last_words(self) -> Path:
        """Where the launcher leaves what a pod would leave as termination message."""
        return self.scratch / "last-words.json"

    def log(self, role: Role) -> Path:
        """Output of the processes of this attempt."""
        return self.output / "logs" / f"{role.value}-{self.attempt}.log"

    def log_to_read(self, *, evaluation_failed: bool) -> Path:
        """What to read about a command that is over; an evaluation alone has no training's log."""
        training = self.log(Role.TRAIN)
        return training if training.exists() and not evaluation_failed else self.log(Role.EVALUATE)

    def profiled(self) -> Path | None:
        """The table of the most expensive operations, where one was asked for and made."""
        path = self.output / f"logs/profile/top-ops-attempt-{self.attempt}-rank-0.txt"
        return path if self.profile and path.exists() else None

    def environment(self, role: Role) -> dict[str, str]:
        """The environment of the contract, over this shell's own."""
        inherited = {name: value for name, value in os.environ.items() if name not in set(Env)}
        profile = {str(Env.PROFILE): "true"} if self.profile and role is Role.TRAIN else {}
        debug = {str(Env.DEBUG): "1", "TORCH_DISTRIBUTED_DEBUG": "INFO", "NCCL_DEBUG": "INFO"} if self.debug else {}
        return (
            inherited
            | profile
            | debug
            | {
                str(name): value
                for name, value in {
                    Env.RUN: self.run,
                    Env.NAMESPACE: NAMESPACE,
                    Env.UID: self.uid,
                    Env.ATTEMPT: str(self.attempt),
                    Env.ROLE: role.value,
                    Env.MANIFEST: str(self.manifest_file),
                    Env.MANIFEST_SHA256: self.loaded.digest,
                    Env.DATASET_ROOT: str(self.dataset_root),
                    Env.OUTPUT_ROOT: str(self.output),
                    Env.FRESH: "true" if self.fresh else "false",
                    Env.TAKE_OVER: "true" if self.fresh else "false",
                    Env.REPLAN: str(self.replans),
                    TERMINATION_LOG: str(self.last_words),
                }.items()
            }
        )


def output_folder(file: Path, loaded: LoadedManifest, output: Path | None, name: str, suffix: str = "") -> Path:
    """Where the run lies: --output, else the manifest's output_dir, else runs/<name> beside the manifest.

    suffix: for runs that are a quick look at another manifest, which get a folder of their own. Raises: ManifestError.
    """
    if output is not None:
        return output.absolute()
    given = loaded.manifest.output_dir
    folder = paths.resolve(file.parent, given, "output_dir") if given else file.parent.absolute() / "runs" / name
    return folder.with_name(f"{folder.name}{suffix}")


def run_name(loaded: LoadedManifest, name: str | None) -> str:
    """The run's name as a cluster would allow it. Raises: LaptopError for a --name that it would not."""
    if name is not None:
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) or len(name) > MAX_NAME:
            raise LaptopError(
                f"--name {name!r} is not a name; take lower-case letters, digits and hyphens, at most {MAX_NAME}"
            )
        return name
    return re.sub(r"[^a-z0-9]+", "-", loaded.manifest.name.lower()).strip("-")[:MAX_NAME].strip("-") or "run"


@contextmanager
def occupied(output: Path) -> Iterator[None]:
    """Hold the output folder for this command; two commands at once would fence each other.

    Raises: LaptopError when another one holds it, or when the folder can't be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        handle = os.open(output / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise LaptopError(f"the output folder {output} can't be used: {error}; choose another with --output") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LaptopError(
                f"another tollgate command works in {output}; wait for it, or choose another folder with --output"
            ) from error
        yield
    finally:
        os.close(handle)


def workplace(
    loaded: LoadedManifest, name: str, dataset_root: Path, output: Path, scratch: Path, fresh: bool
) -> Workplace:
    """Who this attempt is: the run that holds the folder goes on, a fresh one is another run that takes it over.

    Raises: LaptopError when a cluster's run holds the folder, or its lease can't be read.
    """
    try:
        holder = lease.read(output)
    except lease.LeaseError as error:
        raise LaptopError(str(error)) from error
    if holder is not None and holder.namespace != NAMESPACE and not fresh:
        raise LaptopError(
            f"{output} belongs to {holder.namespace}/{holder.run} of a cluster (attempt {holder.attempt}); choose "
            "another folder with --output, or take it over with --resume none once that run is gone"
        )
    known = holder is not None and not fresh
    uid = holder.uid if known and holder is not None else f"{NAMESPACE}-{secrets.token_hex(8)}"
    place = Workplace(
        loaded=loaded,
        run=name,
        uid=uid,
        attempt=_last_attempt(output, holder) + 1,
        fresh=fresh,
        dataset_root=dataset_root.absolute(),
        output=output,
        scratch=scratch,
        replans=min(_out_of_memory(output, uid), MAX_REPLANS),
    )
    place.manifest_file.write_bytes(loaded.canonical)
    return place


def for_evaluation(place: Workplace) -> Workplace:
    """The same run as its evaluation sees it: nothing is moved or taken over."""
    return replace(place, fresh=False)


def _last_attempt(output: Path, holder: lease.Holder | None) -> int:
    found = [int(m[1]) for path in (output / Files.OUTCOMES).glob("attempt-*") if (m := _ATTEMPT.match(path.name))]
    return max([0, *found, *([holder.attempt] if holder else [])])


def _out_of_memory(output: Path, uid: str) -> int:
    """How many attempts of this run ended for want of memory."""
    found = set()
    for path in (output / Files.OUTCOMES).glob("attempt-*/node-*-rank-*.json"):
        words = LastWords.parse(path.read_text(encoding="utf-8"))
        if words is not None and (words.uid, words.reason) == (uid, FailureReason.OUT_OF_MEMORY):
            found.add(path.parent)
    return len(found)


def processes(loaded: LoadedManifest, asked: str | None) -> str:
    """Value of --nproc-per-node: as asked, one on a CPU or a single GPU, else one for each GPU."""
    if asked is not None:
        if asked != "gpu" and not (asked.isdigit() and int(asked) > 0):
            raise LaptopError(f"--nproc {asked!r} is not a number of processes; give 1, 2, ... or gpu for one per GPU")
        return asked
    return "1" if loaded.manifest.compute_target in ("cpu", "gpu_single") else "gpu"


def training_command(nproc: str, grace: float, ranks_log: Path | None = None) -> list[str]:
    """The command of a pod with one node. ranks_log: a folder for each rank's own output, which is then marked."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--node-rank=0", f"--nproc-per-node={nproc}"),
        *("--master-addr=127.0.0.1", f"--master-port={port}", f"--shutdown-timeout={max(1, int(grace - 2))}"),
    ]
    if ranks_log is not None:
        torchrun += ["--tee=3", f"--log-dir={ranks_log}"]
    return [*_launch(), *torchrun, "-m", "tollgate_trainer", "train"]


def evaluation_command() -> list[str]:
    """The command of an evaluation pod."""
    return [*_launch(), sys.executable, "-m", "tollgate_trainer", "evaluate"]


def _launch() -> list[str]:
    return [sys.executable, "-m", "tollgate_trainer.launch", "--"]
