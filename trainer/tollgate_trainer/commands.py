"""`tollgate run | evaluate | gate | report`: training on this machine, with the pods' launcher, trainer and rules."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from tollgate.api.quantities import format_usd
from tollgate.contract import Env, Files, LastWords, Outcome, Role
from tollgate.gates.verdict import strictest_confidence
from tollgate_trainer import durable, stopwatch
from tollgate_trainer.laptop import allowance as allowances
from tollgate_trainer.laptop import judgement, preparation, summary
from tollgate_trainer.laptop.allowance import Allowance
from tollgate_trainer.laptop.conduct import Conductor
from tollgate_trainer.laptop.follow import TRAINING, Bar, Display, Lines
from tollgate_trainer.laptop.judgement import Policy
from tollgate_trainer.laptop.preparation import LaptopError, Workplace

C = TypeVar("C", bound=Callable[..., Any])

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_POLICY = click.option("--policy", type=_FILE, help="A PromotionPolicy to judge the evaluation by.")
_JSON = click.option("-o", "form", type=click.Choice(["text", "json"]), default="text", help="How to tell the result.")


def _common(command: C) -> C:
    for option in reversed(
        (
            click.argument("file", type=_FILE),
            click.option("--output", type=_FOLDER, help="Where the run lies.  [default: output_dir, or runs/<name>]"),
            click.option(
                "--dataset-root", type=_FOLDER, help="What dataset.path is relative to.  [default: FILE's folder]"
            ),
            click.option("--name", help="Name of the run.  [default: the manifest's]"),
            click.option("--max-steps", type=click.IntRange(min=1), help="Train so many steps only; another manifest."),
            click.option("--usd-per-hour", metavar="USD", help="What this machine costs an hour."),
            click.option("--max-cost", metavar="USD", help="Stop before the run has cost more, over all attempts."),
        )
    ):
        command = option(command)
    return command


@click.command(
    epilog="Ctrl-C stops after the step under way and saves a checkpoint; the same command goes on from there. "
    "Exit codes: 0 trained to the end, 75 stopped, 64 something to mend, 70 failed."
)
@_common
@click.option(
    "--max-runtime", metavar="DURATION", help="Stop before the run has taken longer, such as 90m, over all attempts."
)
@click.option(
    "--resume",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="Go on from the newest checkpoint, or move earlier work aside and begin anew.",
)
@click.option("--fresh", is_flag=True, help="The same as --resume none.")
@click.option("--nproc", metavar="N", help="Processes, or gpu for one per GPU.  [default: by compute_target]")
@_POLICY
@click.option("--evaluate/--no-evaluate", default=None, help="Evaluate the finished model.  [default: the manifest's]")
@_JSON
def run(
    file: Path,
    output: Path | None,
    dataset_root: Path | None,
    name: str | None,
    max_steps: int | None,
    usd_per_hour: str | None,
    max_cost: str | None,
    max_runtime: str | None,
    resume: str,
    fresh: bool,
    nproc: str | None,
    policy: Path | None,
    evaluate: bool | None,
    form: str,
) -> int:
    """Train the manifest in FILE on this machine, evaluate the model, and judge it.

    FILE is a manifest or a TrainingRun, YAML or JSON: the same document that runs on a cluster.
    """
    loaded = preparation.load(file, max_steps)
    allowed = Allowance.parse(usd_per_hour, max_cost, max_runtime, loaded.manifest)
    wanted = judgement.read_policy(policy) if policy is not None else None
    title = preparation.run_name(loaded, name)
    count = preparation.processes(loaded, nproc)
    asked = loaded.manifest.evaluation.enabled if evaluate is None else evaluate
    if asked:
        _check_suites(loaded.manifest.evaluation.suites)
    folder = preparation.output_folder(file, loaded, output, title, max_steps)
    with preparation.occupied(folder), tempfile.TemporaryDirectory(prefix="tollgate-") as scratch:
        place = preparation.workplace(
            loaded, title, dataset_root or file.parent, folder, Path(scratch), fresh or resume == "none"
        )
        console, display = _display(form, allowed)
        conductor = Conductor(display)
        try:
            reservation = allowed.reservation(_segments(place, Role.TRAIN), Role.TRAIN)
            _introduce(display, place, allowed, loaded.source if max_steps else "")
            limits = allowances.environment(reservation)
            display.begin(TRAINING, _seconds(place))
            command = preparation.training_command(count, float(limits[Env.GRACE_SECONDS]))
            code, words = conductor.run(command, place, Role.TRAIN, limits)
            evaluated, note = None, ""
            if _trained(words) and asked and not conductor.interrupted:
                code, evaluated, note = _evaluate(place, allowed, wanted, conductor, display)
        finally:
            display.close()
        return _end(file, place, allowed, wanted, code, words, evaluated, note, console, form)


@click.command()
@_common
@_POLICY
@_JSON
def evaluate(
    file: Path,
    output: Path | None,
    dataset_root: Path | None,
    name: str | None,
    max_steps: int | None,
    usd_per_hour: str | None,
    max_cost: str | None,
    policy: Path | None,
    form: str,
) -> int:
    """Measure the finished model of FILE's run again, and judge it."""
    loaded = preparation.load(file, max_steps)
    allowed = Allowance.parse(usd_per_hour, max_cost, None, loaded.manifest)
    wanted = judgement.read_policy(policy) if policy is not None else None
    title = preparation.run_name(loaded, name)
    folder = preparation.output_folder(file, loaded, output, title, max_steps)
    if not (folder / Files.MODEL).is_dir():
        raise LaptopError(f"{folder} holds no finished model; train it with `tollgate run {file}`")
    with preparation.occupied(folder), tempfile.TemporaryDirectory(prefix="tollgate-") as scratch:
        place = preparation.workplace(loaded, title, dataset_root or file.parent, folder, Path(scratch), fresh=False)
        console, display = _display(form, allowed)
        try:
            code, evaluated, note = _evaluate(place, allowed, wanted, Conductor(display), display)
        finally:
            display.close()
        words = LastWords.parse(_text(folder / Files.RESULT))
        return _end(file, place, allowed, wanted, code, words, evaluated, note, console, form)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--policy", type=_FILE, required=True, help="The PromotionPolicy.")
@_JSON
def gate(folder: Path, policy: Path, form: str) -> int:
    """Judge the evaluation in the output FOLDER of a run by a promotion policy.

    The same function judges on a cluster. Exit code 0 when every stage passed, else 1.
    """
    wanted = judgement.read_policy(policy)
    gates = judgement.judge(folder, wanted)
    if form == "json":
        click.echo(json.dumps([g.model_dump(mode="json", by_alias=True, exclude_none=True) for g in gates], indent=1))
    else:
        Console().print(summary.verdicts(gates))
    _report(folder)
    return 0 if all(gate.verdict == "Passed" for gate in gates) else 1


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--open", "open_it", is_flag=True, help="Open it in the browser.")
def report(folder: Path, open_it: bool) -> int:
    """Make the report of the run in the output FOLDER and say where it lies."""
    path = _report(folder)
    click.echo(path)
    if open_it:
        click.launch(str(path))
    return 0


# --- parts ------------------------------------------------------------------------------------------------------------


def _display(form: str, allowed: Allowance) -> tuple[Console, Display]:
    # With -o json the result alone is on standard output; whoever watches reads the rest on standard error.
    console = Console(stderr=form == "json")
    if not console.is_terminal:
        return console, Lines(console)
    return console, Bar(console, allowed.cost)


def _introduce(display: Display, place: Workplace, allowed: Allowance, changed: str) -> None:
    display.say(f"{place.run}, attempt {place.attempt}, in {summary.shorten(place.output)}")
    if changed:
        display.say(f"this is {changed}: not the manifest that runs on a cluster")
    if limits := allowed.words():
        display.say(f"limits: {limits}")
    if allowed.notice:
        display.say(f"warning: {allowed.notice}")


def _check_suites(names: list[str]) -> None:
    """An evaluation that can't be made is told before the training is paid for."""
    from tollgate_trainer.evaluate.suites import tasks
    from tollgate_trainer.refusal import Refused

    try:
        tasks(names)
    except Refused as error:
        raise LaptopError(str(error)) from error


def _trained(words: LastWords | None) -> bool:
    return words is not None and words.outcome is Outcome.COMPLETED


def _evaluate(
    place: Workplace, allowed: Allowance, wanted: Policy | None, conductor: Conductor, display: Display
) -> tuple[int, LastWords | None, str]:
    """(exit code, last words, why it was left out) of the evaluation; what the training left is all it may use."""
    segments = (*_segments(place, Role.TRAIN), *_segments(place, Role.EVALUATE))
    try:
        limits = allowances.environment(allowed.reservation(segments, Role.EVALUATE))
    except LaptopError as error:
        return 0, None, f"Not evaluated: {error.message}"
    display.begin("evaluating", _seconds(place))
    limits[Env.SUITES] = ",".join(place.loaded.manifest.evaluation.suites)
    if wanted is not None:
        limits[Env.CONFIDENCE] = str(strictest_confidence(wanted.spec))
    (place.output / "evaluation").mkdir(exist_ok=True)
    code, words = conductor.run(
        preparation.evaluation_command(), preparation.for_evaluation(place), Role.EVALUATE, limits
    )
    return code, words, ""


def _segments(place: Workplace, role: Role) -> list[stopwatch.Segment]:
    """What this run has used so far, in training or in evaluations."""
    name = Files.SECONDS_USED if role is Role.TRAIN else "evaluation/seconds-used.json"
    try:
        return [s for s in stopwatch.read(place.output / name) if s.uid == place.uid]
    except stopwatch.StopwatchError as error:
        raise LaptopError(str(error)) from error


def _seconds(place: Workplace) -> float:
    return sum(s.seconds for role in Role for s in _segments(place, role))


def _end(
    file: Path,
    place: Workplace,
    allowed: Allowance,
    wanted: Policy | None,
    code: int,
    words: LastWords | None,
    evaluated: LastWords | None,
    note: str,
    console: Console,
    form: str,
) -> int:
    gates = judgement.judge(place.output, wanted) if wanted is not None and _trained(words) else []
    seconds = _seconds(place)
    path = None
    if (place.output / Files.EVENTS).exists():
        if allowed.per_hour is not None:
            price = {"usdPerHour": format_usd(allowed.per_hour)}
            durable.write(place.output / "logs" / "price.json", json.dumps(price).encode() + b"\n")
        path = _report(place.output)
    ending = summary.Ending(
        file=file,
        output=place.output,
        run=place.run,
        exit_code=code,
        words=words,
        evaluation=evaluated,
        gates=gates,
        spent_micro=allowed.cost(seconds),
        seconds=seconds,
        report=path,
        log=place.log(Role.EVALUATE if evaluated is not None and code else Role.TRAIN),
        note=note,
    )
    if form == "json":
        sys.stdout.write(json.dumps(summary.document(ending), indent=1) + "\n")
    else:
        summary.show(ending, console)
    return code


def _report(folder: Path) -> Path:
    from tollgate_trainer.report import write  # jinja2 takes its time, and only the end needs it

    return write(folder)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
