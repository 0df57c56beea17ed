"""Log-likelihoods of token sequences under a causal language model, in batches that fit the memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tollgate_trainer.data.tokens import IGNORED, Sample

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_LOGITS = 32_000_000  # logits held at once: 128 MB in fp32
_BATCH = 32


def log_likelihoods(
    model: PreTrainedModel, samples: Sequence[Sample], device: torch.device
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """(sum of log p over the labelled tokens in nats, how many there are), both of shape [samples].

    The first token of a sequence is never predicted. Sequences are sorted by length into padded batches; an attention
    mask keeps the padding out.
    """
    import torch

    sums, counts = np.zeros(len(samples)), np.zeros(len(samples))
    order = sorted(range(len(samples)), key=lambda index: -len(samples[index].input_ids))
    vocabulary = int(model.config.vocab_size)
    first = 0
    with torch.inference_mode():
        while first < len(order):
            length = len(samples[order[first]].input_ids)
            size = max(1, min(_BATCH, _LOGITS // max(1, length * vocabulary)))
            batch = order[first : first + size]
            first += size
            ids = torch.zeros((len(batch), length), dtype=torch.int64)
            labels = torch.full((len(batch), length), IGNORED, dtype=torch.int64)
            mask = torch.zeros((len(batch), length), dtype=torch.int64)
            for row, index in enumerate(batch):
                tokens = len(samples[index].input_ids)
                ids[row, :tokens] = torch.from_numpy(samples[index].input_ids)
                labels[row, :tokens] = torch.from_numpy(samples[index].labels)
                mask[row, :tokens] = 1
            logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
            targets = labels[:, 1:].to(device)
            losses = torch.nn.functional.cross_entropy(
                logits[:, :-1].float().transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
            )
            sums[batch] = -losses.double().sum(dim=1).cpu().numpy()
            counts[batch] = (targets != IGNORED).sum(dim=1).cpu().numpy()
    return sums, counts
