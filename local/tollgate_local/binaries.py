"""The programs of the cluster: taken from `TOLLGATE_K8S_BIN`, else built once from the pinned Go modules."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from tollgate_local.cache import cache_folder, digest_of, locked
from tollgate_local.errors import BuildError
from tollgate_local.pins import PROGRAMS, Program
from tollgate_local.progress import Say

__all__ = ["binary", "ensure_binaries", "module_key"]

_MODULES = Path(__file__).resolve().parent.parent


def ensure_binaries(names: Iterable[str], say: Say) -> dict[str, Path]:
    """Paths of the named programs; what is in neither place yet is built (minutes the first time).

    Raises: BuildError when a name is unknown, Go is missing, or a build fails.
    """
    found = {name: _existing(_program(name)) for name in names}
    missing = [_program(name) for name, path in found.items() if path is None]
    if missing:
        go = _go(missing)
        if len(missing) > 1:
            say(f"building {len(missing)} programs, once, into {cache_folder('bin')} (8 to 10 min for all on 2 cores)")
        for program in missing:
            _build(go, program, say)
    return {name: path or _built(_program(name)) for name, path in found.items()}


def binary(name: str, say: Say) -> Path:
    """The path of one program, built if needed."""
    return ensure_binaries([name], say)[name]


def module_key(folder: Path, ldflags: str) -> str:
    """What a build depends on, in twelve digits: the module's files, the flags and this machine's architecture."""
    sources = sorted(p for p in folder.iterdir() if p.name in ("go.mod", "go.sum") or p.suffix == ".go")
    parts = [part for p in sources for part in (p.name.encode(), p.read_bytes())]
    return digest_of(platform.machine(), ldflags, *parts)


def _program(name: str) -> Program:
    if name not in PROGRAMS:
        raise BuildError(f"no program {name!r} in this cluster; there are {', '.join(PROGRAMS)}")
    return PROGRAMS[name]


def _built(program: Program) -> Path:
    folder = _MODULES / program.module
    if not (folder / "go.mod").is_file():
        raise BuildError(
            f"{program.name}: its Go module is not at {folder}. The sources of the local cluster are part of the "
            "repository, not of an installed wheel: install the checkout (pip install -e .), or set TOLLGATE_K8S_BIN"
        )
    return cache_folder("bin") / f"{program.module}-{module_key(folder, program.ldflags)}" / program.name


def _existing(program: Program) -> Path | None:
    given = os.environ.get("TOLLGATE_K8S_BIN")
    candidates = [Path(given).absolute() / program.name] if given else []
    for path in (*candidates, _built(program)):
        if path.is_file() and os.access(path, os.X_OK):
            return path
    return None


def _go(missing: list[Program]) -> str:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise BuildError(
            f"Go is not on PATH, and these programs are still to be built: {', '.join(p.name for p in missing)}. "
            "Install Go 1.26 or newer, or set TOLLGATE_K8S_BIN to a folder that holds them"
        )
    return go


def _build(go: str, program: Program, say: Say) -> None:
    target = _built(program)
    with locked(target.parent.with_suffix(".lock"), say, f"building programs of {program.module}"):
        if target.is_file():  # the other process built it while we waited
            return
        say(f"building {program.name} (usually {program.usually} on 2 cores)")
        target.parent.mkdir(exist_ok=True)
        unfinished = target.with_name(f".{program.name}.unfinished")
        # readonly: what is built is what go.sum pins, and a build never edits the repository
        environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=readonly"}
        command = [go, "build", "-trimpath", "-ldflags", program.ldflags, "-o", str(unfinished), program.package]
        started = time.monotonic()
        done = subprocess.run(
            ["nice", "-n", "5", *command],
            cwd=_MODULES / program.module,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            unfinished.unlink(missing_ok=True)
            raise BuildError(
                f"{program.name} could not be built: {_last_lines(done.stderr)}\n"
                "A first build needs the Go module proxy (see `go env GOPROXY`); nothing half-built was kept"
            )
        unfinished.rename(target)
        say(f"built {program.name} in {time.monotonic() - started:.0f} s")


def _last_lines(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if not line.startswith("go: downloading")]
    return "\n".join(lines[-12:]) or "no message"
