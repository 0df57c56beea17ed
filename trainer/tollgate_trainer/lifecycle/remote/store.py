"""An S3-like store: whole objects, and one that is only put where none is. boto3 does the protocol (extra `s3`).

Endpoint, region and credentials are boto3's own business (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...). Errors carry the
store's code and words and the object's name, never a request, because a request carries a signature.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import xxhash

PART_BYTES = 16 * 1024 * 1024
PARTS_AT_ONCE = 4
MOST_PARTS = 9000  # S3 allows 10,000
_URI = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")


class StoreError(Exception):
    """The store refused, failed, or is not there; the message can be shown.

    lasting: trying again does not help; somebody has to change something.
    """

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


class Cancelled(Exception):  # noqa: N818 - asked for, not an error
    """The upload was given up."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where checkpoints lie: a bucket and the beginning of their keys, without a slash at its end."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, uri: str) -> Place:
        """Raises: StoreError for what is no s3:// URI."""
        match = _URI.fullmatch(uri)
        if match is None:
            raise StoreError(f"{uri!r} is not an s3:// URI; write s3://bucket/prefix", lasting=True)
        return cls(match["bucket"], (match["prefix"] or "").strip("/"))

    def key(self, name: str) -> str:
        """The key of an object below the prefix."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def uri(self, name: str = "") -> str:
        """The object's URI for people."""
        return f"s3://{self.bucket}/{self.key(name)}".rstrip("/")


@dataclass(frozen=True, slots=True)
class Stored:
    """An object in the list. name: below the prefix."""

    name: str
    size: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class Sum:
    """What was transferred: bytes and xxh3 (128 bits, hex)."""

    size: int
    xxh3: str


class Store:
    """Objects below a place. Safe between threads, as boto3's clients are."""

    def __init__(self, place: Place) -> None:
        """Raises: StoreError when boto3 is not installed, or has no region or credentials to work with."""
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ImportError as error:
            raise StoreError(
                f"{place.uri()} needs the Python package boto3, which is not installed: pip install 'tollgate[s3]'",
                lasting=True,
            ) from error
        self.place = place
        try:
            config = Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=10, read_timeout=60)
            self._client: Any = boto3.client("s3", config=config)
        except (BotoCoreError, ValueError) as error:
            raise StoreError(
                f"{place.uri()}: {type(error).__name__}; set AWS_ENDPOINT_URL and AWS_REGION", lasting=True
            ) from None

    # --- small objects ----------------------------------------------------------------------------------------------

    def put(self, name: str, data: bytes) -> None:
        """Write an object, whatever was there. Raises: StoreError."""
        with self._speaking("written", name):
            self._client.put_object(Bucket=self.place.bucket, Key=self.place.key(name), Body=data)

    def put_new(self, name: str, data: bytes) -> bool:
        """Write an object only where none is; whether it is ours that stands there now. Raises: StoreError."""
        try:
            with self._speaking("written", name):
                self._client.put_object(Bucket=self.place.bucket, Key=self.place.key(name), Body=data, IfNoneMatch="*")
        except _ConflictError:
            return self.get(name) == data  # ours, when the answer to a first try was lost and boto3 tried again
        return True

    def get(self, name: str) -> bytes | None:
        """An object's bytes, None when it is not there. Raises: StoreError."""
        try:
            with self._speaking("read", name):
                answer = self._client.get_object(Bucket=self.place.bucket, Key=self.place.key(name))
                data: bytes = answer["Body"].read()
                return data
        except _AbsentError:
            return None

    def list(self, below: str = "") -> Iterator[Stored]:
        """Every object whose name begins with `below`. Raises: StoreError."""
        beginning = self.place.key(below)
        skipped = len(self.place.key(""))
        with self._speaking("listed", below):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.place.bucket, Prefix=beginning)
            for page in pages:
                for item in page.get("Contents", ()):
                    yield Stored(item["Key"][skipped:], int(item["Size"]), item["LastModified"])

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; what is not there is no error. Raises: StoreError."""
        for name in names:
            with self._speaking("removed", name):
                self._client.delete_object(Bucket=self.place.bucket, Key=self.place.key(name))

    # --- files ------------------------------------------------------------------------------------------------------

    def upload(self, path: Path, name: str, cancelled: Callable[[], bool] = lambda: False) -> Sum:
        """Write a file in parallel parts, hashed while it is read. Raises: StoreError, Cancelled, OSError."""
        from boto3.s3.transfer import TransferConfig

        size = path.stat().st_size
        part = max(PART_BYTES, -(-size // MOST_PARTS))
        config = TransferConfig(multipart_threshold=part, multipart_chunksize=part, max_concurrency=PARTS_AT_ONCE)
        with path.open("rb") as file, self._speaking("written", name):
            reading = _Hashed(file, cancelled)
            self._client.upload_fileobj(reading, self.place.bucket, self.place.key(name), Config=config)
        return Sum(reading.size, reading.sum.hexdigest())

    def download(self, name: str, path: Path) -> Sum:
        """Read an object into a file in parallel parts, and hash what lies there then. Raises: StoreError, OSError."""
        from boto3.s3.transfer import TransferConfig

        path.parent.mkdir(parents=True, exist_ok=True)
        config = TransferConfig(multipart_chunksize=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
        try:
            with self._speaking("read", name):
                self._client.download_file(self.place.bucket, self.place.key(name), str(path), Config=config)
        except _AbsentError as error:
            raise StoreError(f"{self.place.uri(name)} is not there") from error
        return sum_of(path)

    # --- the probe --------------------------------------------------------------------------------------------------

    def probe(self) -> None:
        """Find out before anything is trained whether the store can be written to and keeps a promise of its own.

        Raises: StoreError, also for a store that ignores If-None-Match: there two attempts could both commit.
        """
        name = f".tollgate-probe-{secrets.token_hex(8)}"
        if not self.put_new(name, b"1"):
            raise StoreError(f"{self.place.uri(name)} was said to exist before it was written")
        try:
            ignored = self.put_new(name, b"2")
        finally:
            self.delete([name])
        if ignored:
            raise StoreError(
                f"the store of {self.place.uri()} ignores If-None-Match, so two attempts could both commit one "
                "checkpoint; use a store that honours conditional writes, or keep checkpoints on the output volume",
                lasting=True,
            )

    @contextmanager
    def _speaking(self, what: str, name: str) -> Iterator[None]:
        """Turn boto3's errors into ours."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        where = f"{self.place.uri(name)} can't be {what}"
        try:
            yield
        except ClientError as error:
            raise _from_answer(where, error.response) from None
        except Boto3Error as error:
            inner = error.__cause__ or error.__context__
            if isinstance(inner, ClientError):
                raise _from_answer(where, inner.response) from None
            if isinstance(inner, Cancelled):
                raise inner from None
            raise StoreError(f"{where}: {type(inner or error).__name__}") from None
        except BotoCoreError as error:
            name = type(error).__name__
            raise StoreError(f"{where}: {_WITHOUT_ANSWER.get(name, name)}", lasting=name in _LASTING) from None


class _AbsentError(StoreError):
    """No such object."""


class _ConflictError(StoreError):
    """If-None-Match: there was one already."""


def _from_answer(where: str, response: Any) -> StoreError:
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code, message = str(response.get("Error", {}).get("Code", status)), response.get("Error", {}).get("Message", "")
    if code in ("NoSuchKey", "404") and "NoSuchBucket" not in code:
        return _AbsentError(f"{where}: it is not there")
    if status in (409, 412):
        return _ConflictError(f"{where}: {code}")
    fixes = {
        "NoSuchBucket": "create the bucket, or correct checkpoint.uri",
        "AccessDenied": "give these credentials the right to list, read, write and delete there",
        "InvalidAccessKeyId": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "SignatureDoesNotMatch": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    }
    fix = f"; {fixes[code]}" if code in fixes else ""
    return StoreError(f"{where}: {code}{': ' + message if message and not fix else ''}{fix}", lasting=code in fixes)


_WITHOUT_ANSWER = {
    "NoCredentialsError": "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "EndpointConnectionError": "the endpoint can't be reached: check AWS_ENDPOINT_URL and the network",
    "ConnectionClosedError": "the endpoint closed the connection",
    "ConnectTimeoutError": "the endpoint does not answer: check AWS_ENDPOINT_URL and the network",
    "NoRegionError": "set AWS_REGION",
}
_LASTING = frozenset({"NoCredentialsError", "NoRegionError"})


class _Hashed:
    """A file that can only be read on, hashed as it is read; so each byte is read once, whatever its part does."""

    def __init__(self, file: IO[bytes], cancelled: Callable[[], bool]) -> None:
        self.sum = xxhash.xxh3_128()
        self.size = 0
        self._file, self._cancelled = file, cancelled
        self._lock = threading.Lock()

    def read(self, amount: int = -1) -> bytes:
        """The next bytes. Raises: Cancelled."""
        if self._cancelled():
            raise Cancelled
        with self._lock:
            data = self._file.read(amount)
            self.sum.update(data)
            self.size += len(data)
        return data


def sum_of(path: Path) -> Sum:
    """Size and xxh3 of a file."""
    found, size = xxhash.xxh3_128(), 0
    with path.open("rb") as file:
        while data := file.read(1024 * 1024):
            found.update(data)
            size += len(data)
    return Sum(size, found.hexdigest())
