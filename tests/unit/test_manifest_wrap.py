"""`tollgate manifest wrap`: the object that is applied holds the manifest that was tried."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tollgate.api.training_run import TrainingRunSpec
from tollgate.manifest.loader import load_file
from tollgate_cli.errors import UserError
from tollgate_cli.wrapping import wrap

MANIFEST = """\
name: my-model
version: "1e3"
dataset: {path: data/mine.json, format: chat}
hyperparameters: {learning_rate: 1e-3, max_seq_length: 48}
"""
CLAIMS = ("--dataset-claim", "datasets", "--output-claim", "models")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(MANIFEST, encoding="utf-8")
    return path


def test_the_run_holds_what_stands_over_the_file(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_SET_seed", "5")
    object_ = yaml.safe_load(wrapped(str(manifest), *CLAIMS, "--max-cost", "5", "--set", "hyperparameters.max_steps=7"))
    held = object_["spec"]["manifest"]
    assert (held["seed"], held["hyperparameters"]["max_steps"]) == (5, 7)


def wrapped(*arguments: str) -> str:
    answer = CliRunner().invoke(wrap, arguments, catch_exceptions=True)
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_the_run_holds_the_same_manifest_by_digest_and_is_what_the_operator_reads(
    manifest: Path, tmp_path: Path
) -> None:
    asked = (
        "--max-cost",
        "5",
        "--max-runtime",
        "90m",
        "--evaluation-timeout",
        "5m",
        "--policy",
        "mine",
        "--promote-to",
        "staging",
    )
    text = wrapped(str(manifest), *CLAIMS, *asked, "--profile", "cpu-small", "--nodes", "2", "--namespace", "demo")
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    assert load_file(file).digest == load_file(manifest).digest
    run = yaml.safe_load(text)
    assert (run["kind"], run["metadata"]["name"], run["metadata"]["namespace"]) == ("TrainingRun", "my-model", "demo")
    assert run["metadata"]["labels"] == {"tollgate.dev/promote-to": "staging"}
    spec = TrainingRunSpec.model_validate(run["spec"])
    assert spec.compute is not None
    assert (spec.compute.profile, spec.compute.nodes) == ("cpu-small", 2)
    assert (spec.storage.dataset.claim_name, spec.storage.output.path) == ("datasets", "my-model")
    assert (spec.limits.max_cost_usd, spec.limits.max_runtime) == (5_000_000, 5400)
    assert spec.evaluation is not None
    assert (spec.evaluation.enabled, spec.evaluation.suites, spec.evaluation.timeout) == (True, None, 300)
    assert spec.policy_ref is not None
    assert spec.policy_ref.name == "mine"


def test_what_was_not_asked_is_left_to_the_cluster(manifest: Path) -> None:
    run = yaml.safe_load(wrapped(str(manifest), *CLAIMS, "--max-cost", "5"))
    assert run["spec"].keys() == {"manifest", "storage", "limits"}
    assert "labels" not in run["metadata"]
    folders = ("--dataset-claim", "datasets:team/a", "--output-claim", "models:try-1", "--max-cost", "5")
    storage = yaml.safe_load(wrapped(str(manifest), *folders))["spec"]["storage"]
    assert storage == {
        "dataset": {"claimName": "datasets", "path": "team/a"},
        "output": {"claimName": "models", "path": "try-1"},
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Add --max-cost USD"),
        (("--max-cost", "5", "--nodes", "2"), "--nodes needs --profile"),
        (("--max-cost", "5", "--promote-to", "staging"), "--promote-to needs --policy"),
        (("--max-cost", "5", "--name", "My_Model"), "Add --name my-model"),
        (("--max-cost", "5", "--name", "x" * 41), "at most 40"),
    ],
)
def test_what_the_cluster_would_refuse_is_refused_with_the_fix(
    manifest: Path, arguments: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        wrapped(str(manifest), *CLAIMS, *arguments)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--max-cost", "1.5e3", "not an amount in USD"),
        ("--max-runtime", "2 days", "not a duration"),
        ("--dataset-claim", "datasets:../x", "leaves the claim"),
        ("--output-claim", "/models", "not the name of a claim"),
    ],
)
def test_an_option_that_cannot_be_read_is_told(manifest: Path, option: str, value: str, words: str) -> None:
    answer = CliRunner().invoke(wrap, [str(manifest), *CLAIMS, "--max-cost", "5", option, value])
    assert answer.exit_code == 2
    assert words in " ".join(answer.output.split())


def test_a_budget_in_the_manifest_is_the_cap(manifest: Path) -> None:
    manifest.write_text(MANIFEST + "resources: {max_budget_usd: 5}\n", encoding="utf-8")
    assert yaml.safe_load(wrapped(str(manifest), *CLAIMS))["spec"]["limits"] == {}
