"""`tollgate run | evaluate | gate`: training on this machine, with the pods' launcher, trainer and rules."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import click
from rich.console import Console

from tollgate.api.quantities import format_usd
from tollgate.contract import Env, Files, LastWords, Outcome, Role
from tollgate.gates.verdict import strictest_confidence
from tollgate_cli.helping import ending
from tollgate_cli.options import LAYERS, RUN, overriding_a_run
from tollgate_cli.wishes import Effective, Wishes, effective
from tollgate_trainer import stopwatch
from tollgate_trainer.evaluate import SETTINGS
from tollgate_trainer.laptop import allowance as allowances
from tollgate_trainer.laptop import (
    judgement,
    loose,
    measured_table,
    options,
    preparation,
    starting_point,
    subject,
    summary,
    typed,
)
from tollgate_trainer.laptop.allowance import Allowance
from tollgate_trainer.laptop.conduct import Conductor
from tollgate_trainer.laptop.follow import TRAINING, Bar, Display, Lines
from tollgate_trainer.laptop.judgement import Policy
from tollgate_trainer.laptop.preparation import LaptopError, Workplace
from tollgate_trainer.laptop.recording import keep

GATE_FAILED, GATE_INCONCLUSIVE = 1, 3  # 2 is what a shell's user gets for a mistyped option


@click.command(
    epilog=ending(
        "tollgate run manifest.yaml --quick-test",
        "tollgate run manifest.yaml --usd-per-hour 2.50 --max-cost 10",
        then="Ctrl-C stops after the step under way and saves a checkpoint; the same command goes on from there. "
        f"{LAYERS} Exit codes: 0 trained to the end, 2 wrong usage, 64 something to mend, 70 failed, 75 stopped, 130 "
        "interrupted between two parts, 137 killed.",
    )
)
@options.of_a_run
@overriding_a_run
@click.option(
    "--max-runtime", metavar="DURATION", help="Stop before the run has taken longer, such as 90m, over all attempts."
)
@click.option(
    "--resume",
    metavar="auto|PATH|URI|none",
    default="auto",
    show_default=True,
    help="Go on from the newest checkpoint, from the one in PATH, or move earlier work aside and begin anew.",
)
@click.option("--fresh", is_flag=True, help="The same as --resume none.")
@click.option("--nproc", metavar="N", help="Processes, or gpu for one per GPU.  [default: by compute_target]")
@click.option("--debug", is_flag=True, help="Show everything that the processes print, with trace logs.")
@click.option("--profile", is_flag=True, help="Record a few steps: a trace and the most expensive operations.")
@options.POLICY
@click.option("--evaluate/--no-evaluate", default=None, help="Evaluate the finished model.  [default: the manifest's]")
@options.JSON
def run(
    file: Path,
    wishes: Wishes,
    output: Path | None,
    dataset_root: Path | None,
    name: str | None,
    usd_per_hour: str | None,
    max_cost: str | None,
    max_runtime: str | None,
    resume: str,
    fresh: bool,
    nproc: str | None,
    debug: bool,
    profile: bool,
    policy: Path | None,
    evaluate: bool | None,
    form: str,
) -> int:
    """Train on this machine, evaluate the model, and judge it.

    MANIFEST is a file in YAML or JSON, also one with a TrainingRun: the same document that runs on a cluster.
    """
    found = effective(file, wishes, os.environ)
    loaded = found.loaded
    allowed = Allowance.parse(usd_per_hour, max_cost, max_runtime, loaded.manifest)
    wanted = judgement.read_policy(policy) if policy is not None else None
    title = preparation.run_name(loaded, name)
    count = preparation.processes(loaded, nproc)
    asked = loaded.manifest.evaluation.enabled if evaluate is None else evaluate
    if asked:
        _check_suites(loaded.manifest.suites)
    folder = preparation.output_folder(file, loaded, output, title, _suffix(wishes))
    fresh = fresh or resume == "none" or wishes.quick_test
    with preparation.occupied(folder), tempfile.TemporaryDirectory(prefix="tollgate-") as scratch:
        if wishes.quick_test:
            starting_point.empty_quick_test(folder, loaded.manifest.checkpoint.uri)
        started_from = starting_point.prepare(resume, folder, loaded)
        place = replace(
            preparation.workplace(loaded, title, dataset_root or file.parent, folder, Path(scratch), fresh),
            debug=debug,
            profile=profile,
        )
        console, display = _display(form, allowed)
        conductor = Conductor(display, show_output=debug)
        try:
            reservation = allowed.reservation(_segments(place, Role.TRAIN), Role.TRAIN)
            _introduce(display, place, allowed, found, started_from)
            keep(folder, place.attempt, found)
            limits = allowances.environment(reservation)
            if allowed.per_hour is not None:
                limits[Env.USD_PER_NODE_HOUR] = format_usd(allowed.per_hour)  # for the plan's estimate
            display.begin(TRAINING, _seconds(place))
            ranks = place.scratch / "ranks" if debug else None
            command = preparation.training_command(count, float(limits[Env.GRACE_SECONDS]), ranks)
            code, words = conductor.run(command, place, Role.TRAIN, limits)
            evaluated, note, before = None, "", _seconds_evaluating(place)
            if _trained(words) and asked and not conductor.interrupted:
                code, evaluated, note = _evaluate(place, allowed, wanted, conductor, display)
        except KeyboardInterrupt:  # between the parts, where no process is there to be asked
            display.say(f"what is done until here lies in {summary.shorten(folder)}; the same command goes on from it")
            raise
        finally:
            display.close()
        return _end(file, wishes, place, allowed, wanted, code, words, evaluated, note, console, form, before)


@click.command(
    epilog=ending(
        "tollgate evaluate runs/my-model",
        "tollgate evaluate runs/my-model --suite safety --settings evaluation.yaml",
        "tollgate evaluate models/small --suite toxicity --prompts prompts.jsonl --settings evaluation.yaml",
        then="Exit codes: 0 measured, 2 wrong usage, 64 something to mend, 70 failed; tollgate gate has codes for "
        "verdicts.",
    )
)
@options.of_a_run_or_folder
@overriding_a_run
@options.evaluation
@options.POLICY
@options.JSON
def evaluate(
    file: Path,
    wishes: Wishes,
    suites: tuple[str, ...],
    prompts: tuple[str, ...],
    settings_file: Path | None,
    baseline: Path | None,
    output: Path | None,
    dataset_root: Path | None,
    name: str | None,
    usd_per_hour: str | None,
    max_cost: str | None,
    policy: Path | None,
    form: str,
) -> int:
    """Measure a finished model again, and judge it.

    Name the manifest of its run, or the run's output folder; the evaluation replaces the one before. A run with --set,
    --overlay and the like was another manifest: give the same here, or name the folder. FOLDER can also be any folder
    with a saved model: it is measured on prompt sets, and as nobody knows its data, no gate judges it.
    """
    asked = subject.Settings(suites, prompts, settings_file)
    wanted = judgement.read_policy(policy) if policy is not None else None
    if file.is_dir() and not subject.is_run(file):
        if wanted is not None or baseline is not None:
            raise LaptopError(f"{file} is no output folder of a run, so its model can't be judged or compared")
        return loose.measure(file, asked, dataset_root, form, allowances.price(usd_per_hour))
    if file.is_dir():
        loaded, folder = subject.manifest_of(file), file.absolute()
        dataset_root = dataset_root or subject.dataset_root(folder, loaded)
    else:
        loaded = effective(file, wishes, os.environ).loaded
        folder = preparation.output_folder(file, loaded, output, preparation.run_name(loaded, name), _suffix(wishes))
        dataset_root = dataset_root or file.parent
    allowed = Allowance.parse(usd_per_hour, max_cost, None, loaded.manifest)
    title = preparation.run_name(loaded, name)
    if baseline is not None and not subject.is_run(baseline):
        raise LaptopError(f"--baseline {baseline} holds no finished model; name the output folder of a finished run")
    section = subject.effective(loaded.manifest.evaluation, asked)
    named = section.suites or loaded.manifest.suites
    _check_suites(named)
    if not (folder / Files.MODEL).is_dir():
        raise LaptopError(f"{folder} holds no finished model; train it with `tollgate run {file}`")
    with preparation.occupied(folder), tempfile.TemporaryDirectory(prefix="tollgate-") as scratch:
        place = preparation.workplace(loaded, title, dataset_root, folder, Path(scratch), fresh=False)
        more = {str(Env.SUITES): ",".join(named)}
        if asked.given:
            (place.scratch / "evaluation.json").write_text(section.model_dump_json())
            more[SETTINGS] = str(place.scratch / "evaluation.json")
        if baseline is not None:
            more[Env.BASELINE] = str(baseline.absolute())
        console, display = _display(form, allowed)
        before = _seconds_evaluating(place)
        try:
            code, evaluated, note = _evaluate(place, allowed, wanted, Conductor(display), display, more)
        finally:
            display.close()
        words = LastWords.parse(_text(folder / Files.RESULT))
        return _end(file, wishes, place, allowed, wanted, code, words, evaluated, note, console, form, before, baseline)


@click.command(
    epilog=ending(
        "tollgate gate runs/my-model --policy examples/policies/standard.yaml --stage staging",
        then="Exit codes: 0 all stages passed, 1 one failed, 2 wrong usage, 3 one inconclusive, 64 something to mend.",
    )
)
@click.argument("folder", type=RUN)
@click.option("--policy", type=options.POLICY_FILE, metavar="FILE", required=True, help="The PromotionPolicy.")
@click.option("--stage", "stages", multiple=True, metavar="NAME", help="Only this stage decides.  [default: all]")
@click.option(
    "--baseline", type=RUN, metavar="FOLDER", help="Output folder of the run that maxRegression compares with."
)
@options.JSON
def gate(folder: Path, policy: Path, stages: tuple[str, ...], baseline: Path | None, form: str) -> int:
    """Judge an evaluation by a promotion policy.

    FOLDER is a run's output folder. The same function judges on a cluster.
    """
    wanted = judgement.read_policy(policy)
    known = [stage.name for stage in wanted.spec.stages]
    if unknown := sorted(set(stages) - set(known)):
        raise LaptopError(f"--stage {', '.join(unknown)}: {policy} has the stages {', '.join(known)}")
    subject.started(folder)
    gates = [gate for gate in judgement.judge(folder, wanted, baseline) if not stages or gate.stage in stages]
    if form == "json":
        click.echo(json.dumps([g.model_dump(mode="json", by_alias=True, exclude_none=True) for g in gates], indent=1))
    else:
        measured_table.show_verdicts(gates, Console())
    _report(folder)
    verdicts = {gate.verdict for gate in gates}
    return GATE_FAILED if "Failed" in verdicts else GATE_INCONCLUSIVE if "Inconclusive" in verdicts else 0


# --- parts ------------------------------------------------------------------------------------------------------------


def _display(form: str, allowed: Allowance) -> tuple[Console, Display]:
    # With -o json the result alone is on standard output; whoever watches reads the rest on standard error.
    console = Console(stderr=form == "json")
    if not console.is_terminal:
        return console, Lines(console)
    return console, Bar(console, allowed.cost)


def _suffix(wishes: Wishes) -> str:
    """What a quick look adds to the folder's name, so that it never stands in the way of the run itself."""
    if wishes.quick_test:
        return "-quick-test"
    return f"-{wishes.max_steps}-steps" if wishes.max_steps is not None else ""


def _introduce(display: Display, place: Workplace, allowed: Allowance, found: Effective, started_from: str) -> None:
    display.say(f"{place.run}, attempt {place.attempt}, in {summary.shorten(place.output)}")
    if found.changes:
        many = "1 change" if len(found.changes) == 1 else f"{len(found.changes)} changes"
        display.say(f"the manifest with {many} ({place.loaded.digest[:19]}):")
    for change in found.changes:
        display.say(f"  {change}")
    if started_from:
        display.say(started_from)
    if limits := allowed.words():
        display.say(f"limits: {limits}")
    if allowed.notice:
        display.say(f"warning: {allowed.notice}")


def _check_suites(names: Sequence[str]) -> None:
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
    place: Workplace,
    allowed: Allowance,
    wanted: Policy | None,
    conductor: Conductor,
    display: Display,
    more: Mapping[str, str] = MappingProxyType({}),
) -> tuple[int, LastWords | None, str]:
    """(exit code, last words, why it was left out) of the evaluation; what the training left is all it may use."""
    segments = (*_segments(place, Role.TRAIN), *_segments(place, Role.EVALUATE))
    try:
        limits = allowances.environment(allowed.reservation(segments, Role.EVALUATE))
    except LaptopError as error:
        return 0, None, f"Not evaluated: {error.message}"
    display.begin("evaluating", _seconds(place))
    limits[Env.SUITES] = ",".join(place.loaded.manifest.suites)
    if wanted is not None:
        limits[Env.CONFIDENCE] = str(strictest_confidence(wanted.spec))
    limits |= more
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


def _seconds_evaluating(place: Workplace) -> float:
    return sum(s.seconds for s in _segments(place, Role.EVALUATE))


def _end(
    file: Path,
    wishes: Wishes,
    place: Workplace,
    allowed: Allowance,
    wanted: Policy | None,
    code: int,
    words: LastWords | None,
    evaluated: LastWords | None,
    note: str,
    console: Console,
    form: str,
    before: float,
    baseline: Path | None = None,
) -> int:
    """Judge, write the report, tell; `before`: seconds of all evaluations until this one."""
    gates = judgement.judge(place.output, wanted, baseline) if wanted is not None and _trained(words) else []
    seconds = _seconds(place)
    priced = allowances.priced(allowed, place.output)
    path = _report(place.output) if (place.output / Files.EVENTS).exists() else None
    ending = summary.Ending(
        file=file,
        output=place.output,
        run=place.run,
        exit_code=code,
        words=words,
        evaluation=evaluated,
        gates=gates,
        spent_micro=priced.cost(seconds),
        seconds=seconds,
        evaluation_seconds=_seconds_evaluating(place) - before if evaluated is not None else None,
        per_hour=priced.per_hour,
        report=path,
        log=place.log_to_read(evaluation_failed=evaluated is not None and code != 0),
        note=note,
        profile=place.profiled(),
        options=typed.again(click.get_current_context().params, wishes.arguments(), words, elsewhere=wishes.quick_test),
        quick_test=wishes.quick_test,
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
