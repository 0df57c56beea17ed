"""System programs that come from the distribution: found, or installed with apt."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tollgate_local.errors import BuildError, UnsupportedError
from tollgate_local.progress import Say

__all__ = ["NODE_TOOLS", "cni_folder", "ensure_tools", "tool"]

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CNI_PLACES = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")
_CNI = "CNI plugins (bridge, host-local, loopback)"

_PACKAGE_OF = {
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "debootstrap": "debootstrap",
    _CNI: "containernetworking-plugins",
}
NODE_TOOLS = ("runc", "nft", "ip", "unshare", "nsenter", "mount", _CNI)


def tool(name: str) -> str:
    """The path of a system program. Raises: UnsupportedError naming the package that has it."""
    path = _find(name)
    if path is None:
        raise UnsupportedError(f"{name} is not installed; it is in the Debian package {_PACKAGE_OF.get(name, name)}")
    return path


def cni_folder() -> str:
    """Where the CNI plugins lie."""
    return str(Path(tool(_CNI)).parent)


def ensure_tools(names: Iterable[str], say: Say) -> None:
    """Install what is missing of `names`.

    Raises: UnsupportedError without apt or without root; BuildError when apt fails.
    """
    missing = [name for name in names if _find(name) is None]
    if not missing:
        return
    packages = sorted({_PACKAGE_OF[name] for name in missing})
    if shutil.which("apt-get") is None:
        raise UnsupportedError(
            f"these programs are missing, and this is no Debian or Ubuntu to install them on: {', '.join(missing)}. "
            f"Install them with your package manager (Debian calls the packages {' '.join(packages)})"
        )
    if os.geteuid() != 0:
        raise UnsupportedError(f"missing: {', '.join(missing)}; install as root: apt-get install {' '.join(packages)}")
    say(f"installing {' '.join(packages)} with apt (usually 15 s to 1 min)")
    for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", *command],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode and command[0] == "install":  # an update that fails for one source may still suffice
            raise BuildError(f"apt-get install {' '.join(packages)} failed: {done.stderr.strip()[-800:]}")
    still = [name for name in missing if _find(name) is None]
    if still:
        raise BuildError(f"apt installed {' '.join(packages)}, but these are still not found: {', '.join(still)}")


def _find(name: str) -> str | None:
    if name == _CNI:
        return next((f"{place}/bridge" for place in _CNI_PLACES if Path(place, "bridge").exists()), None)
    return shutil.which(name) or shutil.which(name, path=_SYSTEM_PATH)
