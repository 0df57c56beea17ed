"""The Kubernetes API over the one aiohttp session that Kopf uses too.

Raw JSON costs 3-10 times less than any client library, and the operator needs only seven verbs. Errors are typed, so
that a caller can say what it expects. Retries happen here only where a second try cannot do harm; everything else is
the work queue's to repeat, because it re-reads and decides again.
"""

# ruff: noqa: N818 - the errors are named by what the API server calls them

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

import aiohttp

from tollgate_operator.paths import resource_of

Object: TypeAlias = dict[str, Any]
"""A Kubernetes object as JSON. It goes no further than the parser (facts.py) or comes from a renderer (render.py)."""
Objects: TypeAlias = list[Object]

Propagation: TypeAlias = Literal["Foreground", "Background", "Orphan"]

PAGE: Final = 500
TRIES: Final = 4
LONGEST_WAIT: Final = 10.0  # seconds; a longer Retry-After is the work queue's to wait for
_UNAVAILABLE: Final = frozenset({500, 502, 503, 504})


class ApiError(Exception):
    """What the API server answered. `status` is the HTTP code (0: no answer came), `reason` its CamelCase word."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{reason} ({status}): {message}")
        self.status = status
        self.reason = reason
        self.message = message


class NotFound(ApiError):
    """404: there is no such object (or no such kind)."""


class AlreadyExists(ApiError):
    """409 on a create: the name is taken."""


class Conflict(ApiError):
    """409: the resourceVersion, the uid precondition or another manager is against it. Re-read, decide again."""


class Forbidden(ApiError):
    """403: no right to it, or an admission rule refused it; the message says which."""


class Unauthorized(ApiError):
    """401: the credentials are not accepted (any more)."""


class Invalid(ApiError):
    """422: the object itself is refused; trying again changes nothing."""


class Gone(ApiError):
    """410: the resourceVersion or continue token is too old; list anew."""


class TooManyRequests(ApiError):
    """429: the server is busy, or a disruption budget forbids an eviction. Come back after `retry_after` seconds."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float) -> None:
        super().__init__(status, reason, message)
        self.retry_after = retry_after


class Unavailable(ApiError):
    """5xx, a timeout or a broken connection: whether the request took effect is not known."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the API server is, and the session that may talk to it."""

    server: str
    session: aiohttp.ClientSession


class Sessions(Protocol):
    """Hands out the current session: Kopf replaces it when its credentials were refused."""

    async def current(self) -> Connection:
        """The connection to use now; never kept by the caller."""
        ...


class RequestObserver(Protocol):
    """What is told about each request that went out: for `tollgate_api_requests_total` and its duration."""

    def observe(self, verb: str, resource: str, code: str, seconds: float) -> None:
        """One attempt; `code` is the HTTP status or `error` when no answer came."""
        ...


class KubeApi:
    """Get, list, create, delete, patch and apply, with typed errors."""

    def __init__(self, sessions: Sessions, observer: RequestObserver | None = None, timeout: float = 30.0) -> None:
        self._sessions = sessions
        self._observer = observer
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 5.0))

    async def get(self, path: str) -> Object:
        """The object at `path`. Raises: NotFound and the other ApiErrors."""
        return await self._request("get", path)

    async def create(self, path: str, body: Mapping[str, Any]) -> Object:
        """Creates `body` in the collection at `path`.

        Not repeated when the connection broke, for it may have been created: names are deterministic, so the caller
        comes back and finds AlreadyExists.
        """
        return await self._request("create", path, body=body)

    async def delete(
        self,
        path: str,
        uid: str | None = None,
        propagation: Propagation = "Foreground",
        grace: int | None = None,
    ) -> None:
        """Deletes the object; with `uid` only that very one. Raises: NotFound; Conflict when the uid differs."""
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        await self._request("delete", path, body=body)

    async def merge_patch(self, path: str, body: Mapping[str, Any]) -> Object:
        """A JSON merge patch (null deletes, lists are replaced); fenced by metadata.resourceVersion if it has one."""
        return await self._request("patch", path, body=body, content="application/merge-patch+json")

    async def apply(self, path: str, body: Mapping[str, Any], field_manager: str, force: bool = True) -> Object:
        """Server-side apply. Raises: Conflict when another manager owns a field and `force` is off."""
        params = {"fieldManager": field_manager, "force": "true" if force else "false"}
        return await self._request("apply", path, body=body, params=params, content="application/apply-patch+yaml")

    async def replace(self, path: str, body: Mapping[str, Any]) -> Object:
        """A PUT; with metadata.resourceVersion in it only over that very version. Raises: Conflict, NotFound."""
        return await self._request("update", path, body=body)

    async def pages(
        self, path: str, label_selector: str | None = None, field_selector: str | None = None
    ) -> AsyncIterator[Objects]:
        """The pages of a collection, so that no caller has to hold ten thousand bodies at once.

        Raises: Gone when the list expired between two pages; what was read so far is then no complete list.
        """
        params: dict[str, str] = {"limit": str(PAGE)}
        if label_selector:
            params["labelSelector"] = label_selector
        if field_selector:
            params["fieldSelector"] = field_selector
        while True:
            page = await self._request("list", path, params=params)
            items = page.get("items")
            yield items if isinstance(items, list) else []
            token = page.get("metadata", {}).get("continue")
            if not token:
                return
            params["continue"] = token

    async def list(self, path: str, label_selector: str | None = None, field_selector: str | None = None) -> Objects:
        """All objects of a collection. A list that expired half-way is read anew, once. Raises: Gone."""
        for tried in (1, 2):
            try:
                return [item async for page in self.pages(path, label_selector, field_selector) for item in page]
            except Gone:
                if tried == 2:
                    raise
        raise AssertionError("the second try returns or raises")

    async def _request(
        self,
        verb: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> Object:
        for tried in range(1, TRIES + 1):
            try:
                return await self._once(verb, path, body, params, content)
            except TooManyRequests as busy:  # refused before it did anything: safe for every verb
                wait = busy.retry_after
                if tried == TRIES or wait > LONGEST_WAIT:
                    raise
            except Unavailable:
                if tried == TRIES or verb == "create":
                    raise
                wait = 0.1 * 4.0 ** (tried - 1)
            await asyncio.sleep(wait * random.uniform(0.8, 1.2))
        raise AssertionError("the last try returns or raises")

    async def _once(
        self,
        verb: str,
        path: str,
        body: Mapping[str, Any] | None,
        params: Mapping[str, str] | None,
        content: str,
    ) -> Object:
        connection = await self._sessions.current()
        started = time.monotonic()
        code = "error"
        try:
            async with connection.session.request(
                _METHODS[verb],
                connection.server.rstrip("/") + path,
                params=params,
                data=None if body is None else json.dumps(body, separators=(",", ":")).encode(),
                headers={"Content-Type": content, "Accept": "application/json"},
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                code = str(response.status)
                payload = await response.read()
                if response.status >= 300:
                    raise _error(response.status, payload, response.headers.get("Retry-After"), f"{verb} {path}")
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise Unavailable(0, "NoAnswer", f"{verb} {path}: {type(error).__name__}: {error}") from error
        except RuntimeError as error:
            if not connection.session.closed:
                raise
            # Kopf closed it while we held it: the next try fetches the new one.
            raise Unavailable(0, "SessionClosed", f"{verb} {path}: {error}") from error
        finally:
            if self._observer is not None:
                self._observer.observe(verb, resource_of(path), code, time.monotonic() - started)
        document = _object(payload)
        if document is None:
            raise Unavailable(
                0, "NotAnObject", f"{verb} {path}: the answer is not a JSON object, it begins {payload[:80]!r}"
            )
        return document


_METHODS: Final = {
    "get": "GET",
    "list": "GET",
    "create": "POST",
    "update": "PUT",
    "delete": "DELETE",
    "patch": "PATCH",
    "apply": "PATCH",
}

_KINDS: Final[Mapping[int, type[ApiError]]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
}


def _object(payload: bytes) -> Object | None:
    """The JSON object in `payload`, None when it is something else."""
    try:
        document = json.loads(payload)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _error(status: int, payload: bytes, retry_after: str | None, request: str) -> ApiError:
    """The typed error for an answer; a body that is no Status (a proxy's page) is quoted by 200 characters."""
    document = _object(payload) or {"message": payload[:200].decode(errors="replace")}
    reason = str(document.get("reason") or f"HTTP{status}")
    message = f"{request}: {document.get('message') or 'no message'}"
    if status == 429:
        details = document.get("details")
        told = retry_after or (details.get("retryAfterSeconds") if isinstance(details, dict) else None)
        return TooManyRequests(status, reason, message, _seconds(told))
    if status in _UNAVAILABLE:
        return Unavailable(status, reason, message)
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExists(status, reason, message)
    return _KINDS.get(status, ApiError)(status, reason, message)


def _seconds(told: object) -> float:
    # Retry-After may also be a date; Kubernetes never sends one, and a second is a sane wait for whoever does.
    try:
        return max(float(str(told)), 0.0) if told is not None else 1.0
    except ValueError:
        return 1.0
