"""Nothing but our own processes is ever ended."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tollgate_local import processes

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    for name in ("logs", "run"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def server(state: Path) -> Iterator[processes.Process]:
    process = processes.start_server("sleeper", SLEEP, state=state, environment=os.environ, nice=0)
    yield process
    processes.end(process)


def test_a_started_server_is_recorded_and_ended(state: Path, server: processes.Process) -> None:
    assert processes.read_records(state) == {"sleeper": server}
    assert processes.alive(server)
    processes.end(server)
    assert not processes.alive(server)


def test_a_recycled_pid_is_never_signalled(server: processes.Process) -> None:
    stranger = dataclasses.replace(server, started=server.started - 1)
    assert not processes.alive(stranger)
    processes.end(stranger)
    assert processes.alive(server)


def test_a_pid_of_an_earlier_boot_is_never_signalled(server: processes.Process) -> None:
    processes.end(dataclasses.replace(server, boot="another"))
    assert processes.alive(server)


def test_a_server_that_was_never_recorded_is_found_by_its_mark(state: Path, server: processes.Process) -> None:
    (state / "run/sleeper.json").unlink()
    deadline = time.monotonic() + 10
    while server.pid not in {found.pid for found in processes.marked(state)}:  # `nice` has to become the server first
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert list(processes.marked(state / "other")) == []


def test_a_process_that_only_mentions_the_folder_is_not_ours(state: Path) -> None:
    with subprocess.Popen([*SLEEP, str(state)]) as stranger:
        try:
            assert list(processes.marked(state)) == []
        finally:
            stranger.kill()
