"""Names and numbers that follow from a run and an attempt, and from nothing else: who renders twice gets the same."""

from __future__ import annotations

import hashlib

from tollgate.api.training_run import ClaimFolder
from tollgate.contract import Role

_FIRST_PORT = 10_000
_PORTS = 20_000  # up to 29999: below node ports (30000-32767) and ephemeral ports (32768-60999)


def job_name(run: str, uid: str, role: Role, number: int) -> str:
    """`<run>-<uid8>-<n>`, for an evaluation `<run>-<uid8>-e<n>`; at most 57 characters for a run name of 40.

    With the completion index (`-1023`) it is still a host name. The uid keeps a deleted and re-applied run apart.
    """
    return f"{run}-{uid.replace('-', '')[:8]}-{'e' if role is Role.EVALUATE else ''}{number}"


def master_port(uid: str, number: int) -> int:
    """The port of the gang's rendezvous, another one for each attempt."""
    return _FIRST_PORT + int.from_bytes(hashlib.sha256(f"{uid}/{number}".encode()).digest()[:4], "big") % _PORTS


def output_label(folder: ClaimFolder) -> str:
    """Value of LABEL_OUTPUT: the same for all spellings of one output folder."""
    return hashlib.sha256(f"{folder.claim_name}/{folder_path(folder)}".encode()).hexdigest()[:32]


def folder_path(folder: ClaimFolder) -> str:
    """The path below the claim without empty and `.` parts; "" is the claim's root."""
    return "/".join(part for part in folder.path.split("/") if part not in ("", "."))
