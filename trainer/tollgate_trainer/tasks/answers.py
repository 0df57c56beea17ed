"""Answers that stand in a text: comparing them, choosing them over windows, and when there is none. Pure."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tollgate_trainer.data.documents import Document

_ARTICLES = re.compile(r"\b(a|an|the)\b")
NO_ANSWER = ""


def normalised(text: str) -> str:
    """Case folded, without punctuation, English articles and surplus white space.

    Source: Rajpurkar et al. 2016 (SQuAD); punctuation is Unicode's, so that it works outside Latin too.
    """
    plain = "".join(" " if unicodedata.category(c).startswith("P") else c for c in text.casefold())
    return " ".join(_ARTICLES.sub(" ", plain).split())


def exact_match(answer: str, right: Sequence[str]) -> bool:
    """Whether the answer is one of the right ones, up to `normalised`; none is right when there is no right one."""
    if not right:
        return answer == NO_ANSWER
    return answer != NO_ANSWER and any(_key(answer) == _key(one) for one in right)


def token_f1(answer: str, right: Sequence[str]) -> float:
    """The best F1 of the answer's words against a right answer's; 1 or 0 when there is none to give."""
    if not right or answer == NO_ANSWER:
        return float(answer == NO_ANSWER and not right)
    return max(_overlap(_words(answer), _words(one)) for one in right)


def _key(text: str) -> str:
    return normalised(text) or text.strip()  # an answer of punctuation only is compared as it stands


def _words(text: str) -> Counter[str]:
    return Counter(_key(text).split())


def _overlap(given: Counter[str], right: Counter[str]) -> float:
    common = (given & right).total()
    return 2 * common / (given.total() + right.total()) if common else 0.0


# --- from logits to a span --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """The best span of a text. null: the score of "no answer"; best: of text[start:end], in characters."""

    null: float
    best: float
    start: int
    end: int

    @property
    def doubt(self) -> float:
        """By how much "no answer" scores higher than the best span."""
        return self.null - self.best

    def answer(self, text: str, threshold: float | None) -> str:
        """The answer, or NO_ANSWER where the doubt is above the threshold; without a threshold always the span."""
        if threshold is not None and self.doubt > threshold:
            return NO_ANSWER
        return text[self.start : self.end].strip()


def best_span(
    starts: npt.NDArray[np.float32], ends: npt.NDArray[np.float32], offsets: npt.NDArray[np.int32], longest: int
) -> Found:
    """The best span of one window.

    Args: starts, ends: logits, shape [tokens]; offsets: characters of each token, shape [tokens, 2], -1 where the
    token is not the text's; longest: tokens of an answer. Token 0 stands for "no answer".
    """
    text = np.flatnonzero(offsets[:, 0] >= 0)
    first, tokens = int(text[0]), len(text)  # the text's tokens stand together
    begin, finish = starts[first : first + tokens].astype(np.float64), ends[first : first + tokens].astype(np.float64)
    best, start, end = -math.inf, 0, 0
    for distance in range(min(longest, tokens)):
        scores = begin[: tokens - distance] + finish[distance:]
        place = int(scores.argmax())
        if scores[place] > best or math.isnan(scores[place]):
            best, start, end = float(scores[place]), place, place + distance
    return Found(
        null=float(starts[0]) + float(ends[0]),
        best=best,
        start=int(offsets[first + start, 0]),
        end=int(offsets[first + end, 1]),
    )


def over_windows(windows: Iterable[Found]) -> Found:
    """The best span of all windows; "no answer" scores as in the window that believes least in it.

    Source: the evaluation of SQuAD 2.0 (Rajpurkar et al. 2018) in BERT's reference implementation.
    """
    found = list(windows)
    best = max(found, key=lambda window: window.best)
    return Found(min(window.null for window in found), best.best, best.start, best.end)


# --- no answer --------------------------------------------------------------------------------------------------------


def calibrates(document: Document) -> bool:
    """Whether the threshold may be chosen on this held-out document: about half of them, by a hash of their text.

    The others are judged, so that no document both sets the threshold and is measured with it.
    """
    return hashlib.sha256(f"calibration\0{document.hash}".encode()).digest()[0] < 128


def choose_threshold(doubts: Sequence[float], answered: Sequence[float], silent: Sequence[float]) -> float:
    """The threshold of doubt with the best mean score.

    Args: doubts: of each document, shape [documents]; answered: its score when the span is given; silent: its score
    when "no answer" is given. Between two documents the threshold lies in the middle; among equals the one nearest to
    zero wins.
    Raises: ValueError without documents, or for a doubt that is not finite.
    """
    if not doubts or not all(map(math.isfinite, doubts)):
        raise ValueError("a threshold needs documents with finite scores")
    order = np.argsort(np.asarray(doubts), kind="stable")
    sorted_doubts = np.asarray(doubts, dtype=np.float64)[order]
    gained = np.concatenate([[0.0], np.cumsum(np.asarray(answered, dtype=np.float64)[order])])
    kept = np.asarray(silent, dtype=np.float64)[order]
    total = gained + np.concatenate([np.cumsum(kept[::-1])[::-1], [0.0]])
    places = [min(0.0, float(np.nextafter(sorted_doubts[0], -np.inf)))]
    places += [float(low + high) / 2 for low, high in pairwise(sorted_doubts)]
    places.append(max(0.0, float(sorted_doubts[-1])))
    # A cut between two equal doubts does not exist: both are answered or both are not.
    possible = [
        cut for cut in range(len(places)) if cut in (0, len(places) - 1) or sorted_doubts[cut - 1] < sorted_doubts[cut]
    ]
    best = max(float(total[cut]) for cut in possible)
    return min((places[cut] for cut in possible if total[cut] >= best - 1e-9), key=abs)
