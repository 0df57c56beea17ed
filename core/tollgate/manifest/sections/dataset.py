"""`dataset`: what is trained on, and what is held out of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tollgate.manifest.sections.section import Ratio, Section, Sha256, Weight

Format = Literal["auto", "conversations", "chat", "prompt_completion", "text", "classification", "span", "joint"]


class Splits(Section):
    """Which part is held out. Either shares of one file, or files of their own."""

    validation: Ratio = Field(
        default=0.1, description="Share of documents held out for validation and evaluation, by a hash of their text."
    )
    validation_path: str | None = Field(
        default=None, description="A file of its own for validation; then `validation` is not used."
    )


class DataSource(Section):
    """Another file or folder that is trained on; what it does not say is as in `dataset`."""

    path: str = Field(min_length=1, description="A file, or a folder of files of one format.")
    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="In events and as eval_loss/<name>. Default: the file's, without suffix.",
    )
    format: Format | None = None
    weight: Weight = Field(default=1.0, description="How often its documents are trained on in an epoch.")
    sha256: Sha256 | None = Field(default=None, description="Checked before training when given.")


class Dataset(Section):
    """The training data. `path` is relative to the manifest's file on a laptop and to the dataset volume on a
    cluster.
    """

    path: str = Field(min_length=1, description="A file, or a folder of files of one format.")
    name: str | None = Field(default=None, description="For people.")
    version: str | None = Field(default=None, description="For people.")
    format: Format = Field(
        default="auto",
        description="What a record means; the suffix says how it is read (.json .jsonl .csv .tsv .parquet .txt). "
        "auto: the task's, or for causal-lm what the keys say (docs/how-to/data.md).",
    )
    commit_hash: str | None = Field(default=None, description="For people: the revision of the data.")
    sha256: Sha256 | None = Field(default=None, description="Checked before training when given.")
    size_bytes: int | None = Field(default=None, ge=0, description="Checked before training when given.")
    created_at: str | None = Field(default=None, description="For people; quote it, it looks like a date.")
    splits: Splits = Field(default_factory=Splits)
    text_field: str = Field(default="text", description="The field of the text; for span also `context` by default.")
    label_field: str = Field(default="label", description="classification, joint: the field of the class.")
    question_field: str = Field(
        default="question", description="span, joint: the field of the question; by default also `criterion`."
    )
    answer_field: str = Field(
        default="answer", description="span, joint: the field of the answer; by default also `answers`, as in SQuAD."
    )
    answer_start_field: str = Field(
        default="answer_start", description="span, joint: where the answer begins, in characters of the text."
    )
    group_field: str | None = Field(
        default=None,
        description="Records of one group stay on one side of the split, such as one patient's or author's.",
    )
    sources: list[DataSource] = Field(
        default_factory=list,
        description="More of them, each `{path, name, format, weight, sha256}`; all but path may be left out.",
    )
    weight: Weight = Field(
        default=1.0,
        description="How often documents of `path` are trained on in an epoch: 2 is twice, 0.5 another half in each.",
    )
    streaming: bool = Field(
        default=False,
        description="Read documents as they are tokenised instead of keeping them in memory; held-out ones are kept.",
    )
    privacy_preservation_enabled: bool = Field(
        default=False,
        description="Replace e-mail addresses, telephone numbers, payment cards and IBANs before anything else.",
    )
    limit: int | None = Field(
        default=None,
        ge=1,
        description="Train on so many documents at most, chosen by the hash of their text, and hold out in proportion; "
        "for a quick look.",
    )
