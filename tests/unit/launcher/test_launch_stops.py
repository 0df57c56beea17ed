"""Deadlines and signals end the launcher's command in time, and nothing lives on. No test asserts a duration."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from launcher_pod import PATIENCE, Pod, is_gone, wait_for

from tollgate.contract import Env, Files


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


def test_a_stop_before_torchrun_has_started_anybody_does_not_wait_for_the_grace(pod: Pod) -> None:
    waits_for_other_nodes = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as in torchrun's wait for the other nodes, which no signal ends
Path("waiting").write_text("yes")
time.sleep(600)"""
    process = pod.start(waits_for_other_nodes, "--nproc-per-node=2", **{Env.GRACE_SECONDS: "500"})
    pod.wait_for_file("waiting")
    process.terminate()
    code, _, err = pod.finish(process)
    assert code == 75, err
    assert "before any process of the training had started" in pod.error()


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


def test_a_stop_while_waiting_for_node_0_is_heeded(pod: Pod) -> None:
    process = pod.start("Path('ran').touch()", "--master-addr=node-0.invalid")
    wait_for(lambda: (pod.output / Files.SECONDS_USED).exists(), "the stopwatch")
    process.send_signal(signal.SIGTERM)
    assert pod.finish(process)[0] == 75
    assert not (pod.folder / "ran").exists()


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
