"""The launcher's rules as tables and laws: when to ask, when to kill, and which words are the last."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.contract import USER_FAILURES, ErrorWords, FailureReason, LastWords, Outcome, StopReason
from tollgate_trainer import stopwatch, words
from tollgate_trainer.launcher import surroundings
from tollgate_trainer.launcher.watch import Action, Asked, Limits, Stop, decide

NOW = datetime(2026, 11, 20, tzinfo=UTC)
BUDGET = StopReason.BUDGET


@pytest.mark.parametrize(
    ("at", "asked", "stop", "action", "reason", "kill_at"),
    [
        (0, Asked(), None, Action.NOTHING, None, None),
        (69, Asked(), None, Action.NOTHING, None, None),
        (70, Asked(), None, Action.TERMINATE, BUDGET, 100),
        (100, Asked(), None, Action.KILL, BUDGET, 100),
        (10, Asked(1), None, Action.TERMINATE, StopReason.SIGNAL, 38),
        (66, Asked(1), None, Action.TERMINATE, BUDGET, 94),  # the kubelet's own deadline, a moment before ours
        (10, Asked(2, True), None, Action.KILL, StopReason.SIGNAL, 38),
        (20, Asked(2), Stop(StopReason.SIGNAL, 38), Action.NOTHING, StopReason.SIGNAL, 38),
        (38, Asked(1), Stop(StopReason.SIGNAL, 38), Action.KILL, StopReason.SIGNAL, 38),
        (71, Asked(1), Stop(BUDGET, 100), Action.NOTHING, BUDGET, 100),
        (90, Asked(1), Stop(StopReason.SIGNAL, 300), Action.NOTHING, StopReason.SIGNAL, 100),
    ],
)
def test_when_the_group_is_asked_and_when_it_is_killed(
    at: float, asked: Asked, stop: Stop | None, action: Action, reason: StopReason | None, kill_at: float | None
) -> None:
    got, then = decide(Limits(100, 30, BUDGET), asked, stop, at)
    assert (got, then.reason if then else None, then.kill_at if then else None) == (action, reason, kill_at)


@given(
    deadline=st.floats(0, 1000),
    grace=st.floats(0, 100),
    signals=st.lists(st.floats(0, 1000), max_size=4),
    tick=st.floats(0.5, 30),
)
def test_whatever_signals_come_the_group_is_killed_at_the_first_look_after_the_deadline(
    deadline: float, grace: float, signals: list[float], tick: float
) -> None:
    at, stop, asks = 0.0, None, 0
    limits = Limits(deadline, grace, BUDGET)
    while True:
        asked = Asked(sum(s <= at for s in signals))
        action, stop = decide(limits, asked, stop, at)
        asks += action is Action.TERMINATE
        if action is Action.KILL:
            break
        assert at < deadline
        at += tick
    assert asks <= 1, "the command is asked at most once"


def failed(reason: FailureReason, second: float, rank: int = 0) -> LastWords:
    return LastWords(
        outcome=Outcome.FAILED,
        reason=reason,
        ended_at=NOW + timedelta(seconds=second),
        error=ErrorWords(message=f"{reason} on {rank}", rank=rank),
    )


FAILURES = st.lists(
    st.builds(failed, st.sampled_from(FailureReason), st.integers(0, 5), st.integers(0, 7)), min_size=1, max_size=8
)


@given(found=FAILURES, order=st.randoms())
def test_the_cause_does_not_depend_on_the_order_in_which_files_are_found(found: list[LastWords], order: object) -> None:
    first = words.cause(found)
    order.shuffle(found)  # type: ignore[attr-defined]
    assert words.cause(found) == first
    if any(w.reason != FailureReason.PEER_LOST for w in found):
        assert first is not None
        assert first.reason != FailureReason.PEER_LOST


@given(
    found=st.lists(
        st.one_of(
            st.builds(failed, st.sampled_from(FailureReason), st.integers(0, 5), st.integers(0, 7)),
            st.builds(LastWords, outcome=st.just(Outcome.STOPPED), reason=st.sampled_from(StopReason)),
        ),
        max_size=4,
    ),
    returncode=st.one_of(st.none(), st.integers(-15, 130)),
    stop=st.one_of(st.none(), st.sampled_from(StopReason)),
    output=st.text(max_size=80),
)
def test_nothing_but_a_completed_outcome_ever_exits_0(
    found: list[LastWords], returncode: int | None, stop: StopReason | None, output: str
) -> None:
    ended = words.Ended(returncode, output, stop)
    said = words.conclude(found, ended)
    code = words.exit_code(said, ended)
    assert code != 0
    assert (code == 64) == (said.outcome is Outcome.FAILED and said.reason in USER_FAILURES)
    assert (code == 75) == (said.outcome is Outcome.STOPPED)


TORCHRUN = """
Traceback (most recent call last):
  File "train.py", line 3, in step
    loss.backward()
torch.distributed.DistBackendError: Connection closed by peer [10.0.0.2]:4242
Traceback (most recent call last):
  File "run.py", line 940, in main
    run(args)
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
tollgate_trainer FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-11-20_12:00:01
  host      : h
  rank      : 0 (local_rank: 0)
  exitcode  : {other} (pid: 10)
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-20_12:00:00
  host      : h
  rank      : 1 (local_rank: 1)
  exitcode  : {code} (pid: 11)
"""


def of_torchrun(root: int, other: int) -> tuple[FailureReason | str, int | None, str]:
    said = words.from_output(words.Ended(1, TORCHRUN.format(code=root, other=other), kernel_kills=1))
    assert said.error is not None
    assert said.reason is not None
    return said.reason, said.error.rank, said.error.message


def test_torchrun_s_root_cause_is_read_from_its_summary() -> None:
    reason, rank, message = of_torchrun(root=-9, other=1)
    assert (reason, rank) == (FailureReason.KILLED, 1)
    assert "memory limit" in message
    reason, _, message = of_torchrun(root=1, other=1)
    assert reason == FailureReason.PEER_LOST
    assert "Connection closed by peer" in message


@pytest.mark.parametrize(
    ("root", "other", "reason", "rank"),
    [
        (1, -9, FailureReason.KILLED, 0),  # in one second torchrun takes the lowest rank for the first
        (1, -11, FailureReason.KILLED, 0),
        (-6, -9, FailureReason.KILLED, 0),  # NCCL's watchdog aborts who waits for a dead peer
        (-9, -6, FailureReason.KILLED, 1),
        (1, -15, FailureReason.PEER_LOST, 1),  # torchrun ended it
        (1, -6, FailureReason.PEER_LOST, 1),
        (-6, 1, FailureReason.KILLED, 1),
    ],
)
def test_who_was_killed_outright_is_the_cause_wherever_torchrun_lists_it(
    root: int, other: int, reason: FailureReason, rank: int
) -> None:
    assert of_torchrun(root, other)[:2] == (reason, rank)


@pytest.mark.parametrize(
    ("output", "message", "kind"),
    [
        ("no traceback", None, None),
        ("Traceback (most recent call last):\n  File 'x'\nKeyError: 'a'\n", "KeyError: 'a'", "KeyError"),
        ("[rank1]: Traceback (most recent call last):\n[rank1]:   File\n[rank1]: OSError: b", "OSError: b", "OSError"),
        ("Traceback (most recent call last):\n  File 'x'\na.b.Odd: one\n  two\n", "a.b.Odd: one\n  two", "Odd"),
        (
            "Traceback (most recent call last):\n  x\nValueError: survived\nwent on\n"
            "Traceback (most recent call last):\n  x\nRuntimeError: fatal\nTraceback (most recent call last):\n  x\n"
            "torch.distributed.DistBackendError: Connection reset by peer\n",
            "RuntimeError: fatal",
            "RuntimeError",
        ),
    ],
)
def test_the_most_telling_traceback_is_the_last_that_is_no_victim(
    output: str, message: str | None, kind: str | None
) -> None:
    assert words.last_error(output) == (message, kind)


def test_the_step_of_who_died_without_a_word_comes_from_the_events_of_this_life(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    assert words.last_step(events, NOW) == {}
    events.write_text(
        '{"time": "2026-11-19T00:00:00+00:00", "event": "step", "step": 90, "loss": 1.0}\n'
        '{"time": "2026-11-20T00:00:01+00:00", "event": "step", "step": 3, "total_steps": 9, "loss": 2.5}\n'
        '{"time": "2026-11-20T00:00:02+00:00", "event": "save", "step": 3}\n{"time": "2026-11-20T00'
    )
    assert words.last_step(events, NOW) == {"step": 3, "total_steps": 9, "loss": 2.5}
    assert words.last_step(events, NOW + timedelta(days=1)) == {}


def test_only_values_of_variables_that_are_named_as_secrets_are_hidden() -> None:
    hidden = words.secrets(
        {"S3_SECRET_KEY": "canary-value", "WANDB_API_KEY": "abcdef", "DB_PASSWORD": "no", "HOME": "/h"}
    )
    assert hidden == ("canary-value", "abcdef")


SEGMENTS = st.builds(
    stopwatch.Segment,
    uid=st.sampled_from(["a", "b"]),
    attempt=st.integers(1, 2),
    pod=st.sampled_from(["p", "q", "r"]),
    started=st.floats(0, 10),
    until=st.floats(0, 100),
    closed=st.booleans(),
)


@given(earlier=st.lists(SEGMENTS, max_size=8), current=SEGMENTS)
def test_noting_the_own_use_again_and_again_never_changes_what_others_used(
    earlier: list[stopwatch.Segment], current: stopwatch.Segment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("watch") / "seconds.json"
    before = stopwatch.used_before(earlier, current)
    for _ in range(2):
        stopwatch.write(path, earlier, current)
        assert stopwatch.used_before(stopwatch.read(path), current) == pytest.approx(before)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"segments": 3}', '{"segments": [{"uid": "a"}]}'])
def test_a_broken_stopwatch_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(stopwatch.StopwatchError, match="remove the file"):
        stopwatch.read(tmp_path / "s.json")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_threads_follow_the_container_s_quota_not_the_machine(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    available = len(os.sched_getaffinity(0))
    assert surroundings.processors(tmp_path) == min(available, expected or available)


@pytest.mark.parametrize(
    ("files", "expected"),
    [({}, None), ({"memory.events": "oom 3\noom_kill 2\n"}, 2), ({"memory/memory.oom_control": "oom_kill 1\n"}, 1)],
)
def test_kernel_kills_are_counted_where_the_kernel_says(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert surroundings.kernel_kills(tmp_path) == expected


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["torchrun", "--master-addr", "job-0.svc.ns.svc"], "job-0.svc.ns.svc"),
        (["torchrun", "--master_addr=job-0"], "job-0"),
        (["torchrun", "--master-addr=10.0.0.1"], None),
        (["torchrun", "--master-addr", "localhost"], None),
        (["torchrun"], None),
    ],
)
def test_only_a_name_is_waited_for(command: list[str], name: str | None) -> None:
    assert surroundings.name_to_resolve(command) == name


def test_a_name_that_gets_its_address_late_is_found() -> None:
    answers = iter([OSError("no such name"), OSError("no such name"), None])
    seconds = 0.0

    def lookup(_name: str) -> None:
        if error := next(answers):
            raise error

    def sleep(duration: float) -> None:
        nonlocal seconds
        seconds += duration

    surroundings.resolve("job-0", 60, lookup=lookup, clock=lambda: seconds, sleep=sleep)
    assert next(answers, "all were asked") == "all were asked"


def test_a_pod_s_uid_without_a_name_gets_one_and_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    found = surroundings.child_environment({"HOME": "/"}, ["x"], node_index=1, started_at=1.0, deadline=None)
    assert found["USER"] == found["LOGNAME"] == "tollgate"
    assert os.access(found["HOME"], os.W_OK)
    assert found["HOME"] != "/"
