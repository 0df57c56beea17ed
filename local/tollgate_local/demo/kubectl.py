"""kubectl as a person would use it: commands are shown before they run, objects are followed by one watch."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tollgate_local.errors import LocalError


class DemoError(LocalError):
    """A scene that did not go as it must; the message says what was seen."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """The binary, the cluster and the namespace."""

    program: Path
    kubeconfig: Path
    namespace: str

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [str(self.program), "--namespace", self.namespace, *arguments]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def run(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """The output of one command. Raises: DemoError with kubectl's own words when it fails and `check` is set."""
        done = subprocess.run(
            self._command(arguments), input=stdin, capture_output=True, text=True, env=self._environment(), check=False
        )
        if check and done.returncode != 0:
            raise DemoError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout if check else done.stdout + done.stderr

    def apply(self, text: str) -> str:
        """`kubectl apply --server-side` of this YAML."""
        return self.run("apply", "--server-side", "-f", "-", stdin=text)

    def object(self, kind: str, name: str) -> dict[str, Any]:
        """One object as JSON."""
        answer: dict[str, Any] = json.loads(self.run("get", kind, name, "-o", "json"))
        return answer

    def follow(self, kind: str, name: str) -> Iterator[dict[str, Any]]:
        """Every state of one object, by a watch; ends when the consumer stops."""
        command = self._command(("get", kind, name, "--watch", "-o", "json"))
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self._environment()) as process:
            try:
                yield from _documents(process)
            finally:
                process.terminate()

    def wait(
        self,
        kind: str,
        name: str,
        done: Callable[[dict[str, Any]], bool],
        seconds: float,
        seen: Callable[[dict[str, Any]], None],
    ) -> dict[str, Any]:
        """Follows the object until `done`, showing each state. Raises: DemoError after `seconds`."""
        deadline = time.monotonic() + seconds
        last: dict[str, Any] = {}
        while time.monotonic() < deadline:
            # A watch ends by itself after a while, or with the API server: then it is opened again.
            for last in self.follow(kind, name):
                seen(last)
                if done(last):
                    return last
                if time.monotonic() > deadline:
                    break
            time.sleep(0.5)
        status = json.dumps(last.get("status", {}), indent=1)
        raise DemoError(f"{kind} {name} did not get where it must within {seconds:.0f} s; its status:\n{status}")


def _documents(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """Kubectl writes indented JSON documents one after the other; a line `}` closes one."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.rstrip("\n") == "}":
            yield json.loads("".join(lines))
            lines.clear()
