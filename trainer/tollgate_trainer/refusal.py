"""What the trainer refuses, in words that its user can act on. Exit code 64, never restarted."""

from __future__ import annotations

from tollgate.contract import FailureReason


class Refused(Exception):  # noqa: N818 - the word of the contract (ManifestRefused, DatasetRefused, ...)
    """Something that the user gave cannot be used.

    Args: message: what is wrong, where, with the value, and what to do; field: the manifest's field that mends it.
    """

    reason = FailureReason.MANIFEST

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field

    def __str__(self) -> str:
        text = str(self.args[0])
        return f"{self.field}: {text}" if self.field and not text.startswith(self.field) else text


class ManifestRefused(Refused):
    """The manifest cannot be carried out."""


class DatasetRefused(Refused):
    """The dataset is missing, is not the one that the manifest names, or holds something that cannot be read."""

    reason = FailureReason.DATASET


class ModelRefused(Refused):
    """The model or its tokenizer cannot be made or loaded."""

    reason = FailureReason.MODEL


class OutputRefused(Refused):
    """The output folder holds the work of another manifest or dataset."""

    reason = FailureReason.OUTPUT
