"""What a document is, whatever file it came from."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from functools import cached_property

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that stands in a document's text: text[start:start + len(text)] of the document is `text`."""

    text: str
    start: int


@dataclass(frozen=True)
class Document:
    """One document: plain text, or the turns of a conversation. `origin` is file:line, for messages.

    label: the class, for classification and joint. question: what is asked of the text (a question or a criterion), and
    answers: where it is answered, for span and joint; () is "the text has no answer", None "this is not a span
    document". source: the name of the source that it came from. group: documents of one group stay in one split.
    completion: where in `text` the completion of a prompt begins; a tokenizer without a chat template takes the loss
    from there on.
    """

    text: str
    origin: str
    messages: tuple[Message, ...] | None = None
    label: str | None = None
    question: str | None = None
    answers: tuple[Answer, ...] | None = None
    source: str = ""
    group: str | None = None
    completion: int | None = None

    @classmethod
    def of_chat(cls, messages: tuple[Message, ...], origin: str, group: str | None = None) -> Document:
        """A conversation; its text is that of its turns, a line break between two."""
        return cls("\n".join(message.content for message in messages), origin, messages, group=group)

    @classmethod
    def of_completion(cls, prompt: str, completion: str, origin: str, group: str | None = None) -> Document:
        """A prompt and what follows; a line break comes between them where neither has white space there."""
        joint = "" if prompt[-1:].isspace() or completion[:1].isspace() else "\n"
        turns = (Message("user", prompt), Message("assistant", completion))
        return cls(prompt + joint + completion, origin, turns, group=group, completion=len(prompt + joint))

    @cached_property
    def hash(self) -> str:
        """Hex sha256 of the normalised text: Unicode NFC, case folded, white space collapsed. Equal for duplicates."""
        return _normal_hash(self.text)

    @property
    def split_key(self) -> str:
        """Hex sha256 that decides on which side of a split the document lies: its group's, else its text's."""
        return self.hash if self.group is None else hashlib.sha256(b"group\0" + self.group.encode()).hexdigest()

    @property
    def id(self) -> str:
        """A short name that stays the same when the file is reordered."""
        return self.hash[:16]


def _normal_hash(text: str) -> str:
    normal = " ".join(unicodedata.normalize("NFC", text).casefold().split())
    return hashlib.sha256(normal.encode()).hexdigest()
