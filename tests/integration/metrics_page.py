"""A trainer's /metrics for pods on fake nodes, on an address of the loopback network: a real page is scraped."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tollgate.contract import METRICS_PORT, TrainMetric


class _Page(BaseHTTPRequestHandler):
    started = time.time()

    def do_GET(self) -> None:
        now = time.time()
        step = 1 + int(now - self.started)
        values = {
            TrainMetric.STEP: step,
            TrainMetric.STEPS: 100_000,
            TrainMetric.LOSS: 1.5,
            TrainMetric.LAST_PROGRESS: now,
        }
        text = "".join(f"# TYPE {name.value} gauge\n{name.value} {value}\n" for name, value in values.items()).encode()
        with contextlib.suppress(ConnectionError):  # who asked was killed meanwhile
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the operator's log tells of what failed."""


@contextmanager
def metrics_page() -> Iterator[str]:
    """Serves it; gives the address that pods are to have."""
    while True:
        address = f"127.{random.randint(64, 127)}.{random.randint(0, 255)}.{random.randint(1, 254)}"
        try:
            server = ThreadingHTTPServer((address, METRICS_PORT), _Page)
            break
        except OSError:
            continue
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
