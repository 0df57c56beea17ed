"""Each way in which the launcher's command can end becomes an exit code, last words and a result."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from launcher_pod import PATIENCE, Pod

from tollgate.contract import Env, Files


def test_work_done_to_its_end_exits_0_and_says_so_in_the_message_and_the_result(pod: Pod) -> None:
    code, out, err = pod.finish(
        pod.start("say('hello'); leave('completed', 'Completed', step=7, totalSteps=7, goodputSeconds={'step': 1.5})")
    )
    assert code == 0, err
    assert out == "hello\n"
    assert "completed at step 7 of 7 (exit 0)" in err
    for words in (pod.message(), pod.result()):
        assert (words.outcome, words.reason, words.step, words.exit_code) == ("completed", "Completed", 7, 0)
        assert (words.uid, words.attempt, words.node_index) == ("uid-1", 1, 0)
    assert "Trained to the end." in (pod.output / Files.REPORT).read_text()
    assert json.loads((pod.output / Files.LEASE).read_text())["run"] == "demo"


def test_completed_is_believed_from_the_outcome_file_and_never_from_an_exit_code(pod: Pod) -> None:
    assert pod.run("pass") == 70
    assert "left no outcome" in pod.error()
    assert pod.run("leave('completed', 'Completed'); sys.exit(1)", **{Env.ATTEMPT: "2"}) == 0


def test_an_outcome_of_an_earlier_life_of_the_same_attempt_is_not_believed(pod: Pod) -> None:
    assert pod.run("leave('completed', 'Completed')") == 0
    assert pod.run("pass") == 70


@pytest.mark.parametrize(
    ("outcome", "reason", "code"),
    [
        ("stopped", "RuntimeExceeded", 75),
        ("failed", "ManifestRefused", 64),
        ("failed", "DatasetRefused", 64),
        ("failed", "ModelRefused", 64),
        ("failed", "OutputRefused", 64),
        ("failed", "Exception", 70),
        ("failed", "OutOfMemory", 70),
        ("failed", "NonFinite", 70),
        ("failed", "PeerLost", 70),
        ("failed", "Fenced", 70),
        ("failed", "Killed", 137),
    ],
)
def test_each_outcome_has_its_exit_code(pod: Pod, outcome: str, reason: str, code: int) -> None:
    assert pod.run(f"leave({outcome!r}, {reason!r}, error={{'message': 'why'}}); sys.exit(1)") == code
    assert pod.message().reason == reason
    assert pod.message().exit_code == code


def test_the_cause_is_the_earliest_failure_that_is_not_a_lost_peer(pod: Pod) -> None:
    code = pod.run(
        """
leave('failed', 'PeerLost', 'node-0-rank-0.json', error={'message': 'connection reset', 'rank': 0})
leave('failed', 'NonFinite', 'node-0-rank-2.json', error={'message': 'loss is NaN', 'rank': 2})
leave('failed', 'Exception', 'node-0-rank-1.json', error={'message': 'later', 'rank': 1})
sys.exit(1)"""
    )
    assert code == 70
    words = pod.message()
    assert words.error is not None
    assert (words.reason, words.error.rank, words.error.message) == ("NonFinite", 2, "loss is NaN")


def test_an_exception_without_an_outcome_is_told_by_its_last_line(pod: Pod) -> None:
    code = pod.run(
        """
def f(): raise ValueError("cannot read\\n  part two")
try:
    f()
except ValueError as error:
    raise RuntimeError("the dataset is empty") from error"""
    )
    words = pod.message()
    assert code == 70
    assert words.error is not None
    assert (words.reason, words.error.type) == ("Exception", "RuntimeError")
    assert words.error.message == "RuntimeError: the dataset is empty"


def test_a_command_that_was_killed_from_outside_is_told_as_killed(pod: Pod) -> None:
    assert pod.run("os.kill(os.getpid(), signal.SIGKILL)") == 137
    words = pod.message()
    assert words.reason == "Killed"
    assert words.error is not None
    assert "signal 9" in words.error.message


def test_a_worker_that_was_killed_is_told_from_torchrun_s_summary_not_from_the_peers_that_it_took_along(
    pod: Pod,
) -> None:
    code = pod.run(
        """
leave('stopped', 'Signal', step=3)
leave('failed', 'PeerLost', 'node-0-rank-2.json', error={'message': 'connection reset', 'rank': 2})
sys.stderr.write('''
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
Root Cause (first observed failure):
[0]:
  time      : 2026-11-20_12:00:00
  host      : h
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 4242)
  error_file: <N/A>
  traceback : Signal 9 (SIGKILL) received by PID 4242
''')
sys.exit(1)"""
    )
    assert code == 137
    assert pod.message().reason == "Killed"
    assert pod.message().error.rank == 1  # type: ignore[union-attr]


def test_the_command_gets_what_must_be_set_before_python_starts(pod: Pod) -> None:
    names = ["PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG", "OMP_NUM_THREADS", "HOME", "TOLLGATE_NODE_INDEX"]
    code, out, _ = pod.finish(
        pod.start(
            f"say(json.dumps([os.environ[n] for n in {names}] + [os.access(os.environ['HOME'], os.W_OK)]))\n"
            "leave('completed', 'Completed')",
            HOME="/nonexistent",
        )
    )
    assert code == 0
    seed, cublas, threads, home, node, writable = json.loads(out)
    assert (seed, cublas, node, writable) == ("0", ":4096:8", "0", True)
    assert int(threads) >= 1
    assert home != "/nonexistent"


def test_a_secret_that_an_exception_quotes_is_in_no_last_words(pod: Pod) -> None:
    secret = "canary-4f1d-value"
    code = pod.run("raise ConnectionError('403 for ' + os.environ['S3_SECRET_KEY'])", S3_SECRET_KEY=secret)
    assert code == 70
    assert "403 for [hidden]" in pod.error()
    written = [p for p in pod.folder.rglob("*") if p.is_file() and secret.encode() in p.read_bytes()]
    assert written == []


def test_a_command_that_does_not_exist_is_named(pod: Pod) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "tollgate_trainer.launch", "--", "no-such-command"],
        env=pod.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert process.returncode == 70
    assert "no-such-command" in pod.error()


@pytest.mark.parametrize(
    ("name", "value"),
    [(Env.UID, ""), (Env.ATTEMPT, "0"), (Env.ATTEMPT, "x"), (Env.STOP_AFTER_SECONDS, "soon"), (Env.OUTPUT_ROOT, "o")],
)
def test_a_wrong_environment_names_the_variable(pod: Pod, name: str, value: str) -> None:
    code, _, err = pod.finish(pod.start("pass", **{name: value}))
    assert code == 70
    assert str(name) in err
