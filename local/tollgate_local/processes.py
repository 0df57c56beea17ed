"""Server processes that outlive the command that starts them: started, told apart from recycled pids, and ended.

Two marks make sure that we end all of ours and nothing else. A record per server holds the pid *and* its start time, so
a pid that the kernel gave to somebody else since is never signalled. And every process carries the state folder in its
environment, so one that was started just before `up` was killed, and never recorded, is found as well.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tollgate_local.errors import StartError

__all__ = ["Process", "alive", "boot_id", "end", "last_words", "marked", "read_records", "start_server", "wait_gone"]

MARK = "TOLLGATE_LOCAL_CLUSTER_OF"
"""The variable in every server's environment that names the cluster's state folder."""

# A child of this very process stays a zombie until it is collected; the Popen objects are kept to do that.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class Process:
    """One process for sure: the same pid with another start time, or of another boot, is another process."""

    name: str
    pid: int
    started: int
    """Clock ticks since boot, field 22 of /proc/PID/stat."""
    boot: str


def boot_id() -> str:
    """Changes with every boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def alive(process: Process) -> bool:
    """Whether exactly this process still runs; a zombie that its parent has not collected yet does not."""
    child = _children.get(process.pid)
    if child is not None and child.poll() is not None:
        del _children[process.pid]
    return process.boot == boot_id() and _start_time(process.pid) == process.started


def start_server(
    name: str,
    command: Sequence[str],
    *,
    state: Path,
    environment: Mapping[str, str],
    nice: int,
    cwd: Path | None = None,
) -> Process:
    """Start a server in a session of its own (no Ctrl-C reaches it), log to `logs/<name>.log`, record it in `run/`."""
    log = state / "logs" / f"{name}.log"
    with log.open("ab") as output:
        child = subprocess.Popen(
            ["nice", "-n", str(nice), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env={**environment, MARK: str(state)},
            start_new_session=True,
        )
    started = _start_time(child.pid)
    if started is None:
        raise StartError(f"{name} ended at once; its log is {log}")
    _children[child.pid] = child
    process = Process(name, child.pid, started, boot_id())
    record = state / "run" / f"{name}.json"
    unfinished = record.with_suffix(".tmp")
    unfinished.write_text(json.dumps(asdict(process)))
    unfinished.rename(record)
    return process


def read_records(state: Path) -> dict[str, Process]:
    """Every recorded server of a state folder, whether it still runs or not."""
    records = {}
    for path in sorted((state / "run").glob("*.json")):
        values = json.loads(path.read_text())
        records[values["name"]] = Process(values["name"], values["pid"], values["started"], values["boot"])
    return records


def end(process: Process, patience: float = 0.0) -> None:
    """End this process: SIGTERM and `patience` seconds where there is something to save, then SIGKILL."""
    if patience and alive(process):
        _signal(process, signal.SIGTERM)
        if wait_gone(process, patience):
            return
    if alive(process):
        _signal(process, signal.SIGKILL)
        if not wait_gone(process, 10.0):
            raise StartError(f"{process.name} (pid {process.pid}) does not end after SIGKILL: the kernel holds it")


def wait_gone(process: Process, seconds: float) -> bool:
    """Whether the process ended within so many seconds."""
    deadline = time.monotonic() + seconds
    while alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def last_words(log: Path) -> str:
    """Where a log is and its last three lines, for an error message."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return f"{log} ends with: {' | '.join(lines[-3:])[-1200:] or 'nothing'}"


def marked(state: Path) -> Iterator[Process]:
    """Every process, this one excepted, whose environment says that it belongs to the cluster in `state`."""
    wanted = f"{MARK}={state}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            name = (entry / "comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # ended meanwhile, or another user's: not ours
        started = _start_time(int(entry.name))
        if started is not None:
            yield Process(name, int(entry.name), started, boot_id())


def _start_time(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # the command name before it may hold spaces and brackets
    return None if fields[0] in "ZX" else int(fields[19])


def _signal(process: Process, number: int) -> None:
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return  # ended between the look and the signal
