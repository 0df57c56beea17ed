"""`tollgate manifest wrap`: a manifest becomes the TrainingRun that `kubectl apply` takes, with the same digest."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

from tollgate.api.quantities import parse_duration, parse_usd
from tollgate.contract import API_VERSION, LABEL_PROMOTE_TO
from tollgate.manifest.loader import LoadedManifest, load_bytes
from tollgate.manifest.writing import to_yaml
from tollgate_cli import options
from tollgate_cli.errors import UserError
from tollgate_cli.helping import ending
from tollgate_cli.wishes import Wishes, effective

LONGEST_NAME = 40
"""Of a run, so that the names of its Jobs and pods fit; the API server refuses more."""
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


def _claim(ctx: click.Context, option: click.Parameter, value: str) -> dict[str, str]:
    """`CLAIM` or `CLAIM:FOLDER`. Raises: BadParameter for no name of a claim, or a folder that leaves it."""
    name, _, folder = value.partition(":")
    if not _SUBDOMAIN.fullmatch(name):
        raise click.BadParameter(f"{name!r} is not the name of a claim. kubectl get pvc lists them.")
    if folder.startswith("/") or ".." in Path(folder).parts:
        raise click.BadParameter(f"{folder!r} leaves the claim. Name a folder relative to its root: {name}:folder")
    return {"claimName": name} | ({"path": folder} if folder else {})


def _money(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    return _parsed(value, parse_usd)


def _duration(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    return _parsed(value, parse_duration)


def _parsed(value: str | None, parse: Any) -> str | None:
    if value is not None:
        try:
            parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    return value


@click.command(
    epilog=ending(
        "tollgate manifest wrap manifest.yaml --dataset-claim datasets --output-claim models --max-cost 5 "
        "| kubectl apply -f -"
    )
)
@options.ARGUMENT
@options.overriding
@click.option(
    "--dataset-claim", required=True, metavar="CLAIM[:FOLDER]", callback=_claim, help="Where the data lies; read-only."
)
@click.option(
    "--output-claim", required=True, metavar="CLAIM[:FOLDER]", callback=_claim, help="Where to; FOLDER: the run's name."
)
@click.option("--max-cost", metavar="USD", callback=_money, help="The cap.  [default: resources.max_budget_usd]")
@click.option(
    "--max-runtime", metavar="DURATION", callback=_duration, help="Such as 90m, over all attempts.  [default: no limit]"
)
@click.option(
    "--evaluation-timeout",
    metavar="DURATION",
    callback=_duration,
    help="Of the evaluation pod; the cap keeps the money for so long.  [default: 30m]",
)
@click.option("--profile", metavar="NAME", help="ComputeProfile.  [default: that of compute_target]")
@click.option("--nodes", type=click.IntRange(1, 400), help="Pods that train together; needs --profile.  [default: 1]")
@click.option("--policy", metavar="NAME", help="PromotionPolicy that judges the model.  [default: none]")
@click.option("--promote-to", metavar="STAGE", help="Ask for this stage at once, by the label.")
@click.option("--name", metavar="NAME", help="Of the TrainingRun.  [default: the manifest's]")
@click.option("--namespace", metavar="NAME", help="[default: that of your kubectl context]")
def wrap(
    file: Path,
    wishes: Wishes,
    dataset_claim: dict[str, str],
    output_claim: dict[str, str],
    max_cost: str | None,
    max_runtime: str | None,
    evaluation_timeout: str | None,
    profile: str | None,
    nodes: int | None,
    policy: str | None,
    promote_to: str | None,
    name: str | None,
    namespace: str | None,
) -> None:
    """Print MANIFEST as a TrainingRun, for `kubectl apply`.

    The manifest inside keeps its digest, so the cluster trains what the laptop tried. Paths in it are then relative to
    the folder on the dataset claim.
    """
    loaded = effective(file, wishes, os.environ).loaded
    if max_cost is None and loaded.manifest.resources.max_budget_usd is None:
        raise UserError(f"{file}: nothing says what the run may cost. Add --max-cost USD, or resources.max_budget_usd.")
    if nodes is not None and profile is None:
        raise UserError("--nodes needs --profile, which says what a node is. kubectl get computeprofiles lists them.")
    if promote_to is not None and policy is None:
        raise UserError("--promote-to needs --policy, whose stage it names. kubectl get promotionpolicies lists them.")
    name = run_name(name or loaded.manifest.name, given=name is not None)
    limits = {"maxCostUSD": max_cost, "maxRuntime": max_runtime}
    metadata: dict[str, Any] = {"name": name}
    metadata |= {"namespace": namespace} if namespace else {}
    metadata |= {"labels": {LABEL_PROMOTE_TO: promote_to}} if promote_to else {}
    spec: dict[str, Any] = {"manifest": loaded.document}
    if profile is not None:
        spec["compute"] = {"profile": profile} | ({"nodes": nodes} if nodes else {})
    spec["storage"] = {"dataset": dataset_claim, "output": {"path": name} | output_claim}
    spec["limits"] = {key: value for key, value in limits.items() if value is not None}
    spec |= {"evaluation": {"timeout": evaluation_timeout}} if evaluation_timeout else {}
    spec |= {"policyRef": {"name": policy}} if policy else {}
    click.echo(as_yaml(metadata, spec, loaded), nl=False)


def run_name(name: str, *, given: bool) -> str:
    """A name that Kubernetes takes. Raises: UserError with one that would do."""
    if _LABEL.fullmatch(name) and len(name) <= LONGEST_NAME:
        return name
    mended = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:LONGEST_NAME].strip("-") or "my-model"
    where = "--name" if given else "name in the manifest"
    raise UserError(
        f"{where}: {name!r} can't name a TrainingRun (lower-case letters, digits and -, at most {LONGEST_NAME}). "
        f"Add --name {mended}"
    )


def as_yaml(metadata: dict[str, Any], spec: dict[str, Any], loaded: LoadedManifest) -> str:
    """The object as text that loads as the same manifest."""
    run = {"apiVersion": API_VERSION, "kind": "TrainingRun", "metadata": metadata, "spec": spec}
    source = loaded.source.replace("\n", " ")
    text = f"# {source}, {loaded.digest}\n{to_yaml(run)}"
    again = load_bytes(text.encode(), loaded.source)
    assert again.digest == loaded.digest, "a manifest does not survive being written"
    return text
