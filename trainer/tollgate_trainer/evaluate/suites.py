"""Suites: named sets of evaluators with their sizes and seed, and the digest that says whether two were the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import EntryPoint, entry_points

from tollgate.manifest.canonical import digest, serialise
from tollgate_trainer.evaluate.protocol import GROUP, Evaluator
from tollgate_trainer.evaluate.samples import Measured
from tollgate_trainer.refusal import ManifestRefused

FIELD = "evaluation.suites"


@dataclass(frozen=True, slots=True)
class Suite:
    """Evaluators by name; `limit` documents, prompts or questions each, drawn with `seed`. A change takes a new
    version.
    """

    name: str
    version: int
    evaluators: tuple[str, ...]
    limit: int = 300
    seed: int = 20


SUITES = {
    suite.name: suite
    for suite in (
        Suite("standard", 1, ("perplexity", "quality_score")),
        Suite("safety", 1, ("toxicity", "crisis"), limit=2000),
        Suite("fairness", 1, ("fairness",), limit=2000),
        Suite("text", 1, ("bits_per_byte", "text_overlap")),
        Suite("translation", 1, ("translation",)),
        Suite("rubric", 1, ("rubric",)),
        Suite("classification", 1, ("classification",), limit=2000),
        Suite("auroc", 1, ("auroc",), limit=2000),
        Suite("span", 1, ("span",), limit=2000),
        Suite("joint", 1, ("joint",), limit=2000),
        Suite("legacy", 1, ("toxicity", "crisis", "fairness"), limit=2000),
    )
}


@dataclass(frozen=True, slots=True)
class Task:
    """An evaluator as one of the suites asks for it."""

    evaluator: Evaluator
    suite: Suite


def tasks(names: Sequence[str], found: Sequence[EntryPoint] | None = None) -> list[Task]:
    """The evaluators of the named suites, each once, in their order.

    A name is a suite's, or that of an evaluator which an installed package offers in the group `tollgate.evaluators`;
    Tollgate's own are registered there as well.
    Raises: ManifestRefused for an unknown name, for an evaluator that can't be loaded, and for one metric measured with
    two sizes.
    """
    offered = {point.name: point for point in entry_points(group=GROUP)}
    offered |= {point.name: point for point in found or ()}
    asked: dict[str, Task] = {}
    for name in names:
        suite = SUITES.get(name) or (Suite(name, 1, (name,)) if name in offered else None)
        if suite is None:
            known = ", ".join([*SUITES, *sorted(set(offered) - set(SUITES))])
            raise ManifestRefused(f"there is no suite {name!r}; known are {known}", FIELD)
        for metric in suite.evaluators:
            task = Task(_load(metric, offered), suite)
            if metric in asked and (asked[metric].suite.limit, asked[metric].suite.seed) != (suite.limit, suite.seed):
                raise ManifestRefused(
                    f"suites {asked[metric].suite.name} and {name} measure {metric} differently; keep one of them",
                    FIELD,
                )
            asked.setdefault(metric, task)
    return list(asked.values())


def suite_digest(measured: Sequence[tuple[Task, Measured]]) -> str:
    """`sha256:<hex>` over suites, sizes, seeds, decoding, scorers with versions and the digests of all prompts."""
    entries = [
        {
            "suite": task.suite.name,
            "version": task.suite.version,
            "limit": task.suite.limit,
            "seed": task.suite.seed,
            "metric": result.metric,
            "scorer": result.scorer,
            "scorerVersion": result.scorer_version,
            "prompts": result.prompts_digest,
        }
        | ({"scorerDigest": result.facts.digest} if result.facts.digest else {})
        | ({"decoding": asdict(result.decoding)} if result.decoding else {})
        for task, result in measured
    ]
    return digest(serialise(sorted(entries, key=json.dumps)))


def _load(name: str, offered: dict[str, EntryPoint]) -> Evaluator:
    try:
        evaluator: Evaluator = offered[name].load()()
    except KeyError as error:
        raise ManifestRefused(
            f"the evaluator {name!r} is not installed; install Tollgate again, so that its entry points are known",
            FIELD,
        ) from error
    except Exception as error:  # a package of somebody else's: whatever it raises, its evaluator is missing
        raise ManifestRefused(
            f"the evaluator {name!r} of {offered[name].value} can't be loaded ({type(error).__name__}: {error}); "
            "repair or remove that package",
            FIELD,
        ) from error
    return evaluator
