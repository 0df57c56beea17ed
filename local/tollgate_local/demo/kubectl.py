"""kubectl as a person would use it."""

from __future__ import annotations

import json
import os
import subprocess
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
