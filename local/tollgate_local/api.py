"""A small blocking client of the API server for `up`, `status` and tests, on the standard library alone."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tollgate_local.errors import LocalError

__all__ = ["Api", "ApiError"]


class ApiError(LocalError):
    """The API server refused a request; `status` is the HTTP status."""

    def __init__(self, method: str, path: str, status: int, message: str) -> None:
        super().__init__(f"{method} {path}: {status} {message}")
        self.status = status


class Api:
    """One connection per call, so that a restarted API server is never a problem; a call costs about 3 ms."""

    def __init__(self, server: str, pki: Path, user: str = "admin") -> None:
        self.server = server
        address = urlsplit(server)
        self._host, self._port = address.hostname or "", address.port or 443
        self._context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._context.load_cert_chain(pki / f"{user}.crt", pki / f"{user}.key")

    def call(
        self, method: str, path: str, body: object = None, content: str = "application/json", timeout: float = 30.0
    ) -> tuple[int, Any]:
        """The HTTP status and the answer: JSON where it is JSON, else text.

        Raises: OSError when the API server cannot be reached.
        """
        connection = http.client.HTTPSConnection(self._host, self._port, context=self._context, timeout=timeout)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": content, "Accept": "application/json, */*"})
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except http.client.HTTPException as error:
            raise ConnectionError(f"{method} {path}: {error}") from error
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def get(self, path: str) -> Any:
        """The object or list at `path`. Raises: ApiError for any status but 200."""
        return self._checked("GET", path)

    def create(self, path: str, body: Mapping[str, Any]) -> Any:
        """Create an object in the collection `path`. Raises: ApiError, with status 409 when it exists."""
        return self._checked("POST", path, body)

    def merge(self, path: str, body: Mapping[str, Any]) -> Any:
        """A JSON merge patch."""
        return self._checked("PATCH", path, body, "application/merge-patch+json")

    def apply(self, path: str, body: Mapping[str, Any]) -> Any:
        """A forced server-side apply of one object at its own path."""
        query = "?fieldManager=tollgate-local&force=true"
        return self._checked("PATCH", path + query, body, "application/apply-patch+yaml")

    def delete(self, path: str) -> None:
        """Delete; what is not there is fine."""
        status, answer = self.call("DELETE", path)
        if status >= 300 and status != 404:
            raise ApiError("DELETE", path, status, _message(answer))

    def ready(self, timeout: float = 1.0) -> bool:
        """Whether /readyz says ok within `timeout` seconds."""
        try:
            return self.call("GET", "/readyz", timeout=timeout)[0] == 200
        except OSError:
            return False

    def _checked(self, method: str, path: str, body: object = None, content: str = "application/json") -> Any:
        status, answer = self.call(method, path, body, content)
        if status >= 300:
            raise ApiError(method, path, status, _message(answer))
        return answer


def _message(answer: object) -> str:
    return str(answer.get("message", answer)) if isinstance(answer, dict) else str(answer)[:500]
