"""The attempt's processes: started in a session of their own, listened to, reaped, and at the end all dead.

torchrun puts each worker into a session of its own, so a signal to one group reaches torchrun only. It hands a SIGTERM
on by itself; to kill, the launcher walks the whole tree. It is the subreaper of what it starts: who loses its parent
becomes its child, and is found.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tollgate_trainer.launcher.veil import Veil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform.startswith("linux")
_LIBC = ctypes.CDLL(None, use_errno=True) if _LINUX else None


class Tail:
    """The last `limit` bytes of what was written; safe between threads."""

    def __init__(self, limit: int = 64 * 1024) -> None:
        self._limit = limit
        self._bytes = bytearray()
        self._lock = threading.Lock()

    def add(self, data: bytes) -> None:
        """Append, forgetting the oldest."""
        with self._lock:
            self._bytes += data
            del self._bytes[: -self._limit]

    def text(self) -> str:
        """What is remembered."""
        with self._lock:
            return self._bytes.decode("utf-8", errors="replace")


class Group:
    """A command and everything that it starts."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], tail: Tail, hidden: Sequence[str] = ()
    ) -> None:
        """Start `command`; no value of `hidden` (longest first) is passed on. Raises: OSError when it can't start."""
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._process = subprocess.Popen(
            command,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=follow_parent if _LINUX else None,  # safe: our own threads start below
        )
        self.pid = self._process.pid
        self.returncode: int | None = None  # of the command itself; negative: the signal that ended it
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._pumps = [
            threading.Thread(target=_pump, args=(pipe.fileno(), target, tail, Veil(hidden)), daemon=True)
            for pipe, target in ((self._process.stdout, 1), (self._process.stderr, 2))
        ]
        for pump in self._pumps:
            pump.start()

    def reap(self) -> bool:
        """Collect whoever ended, orphans too; True once the command itself has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == self.pid:
                self.returncode = self._process.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode is not None

    def terminate(self) -> None:
        """SIGTERM to the command's process group, once; it hands it on to those that it started elsewhere."""
        _signal(self.pid, signal.SIGTERM, group=True)

    def kill(self, patience: float = 10.0) -> list[int]:
        """SIGKILL to everything that descends from this process, until nothing is left.

        Returns: the pids that are still there after `patience` seconds (a process in an uninterruptible wait), or [].
        """
        end = time.monotonic() + patience
        while True:
            alive = descendants(os.getpid())
            if self.returncode is None:
                _signal(self.pid, signal.SIGKILL, group=True)
            for pid in alive:
                _signal(pid, signal.SIGKILL)
            self.reap()
            if not alive or time.monotonic() > end:
                return alive
            time.sleep(0.01)

    def drain(self, patience: float = 2.0) -> None:
        """Wait until all output has been passed on; not for ever, because who reads it may have stopped reading."""
        end = time.monotonic() + patience
        for pump in self._pumps:
            pump.join(max(end - time.monotonic(), 0.0))


def follow_parent() -> None:
    """Run in the child between fork and exec: when this process is killed outright, the child gets a SIGTERM."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _signal(pid: int, number: signal.Signals, *, group: bool = False) -> None:
    try:
        (os.killpg if group else os.kill)(pid, number)
    except ProcessLookupError:
        return  # it ended by itself, which is what was wanted


def descendants(root: int) -> list[int]:
    """Pids of all living processes below `root`, zombies not counted."""
    children: dict[int, list[int]] = {}
    for pid, parent in _processes():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _processes() -> Iterable[tuple[int, int]]:
    """(pid, parent) of every process that is not a zombie."""
    if not _LINUX:
        with subprocess.Popen(["ps", "-A", "-o", "pid=,ppid=,stat="], stdout=subprocess.PIPE, text=True) as ps:
            rows = [line.split() for line in ps.communicate()[0].splitlines()]
        others = (row for row in rows if len(row) == 3 and not row[2].startswith("Z") and int(row[0]) != ps.pid)
        return [(int(row[0]), int(row[1])) for row in others]
    return list(_proc())


def _proc() -> Iterable[tuple[int, int]]:
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = Path(entry.path, "stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        state, parent = stat.rpartition(")")[2].split()[:2]  # the name in brackets may hold anything
        if state != "Z":
            yield int(entry.name), int(parent)


def _pump(source: int, target: int, tail: Tail, veil: Veil) -> None:
    """Pass `source` on to `target` until its end, remembering the tail; a target that is gone ends only the passing."""
    open_target = True
    while True:
        read = os.read(source, 65536)
        data = veil.through(read) if read else veil.rest()
        tail.add(data)
        while open_target and data:
            try:
                data = data[os.write(target, data) :]
            except OSError:
                open_target = False
        if not read:
            return
