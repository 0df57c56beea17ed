"""What the kubelet changes for the whole machine, and how it is put back: by the last cluster that goes.

Several node clusters may run side by side. The first to come writes down how the machine was, the last to go puts it
back. A fixed folder must stay until then, for removing a folder takes away what another mount namespace has mounted
over it: the other cluster's kubelet would lose its pods, and its network the addresses that it gave away.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tollgate_local.cache import locked
from tollgate_local.processes import boot_id
from tollgate_local.progress import quiet

__all__ = ["Machine"]

_SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
"""What the kubelet sets for the whole machine."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine's shared state, and where the record of it lies."""

    record: Path = Path("/run/tollgate-local/machine.json")
    sysctls: Path = Path("/proc/sys")
    names: Sequence[str] = _SYSCTLS
    # their place is compiled into libcni and the kubelet; each node mounts its own over them
    folders: Sequence[Path] = field(default=(Path("/var/lib/cni"), Path("/var/lib/kubelet")))

    def claim(self, mark: Path) -> None:
        """One more cluster uses the machine; `mark` is the file in its state folder that says so."""
        with locked(self.record.with_name("lock"), quiet, "starting or stopping a cluster"):
            saved = self._read()
            if saved is None or not saved["users"]:
                values = {name: (self.sysctls / name).read_text().strip() for name in self.names}
                made = [str(folder) for folder in self.folders if not folder.exists()]
                # What a cluster made that vanished without a word is still ours to remove.
                saved = {"values": values, "made": sorted({*made, *(saved["made"] if saved else [])}), "users": []}
                saved["boot"] = boot_id()
            saved["users"] = sorted({*saved["users"], str(mark)})
            mark.write_text("the machine's kernel settings are those of a cluster\n")
            self.record.write_text(json.dumps(saved))
            for folder in self.folders:
                folder.mkdir(parents=True, exist_ok=True)

    def release(self, mark: Path) -> list[str]:
        """The cluster of `mark` is gone; the last one puts everything back. Returns what could not be put back."""
        if not mark.exists():
            return []
        with locked(self.record.with_name("lock"), quiet, "starting or stopping a cluster"):
            saved = self._read()
            left: list[str] = []
            if saved is not None:
                saved["users"] = [user for user in saved["users"] if user != str(mark)]
                left = [] if saved["users"] else self._restore(saved)
                if saved["users"] or left:
                    self.record.write_text(json.dumps(saved))
                else:
                    self.record.unlink()
            if not left:
                mark.unlink()
            return left

    def _read(self) -> dict[str, Any] | None:
        """The record with the users that still exist."""
        if not self.record.exists():
            return None
        saved: dict[str, Any] = json.loads(self.record.read_text())
        if saved["boot"] != boot_id():
            return None  # a reboot put everything back, and not every machine empties this folder
        saved["users"] = [user for user in saved["users"] if Path(user).exists()]
        return saved

    def _restore(self, saved: dict[str, Any]) -> list[str]:
        left = []
        for name, value in saved["values"].items():
            target = self.sysctls / name
            if target.read_text().strip() != value:
                target.write_text(value)
            if target.read_text().strip() != value:
                left.append(f"{name} (was {value})")
        for folder in map(Path, saved["made"]):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
            elif folder.exists():
                left.append(f"{folder} is not empty")
        return left
