"""A disk that refuses is the user's to mend, in one line; anything else of the system shows where it comes from."""

from __future__ import annotations

import errno
from pathlib import Path

import click
import pytest

from tollgate_cli import main as entry
from tollgate_trainer import durable


def failing(error: OSError) -> click.Command:
    def fail() -> None:
        raise error

    return click.Command("fail", callback=fail)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "Error: runs/a: No space left on device. Free space there"),
        (errno.EROFS, "Error: runs/a: Read-only file system. Name another folder."),
        (errno.EACCES, "change its permissions"),
    ],
)
def test_what_the_disk_refuses_is_one_line(
    code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    strerror = {errno.ENOSPC: "No space left on device", errno.EROFS: "Read-only file system"}.get(code, "refused")
    monkeypatch.setattr(entry, "tollgate", failing(OSError(code, strerror, "runs/a")))
    assert entry.main([]) == 64
    told = capsys.readouterr().err
    assert words in told
    assert len(told.splitlines()) == 1


def test_an_error_of_our_own_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "tollgate", failing(FileNotFoundError(errno.ENOENT, "No such file", "x")))
    with pytest.raises(FileNotFoundError):
        entry.main([])


def test_a_full_disk_is_told_with_the_file_that_did_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left.*page\.html"):
        durable.write(tmp_path / "page.html", b"x")
    assert list(tmp_path.iterdir()) == []
