"""Every command teaches and refuses alike: a table over the whole tree, so that a new command is held to it, too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tollgate_cli import options
from tollgate_cli.helping import ending
from tollgate_cli.main import main, tollgate

Found = tuple[tuple[str, ...], click.Command]


def tree(command: click.Command, path: tuple[str, ...], parent: click.Context | None = None) -> Iterator[Found]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, parent=parent, info_name=path[-1] if path else "tollgate")
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from tree(below, (*path, name), context)


COMMANDS = tuple(tree(tollgate, ()))
LEAVES = tuple(found for found in COMMANDS if not isinstance(found[1], click.Group))


def named(found: Found) -> str:
    return " ".join(found[0]) or "tollgate"


def parameters(command: click.Command, kind: type[click.Parameter]) -> list[click.Parameter]:
    return [parameter for parameter in command.params if isinstance(parameter, kind)]


def taking_a_manifest() -> list[Found]:
    return [found for found in LEAVES if any(p.type is options.MANIFEST for p in parameters(found[1], click.Argument))]


READERS = [
    found
    for found in LEAVES
    if any("MANIFEST" in (p.make_metavar(click.Context(found[1]))) for p in parameters(found[1], click.Argument))
]
EVERY_READER = (
    *(("run",), ("evaluate",), ("plan",), ("manifest", "show"), ("manifest", "validate"), ("manifest", "wrap")),
    *(("dataset", name) for name in ("analyze", "preview", "validate", "sample", "split", "convert")),
)


def rest(found: Found) -> list[str]:
    """What the command asks for besides the manifest, as far as it takes to look at the manifest."""
    words: list[str] = []
    for parameter in found[1].params:
        if isinstance(parameter, click.Option) and parameter.required:
            words += [max(parameter.opts, key=len), "1" if isinstance(parameter.type, click.IntRange) else "made"]
        elif isinstance(parameter, click.Argument) and "MANIFEST" not in parameter.make_metavar(
            click.Context(found[1])
        ):
            words += ["made"]
    return words


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", COMMANDS, ids=named)
def test_help_teaches_by_an_example_and_fits_80_columns(found: Found) -> None:
    path, _ = found
    answer = CliRunner().invoke(tollgate, [*path, "--help"], prog_name="tollgate", terminal_width=80)
    assert answer.exit_code == 0
    lines = answer.output.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    cut = [line for line in lines if line.endswith("...") and not line.startswith("Usage:")]
    assert cut == [], "a summary that is cut off"
    start = next((n for n, line in enumerate(lines) if line.strip() in ("Example:", "Examples:")), None)
    assert start is not None, answer.output
    command = " ".join(("tollgate", *path))
    examples = "\n".join(lines[start:])
    asked = "tollgate report" if path == ("report", "show") else command
    assert asked in examples, f"no example of {asked}"


@pytest.mark.parametrize("found", LEAVES, ids=named)
def test_every_option_says_what_it_does_and_what_holds_without_it(found: Found) -> None:
    for option in parameters(found[1], click.Option):
        assert isinstance(option, click.Option)
        name = max(option.opts, key=len)
        assert option.help, name
        told = option.required or option.is_flag or option.multiple or option.show_default or "[default:" in option.help
        assert told or name in LEFT_ALONE, name


LEFT_ALONE = frozenset(
    [
        *("--overlay", "--max-steps", "--learning-rate", "--max-runtime", "--dataset-root", "--group-field"),
        *(
            "--policy",
            "--baseline",
            "--settings",
            "--promote-to",
            "--file",
            "--question",
            "--data",
            "--base",
            "--after",
        ),
    ]
)
"""Options without which nothing is done about what they name: there is no default to tell."""


def test_examples_are_folded_where_a_shell_goes_on() -> None:
    text = ending("tollgate x " + " ".join(f"--option-{n} value" for n in range(9)), then="Codes.")
    example = [line for line in text.splitlines() if "option" in line]
    assert len(example) > 1
    assert all(line.endswith(" \\") for line in example[:-1])
    assert all(len(line) <= 78 for line in example)
    assert text.endswith("\n\nCodes.")
    with pytest.raises(AssertionError, match="shorten it"):
        ending(f"tollgate {'x ' * 30}  # why")


# --- what is given as a manifest --------------------------------------------------------------------------------------


def test_the_table_has_every_command_that_takes_a_manifest() -> None:
    assert {path for path, _ in READERS} == set(EVERY_READER)
    assert len(taking_a_manifest()) >= 5


@pytest.mark.parametrize("found", READERS, ids=named)
def test_a_manifest_that_is_not_there_is_wrong_usage_with_its_name_and_no_traceback(
    found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, error = asked(found, "absent.yaml", capsys)
    assert code == 2
    assert "absent.yaml" in error
    assert "does not exist" in error
    assert "Name a manifest" in error, "and the fix"
    (tmp_path / "present.yaml").touch()
    _, error = asked(found, "presnt.yaml", capsys)
    assert "Did you mean present.yaml?" in error


BAD = {
    "empty.yaml": (b"", "this file is empty. `tollgate manifest init`"),
    "broken.yaml": (b"name: [\n", "broken.yaml"),
    "broken.json": (b'{"name": ', "broken.json"),
    "latin.yaml": b"name: caf\xe9\ndataset: {path: d}\n",
    "list.yaml": (b"- name\n", "this holds a list, not a mapping"),
    "typo.yaml": (b"nmae: m\ndataset: {path: d}\n", "name"),
    "other.yaml": (b"apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n", "this is a Pod of v1"),
}
NOT_DATA = [found for found in READERS if found[0][0] != "dataset"]


@pytest.mark.parametrize("name", [name for name in BAD if name != "broken.json"])
@pytest.mark.parametrize("found", READERS, ids=named)
def test_a_file_that_is_no_manifest_is_told_in_words_with_the_fix(
    found: Found, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    entry = BAD[name]
    content, words = entry if isinstance(entry, tuple) else (entry, "UTF-8")
    (tmp_path / name).write_bytes(content)
    code, error = asked(found, name, capsys)
    assert code == 64
    assert name in error
    assert words in error
    if name == "typo.yaml":
        assert "there is no such field" in error
        assert "Did you mean" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == [name], "nothing is written"


@pytest.mark.parametrize("found", NOT_DATA, ids=named)
def test_json_that_is_cut_off_is_told_with_its_place(
    found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_bytes(b'{"name": ')
    code, error = asked(found, "broken.json", capsys)
    assert code == 64
    assert "broken.json" in error


@pytest.mark.parametrize("found", taking_a_manifest(), ids=named)
def test_a_folder_is_no_manifest(found: Found, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = asked(found, str(tmp_path), capsys)
    assert code == 2
    assert "is a directory" in error
    assert "Name a manifest" in error


@pytest.mark.parametrize("found", READERS, ids=named)
def test_every_command_takes_what_stands_over_a_manifest(
    found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.yaml").write_text("name: m\ndataset: {path: d.jsonl}\n")
    (tmp_path / "over.yaml").write_text("hyperparamters: {max_steps: 1}\n")
    code, error = asked(found, "m.yaml", capsys, "--set", "hyperparameters.max_step=1")
    assert (code, "Did you mean" in error) == (64, True)
    code, error = asked(found, "m.yaml", capsys, "--overlay", "over.yaml")
    assert (code, "hyperparamters" in error) == (64, True)
    monkeypatch.setenv("TOLLGATE_SET_hyperparameters__max_steps", "0")
    code, error = asked(found, "m.yaml", capsys)
    assert (code, "hyperparameters.max_steps" in error) == (64, True)


def asked(found: Found, file: str, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    """(exit code, standard error) of the command on this file; there is never a traceback."""
    capsys.readouterr()
    words = rest(found)
    code = main([*found[0], file, *words, *more])
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return code, error


FOLDERS = [
    (("gate", "runs/absent", "--policy", "p.yaml"), "Name a run's output folder"),
    (("gate", ".", "--policy", "absent.yaml"), "Name a file with a PromotionPolicy"),
    (("evaluate", ".", "--baseline", "runs/absent"), "Name a run's output folder"),
    (("report", "runs/absent"), "Name a run's output folder"),
    (("report", "compare", ".", "absent"), "Name a run's output folder"),
    (("model", "info", "absent"), "or a model's"),
    (("infer", "absent", "--prompt", "x"), "or a model's"),
    (("infer", ".", "--file", "absent.jsonl"), "Name a file that is there"),
    (("manifest", "import", "absent.json", "--to", "-"), "Name a configuration in JSON or YAML"),
    (("manifest", "init", "--data", "absent.jsonl"), "Name a data file"),
    (("run", "p.yaml", "--overlay", "absent.yaml"), "Name a file with a piece of a manifest"),
]


@pytest.mark.parametrize(("words", "fix"), FOLDERS, ids=lambda x: " ".join(x) if isinstance(x, tuple) else None)
def test_whatever_else_is_named_and_is_not_there_is_told_with_what_to_name(
    words: tuple[str, ...],
    fix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text("name: m\ndataset: {path: d}\n")
    assert main(list(words)) == 2
    error = capsys.readouterr().err
    assert "absent" in error
    assert fix in error


POLICY = """\
apiVersion: tollgate.dev/v1alpha1
kind: PromotionPolicy
spec: {stages: [{name: staging, checks: [{metric: perplexity, op: "<=", threshold: 9}]}]}
"""
NO_RUN = [("report", "."), ("gate", ".", "--policy", "p.yaml"), ("evaluate", ".")]


@pytest.mark.parametrize("words", NO_RUN, ids=" ".join)
def test_a_folder_that_holds_no_run_is_refused_and_left_as_it_was(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(POLICY)
    assert main(list(words)) == 64
    assert "runs/my-model" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["p.yaml"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it holds nothing"),
        (b"name: caf\xe9\n", "save it as UTF-8"),
        (b"spec: [", "mend it there"),
        (POLICY.replace("stages", "stagse").encode(), "spec.stag"),
    ],
)
def test_a_policy_that_is_none_is_told_in_words(
    content: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.yaml").write_bytes(content)
    assert main(["gate", str(tmp_path), "--policy", str(tmp_path / "p.yaml")]) == 64
    error = capsys.readouterr().err
    assert "p.yaml" in error
    assert words in error


# --- what is told -----------------------------------------------------------------------------------------------------

LISTING = (
    *(("checkpoint", name) for name in ("list", "verify", "prune")),
    *(("dataset", name) for name in ("analyze", "preview", "validate", "sample", "split", "convert")),
    *(("manifest", name) for name in ("show", "validate", "import")),
    *(("model", name) for name in ("info", "verify", "merge", "backup")),
    *(("plan",), ("run",), ("evaluate",), ("gate",), ("infer",), ("report", "compare"), ("local", "status")),
)


@pytest.mark.parametrize("path", LISTING, ids=" ".join)
def test_what_is_told_can_be_read_by_a_script(path: tuple[str, ...]) -> None:
    command = dict(COMMANDS)[path]
    option = next(option for option in parameters(command, click.Option) if "-o" in option.opts)
    assert isinstance(option.type, click.Choice)
    assert "json" in option.type.choices


def test_a_refusal_is_json_where_json_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("name: m\ndataset: {path: d}\nsede: 3\n")
    assert main(["manifest", "validate", str(file), "-o", "json"]) == 64
    problem = json.loads(capsys.readouterr().out)["problems"][0]
    assert (problem["field"], problem["line"]) == ("sede", 3)
    assert "seed" in problem["fix"]
