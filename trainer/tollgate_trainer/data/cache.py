"""Token ids of earlier starts: made once, written beside the run, checked and mapped into memory by all who want them.

An entry is a folder named by the digest of all that its tokens depend on: data, split, format and fields, tokenizer,
chat template, length, and the version of the code that makes them. It is written aside and renamed when it is whole, so
an entry that is there is complete; its bytes are compared with their digests before they are used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tollgate.manifest import canonical
from tollgate.manifest.training_manifest import TrainingManifest
from tollgate_trainer.data.chat import template_of
from tollgate_trainer.data.digest import file_digest
from tollgate_trainer.data.document import Document
from tollgate_trainer.data.tokens import Arrays, Flags, Ids, Statistics, TokenSet, tokenise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSION = 1
"""Of what encode and tokenise make of a document; raise it when they make something else."""
INFO = "tokens.json"
TYPES: Mapping[str, type[np.generic]] = {"ids": np.int32, "learned": np.uint8, "lengths": np.int64, "kept": np.int64}


class Spoiled(Exception):  # noqa: N818 - what it is
    """An entry that is not what was written."""


@dataclass(slots=True)
class TokenCache:
    """A folder of entries for one dataset. said: what happened, for the `data` event.

    identity: what the tokens depend on besides the tokenizer, as JSON values. checks: whether this process compares the
    bytes with their digests; one of an attempt does.
    """

    folder: Path
    identity: Mapping[str, Any]
    checks: bool = True
    said: dict[str, str] = field(default_factory=dict)

    def tokenised(
        self, name: str, documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> TokenSet:
        """The samples of a split: from the cache, else made and put there; where nothing can be written, only made.

        Raises: what tokenise raises.
        """
        if not len(documents):
            return tokenise(documents, tokenizer, max_length)
        key = self._key(name, tokenizer, max_length)
        entry = self.folder / key
        try:
            found = opened(entry, documents, self.checks)
            self.said[name] = f"reused {key[:12]}"
            return found
        except FileNotFoundError:
            self.said[name] = f"made {key[:12]}"
        except (Spoiled, OSError) as error:
            self.said[name] = f"made {key[:12]} again: {error}"
            shutil.rmtree(entry, ignore_errors=True)
        return self._make(entry, name, documents, tokenizer, max_length)

    def _make(
        self,
        entry: Path,
        name: str,
        documents: Sequence[Document],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
    ) -> TokenSet:
        aside = self.folder / f".{entry.name[:12]}-{uuid.uuid4().hex[:8]}"
        try:
            aside.mkdir(parents=True)
            store = _Files(aside)
        except OSError as error:
            self.said[name] = f"not kept: {error.strerror or error}"
            return tokenise(documents, tokenizer, max_length)
        try:
            statistics = tokenise(documents, tokenizer, max_length, store).statistics
            return _committed(aside, entry, statistics, documents)
        except OSError as error:  # the place ran full; what the run needs fits into memory or nothing does
            self.said[name] = f"not kept: {error.strerror or error}"
            return tokenise(documents, tokenizer, max_length)
        finally:
            store.close()
            shutil.rmtree(aside, ignore_errors=True)

    def _key(self, name: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> str:
        whole = {
            **self.identity,
            "version": VERSION,
            "split": name,
            "max_length": max_length,
            "tokenizer": tokenizer_digest(tokenizer),
        }
        return canonical.digest(canonical.serialise(whole)).removeprefix("sha256:")


def cache_for(
    manifest: TrainingManifest, digest: str, output_root: Path, environ: Mapping[str, str], *, checks: bool
) -> TokenCache:
    """The cache of a run: below TOLLGATE_CACHE when that is set, else beside the run's own files, where restarts of the
    run find it. digest: of the dataset; checks: as in TokenCache.
    """
    below = environ.get("TOLLGATE_CACHE")
    folder = Path(below).expanduser() / "tokens" if below else output_root / ".cache" / "tokens"
    said: Any = {name: True for name in ("name", "version", "commit_hash", "created_at", "weight")}
    dataset = manifest.dataset.model_dump(mode="json", exclude=said | {"sources": {"__all__": {"weight"}}})
    return TokenCache(folder, {"data": digest, "task": manifest.task, "dataset": dataset}, checks)


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """`sha256:<hex>` of what a tokenizer makes of text: its model, its special tokens and its chat template."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    model = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    parts = (type(tokenizer).__name__, model, json.dumps(tokenizer.special_tokens_map), template_of(tokenizer))
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part.encode()).digest())
    return "sha256:" + digest.hexdigest()


# --- entries ----------------------------------------------------------------------------------------------------------


class _Files:
    """A store that writes as it goes: no more than a sample is in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, IO[bytes]] = {name: (folder / name).open("wb") for name in TYPES}

    def add(self, ids: Ids, learned: Flags, document: int) -> None:
        """One more sample."""
        self._open["ids"].write(ids.astype(np.int32).tobytes())
        self._open["learned"].write(learned.astype(np.uint8).tobytes())
        self._open["lengths"].write(np.int64(len(ids)).tobytes())
        self._open["kept"].write(np.int64(document).tobytes())

    def arrays(self) -> Arrays:
        """All of them, mapped from the files."""
        for file in self._open.values():
            file.flush()
            os.fsync(file.fileno())
        self.close()
        return _mapped(self._folder)

    def close(self) -> None:
        """Twice does no harm."""
        for file in self._open.values():
            file.close()


def _committed(aside: Path, entry: Path, statistics: Statistics, documents: Sequence[Document]) -> TokenSet:
    """Name the entry. Another process may have been first; then its work is as good. Raises: OSError."""
    files = {name: {"bytes": (aside / name).stat().st_size, "sha256": file_digest(aside / name)} for name in TYPES}
    info = {"version": VERSION, "statistics": asdict(statistics), "files": files}
    with (aside / INFO).open("w", encoding="utf-8") as file:
        json.dump(info, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.rename(aside, entry)
    except OSError:
        if not entry.exists():
            raise
    return opened(entry, documents, checks=False)


def opened(entry: Path, documents: Sequence[Document], checks: bool) -> TokenSet:
    """An entry, mapped. Raises: FileNotFoundError without one; Spoiled when it is not what was written; OSError."""
    text = (entry / INFO).read_text(encoding="utf-8")
    try:
        info = json.loads(text)
        statistics = Statistics(**info["statistics"])
        files = {name: (info["files"][name]["bytes"], info["files"][name]["sha256"]) for name in TYPES}
    except (ValueError, TypeError, KeyError) as error:
        raise Spoiled(f"{INFO} cannot be read ({error})") from error
    for name, (size, digest) in files.items():
        path = entry / name
        if not path.is_file() or path.stat().st_size != size or (checks and file_digest(path) != digest):
            raise Spoiled(f"{name} has changed")
    if statistics.documents != len(documents):
        raise Spoiled(f"it is of {statistics.documents} documents, there are {len(documents)}")
    return TokenSet(documents, _mapped(entry), statistics)


def _mapped(folder: Path) -> Arrays:
    def one(name: str) -> Any:
        path, kind = folder / name, TYPES[name]
        if not path.stat().st_size:
            return np.zeros(0, dtype=kind)
        return np.memmap(path, dtype=kind, mode="r")

    return Arrays(one("ids"), one("learned"), np.array(one("lengths")), np.array(one("kept")))
