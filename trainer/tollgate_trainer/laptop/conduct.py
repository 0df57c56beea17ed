"""Runs the launcher as a child of this command, shows its events, hands Ctrl-C on: once to stop, twice to end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from types import FrameType

from tollgate.contract import Files, LastWords, Role
from tollgate_trainer.laptop.follow import Display, Follower, Printed
from tollgate_trainer.laptop.preparation import Workplace
from tollgate_trainer.launcher.group import follow_parent

_POLL = 0.2  # seconds between two looks at the events


class Conductor:
    """One launcher at a time, with the terminal's signals while it runs."""

    def __init__(self, display: Display, show_output: bool = False) -> None:
        """show_output: pass on what the processes print, besides the events."""
        self._display = display
        self._show_output = show_output
        self._asked = 0

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked to stop."""
        return self._asked > 0

    def run(
        self, command: Sequence[str], place: Workplace, role: Role, limits: dict[str, str]
    ) -> tuple[int, LastWords | None]:
        """Run to the end; answers the launcher's exit code and its last words."""
        place.last_words.unlink(missing_ok=True)
        place.manifest_file.touch()  # the launcher's time counts from here, as from the making of a pod's volume
        log = place.log(role)
        log.parent.mkdir(parents=True, exist_ok=True)
        events = Follower(place.output / Files.EVENTS)
        printed = Printed(log) if self._show_output else None
        started = time.monotonic()
        with log.open("ab") as output:
            # In a session of its own, so that Ctrl-C reaches this command only and is handed on in order.
            child = subprocess.Popen(
                command,
                env=place.environment(role) | limits,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=follow_parent if os.name == "posix" else None,
            )
            previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

            def hand_on(number: int, _frame: FrameType | None) -> None:
                self._asked += 1
                second = self._asked > 1 and number == signal.SIGINT
                child.send_signal(signal.SIGINT if second else signal.SIGTERM)
                if second:
                    self._display.say("ending at once")
                else:
                    doing = "after this step, with a checkpoint" if role is Role.TRAIN else "the evaluation"
                    self._display.say(f"stopping {doing}; press Ctrl-C again to end at once")

            for number in previous:
                signal.signal(number, hand_on)
            try:
                while child.poll() is None:
                    self._tell(events, printed)
                    self._display.tick(time.monotonic() - started)
                    time.sleep(_POLL)
            finally:
                for number, handler in previous.items():
                    signal.signal(number, handler)
        self._tell(events, printed)
        try:
            return child.returncode, LastWords.parse(place.last_words.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return child.returncode, None

    def _tell(self, events: Follower, printed: Printed | None) -> None:
        if printed is not None:
            for line in printed.new():
                self._display.say(line)
        for event in events.new():
            self._display.show(event)
