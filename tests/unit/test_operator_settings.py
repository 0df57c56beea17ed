"""Flags and environment of the operator: what is wrong is said by the flag's name, with the fix."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tollgate_operator import logs
from tollgate_operator.main import main
from tollgate_operator.settings import Settings, SettingsError, object_reference, own_identity, own_namespace


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lease-namespace", "Not A Name"], "--lease-namespace: 'Not A Name' is not a name"),
        (["--lease-namespace", "a", "--namespace", "B"], "--namespace: 'B'"),
        (["--lease-namespace", "a", "--price-book", "prices"], "is not namespace/name"),
        (["--lease-namespace", "a", "--lease-deadline", "60"], "retry < deadline < duration"),
        (["--lease-namespace", "a", "--workers", "0"], "--workers"),
        (["--lease-namespace", "a", "--metrics-port", "70000"], "--metrics-port"),
        (["--lease-namespace", "a", "--log-format", "xml"], "--log-format"),
        ([], "--lease-namespace tollgate-system"),
    ],
)
def test_a_wrong_setting_is_refused_with_exit_2(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(main, arguments, env={"POD_NAMESPACE": None})
    assert done.exit_code == 2
    assert said in re.sub(r"\s+", " ", done.output)


def test_the_environment_is_read_by_the_flags_names() -> None:
    done = CliRunner().invoke(main, [], env={"TOLLGATE_OPERATOR_WORKERS": "0", "POD_NAMESPACE": "a"})
    assert done.exit_code == 2
    assert "--workers" in done.output


def test_the_help_teaches() -> None:
    done = CliRunner().invoke(main, ["--help"])
    assert done.exit_code == 0
    for word in ("Exit codes", "Examples", "TOLLGATE_OPERATOR_METRICS_PORT", "--lease-namespace"):
        assert word in done.output


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    root, kopf = logging.getLogger(), logging.getLogger("kopf")
    before = root.handlers[:], root.level, kopf.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    kopf.setLevel(before[2])


@pytest.mark.usefixtures("logging_as_before")
def test_a_cluster_that_cannot_be_reached_by_any_configuration_is_said_in_one_line(tmp_path: Path) -> None:
    arguments = ["--lease-namespace", "a", "--kubeconfig", str(tmp_path / "none"), "--metrics-port", "0"]
    done = CliRunner().invoke(main, [*arguments, "--metrics-host", "127.0.0.1"], catch_exceptions=False)
    assert done.exit_code == 1
    last = json.loads(done.output.splitlines()[-1])
    assert last["level"] == "ERROR"
    assert "Name one with --kubeconfig FILE" in last["message"]


def test_the_identity_is_the_pods_name_so_that_a_restarted_container_keeps_its_lease() -> None:
    assert own_identity({"POD_NAME": "tollgate-7d9"}) == "tollgate-7d9"
    assert own_identity({}) != ""


def test_the_namespace_comes_from_the_environment_then_from_the_pod(tmp_path: Path) -> None:
    file = tmp_path / "namespace"
    with pytest.raises(SettingsError, match="--lease-namespace"):
        own_namespace({}, file)
    file.write_text("from-the-pod\n")
    assert own_namespace({}, file) == "from-the-pod"
    assert own_namespace({"POD_NAMESPACE": "named"}, file) == "named"


def test_the_echo_of_the_lease_is_awaited_only_where_the_watches_look() -> None:
    assert Settings(namespaces=None, lease_namespace="system").watches_lease
    assert Settings(namespaces=("system", "a"), lease_namespace="system").watches_lease
    assert not Settings(namespaces=("a",), lease_namespace="system").watches_lease


def test_a_reference_has_two_parts() -> None:
    assert object_reference("--price-book", "a/b") == ("a", "b")
    assert object_reference("--price-book", None) is None


@pytest.mark.usefixtures("logging_as_before")
def test_a_log_line_is_one_json_object_with_the_error_in_it() -> None:
    stream = io.StringIO()
    logs.configure("json", "DEBUG", stream)
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logging.getLogger("tollgate_operator.queue").exception("it\nfailed", extra={"key": "TrainingRun/ns/a"})
    logging.getLogger("kopf").debug("a whole body with its secrets")
    logging.getLogger("kopf.objects").info("handler done")
    (line,) = stream.getvalue().splitlines()
    document = json.loads(line)
    assert (document["level"], document["key"], document["message"]) == ("ERROR", "TrainingRun/ns/a", "it\nfailed")
    assert "ValueError: first" in document["error"]
