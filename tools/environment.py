"""Makes the project's Python environment; standard library only, because it runs before anything is installed.

Two layers, so that a fresh clone on a known machine is ready in seconds:
1. a shared environment in the cache folder, named by the digest of the lock file: every third-party package, with
   hashes checked;
2. `.venv` in the clone: sees the shared packages by a .pth file, and holds this checkout, installed in place.

    python3 tools/environment.py          make both, say what happens
    python3 tools/environment.py --lock   resolve pyproject.toml again into requirements/*.txt
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "dev.txt"
VENV = ROOT / ".venv"
# Also when the interpreter of a virtual environment runs this, say that of the clone itself.
PYTHON = getattr(sys, "_base_executable", None) or sys.executable
TOOLS = {
    "mypy": "-m mypy",
    "pytest": "-m pytest",
    "kopf": "-m kopf",
    "lint-imports": "-c 'from importlinter.cli import lint_imports_command as main; main()'",
}
LOCKS = {
    "dev.txt": ("operator", "trainer", "gpu", "s3", "mlflow", "wandb", "local", "dev"),
    "operator.txt": ("operator",),
    "trainer.txt": ("trainer", "gpu", "s3", "mlflow", "wandb"),
}


def cache_root() -> Path:
    """Where everything expensive lives, outside the repository; each entry is named by what it holds."""
    return Path(os.environ.get("TOLLGATE_CACHE") or Path.home() / ".cache" / "tollgate")


def say(text: str) -> None:
    """One line of progress, at once."""
    print(f"[setup] {text}", flush=True)


def run(*command: str | Path, quiet: bool = True) -> None:
    """A command whose output is shown only when it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=quiet, text=True, cwd=ROOT)
    if done.returncode != 0:
        sys.stderr.write((done.stdout or "") + (done.stderr or ""))
        raise SystemExit(f"[setup] failed: {' '.join(str(c) for c in command)}")


def digest(*parts: bytes) -> str:
    """The first 12 hex digits of the parts' SHA-256: enough to name a cache entry."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "big") + part)
    return sha.hexdigest()[:12]


def site_packages(environment: Path) -> Path:
    """The folder of packages of a virtual environment."""
    return environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def shared_environment() -> Path:
    """The environment of this lock file; built once per machine, by one process at a time."""
    key = digest(LOCK.read_bytes(), sys.version.encode(), PYTHON.encode())
    target = cache_root() / f"env-{key}"
    done = target / ".complete"
    if done.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"env-{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return target
        if target.exists():
            say("an earlier set-up did not finish; starting it anew")
            shutil.rmtree(target)
        say("installing the Python packages, torch among them: 5 GB on disk, usually 2 to 5 minutes, once per machine")
        started = time.monotonic()
        run(PYTHON, "-m", "venv", target)
        run(target / "bin" / "python", "-m", "pip", "install", "--require-hashes", "-r", LOCK)
        # Pods read these packages as another user.
        run("chmod", "-R", "a+rX", target)
        done.touch()
        say(f"installed in {time.monotonic() - started:.0f} s")
    return target


def clone_environment(shared: Path) -> None:
    """`.venv` of this clone: the shared packages by reference, this checkout in place."""
    stamp = VENV / ".ready"
    key = digest(str(shared).encode(), str(ROOT).encode(), (ROOT / "pyproject.toml").read_bytes())
    if stamp.exists() and stamp.read_text() == key:
        return
    link, packages = site_packages(VENV) / "_tollgate_shared.pth", f"{site_packages(shared)}\n"
    fresh = not stamp.exists() or not link.exists() or link.read_text() != packages
    say("making .venv for this checkout (a few seconds)" if fresh else "installing this checkout's commands again")
    if fresh:  # else it stays: something may be running from it
        shutil.rmtree(VENV, ignore_errors=True)
        run(PYTHON, "-m", "venv", "--without-pip", VENV)
        link.write_text(packages)
    pip = [shared / "bin" / "python", "-m", "pip", "--python", VENV / "bin" / "python"]
    run(*pip, "install", "--no-deps", "--no-build-isolation", "--no-index", "-e", ROOT)
    # Command-line tools of the shared environment, run with this clone's interpreter.
    for name, start in TOOLS.items():
        script = VENV / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{VENV}/bin/python" {start} "$@"\n')
        script.chmod(0o755)
    # A native program: its Python launcher would look for it beside the interpreter, and find itself.
    ruff = VENV / "bin" / "ruff"
    ruff.unlink(missing_ok=True)
    ruff.symlink_to(shared / "bin" / "ruff")
    stamp.write_text(key)


def lock() -> None:
    """Resolves the extras of pyproject.toml into hash-pinned files that name no index."""
    uv = [shared_environment() / "bin" / "uv"] if LOCK.exists() else [Path(shutil.which("uv") or "uv")]
    for name, extras in LOCKS.items():
        # The other locks are cut from the full one, so that pods and tests run the same versions.
        constraints = [] if name == "dev.txt" else ["--constraint", LOCK]
        chosen = [flag for extra in extras for flag in ("--extra", extra)]
        flags = "--quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate"
        command = [*uv, "pip", "compile", "pyproject.toml", *flags.split(), "--python-version", "3.11"]
        run(*command, *chosen, *constraints, "-o", ROOT / "requirements" / name)
        say(f"wrote requirements/{name}")


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lock", action="store_true", help="resolve pyproject.toml again into requirements/*.txt")
    if parser.parse_args(arguments).lock:
        lock()
        return
    if sys.version_info[:2] != (3, 11):
        found = ".".join(map(str, sys.version_info[:3]))
        raise SystemExit(
            f"[setup] the lock files are made for Python 3.11, this is {found}: make PYTHON=python3.11 ..."
        )
    clone_environment(shared_environment())


if __name__ == "__main__":
    main()
