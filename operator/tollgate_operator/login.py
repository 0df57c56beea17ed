"""The one aiohttp session for the API server: from the pod's ServiceAccount, or from a kubeconfig.

`kubernetes` reads the configuration. Kopf closes a session when its credentials are refused and asks for another, so
nobody keeps one: both take the current one from `ClusterLogin`. A projected token is replaced on disk long before it
expires; it is read anew each minute and whenever the server answers 401.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from typing import Any, Final

import aiohttp
import kopf
from kubernetes import client, config

from tollgate_operator.kube import Connection

logger = logging.getLogger(__name__)

TOKEN_SECONDS: Final = 60.0
CONNECTIONS: Final = 64
DEFAULT_KUBECONFIG: Final = "($KUBECONFIG or ~/.kube/config)"


class LoginError(Exception):
    """There is no usable configuration; the message says what was tried."""


def load(kubeconfig: str | None, context: str | None) -> Callable[[], client.Configuration]:
    """How to read the configuration: the kubeconfig that is named, else the pod's own, else the default kubeconfig."""

    def read() -> client.Configuration:
        found = client.Configuration()
        if kubeconfig is None and context is None:
            try:
                config.load_incluster_config(client_configuration=found)  # type: ignore[no-untyped-call]
                return found
            except config.ConfigException as error:
                logger.debug("not in a pod: %s", error)
        try:
            config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=kubeconfig, context=context, client_configuration=found
            )
        except (config.ConfigException, OSError) as error:
            raise LoginError(
                f"no way to the cluster: not in a pod, and kubeconfig {kubeconfig or DEFAULT_KUBECONFIG} is of no use: "
                f"{error}. Name one with --kubeconfig FILE."
            ) from error
        if found.tls_server_name:
            raise LoginError(
                "tls-server-name in the kubeconfig is not supported; use an address that the certificate has"
            )
        return found

    return read


class ClusterLogin:
    """Builds sessions, refreshes tokens, and answers who the current session is. It is the `Sessions` of KubeApi."""

    def __init__(self, read: Callable[[], client.Configuration], clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._config: client.Configuration | None = None
        self._session: aiohttp.ClientSession | None = None
        self._token: str | None = None
        self._token_at = 0.0
        self._opening = asyncio.Lock()

    async def current(self) -> Connection:
        """The session to use now; opened when there is none or it was closed."""
        async with self._opening:
            if self._session is None or self._session.closed:
                await self._open()
            assert self._session is not None
            assert self._config is not None
            return Connection(self._config.host.rstrip("/"), self._session)

    async def for_kopf(self) -> kopf.AiohttpSession:
        """The same session for Kopf, which owns it from then on."""
        connection = await self.current()
        return kopf.AiohttpSession(server=connection.server, aiohttp_session=connection.session)

    async def close(self) -> None:
        """Closes the session if it is open."""
        if self._session is not None and not self._session.closed:
            await self._session.close()

    async def _open(self) -> None:
        self._config = await asyncio.to_thread(self._read)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=await asyncio.to_thread(_tls, self._config)),
            headers={"User-Agent": "tollgate-operator"},
            middlewares=(self._authorize,),
            proxy=self._config.proxy or None,
            trust_env=False,
        )
        self._token = None

    async def _authorize(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Adds the token; answers a 401 once with a token that was read anew."""
        token = await self._bearer(renew=False)
        if token:
            request.headers["Authorization"] = token
        response = await handler(request)
        if response.status != 401:
            return response
        renewed = await self._bearer(renew=True)
        if not renewed or renewed == token:
            return response
        response.release()
        request.headers["Authorization"] = renewed
        return await handler(request)

    async def _bearer(self, *, renew: bool) -> str | None:
        now = self._clock()
        if renew or self._token is None or now - self._token_at > TOKEN_SECONDS:
            self._token = await asyncio.to_thread(self._read_token, renew)
            self._token_at = now
        return self._token

    def _read_token(self, renew: bool) -> str | None:
        if renew or self._config is None:
            self._config = self._read()
        # The loader's hook, called by this, reads the token file anew or runs the kubeconfig's plugin when that is due.
        bearer = self._config.auth_settings().get("BearerToken")
        return str(bearer["value"]) if bearer and bearer["value"] else None


def _tls(found: Any) -> ssl.SSLContext | bool:
    """The TLS context that the configuration asks for. Raises: LoginError when one of its files cannot be used."""
    if found.host.startswith("http://"):
        return True
    try:
        context = ssl.create_default_context(cafile=found.ssl_ca_cert or None)
        if found.cert_file:
            context.load_cert_chain(found.cert_file, found.key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise LoginError(
            f"TLS files of the configuration cannot be used (ca {found.ssl_ca_cert}, cert {found.cert_file}): {error}"
        ) from error
    if not found.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
