"""`tollgate` and `tollgate manifest` as a person runs them: processes, exit codes, words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from tollgate.manifest.loader import load_bytes, load_file
from tollgate_cli.wishes import Wishes, effective

ROOT = Path(__file__).parents[2]
MINIMAL = "name: m\ndataset: {path: d}\n"


def tollgate(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, so that exit codes and streams are the real ones."""
    path = os.pathsep.join([environment.pop("ALSO", ""), *(str(ROOT / part) for part in ("core", "cli"))]).strip(
        os.pathsep
    )
    return subprocess.run(
        [sys.executable, "-m", "tollgate_cli.main", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


def declare(folder: Path, name: str, value: str, code: str) -> None:
    """Install a distribution that adds a command, the way any package does."""
    (folder / f"{name}_plugin.py").write_text(code, encoding="utf-8")
    info = folder / f"{name}_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-plugin\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[tollgate.commands]\n{name} = {value}\n", encoding="utf-8")


# --- the root ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_groups_the_commands(flag: str, tmp_path: Path) -> None:
    answer = tollgate(flag, cwd=tmp_path)
    assert answer.returncode == 0
    assert "Manifests:\n  manifest" in answer.stdout


def test_version(tmp_path: Path) -> None:
    assert tollgate("--version", cwd=tmp_path).stdout == "tollgate 0.1.0\n"


def test_an_unknown_command_is_a_usage_error(tmp_path: Path) -> None:
    answer = tollgate("trian", cwd=tmp_path)
    assert answer.returncode == 2
    assert "No such command 'trian'" in answer.stderr


def test_a_declared_command_runs_and_its_exit_code_is_kept(tmp_path: Path) -> None:
    code = (
        "import click\n@click.command()\n@click.pass_context\ndef go(ctx):\n    click.echo('went')\n    ctx.exit(75)\n"
    )
    declare(tmp_path, "extra", "extra_plugin:go", code)
    answer = tollgate("extra", cwd=tmp_path, ALSO=str(tmp_path))
    assert (answer.returncode, answer.stdout) == (75, "went\n")
    assert "(from extra-plugin)" in tollgate("-h", cwd=tmp_path, ALSO=str(tmp_path)).stdout


BROKEN = [
    ("import nowhere_to_be_found\n", "needs the Python package nowhere_to_be_found, which is not installed"),
    ("raise RuntimeError('half installed')\n", "could not be loaded from broken-plugin: RuntimeError: half installed"),
    ("go = 5\n", "is not a click command"),
]


@pytest.mark.parametrize(("code", "message"), BROKEN)
def test_a_broken_command_is_one_clear_line_and_the_others_work(tmp_path: Path, code: str, message: str) -> None:
    declare(tmp_path, "broken", "broken_plugin:go", code)
    answer = tollgate("broken", cwd=tmp_path, ALSO=str(tmp_path))
    assert answer.returncode == 64
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    help_ = tollgate("--help", cwd=tmp_path, ALSO=str(tmp_path))
    assert (help_.returncode, help_.stderr) == (0, "")
    assert tollgate("manifest", "schema", cwd=tmp_path, ALSO=str(tmp_path)).returncode == 0


def test_a_missing_extra_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "tollgate_trainer").mkdir()
    (tmp_path / "tollgate_trainer/__init__.py").write_text("import torch_is_not_here\n", encoding="utf-8")
    declare(tmp_path, "run", "tollgate_trainer.commands:run", "")
    answer = tollgate("run", cwd=tmp_path, ALSO=str(tmp_path))
    assert answer.returncode == 64
    assert "Install it with: pip install 'tollgate[trainer]'" in answer.stderr


def test_debug_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").touch()
    answer = tollgate("manifest", "validate", "empty.yaml", cwd=tmp_path, TOLLGATE_DEBUG="1")
    assert "Traceback" in answer.stderr


def test_a_reader_that_went_away_is_no_error(manifest: Path) -> None:
    command = f"{sys.executable} -m tollgate_cli.main manifest schema | head -c 1; exit ${{PIPESTATUS[0]}}"
    path = os.pathsep.join(str(ROOT / part) for part in ("core", "cli"))
    answer = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (0, "")


# --- manifest ---------------------------------------------------------------------------------------------------------


def test_validate_says_yes_with_the_digest(manifest: Path) -> None:
    answer = tollgate("manifest", "validate", manifest.name, cwd=manifest.parent)
    assert answer.returncode == 0
    assert load_file(manifest).digest in answer.stdout
    as_json = json.loads(tollgate("manifest", "validate", manifest.name, "-o", "json", cwd=manifest.parent).stdout)
    assert as_json == {"valid": True, "source": manifest.name, "digest": load_file(manifest).digest}


def test_validate_says_no_with_every_problem_and_64(manifest: Path) -> None:
    manifest.write_text(MINIMAL + "hyperparameters:\n  learning_rat: 1\n  max_steps: 0\n", encoding="utf-8")
    answer = tollgate("manifest", "validate", manifest.name, cwd=manifest.parent)
    assert (answer.returncode, answer.stdout) == (64, "")
    assert "line 4, hyperparameters.learning_rat: there is no such field" in answer.stderr
    assert "Traceback" not in answer.stderr
    answer = tollgate("manifest", "validate", manifest.name, "-o", "json", cwd=manifest.parent)
    assert answer.returncode == 64
    problems = json.loads(answer.stdout)["problems"]
    assert [(problem["field"], problem["line"]) for problem in problems] == [
        ("hyperparameters.learning_rat", 4),
        ("hyperparameters.max_steps", 5),
    ]
    assert problems[1]["value"] == 0


def test_show_is_the_whole_manifest_and_loads_as_the_same_one(manifest: Path) -> None:
    manifest.write_text(MINIMAL + "seed: 7\nhyperparameters: {bf16: true, learning_rate: 1e-4}\n", encoding="utf-8")
    loaded = load_file(manifest)
    shown = tollgate("manifest", "show", manifest.name, cwd=manifest.parent).stdout
    assert loaded.digest in shown
    assert load_bytes(shown.encode(), "shown").manifest == loaded.manifest
    as_json = json.loads(tollgate("manifest", "show", manifest.name, "-o", "json", cwd=manifest.parent).stdout)
    assert as_json["digest"] == loaded.digest
    assert as_json["manifest"]["reproducibility"]["seed"] == 7
    assert as_json["manifest"]["precision"] == "bf16"


OVER = ("--overlay", "over.yaml", "--set", "seed=3", "--max-steps", "9")


def test_show_and_validate_tell_what_would_run_with_overlay_environment_and_options(manifest: Path) -> None:
    (manifest.parent / "over.yaml").write_text("hyperparameters: {max_steps: 5, learning_rate: 1e-3}\n")
    environment = {"TOLLGATE_SET_hyperparameters__learning_rate": "1e-4"}
    wishes = Wishes(manifest.parent / "over.yaml", ("seed=3",), max_steps=9)
    found = effective(manifest, wishes, environment)
    answer = tollgate("manifest", "show", manifest.name, *OVER, "-o", "json", cwd=manifest.parent, **environment)
    shown = json.loads(answer.stdout)
    asked = shown["manifest"]["hyperparameters"]
    assert (asked["max_steps"], asked["learning_rate"], shown["manifest"]["reproducibility"]["seed"]) == (9, 1e-4, 3)
    assert shown["digest"] == found.loaded.digest != load_file(manifest).digest
    changed = [(change["field"], change["origin"]) for change in shown["changes"]]
    assert ("hyperparameters.max_steps", "--max-steps 9") in changed
    assert ("hyperparameters.learning_rate", "environment TOLLGATE_SET_hyperparameters__learning_rate") in changed
    text = tollgate("manifest", "show", manifest.name, *OVER, cwd=manifest.parent, **environment).stdout
    assert "# changed: seed: absent -> 3 (--set seed=3)" in text
    assert load_bytes(text.encode(), "shown").manifest == found.loaded.manifest
    valid = tollgate("manifest", "validate", manifest.name, *OVER, cwd=manifest.parent, **environment)
    assert found.loaded.digest in valid.stdout
    refused = tollgate(
        "manifest", "validate", manifest.name, "--set", "hyperparameters.max_steps=0", cwd=manifest.parent
    )
    assert refused.returncode == 64
    assert "hyperparameters.max_steps" in refused.stderr


def test_init_writes_an_example_that_is_valid_and_overwrites_nothing(tmp_path: Path) -> None:
    assert tollgate("manifest", "init", cwd=tmp_path).returncode == 0
    assert tollgate("manifest", "validate", "manifest.yaml", cwd=tmp_path).returncode == 0
    (tmp_path / "manifest.yaml").write_text("mine", encoding="utf-8")
    answer = tollgate("manifest", "init", cwd=tmp_path)
    assert (answer.returncode, answer.stderr) == (
        64,
        "Error: manifest.yaml exists. Name another file, or remove it first.\n",
    )
    assert (tmp_path / "manifest.yaml").read_text(encoding="utf-8") == "mine"
    assert tollgate("manifest", "init", "absent/m.yaml", cwd=tmp_path).returncode == 64
    assert tollgate("manifest", "init", "-", cwd=tmp_path).stdout.startswith("# A training manifest")


def test_the_schema_takes_what_the_loader_takes(tmp_path: Path) -> None:
    schema = json.loads(tollgate("manifest", "schema", cwd=tmp_path).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    document = load_bytes(MINIMAL.encode(), "m").document
    assert validator.is_valid(document)
    assert validator.is_valid({**document, "resources": {"max_budget_usd": 1.5}})
    assert not validator.is_valid({**document, "resources": {"max_budget_usd": -1}})
    assert not validator.is_valid({**document, "hyperparameters": {"learning_rat": 1}})
    assert not validator.is_valid({"name": "m"})
