"""Personal data that has a form: e-mail addresses, telephone numbers, payment cards and IBANs. Pure functions.

Names, addresses and health records have no form and are not found; a count of 0 says "none of these four", never
"no personal data". Checks beyond the pattern keep false alarms low: cards by Luhn and IBANs by their check digits
(python-stdnum), telephone numbers by the numbering plans of libphonenumber.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["email", "phone", "card", "iban"]
KINDS: tuple[Kind, ...] = ("iban", "card", "email", "phone")
"""In the order in which they win where two overlap: the digits of a card are no telephone number."""

EMAIL = re.compile(
    r"(?<![\w.+%-])[A-Za-z0-9_%+-]+(?:\.[A-Za-z0-9_%+-]+)*"  # the part before the @
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![\w-])"
)
CARD = re.compile(r"(?<![\w.,-])\d(?:[ -]?\d){12,18}(?![\w-]|[.,]\d)")
IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
PHONE = re.compile(r"(?<![\w.,:/-])[+(]?\d(?:[ ().\-/]{0,2}\d){6,14}(?!\w)")
"""What may be one; libphonenumber decides. It takes ten times as long, so it is not asked about whole texts."""
REGION = "US"
"""Numbers without +country are read by this plan; those of other countries are found in their + form only."""


@dataclass(frozen=True, slots=True)
class Finding:
    """text[start:end] looks like personal data of this kind."""

    kind: Kind
    start: int
    end: int


def find(text: str) -> list[Finding]:
    """What looks like personal data, in order of place; findings do not overlap."""
    found: list[Finding] = []
    taken: list[tuple[int, int]] = []
    for finding in (*_ibans(text), *_cards(text), *_emails(text), *_phones(text)):
        if all(finding.end <= start or end <= finding.start for start, end in taken):
            found.append(finding)
            taken.append((finding.start, finding.end))
    return sorted(found, key=lambda finding: finding.start)


def redact(text: str) -> tuple[str, dict[str, int]]:
    """(the text with `[EMAIL]`, `[PHONE]`, `[CARD]`, `[IBAN]` in place of findings, how many of each kind).

    Kinds that were not found are absent from the counts. Redacting twice changes nothing more.
    """
    findings = find(text)
    return replaced(text, findings), dict(Counter(finding.kind for finding in findings))


def replaced(text: str, findings: Sequence[Finding]) -> str:
    """The text with a mark in place of each finding; findings are in order and do not overlap."""
    parts, last = [], 0
    for finding in findings:
        parts += [text[last : finding.start], mark(finding.kind)]
        last = finding.end
    return "".join([*parts, text[last:]])


def mark(kind: Kind) -> str:
    """What stands in the place of a finding."""
    return f"[{kind.upper()}]"


@dataclass(frozen=True, slots=True)
class Moved:
    """Where a place of the text lies after its findings were replaced."""

    findings: tuple[Finding, ...]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The new place of text[start:end]; one that cuts into a finding takes the whole mark with it."""
        return self._place(start, start=True), self._place(end, start=False)

    def _place(self, place: int, *, start: bool) -> int:
        before = bisect_right(self.findings, place, key=lambda finding: finding.start)
        shift = sum(len(mark(f.kind)) - (f.end - f.start) for f in self.findings[:before] if f.end <= place)
        last = self.findings[before - 1] if before else None
        if last is not None and last.start < place < last.end:
            return last.start + shift + (0 if start else len(mark(last.kind)))
        # At a finding's own start nothing of it lies before the place, and its length is not in the shift yet.
        return place + shift


def _emails(text: str) -> Iterator[Finding]:
    if "@" in text:
        for match in EMAIL.finditer(text):
            yield Finding("email", *match.span())


def _cards(text: str) -> Iterator[Finding]:
    for match in CARD.finditer(text):
        from stdnum import luhn

        digits = re.sub(r"[ -]", "", match.group())
        # No card begins with 0 and none is one digit repeated, though both may pass Luhn.
        if digits[0] in "123456" and len(set(digits)) > 1 and luhn.is_valid(digits):
            yield Finding("card", *match.span())


def _ibans(text: str) -> Iterator[Finding]:
    for match in IBAN.finditer(text):
        from stdnum import iban

        # The pattern may run on into a following word in capitals; the country's own length says where it ends.
        start, end = match.span()
        while end - start >= 15:
            if text[end - 1] != " " and iban.is_valid(text[start:end].replace(" ", "")):
                yield Finding("iban", start, end)
                break
            end -= 1


def _phones(text: str) -> Iterator[Finding]:
    for candidate in PHONE.finditer(text):
        import phonenumbers

        # Grouped as its country groups it: ten digits in a row are a number of anything.
        leniency = phonenumbers.Leniency.STRICT_GROUPING
        for match in phonenumbers.PhoneNumberMatcher(candidate.group(), REGION, leniency=leniency):
            if match.raw_string.startswith("+") or not match.raw_string.isdigit():
                yield Finding("phone", candidate.start() + match.start, candidate.start() + match.end)
