"""Which documents are held out: decided by the hash of their text, so it never depends on order, seed or machine."""

from __future__ import annotations

from collections.abc import Sequence

from tollgate_trainer.data.documents import Document
from tollgate_trainer.refusal import DatasetRefused


def split(documents: Sequence[Document], share: float) -> tuple[list[Document], list[Document]]:
    """(training, validation). Duplicates fall on the same side, so no held-out text is trained on.

    With a share above 0 at least one document is held out, and always at least one is left to train on.
    Args: share: of held-out documents, in [0, 1].
    Raises: DatasetRefused when nothing would be left to train on.
    """
    limit = int(share * 2**64)
    held_out = {document.hash for document in documents if int(document.hash[:16], 16) < limit}
    if share > 0 and not held_out:
        held_out = {min(document.hash for document in documents)}
    train = [document for document in documents if document.hash not in held_out]
    if not train:
        raise DatasetRefused(
            f"all {len(documents)} documents fall into the validation share of {share:g}; lower it or add documents",
            "dataset.splits.validation",
        )
    return train, [document for document in documents if document.hash in held_out]
