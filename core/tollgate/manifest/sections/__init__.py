"""The sections of a TrainingManifest, one file for each.

Every default of the document is written here and nowhere else. snake_case, as data scientists write it. What a section
says but this version cannot do yet is refused aloud by support.py, never ignored.
"""

from __future__ import annotations

from tollgate.manifest.sections.adapter import DEFAULT_BALANCE, DEFAULT_EXPERTS, DEFAULT_TOP_K, Adapter, Mixture
from tollgate.manifest.sections.dataset import Dataset, DataSource, Splits
from tollgate.manifest.sections.evaluation import Evaluation, Judge, PromptSets, Scorers
from tollgate.manifest.sections.extensions import Extensions
from tollgate.manifest.sections.hyperparameters import Hyperparameters, Optimizer, Reproducibility, Scheduler
from tollgate.manifest.sections.model import DEFAULT_CONFIG, Model
from tollgate.manifest.sections.parallelism import ParallelismOptions
from tollgate.manifest.sections.report import Report
from tollgate.manifest.sections.resources import Budget, Resources
from tollgate.manifest.sections.saving import Checkpoint, EarlyStopping
from tollgate.manifest.sections.section import Ratio, Section, Sha256, Weight
from tollgate.manifest.sections.tasks import Joint, Span
from tollgate.manifest.sections.tracking import Mlflow, Tracking, Wandb

__all__ = [
    "DEFAULT_BALANCE",
    "DEFAULT_CONFIG",
    "DEFAULT_EXPERTS",
    "DEFAULT_TOP_K",
    "Adapter",
    "Budget",
    "Checkpoint",
    "DataSource",
    "Dataset",
    "EarlyStopping",
    "Evaluation",
    "Extensions",
    "Hyperparameters",
    "Joint",
    "Judge",
    "Mixture",
    "Mlflow",
    "Model",
    "Optimizer",
    "ParallelismOptions",
    "PromptSets",
    "Ratio",
    "Report",
    "Reproducibility",
    "Resources",
    "Scheduler",
    "Scorers",
    "Section",
    "Sha256",
    "Span",
    "Splits",
    "Tracking",
    "Wandb",
    "Weight",
]
