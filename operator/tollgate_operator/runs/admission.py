"""Whether a run can be started as it stands: every reason why not, with the fix in its message."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tollgate.api.training_run import ClaimFolder, ConditionType
from tollgate.contract import MAX_NAME, Role
from tollgate.limits.refusal import Refusal
from tollgate.manifest.paths import stray
from tollgate_operator.facts import ClaimFacts, RunFacts
from tollgate_operator.runs.names import folder_path
from tollgate_operator.runs.situation import Situation
from tollgate_operator.runs.terms import Terms, evaluation_of, named_profile, terms

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SHARED = frozenset({"ReadWriteMany"})
_READ_SHARED = _SHARED | {"ReadOnlyMany"}


def refusal(situation: Situation) -> Refusal | None:
    """What is wrong with the run by what the store knows; None: nothing."""
    name = situation.run.key.name
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        return Refusal(
            "InvalidName",
            f"metadata.name {name!r} is not a DNS label of at most {MAX_NAME} characters (a-z, 0-9 and -); names of "
            "pods and hosts are made from it. Apply the run under a shorter name without dots",
        )
    if found := _manifest(situation) or _paths(situation):
        return found
    agreed = terms(situation, Role.TRAIN)
    if isinstance(agreed, Refusal):
        return agreed
    return _references(situation) or _output_taken(situation)


def claims_of(situation: Situation) -> tuple[str, ...]:
    """The claims that the run's pods mount, each once."""
    spec = situation.spec
    names = [spec.storage.dataset.claim_name, spec.storage.output.claim_name]
    for role in (Role.TRAIN, Role.EVALUATE):
        agreed = terms(situation, role)
        if isinstance(agreed, Terms) and agreed.profile.environment is not None:
            names.append(agreed.profile.environment.claim_name)
    return tuple(dict.fromkeys(names))


def claims_refusal(situation: Situation, claims: Mapping[str, ClaimFacts | None]) -> Refusal | None:
    """What is wrong with the claims, asked for live; None: nothing."""
    namespace, spec = situation.run.key.namespace, situation.spec
    fields = {
        spec.storage.output.claim_name: "spec.storage.output.claimName",
        spec.storage.dataset.claim_name: "spec.storage.dataset.claimName",
    }
    for name in claims_of(situation):
        field = fields.get(name, "the ComputeProfile's spec.environment.claimName")
        claim = claims.get(name)
        if claim is None:
            return Refusal(
                "ClaimMissing",
                f"{field} is {name!r}, and namespace {namespace} has no such PersistentVolumeClaim; create it, or name "
                "another one",
            )
        if claim.phase == "Lost":
            return Refusal("ClaimLost", f"PersistentVolumeClaim {name} has lost its volume; restore it")
    compute = spec.compute
    if compute is None or compute.nodes == 1:
        return None
    for folder, allowed, use in (
        (spec.storage.output, _SHARED, "output"),
        (spec.storage.dataset, _READ_SHARED, "dataset"),
    ):
        claim = claims.get(folder.claim_name)
        if claim is not None and not allowed & set(claim.access_modes):
            return Refusal(
                "ClaimNotShared",
                f"spec.compute.nodes is {compute.nodes}, but claim {folder.claim_name} (spec.storage.{use}) has access "
                f"modes {', '.join(claim.access_modes) or 'none'}: one node only. Use a claim with "
                f"{' or '.join(sorted(allowed))}, or nodes: 1",
            )
    return None


def holder_of_output(situation: Situation) -> RunFacts | None:
    """The other run that has this output folder: not over, and before this one in line."""
    mine = _place_in_line(situation.run)
    rivals = [run for run in situation.neighbours if not is_over(run) and _place_in_line(run) < mine]
    return min(rivals, key=_place_in_line, default=None)


def is_over(run: RunFacts) -> bool:
    """Succeeded or Failed: it will not write any more."""
    over = (ConditionType.COMPLETE, ConditionType.FAILED)
    return any(c.type in over and c.status == "True" for c in run.status.conditions)


def _place_in_line(run: RunFacts) -> tuple[bool, str, str]:
    """Whoever was accepted has the folder; otherwise the older one. Creation is told in whole seconds, so that age
    alone would let a run that came in the same second take the folder from one that already trains.
    """
    accepted = any(c.type == ConditionType.ACCEPTED and c.status == "True" for c in run.status.conditions)
    return (not accepted, run.created.isoformat() if run.created else "", run.uid)


def _manifest(situation: Situation) -> Refusal | None:
    if situation.manifest is None:
        return Refusal("ManifestRefused", situation.manifest_problem)
    pinned = situation.status.manifest_digest
    if pinned is not None and pinned != situation.manifest.digest:
        return Refusal(
            "ManifestChanged",
            f"spec.manifest now has {situation.manifest.digest}, but {pinned} was accepted, and a run has one "
            "manifest; put the old one back, or apply the new one as another run",
        )
    return None


def _paths(situation: Situation) -> Refusal | None:
    storage = situation.spec.storage
    folders: tuple[tuple[str, ClaimFolder], ...] = (
        ("spec.storage.dataset.path", storage.dataset),
        ("spec.storage.output.path", storage.output),
    )
    for field, folder in folders:
        if folder.path and (problem := stray(field, folder.path)):
            return Refusal("InvalidPath", str(problem))
        if ".." in folder_path(folder).split("/"):
            return Refusal("InvalidPath", f"{field} is {folder.path!r}; write it without '..'")
    return None


def _references(situation: Situation) -> Refusal | None:
    spec, namespace = situation.spec, situation.run.key.namespace
    manifest = situation.manifest.manifest if situation.manifest else None
    if manifest is not None:
        wanted = evaluation_of(spec, manifest)
        if wanted.enabled and wanted.profile is not None:
            found = named_profile(situation.profiles, wanted.profile, "spec.evaluation.profile")
            if isinstance(found, Refusal):
                return found
        if wanted.baseline is not None and situation.baseline is None:
            return Refusal(
                "BaselineUnknown",
                f"spec.evaluation.baseline.runName is {wanted.baseline.run_name!r}, and namespace {namespace} has no "
                "such TrainingRun",
            )
    if spec.policy_ref is None:
        return None
    policy = situation.policy
    if policy is None:
        return Refusal(
            "PolicyUnknown",
            f"spec.policyRef.name is {spec.policy_ref.name!r}, and namespace {namespace} has no such PromotionPolicy; "
            "create it, or take policyRef out",
        )
    if policy.spec is None:
        return Refusal("PolicyUnreadable", f"PromotionPolicy {policy.name} cannot be read: {policy.problem}")
    asking = [stage.name for stage in policy.spec.stages if stage.approvals.min > 0]
    if asking:
        return Refusal(
            "ApprovalsUnsupported",
            f"PromotionPolicy {policy.name} asks for approvals in stage {', '.join(asking)}, which this version cannot "
            "hold; set approvals.min to 0, and let a pull request on the label be the approval",
        )
    return None


def _output_taken(situation: Situation) -> Refusal | None:
    holder = holder_of_output(situation)
    if holder is None:
        return None
    output = situation.spec.storage.output
    return Refusal(
        "OutputInUse",
        f"spec.storage.output {output.claim_name}/{folder_path(output)} is the output folder of TrainingRun "
        f"{holder.key.name}, which came first and is not over; choose another path, or delete that run",
    )
