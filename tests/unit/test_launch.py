"""The launcher with real processes: each way to end becomes an exit code, last words and a result; nothing lives on.

The commands are small Python programs that leave outcome files as the trainer does. No test asserts a duration.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tollgate.contract import MAX_LAST_WORDS, Env, Files, LastWords

PATIENCE = 60.0

PREAMBLE = """
import json, os, signal, subprocess, sys, time
from datetime import datetime, timezone
from pathlib import Path

def leave(outcome, reason, name="node-0.json", **more):
    folder = Path(os.environ["TOLLGATE_OUTPUT_ROOT"], "outcomes", "attempt-" + os.environ["TOLLGATE_ATTEMPT"])
    folder.mkdir(parents=True, exist_ok=True)
    ended = datetime.now(timezone.utc).isoformat()
    words = {"schema": 1, "outcome": outcome, "reason": reason, "endedAt": ended, **more}
    (folder / name).write_text(json.dumps(words))

def say(text):
    print(text, flush=True)
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for: {what}"
        time.sleep(0.02)


@dataclass
class Pod:
    """One run of the launcher."""

    folder: Path
    environ: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    wrapped: tuple[str, ...] = ()

    @property
    def output(self) -> Path:
        return self.folder / "output"

    def start(self, program: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        name = f"program-{len(self.started)}.py"
        (self.folder / name).write_text(PREAMBLE + program)
        command = [
            *self.wrapped,
            sys.executable,
            "-m",
            "tollgate_trainer.launch",
            "--",
            sys.executable,
            name,
            *arguments,
        ]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def run(self, program: str, *arguments: str, **environ: str) -> int:
        return self.finish(self.start(program, *arguments, **environ))[0]

    def message(self) -> LastWords:
        text = (self.folder / "termination").read_text()
        assert len(text.encode()) <= MAX_LAST_WORDS
        words = LastWords.parse(text)
        assert words is not None, text
        return words

    def error(self) -> str:
        error = self.message().error
        assert error is not None
        return error.message

    def result(self) -> LastWords:
        words = LastWords.parse((self.output / Files.RESULT).read_text())
        assert words is not None
        return words

    def wait_for_file(self, name: str) -> str:
        path = self.folder / name
        wait_for(lambda: path.exists() and path.read_text().strip() != "", name)
        return path.read_text().strip()


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(b'{"dataset":{"path":"d"},"name":"demo"}')
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("TOLLGATE_", "OMP_", "PYTHONHASH"))}
    pod = Pod(
        tmp_path,
        environ
        | {
            Env.RUN: "demo",
            Env.NAMESPACE: "care",
            Env.UID: "uid-1",
            Env.ATTEMPT: "1",
            Env.MANIFEST: str(manifest),
            Env.MANIFEST_SHA256: "sha256:" + hashlib.sha256(manifest.read_bytes()).hexdigest(),
            Env.OUTPUT_ROOT: str(tmp_path / "output"),
            Env.GRACE_SECONDS: "20",
            "TOLLGATE_TERMINATION_LOG": str(tmp_path / "termination"),
        },
    )
    yield pod
    for process in pod.started:
        if process.poll() is None:
            process.kill()
            process.wait()


def is_gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


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


def test_at_the_deadline_less_the_grace_the_command_is_asked_to_leave_and_the_reason_is_the_limit(pod: Pod) -> None:
    code = pod.run(
        """
def bye(*_):
    leave('stopped', 'Signal', step=5)
    sys.exit(75)
signal.signal(signal.SIGTERM, bye)
time.sleep(600)""",
        **{Env.STOP_AFTER_SECONDS: "22", Env.STOP_REASON: "BudgetExceeded"},
    )
    assert code == 75
    assert (pod.message().outcome, pod.message().reason, pod.message().step) == ("stopped", "BudgetExceeded", 5)
    assert pod.result().reason == "BudgetExceeded"


def test_who_ignores_the_stop_is_dead_at_the_deadline_with_everything_that_it_started(pod: Pod) -> None:
    program = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
inner = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
deep = subprocess.Popen([sys.executable, "-c", inner], start_new_session=True)
Path("pids").write_text(f"{os.getpid()} {deep.pid}")
time.sleep(600)"""
    process = pod.start(
        program, **{Env.STOP_AFTER_SECONDS: "4", Env.GRACE_SECONDS: "2", Env.STOP_REASON: "BudgetExceeded"}
    )
    code, _, err = pod.finish(process)
    assert code == 75, err
    assert all(is_gone(int(pid)) for pid in pod.wait_for_file("pids").split())
    words = pod.message()
    assert (words.outcome, words.reason) == ("stopped", "BudgetExceeded")
    assert "were killed" in pod.error()


def test_nothing_lives_on_after_a_command_that_left_orphans_in_sessions_of_their_own(pod: Pod) -> None:
    code = pod.run(
        '''
orphan = """
import subprocess, sys
p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)
open('orphan', 'w').write(str(p.pid))
"""
subprocess.run([sys.executable, "-c", orphan])
leave('completed', 'Completed')'''
    )
    assert code == 0
    assert is_gone(int(pod.wait_for_file("orphan")))


def test_a_stop_from_outside_is_handed_on_once_and_a_second_sigterm_changes_nothing(pod: Pod) -> None:
    process = pod.start(
        """
count = 0
def bye(*_):
    global count
    count += 1
    Path("asked").write_text(str(count))
signal.signal(signal.SIGTERM, bye)
Path("ready").write_text("yes")
while not os.path.exists("leave"): time.sleep(0.02)
leave('stopped', 'Signal', step=count)
sys.exit(75)"""
    )
    pod.wait_for_file("ready")
    process.send_signal(signal.SIGTERM)
    assert pod.wait_for_file("asked") == "1"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    (pod.folder / "leave").touch()
    assert pod.finish(process)[0] == 75
    assert (pod.message().reason, pod.message().step) == ("Signal", 1)


def test_a_person_who_presses_ctrl_c_twice_gets_the_prompt_back(pod: Pod) -> None:
    process = pod.start(
        """
signal.signal(signal.SIGTERM, lambda *_: Path("asked").write_text("yes"))
Path("ready").write_text(str(os.getpid()))
while True: time.sleep(600)""",
        **{Env.GRACE_SECONDS: "600"},
    )
    pid = int(pod.wait_for_file("ready"))
    process.send_signal(signal.SIGINT)
    pod.wait_for_file("asked")
    process.send_signal(signal.SIGINT)
    assert pod.finish(process)[0] == 75
    assert is_gone(pid)
    assert pod.message().reason == "Signal"


def test_a_failure_during_a_stop_is_not_hidden_by_it(pod: Pod) -> None:
    process = pod.start(
        """
def bye(*_):
    leave('failed', 'Exception', 'node-0-rank-0.json', error={'message': 'disk full', 'rank': 0})
    sys.exit(1)
signal.signal(signal.SIGTERM, bye)
Path("ready").write_text("yes")
while True: time.sleep(600)"""
    )
    pod.wait_for_file("ready")
    process.send_signal(signal.SIGTERM)
    assert pod.finish(process)[0] == 70
    assert pod.error() == "disk full"


def test_seconds_that_an_earlier_pod_of_the_attempt_used_are_subtracted(pod: Pod) -> None:
    (pod.output / "logs").mkdir(parents=True)
    used = {"uid": "uid-1", "attempt": 1, "pod": "earlier", "started": 1000.0, "until": 1080.0, "closed": True}
    (pod.output / Files.SECONDS_USED).write_text(json.dumps({"schema": 1, "segments": [used]}))
    program = "say(os.environ['TOLLGATE_DEADLINE']); leave('completed', 'Completed')"
    mtime = Path(pod.environ[Env.MANIFEST]).stat().st_mtime
    code, out, _ = pod.finish(pod.start(program, **{Env.STOP_AFTER_SECONDS: "200"}))
    assert code == 0
    assert float(out) == pytest.approx(mtime + 200 - 80, abs=0.01)
    code, out, _ = pod.finish(pod.start(program, **{Env.STOP_AFTER_SECONDS: "200", Env.ATTEMPT: "2"}))
    assert float(out) == pytest.approx(mtime + 200, abs=0.01), "another attempt has its own reservation"
    segments = json.loads((pod.output / Files.SECONDS_USED).read_text())["segments"]
    assert [(s["attempt"], s["closed"]) for s in segments] == [(1, True), (1, True), (2, True)]


def test_an_attempt_that_has_used_its_limit_up_does_not_start(pod: Pod) -> None:
    (pod.output / "logs").mkdir(parents=True)
    used = {"uid": "uid-1", "attempt": 1, "pod": "earlier", "started": 1000.0, "until": 1300.0, "closed": True}
    (pod.output / Files.SECONDS_USED).write_text(json.dumps({"schema": 1, "segments": [used]}))
    environ = {Env.STOP_AFTER_SECONDS: "200", Env.STOP_REASON: "BudgetExceeded"}
    assert pod.run("Path('ran').touch()", **environ) == 75
    assert not (pod.folder / "ran").exists()
    assert pod.message().reason == "BudgetExceeded"


def test_a_stopwatch_that_can_t_be_read_refuses_because_unknown_is_not_zero(pod: Pod) -> None:
    (pod.output / "logs").mkdir(parents=True)
    (pod.output / Files.SECONDS_USED).write_text("{")
    assert pod.run("Path('ran').touch()", **{Env.STOP_AFTER_SECONDS: "200"}) == 64
    assert "seconds-used.json can't be read" in pod.error()


def test_the_test_hook_turns_the_timer_off_and_nothing_else(pod: Pod) -> None:
    code, out, _ = pod.finish(
        pod.start(
            "say(os.environ.get('TOLLGATE_DEADLINE')); leave('completed', 'Completed')",
            **{Env.STOP_AFTER_SECONDS: "1", "TOLLGATE_TEST_TIMER_OFF": "1"},
        )
    )
    assert (code, out) == (0, "None\n")


def test_a_manifest_that_changed_on_its_way_is_a_user_error_and_nothing_starts(pod: Pod) -> None:
    Path(pod.environ[Env.MANIFEST]).write_text("{}")
    assert pod.run("Path('ran').touch()") == 64
    assert not (pod.folder / "ran").exists()
    assert not pod.output.exists()
    words = pod.message()
    assert words.reason == "ManifestRefused"
    assert "was accepted" in pod.error()


def test_the_output_folder_of_another_run_is_refused_and_its_files_stay_as_they_are(pod: Pod) -> None:
    assert pod.run("leave('completed', 'Completed', step=9)") == 0
    before = {p: p.read_bytes() for p in pod.output.rglob("*") if p.is_file()}
    assert pod.run("Path('ran').touch()", **{Env.UID: "uid-2", Env.RUN: "other"}) == 64
    assert not (pod.folder / "ran").exists()
    assert "care/demo" in pod.error()
    assert before == {p: p.read_bytes() for p in pod.output.rglob("*") if p.is_file()}
    program = "leave('completed', 'Completed', step=10)"
    assert pod.run(program, **{Env.UID: "uid-2", Env.RUN: "other", Env.TAKE_OVER: "true"}) == 0


def test_an_older_attempt_is_fenced_and_writes_nothing(pod: Pod) -> None:
    assert pod.run("leave('completed', 'Completed', step=9)", **{Env.ATTEMPT: "2"}) == 0
    result = (pod.output / Files.RESULT).read_bytes()
    assert pod.run("Path('ran').touch()") == 70
    assert pod.message().reason == "Fenced"
    assert not (pod.folder / "ran").exists()
    assert (pod.output / Files.RESULT).read_bytes() == result


def test_an_attempt_that_lost_its_lease_while_it_ran_writes_no_result(pod: Pod) -> None:
    code = pod.run(
        """
path = Path(os.environ["TOLLGATE_OUTPUT_ROOT"], "attempt.lease")
lease = json.loads(path.read_text()); lease["attempt"] = 2; path.write_text(json.dumps(lease))
leave('failed', 'Fenced')"""
    )
    assert code == 70
    assert not (pod.output / Files.RESULT).exists()


def test_finished_work_is_not_replaced_by_a_later_failure_or_an_adoption(pod: Pod) -> None:
    assert pod.run("leave('completed', 'Completed', step=9)") == 0
    assert pod.run("sys.exit(3)", **{Env.ATTEMPT: "2"}) == 70
    assert pod.run("leave('completed', 'Completed', adopted=True)", **{Env.ATTEMPT: "3"}) == 0
    assert pod.result().step == 9
    assert pod.message().adopted is True
    history = sorted(p.parent.name for p in pod.output.glob("outcomes/*/launcher-0.json"))
    assert history == ["attempt-1", "attempt-2", "attempt-3"]


def test_other_nodes_join_the_lease_and_leave_the_result_to_node_0(pod: Pod) -> None:
    second = pod.start(
        "leave('completed', 'Completed', 'node-1.json')",
        JOB_COMPLETION_INDEX="1",
        TOLLGATE_TERMINATION_LOG=str(pod.folder / "t1"),
    )
    time.sleep(0.3)
    assert second.poll() is None, "it waits for node 0"
    assert pod.run("leave('stopped', 'Signal')") == 75
    code, _, err = pod.finish(second)
    assert code == 0, err
    assert pod.result().outcome == "stopped"
    assert (pod.output / "logs/seconds-used-1.json").exists()


def test_a_name_of_node_0_that_never_gets_an_address_is_a_rendezvous_failure(pod: Pod) -> None:
    arguments = ("--master-addr", "node-0.invalid")
    assert pod.run("Path('ran').touch()", *arguments, TOLLGATE_RENDEZVOUS_SECONDS="1") == 70
    words = pod.message()
    assert words.reason == "RendezvousFailed"
    assert "node-0.invalid" in pod.error()


def test_a_stop_while_waiting_for_node_0_is_heeded(pod: Pod) -> None:
    process = pod.start("Path('ran').touch()", "--master-addr=node-0.invalid")
    wait_for(lambda: (pod.output / Files.SECONDS_USED).exists(), "the stopwatch")
    process.send_signal(signal.SIGTERM)
    assert pod.finish(process)[0] == 75
    assert not (pod.folder / "ran").exists()


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


def test_an_evaluation_writes_only_below_its_own_folder(pod: Pod) -> None:
    assert pod.run("leave('completed', 'Completed', step=4)") == 0
    (pod.output / "evaluation").mkdir()
    before = {p: p.read_bytes() for p in pod.output.rglob("*") if p.is_file()}
    program = """
words = {"schema": 1, "outcome": "completed", "reason": "Completed", "endedAt": datetime.now(timezone.utc).isoformat()}
Path(os.environ["TOLLGATE_OUTPUT_ROOT"], "evaluation/outcome.json").write_text(json.dumps(words))"""
    assert pod.run(program, **{Env.ROLE: "evaluate"}) == 0
    after = {p: p.read_bytes() for p in pod.output.rglob("*") if p.is_file() and p.parent.name != "evaluation"}
    assert before == after
    assert (pod.output / "evaluation/result.json").exists()


def test_an_output_folder_that_can_t_be_written_is_told_with_what_to_check(pod: Pod) -> None:
    (pod.folder / "output").write_text("a file where the folder should be")
    assert pod.run("pass") == 70
    assert "check the claim" in pod.error()


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


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_stopped_reading_does_not_hold_up_the_deadline(pod: Pod, stream: str) -> None:
    process = pod.start(
        f"Path('pid').write_text(str(os.getpid()))\nwhile True: print('x' * 100000, flush=True, file=sys.{stream})",
        **{Env.STOP_AFTER_SECONDS: "4", Env.GRACE_SECONDS: "1"},
    )
    process.wait(timeout=PATIENCE)  # nobody reads its output
    assert process.returncode == 75
    assert is_gone(int(pod.wait_for_file("pid")))


def test_when_the_launcher_is_killed_outright_the_command_is_asked_to_leave(pod: Pod) -> None:
    process = pod.start("Path('pid').write_text(str(os.getpid()))\ntime.sleep(600)")
    pid = int(pod.wait_for_file("pid"))
    process.kill()
    process.wait()
    wait_for(lambda: is_gone(pid), "the command to end")


needs_root = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")


@needs_root
def test_as_pid_1_it_reaps_orphans_and_hears_a_stop(pod: Pod) -> None:
    program = """
orphan = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', ''])"
for _ in range(5): subprocess.run([sys.executable, "-c", orphan])
def zombies():
    stats = [p.read_text() for p in Path("/proc").glob("[0-9]*/stat")]
    return [s for s in stats if s.rpartition(")")[2].split()[0] == "Z"]
end = time.monotonic() + 30
while zombies() and time.monotonic() < end: time.sleep(0.05)
signal.signal(signal.SIGTERM, lambda *_: (leave('stopped', 'Signal', step=len(zombies())), sys.exit(75)))
Path("ready").write_text(str(os.getppid()))
while True: time.sleep(600)"""
    pod.wrapped = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    process = pod.start(program)
    assert pod.wait_for_file("ready") == "1"
    (first,) = (int(p) for p in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    os.kill(first, signal.SIGTERM)
    code, _, err = pod.finish(process)
    assert code == 75, err
    assert pod.message().step == 0, "no zombie was left"
