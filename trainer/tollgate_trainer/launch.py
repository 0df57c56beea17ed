"""`tollgate-launch -- CMD...`: pid 1 of the pod, and the parent of torchrun on a laptop.

It holds the first layer of the cap (a timer that needs nobody), takes the output folder's lease, starts the command,
hands signals on, leaves nothing of it alive, and says in an exit code and in last words how it ended. It imports no
torch: it must be there within a moment and stay when the training runs out of memory.
"""

from __future__ import annotations

import hashlib
import os
import select
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from tollgate.contract import CheckpointRef, ErrorWords, ExitCode, FailureReason, Files, LastWords, Outcome
from tollgate_trainer import durable, stopwatch, words
from tollgate_trainer.launcher import surroundings
from tollgate_trainer.launcher.group import Group, Tail, descendants
from tollgate_trainer.launcher.settings import Settings, SettingsError, parse
from tollgate_trainer.launcher.watch import Action, Beside, Limits, Stop, Watch, decide, now
from tollgate_trainer.lifecycle.lease import Fenced, Holder, Lease, LeaseRefused

__all__ = ["main"]

T = TypeVar("T")
_UNBORN_PATIENCE = 5.0  # seconds after a SIGTERM for a torchrun that has started nobody
_LAST_READS = 10.0  # seconds that reading outcomes and writing the result may take; a dead volume must not hold the pod


class Refused(Exception):  # noqa: N818 - a verdict, not a mistake of ours
    """The attempt ends before its command starts; carries the words."""

    def __init__(self, reason: FailureReason, message: str, name: str | None = None) -> None:
        super().__init__(message)
        self.words = LastWords(outcome=Outcome.FAILED, reason=reason, error=ErrorWords(message=message, type=name))


class Stopped(Exception):  # noqa: N818 - a verdict, not a mistake of ours
    """Somebody asked to stop, or the time was over, before the command started."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command of one attempt; returns the launcher's exit code (contract.ExitCode, or 128 + signal)."""
    started_at = time.time()
    watch = Watch()
    watch.install()
    try:
        settings = parse(sys.argv[1:] if arguments is None else arguments, os.environ)
    except SettingsError as error:
        tell(f"{error}")
        return ExitCode.APPLICATION
    return Launch(settings, watch, started_at).run()


@dataclass(slots=True)
class Launch:
    """One attempt on one node, from the first check to the last words."""

    settings: Settings
    watch: Watch
    started_at: float  # epoch seconds
    limits: Limits = field(init=False)
    stop: Stop | None = None
    deadline: float | None = None  # epoch seconds, for the trainer
    lease: Lease | None = None
    tail: Tail = field(default_factory=Tail)
    earlier: tuple[stopwatch.Segment, ...] = ()

    def run(self) -> int:
        """The whole life of the attempt; returns the exit code."""
        self.limits = Limits(None, self.settings.grace, self.settings.stop_reason)
        kills_before = surroundings.kernel_kills()
        try:
            self.check_manifest()
            self.set_deadline(used=0.0)
            self.beside(self.take_folder)
            self.beside(self.wait_for_rendezvous)
            ended = self.supervise()
        except Refused as refused:
            return self.leave(refused.words, words.Ended(None))
        except Stopped:
            assert self.stop is not None
            ended = words.Ended(None, stop=self.stop.reason)
        kills = surroundings.kernel_kills()
        if kills is not None and kills_before is not None:
            ended = replace(ended, kernel_kills=kills - kills_before)
        return self.leave(self.last_words(ended), ended)

    # --- before the command ------------------------------------------------------------------------------------------

    def check_manifest(self) -> None:
        """The mounted manifest must be the one that was accepted."""
        path, expected = self.settings.manifest, self.settings.manifest_digest
        try:
            digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise Refused(FailureReason.MANIFEST, f"the manifest {path} can't be read: {error}") from error
        if digest != expected:
            raise Refused(
                FailureReason.MANIFEST,
                f"the manifest {path} has digest {digest}, but {expected} was accepted; it was changed on its way: "
                "create the run again",
            )

    def set_deadline(self, used: float) -> None:
        """Count from the mtime of the mount, less what earlier pods of this attempt used (seconds)."""
        if self.settings.stop_after is None:
            return
        self.deadline = self.settings.manifest.stat().st_mtime + self.settings.stop_after - used
        # Held on a clock that nobody can set back.
        self.limits = Limits(now() + self.deadline - time.time(), self.settings.grace, self.settings.stop_reason)

    def beside(self, function: Callable[[], T]) -> T:
        """Run `function` while watching the limits. Raises: Stopped, or what the function raises."""
        work = Beside(function, self.watch)
        while True:
            action, self.stop = decide(self.limits, self.watch.asked, self.stop, now())
            if action is not Action.NOTHING or self.stop is not None:
                raise Stopped
            if work.done:
                return work.result()
            self.watch.wait(1.0)

    def take_folder(self) -> None:
        """Create the output folder, take or join the lease, clear this node's earlier words, note manifest and time."""
        s = self.settings
        try:
            if not s.evaluating:
                s.output_root.mkdir(parents=True, exist_ok=True)
                self.take_lease()
            for path in self.own_outcomes():
                path.unlink()
            if s.node_index == 0 and not s.evaluating:
                durable.write(s.outcomes / "manifest.json", s.manifest.read_bytes())
            self.earlier = stopwatch.read(s.seconds_used)
            self.set_deadline(stopwatch.used_before(self.earlier, self.segment(closed=False)))
            stopwatch.write(s.seconds_used, self.earlier, self.segment(closed=False))
        except stopwatch.StopwatchError as error:
            raise Refused(FailureReason.OUTPUT, str(error)) from error
        except OSError as error:
            raise Refused(
                FailureReason.EXCEPTION,
                f"the output folder {s.output_root} can't be written ({error}); check the claim, its path and that uid "
                f"{os.getuid()} or one of its groups may write there",
                type(error).__name__,
            ) from error

    def take_lease(self) -> None:
        """Node 0 writes the lease, the others wait for it."""
        s = self.settings
        try:
            if s.node_index == 0:
                holder = Holder.here(s.uid, s.attempt, s.run, s.namespace, datetime.now(UTC))
                self.lease = Lease.acquire(s.output_root, holder, take_over=s.take_over)
            else:
                self.lease = Lease.join(s.output_root, s.uid, s.attempt, patience=s.rendezvous_seconds)
        except LeaseRefused as error:
            raise Refused(FailureReason.OUTPUT, str(error)) from error
        except Fenced as error:
            raise Refused(FailureReason.FENCED, str(error)) from error

    def own_outcomes(self) -> list[Path]:
        """Files of this attempt in which this node's processes left words."""
        if self.settings.evaluating:
            return [*self.settings.outcomes.glob("outcome.json")]
        index = self.settings.node_index
        return [p for pattern in _patterns(index) for p in self.settings.outcomes.glob(pattern)]

    def wait_for_rendezvous(self) -> None:
        """Node 0's name gets its address only when its pod has one."""
        name = surroundings.name_to_resolve(self.settings.command)
        if name is None:
            return
        try:
            surroundings.resolve(name, self.settings.rendezvous_seconds)
        except TimeoutError as error:
            raise Refused(FailureReason.RENDEZVOUS, str(error)) from error

    # --- while it runs -----------------------------------------------------------------------------------------------

    def supervise(self) -> words.Ended:
        """Start the command and stay until it, and everything that it started, has ended."""
        s = self.settings
        environ = surroundings.child_environment(
            os.environ, s.command, node_index=s.node_index, started_at=self.started_at, deadline=self.deadline
        )
        try:
            group = Group(s.command, environ, self.tail, words.secrets(environ))
        except OSError as error:
            raise Refused(
                FailureReason.EXCEPTION, f"the command {s.command[0]} can't be started: {error}", type(error).__name__
            ) from error
        note, noted_at = self.note_use(closed=False), now()
        unborn = surroundings.starts_workers(s.command)  # no process of the training has been seen yet
        asked_at = 0.0
        while not group.reap():
            unborn = unborn and not descendants(group.pid)
            action, self.stop = decide(self.limits, self.watch.asked, self.stop, now())
            if action is Action.KILL:
                break
            if action is Action.TERMINATE:
                group.terminate()
                asked_at = now()
            if unborn and self.stop is not None and now() >= asked_at + _UNBORN_PATIENCE:
                break  # torchrun waits for the other nodes in a call that no signal ends, and nothing is to be saved
            if note.done and now() - noted_at >= stopwatch.INTERVAL:
                note, noted_at = self.note_use(closed=False), now()
            self.watch.wait(self.pause())
        killed = group.returncode is None
        survivors = group.kill()
        group.drain()
        return words.Ended(
            group.returncode,
            self.tail.text(),
            self.stop.reason if self.stop else None,
            killed=killed,
            unborn=unborn,
            survivors=tuple(survivors),
        )

    def pause(self) -> float:
        """Seconds until something is due."""
        due = [now() + 1.0]
        if self.stop is not None:
            due.append(self.stop.kill_at)
        elif self.limits.deadline is not None:
            due.append(self.limits.deadline - self.limits.grace)
        return max(min(due) - now(), 0.0)

    def segment(self, *, closed: bool) -> stopwatch.Segment:
        """What this pod has used until now."""
        s = self.settings
        return stopwatch.Segment(s.uid, s.attempt, s.pod, s.manifest.stat().st_mtime, time.time(), closed)

    def note_use(self, *, closed: bool) -> Beside[None]:
        """Write the stopwatch beside the watch; a full or dead volume is told and never stops the stopping."""

        def write() -> None:
            try:
                stopwatch.write(self.settings.seconds_used, self.earlier, self.segment(closed=closed))
            except OSError as error:
                tell(f"the seconds used were not noted: {error}")

        return Beside(write, self.watch)

    # --- the end -----------------------------------------------------------------------------------------------------

    def last_words(self, ended: words.Ended) -> LastWords:
        """What happened, from the outcome files if the volume answers, else from what was seen here."""
        nothing: list[LastWords] = []
        found = self.within(self.read_found, nothing)
        said = words.conclude(found, ended)
        if said.checkpoint is None and said.outcome is not Outcome.COMPLETED and not self.settings.evaluating:
            said = said.model_copy(update={"checkpoint": self.within(self.newest_checkpoint, None)})
        if said.step is None:
            since = datetime.fromtimestamp(self.started_at, UTC)
            events = self.settings.output_root / Files.EVENTS
            unknown: dict[str, float] = {}
            said = said.model_copy(update=self.within(lambda: words.last_step(events, since), unknown))
        return said

    def newest_checkpoint(self) -> CheckpointRef | None:
        """For who was killed before he could name it."""
        from tollgate_trainer.lifecycle.checkpoints import committed  # brings numpy, and only a bad end needs it

        found = committed(self.settings.output_root / Files.CHECKPOINTS)
        return found[0].commit.ref() if found else None

    def read_found(self) -> list[LastWords]:
        """The outcomes of this node in this life of the attempt."""
        since = datetime.fromtimestamp(self.started_at, UTC)
        if self.settings.evaluating:
            return words.read_outcomes(self.settings.outcomes, "outcome.json", since)
        return [
            w
            for pattern in _patterns(self.settings.node_index)
            for w in words.read_outcomes(self.settings.outcomes, pattern, since)
        ]

    def within(self, function: Callable[[], T], otherwise: T) -> T:
        """The function's answer, or `otherwise` (said aloud) when the volume fails or does not answer in time."""
        work, end = Beside(function, self.watch), now() + _LAST_READS
        while not work.done and now() < end:
            self.watch.wait(end - now())
        if not work.done:
            tell("the output volume does not answer")
            return otherwise
        try:
            return work.result()
        except OSError as error:
            tell(f"the output volume fails: {error}")
            return otherwise

    def leave(self, said: LastWords, ended: words.Ended) -> int:
        """Write the last words, first where the kubelet reads them, then on the volume; returns the exit code."""
        s = self.settings
        code = words.exit_code(said, ended)
        said = words.redact(
            said.model_copy(
                update={
                    "uid": s.uid,
                    "attempt": s.attempt,
                    "node_index": s.node_index,
                    "exit_code": int(code),
                    "ended_at": said.ended_at or datetime.now(UTC),
                }
            ),
            words.secrets(os.environ),
        )
        if s.termination_log is not None:
            try:
                s.termination_log.write_text(said.to_termination_message(), encoding="utf-8")
            except OSError as error:
                tell(f"no last words in {s.termination_log}: {error}")
        if self.may_write_result():
            self.within(lambda: self.write_result(said), None)
            self.within(self.write_report, None)
        if ended.survivors:
            tell(f"still alive after SIGKILL: {list(ended.survivors)}")
        tell(f"{words.sentence(said)} (exit {int(code)})")
        return int(code)

    def may_write_result(self) -> bool:
        """Only whoever holds the folder writes there: an evaluation its own files, a training while its lease holds."""
        return self.settings.evaluating or self.lease is not None

    def write_result(self, said: LastWords) -> None:
        """The words in full, the history's copy first. Finished work is never replaced by a later failure's story."""
        s = self.settings
        stopwatch.write(s.seconds_used, self.earlier, self.segment(closed=True))
        data = said.to_json().encode() + b"\n"
        if self.lease is not None:
            try:
                self.lease.check()
            except Fenced as error:
                tell(f"nothing more is written: {error}")
                return
            durable.write(s.outcomes / f"launcher-{s.node_index}.json", data)
            if s.node_index or said.reason == FailureReason.OUTPUT or _keeps_finished(s.result, said):
                return
        durable.write(s.result, data)

    def write_report(self) -> None:
        """In a training pod the page of the run, where nothing presses; an evaluation and a laptop write their own."""
        s = self.settings
        pressed = self.limits.deadline is not None and self.limits.deadline - now() < _LAST_READS
        if s.evaluating or s.termination_log is None or s.node_index or self.stop is not None or pressed:
            return
        try:
            if self.lease is not None:
                self.lease.check()
            from tollgate_trainer.report import write  # jinja2 and pydantic, no torch; only this end needs it

            write(s.output_root)
        except Exception as error:  # the page can be made again from the same files: no run fails for it
            tell(f"no report was written ({error}); `tollgate report FOLDER` makes it")


def tell(message: str) -> None:
    """Say something on stderr, unless nobody reads there any more: the launcher never waits for a reader."""
    data = f"tollgate-launch: {message}\n".encode()[:4096]  # a pipe that is ready takes this much without blocking
    try:
        if select.select([], [2], [], 1.0)[1]:
            os.write(2, data)
    except (OSError, ValueError):
        return  # stderr is closed; the termination message says the same


def _patterns(node_index: int) -> tuple[str, str]:
    return f"node-{node_index}.json", f"node-{node_index}-rank-*.json"


def _keeps_finished(result: Path, said: LastWords) -> bool:
    """Whether `result` tells of finished work that these words do not replace: they adopt it, or failed beside it."""
    try:
        present = LastWords.parse(result.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    if present is None or present.outcome is not Outcome.COMPLETED:
        return False
    return bool(said.adopted) or said.outcome is not Outcome.COMPLETED


if __name__ == "__main__":
    sys.exit(main())
