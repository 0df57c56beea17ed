"""chrF, ROUGE-L and BLEU: how much of a reference a completion repeats. Cheap, and no judge of what is right.

ROUGE-L is our own: the common package keeps Latin letters only and gives 0 for everything else. BLEU is measured on
translations alone, which it was made for. Sources: Popović 2015 (chrF), Lin 2004 (ROUGE), Papineni et al. 2002 (BLEU),
Post 2018 (sacrebleu).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import sacrebleu

from tollgate_trainer.evaluate import generate, prompts
from tollgate_trainer.evaluate.prompts import Prompt
from tollgate_trainer.evaluate.protocol import Subject
from tollgate_trainer.evaluate.quality import pair
from tollgate_trainer.evaluate.samples import Indices, Mean, Measured, Statistic
from tollgate_trainer.refusal import DatasetRefused

# Scripts that put no space between words: each character is a word.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


class TextOverlap:
    """chrf and rouge_l: means over prompts, of the held-out answers or of a prompt set with references."""

    name = "text_overlap"
    version = "1"

    def measure(self, subject: Subject) -> list[Measured]:
        """Both metrics on the same completions. Raises: DatasetRefused when nothing has a reference."""
        path = subject.settings.prompt_sets.text
        field = "evaluation.prompt_sets.text"
        read = prompts.read(subject, path, field, ("reference",)) if path else _held_out(subject)
        asked, replies, common = _completed(subject, read, self.name)
        rouge = [
            [rouge_l(reply, p.others["reference"]) for reply in own] for own, p in zip(replies, asked, strict=True)
        ]
        return [
            Measured("chrf", _mean(_chrf(asked, replies)), scorer="sacrebleu-chrf", **common),
            Measured("rouge_l", _mean(rouge), scorer="rouge_l", **(common | {"scorer_version": self.version})),
        ]


class Translation:
    """chrf_translation and bleu, on a prompt set whose references are translations."""

    name = "translation"
    version = "1"

    def measure(self, subject: Subject) -> list[Measured]:
        """Both metrics on the same completions. Raises: ManifestRefused without the prompt set, DatasetRefused."""
        field = "evaluation.prompt_sets.translation"
        path = prompts.named(subject.settings.prompt_sets.translation, field, "a prompt set of translations")
        asked, replies, common = _completed(subject, prompts.read(subject, path, field, ("reference",)), self.name)
        return [
            Measured("chrf_translation", _mean(_chrf(asked, replies)), scorer="sacrebleu-chrf", **common),
            Measured("bleu", _bleu(asked, replies), scorer="sacrebleu-bleu", **common),
        ]


def _completed(
    subject: Subject, read: Sequence[Prompt], purpose: str
) -> tuple[list[Prompt], list[list[str]], dict[str, Any]]:
    asked = prompts.chosen(read, subject, purpose)
    replies, decoding = generate.completions(subject, [prompt.text for prompt in asked])
    common = {
        "prompts_digest": prompts.digest_of(asked),
        "scorer_version": sacrebleu.__version__,
        "units": tuple(prompt.key for prompt in asked),
        "decoding": decoding,
    }
    return asked, replies, common


def _held_out(subject: Subject) -> list[Prompt]:
    pairs = [found for document in subject.held_out if (found := pair(document)) is not None]
    if not pairs:
        raise DatasetRefused(
            "no held-out document has a question and an answer; name evaluation.prompt_sets.text", "dataset.path"
        )
    return [Prompt(one.question, {"reference": one.answer}, one.document.origin) for one in pairs]


def _mean(values: Sequence[Sequence[float]]) -> Mean:
    clusters = [number for number, own in enumerate(values) for _ in own]
    return Mean.clustered(clusters, [value for own in values for value in own])


def _chrf(asked: Sequence[Prompt], replies: Sequence[Sequence[str]]) -> list[list[float]]:
    """ChrF of each completion, 0 to 1."""
    scorer = sacrebleu.CHRF()
    return [
        [scorer.sentence_score(reply, [prompt.others["reference"]]).score / 100 for reply in own]
        for own, prompt in zip(replies, asked, strict=True)
    ]


def _bleu(asked: Sequence[Prompt], replies: Sequence[Sequence[str]]) -> Statistic:
    """Corpus BLEU, 0 to 1, from the counts of each prompt's completions: sums over any set of prompts."""
    scorer = sacrebleu.BLEU(effective_order=True)
    counts = np.zeros((len(asked), 10))
    for row, (own, prompt) in enumerate(zip(replies, asked, strict=True)):
        for reply in own:
            found = scorer.sentence_score(reply, [prompt.others["reference"]])
            counts[row] += [*found.counts, *found.totals, found.sys_len, found.ref_len]

    def compute(chosen: Indices) -> float:
        total = [int(number) for number in counts[chosen].sum(axis=0)]
        score = sacrebleu.BLEU.compute_bleu(total[:4], total[4:8], total[8], total[9], smooth_method="exp")
        return float(score.score) / 100

    return Statistic(len(asked), compute)


def rouge_l(completion: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, 0 to 1; two texts without a word are equal."""
    ours, theirs = words(completion), words(reference)
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * common_subsequence(ours, theirs) / (len(ours) + len(theirs))


def words(text: str) -> list[str]:
    """Runs of letters, marks and digits of any script, folded; characters of scripts without spaces stand alone."""
    found: list[str] = []
    run = ""
    for character in unicodedata.normalize("NFC", text.casefold()):
        alone = unicodedata.name(character, "").startswith(_UNSPACED)
        if unicodedata.category(character)[0] not in "LMN":
            run = _ended(run, found)
        elif alone and unicodedata.category(character)[0] != "M":
            _ended(run, found)
            run = character
        else:
            if run and not alone and unicodedata.name(run[0], "").startswith(_UNSPACED):
                run = _ended(run, found)
            run += character
    _ended(run, found)
    return found


def _ended(run: str, found: list[str]) -> str:
    if run:
        found.append(run)
    return ""


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence; one big number holds a row of the table.

    Source: Hyyrö 2004, Bit-parallel LCS-length computation revisited.
    """
    places: dict[str, int] = {}
    for index, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << index
    every = (1 << len(first)) - 1
    row = every
    for word in second:
        matched = row & places.get(word, 0)
        row = ((row + matched) | (row - matched)) & every
    return len(first) - row.bit_count()
