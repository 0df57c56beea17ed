"""`tollgate-operator`: reads the settings and starts the process. What the process does is in process.py."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import click

import tollgate
from tollgate_operator import logs
from tollgate_operator.lease import Timing
from tollgate_operator.process import run_operator
from tollgate_operator.settings import Settings, SettingsError, dns_name, object_reference, own_identity, own_namespace

_EPILOG = """\b
Each flag can be given by the environment: --metrics-port is TOLLGATE_OPERATOR_METRICS_PORT.
In a pod the ServiceAccount is used; elsewhere $KUBECONFIG, ~/.kube/config or --kubeconfig.

\b
Exit codes: 0 stopped on request; 1 the lease was lost, a part of the process died, or the API server refused
what the operator cannot do without (the log says what); 2 a setting is wrong.

\b
Examples:
  tollgate-operator --lease-namespace tollgate-system
  tollgate-operator --namespace research --namespace care --lease-namespace research --log-format text
"""


@click.command(epilog=_EPILOG, context_settings={"auto_envvar_prefix": "TOLLGATE_OPERATOR", "max_content_width": 118})
@click.option(
    "--namespace", "namespaces", multiple=True, help="Serve this namespace only; repeat for more. Default: all."
)
@click.option("--lease-namespace", help="Namespace of the Lease by which one operator leads. Default: the pod's own.")
@click.option("--lease-name", default="tollgate-operator", show_default=True, help="Name of that Lease.")
@click.option(
    "--lease-duration", default=30.0, show_default=True, help="Seconds after which another process may take over."
)
@click.option(
    "--lease-deadline", default=20.0, show_default=True, help="Seconds without a renewal after which we stop."
)
@click.option("--lease-retry", default=5.0, show_default=True, help="Seconds between renewals.")
@click.option("--identity", help="Who holds the Lease. Default: $POD_NAME, else host and process id.")
@click.option(
    "--workers", type=click.IntRange(1, 64), default=8, show_default=True, help="Objects worked on at a time."
)
@click.option(
    "--resync", type=click.FloatRange(10), default=300.0, show_default=True, help="Seconds between full listings."
)
@click.option(
    "--scrape", type=click.FloatRange(1), default=5.0, show_default=True, help="Seconds between reads of progress."
)
@click.option("--metrics-host", default="0.0.0.0", show_default=True, help="Address of /metrics, /healthz and /readyz.")
@click.option(
    "--metrics-port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port of these pages."
)
@click.option("--price-book", help="ConfigMap with prices per node-hour, as namespace/name. Default: none.")
@click.option("--kubeconfig", help="Use this file and not the pod's ServiceAccount.")
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--log-format", type=click.Choice(["json", "text"]), default="json", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), default="INFO", show_default=True
)
@click.version_option(tollgate.__version__, prog_name="tollgate-operator")
def main(
    namespaces: tuple[str, ...],
    lease_namespace: str | None,
    lease_name: str,
    lease_duration: float,
    lease_deadline: float,
    lease_retry: float,
    identity: str | None,
    workers: int,
    resync: float,
    scrape: float,
    metrics_host: str,
    metrics_port: int,
    price_book: str | None,
    kubeconfig: str | None,
    context: str | None,
    log_format: str,
    log_level: str,
) -> None:
    """Run the Tollgate operator: it starts, stops, judges and promotes TrainingRuns, and holds their budgets."""
    try:
        settings = Settings(
            namespaces=tuple(dns_name("--namespace", n) for n in namespaces) or None,
            lease_namespace=dns_name("--lease-namespace", lease_namespace or own_namespace(os.environ)),
            lease_name=dns_name("--lease-name", lease_name),
            identity=identity or own_identity(os.environ),
            lease_timing=_timing(lease_duration, lease_deadline, lease_retry),
            workers=workers,
            resync=resync,
            scrape=scrape,
            metrics_host=metrics_host,
            metrics_port=metrics_port,
            price_book=object_reference("--price-book", price_book),
            kubeconfig=kubeconfig,
            context=context,
        )
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    logs.configure(log_format, log_level)
    logging.getLogger(__name__).info(
        "tollgate-operator %s as %s, serving %s",
        tollgate.__version__,
        settings.identity,
        ", ".join(settings.namespaces) if settings.namespaces else "all namespaces",
    )
    sys.exit(asyncio.run(run_operator(settings)))


def _timing(duration: float, deadline: float, retry: float) -> Timing:
    try:
        return Timing(duration, deadline, retry)
    except ValueError as error:
        raise SettingsError(f"--lease-duration, --lease-deadline, --lease-retry: {error}") from error


if __name__ == "__main__":
    main()
