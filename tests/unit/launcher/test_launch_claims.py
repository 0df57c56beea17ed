"""What the launcher may begin and write: its manifest, its output folder, its attempt, its node."""

from __future__ import annotations

import time
from pathlib import Path

from launcher_pod import Pod

from tollgate.contract import Env, Files


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
