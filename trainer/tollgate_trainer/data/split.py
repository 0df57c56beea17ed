"""Which documents are held out: decided by the hash of their group or text, so it never depends on order, seed or
machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tollgate_trainer.data.document import Document
from tollgate_trainer.refusal import DatasetRefused


def held_out_keys(keys: Iterable[str], share: float) -> set[str]:
    """Those of the split keys (hex sha256) that fall into the share; above 0 at least one.

    Raises: DatasetRefused when nothing would be left to train on.
    """
    limit = int(share * 2**64)
    every = set(keys)
    found = {key for key in every if int(key[:16], 16) < limit}
    if share > 0 and not found:
        found = {min(every)}
    if len(found) == len(every):
        raise DatasetRefused(
            f"all {len(every)} different documents (or groups) fall into the validation share of {share:g}; lower it "
            "or add documents",
            "dataset.splits.validation",
        )
    return found


def split(documents: Sequence[Document], share: float) -> tuple[list[Document], list[Document]]:
    """(training, validation). Duplicates and groups fall on one side, so no held-out text is trained on.

    With a share above 0 at least one document is held out, and always at least one is left to train on.
    Args: share: of held-out documents, in [0, 1].
    Raises: DatasetRefused when nothing would be left to train on.
    """
    held_out = held_out_keys((document.split_key for document in documents), share)
    train = [document for document in documents if document.split_key not in held_out]
    return train, [document for document in documents if document.split_key in held_out]
