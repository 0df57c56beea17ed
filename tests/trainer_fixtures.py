"""A training small enough for tests: what is written to disk is real, only the sizes are small."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tollgate.contract import Env, LastWords
from tollgate.manifest.loader import load_document
from tollgate_trainer.lifecycle.lease import Holder, Lease

REPOSITORY = Path(__file__).resolve().parents[1]
WORDS = "gate toll road bridge river lane ticket driver night morning early late open close count carry".split()  # noqa: SIM905

TINY_LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "vocab_size": 600,
    "attention_dropout": 0.1,
    "tie_word_embeddings": False,
}


TINY_BERT = {
    "model_type": "bert",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "vocab_size": 600,
}


def write_conversations(path: Path, count: int = 80) -> Path:
    """Sentences of a small grammar, so that a tiny model can learn something."""
    chance = random.Random(7)
    texts = [
        f"Question: what does the {a} do at the {b}? Answer: the {a} will {c} the {b}."
        for a, b, c in ((chance.choice(WORDS), chance.choice(WORDS), chance.choice(WORDS)) for _ in range(count))
    ]
    path.write_text(json.dumps({"conversations": [{"text": text} for text in texts]}), encoding="utf-8")
    return path


def write_chat(path: Path, count: int = 80) -> Path:
    """The same grammar as conversations."""
    chance = random.Random(8)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            a, b, c = (chance.choice(WORDS) for _ in range(3))
            turns = [
                {"role": "user", "content": f"Question: what does the {a} do at the {b}?"},
                {"role": "assistant", "content": f"the {a} will {c} the {b}."},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
    return path


def write_answers(path: Path, count: int = 120) -> Path:
    """Texts with a question, a span that answers it in three of four, and a class that follows from the answer."""
    chance = random.Random(9)

    def some(least: int, most: int) -> str:
        return " ".join(chance.choice(WORDS) for _ in range(chance.randint(least, most)))

    rows = []
    for number in range(count):
        actor, deed, thing = (chance.choice(WORDS) for _ in range(3))
        silent = number % 4 == 0
        before = f"{some(3, 25)}. the {actor} {'can' if silent else 'will'} "
        rows.append(
            {
                "text": f"{before}{deed} the {thing}. {some(3, 25)}",
                "question": f"what will the {actor} do?",
                "answer": "" if silent else deed,
                "answer_start": None if silent else len(before),
                "label": "none" if silent else "x" if deed < "m" else "y",
            }
        )
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def manifest(**changes: Any) -> dict[str, Any]:
    """A manifest of 20 steps; dotted changes are merged in: `hyperparameters={"max_steps": 5}`."""
    document: dict[str, Any] = {
        "name": "tiny",
        "dataset": {"path": "data.json"},
        "model": {"config": dict(TINY_LLAMA)},
        "hyperparameters": {
            "max_steps": 20,
            "learning_rate": 0.003,
            "per_device_train_batch_size": 4,
            "max_seq_length": 48,
            "save_steps": 5,
            "eval_steps": 10,
            "logging_steps": 1,
        },
        "reproducibility": {"seed": 11, "deterministic": True},
    }
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(document.get(key), dict):
            document[key] = document[key] | value
        else:
            document[key] = value
    return document


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Gang:
    """A run on this machine: its folders, and processes started as the launcher starts them."""

    root: Path
    document: dict[str, Any]
    uid: str = "11111111-2222-3333-4444-555555555555"
    extra: dict[str, str] = field(default_factory=dict)
    started_at: float = 0.0
    port: int = 0

    @property
    def output(self) -> Path:
        """The output root."""
        return self.root / "output"

    def environment(self, attempt: int, processes: int, **more: str) -> dict[str, str]:
        """What the operator and the launcher set."""
        loaded = load_document(self.document, "test")
        path = self.root / "manifest.json"
        path.write_bytes(loaded.canonical)
        self.output.mkdir(exist_ok=True)
        self.started_at = round(time.time(), 3)
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(REPOSITORY / part) for part in ("core", "trainer")),
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
            "TOKENIZERS_PARALLELISM": "false",
            Env.RUN: "tiny",
            Env.NAMESPACE: "test",
            Env.UID: self.uid,
            Env.ATTEMPT: str(attempt),
            Env.MANIFEST: str(path),
            Env.MANIFEST_SHA256: loaded.digest,
            Env.DATASET_ROOT: str(self.root / "data"),
            Env.OUTPUT_ROOT: str(self.output),
            Env.STARTED_AT: f"{self.started_at:.3f}",
            Env.NODE_INDEX: "0",
            Env.GRACE_SECONDS: "30",
            **self.extra,
            **more,
        }

    def command(
        self, processes: int, nodes: int = 1, node: int = 0, port: int = 0, script: str | None = None
    ) -> list[str]:
        """torchrun as the operator renders it."""
        target = ["-m", "tollgate_trainer", "train"] if script is None else [script]
        return [
            sys.executable,
            "-m",
            "torch.distributed.run",
            f"--nnodes={nodes}",
            f"--node-rank={node}",
            f"--nproc-per-node={processes}",
            "--master-addr=127.0.0.1",
            f"--master-port={port or free_port()}",
            "--shutdown-timeout=20",
            "--max-restarts=0",
            *target,
        ]

    def take_lease(self, attempt: int) -> None:
        """As the launcher does it before it starts anybody."""
        Lease.acquire(self.output, Holder.here(self.uid, attempt, "tiny", "test", datetime.now(UTC)), take_over=True)

    def start(self, attempt: int, processes: int = 1, script: str | None = None, **more: str) -> subprocess.Popen[str]:
        """Take the lease and start torchrun; one process needs no torchrun."""
        environ = self.environment(attempt, processes, **more)
        self.take_lease(attempt)
        if processes == 1 and script is None:
            command = [sys.executable, "-m", "tollgate_trainer", "train"]
        elif processes == 1:
            command = [sys.executable, str(script)]
        else:
            command = self.command(processes, script=script)
        return subprocess.Popen(command, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def start_node(self, attempt: int, node: int) -> subprocess.Popen[str]:
        """One of two nodes with one process each; node 0 takes the lease."""
        environ = self.environment(attempt, 1, **{Env.NODE_INDEX: str(node)})
        if node == 0:
            holder = Holder.here(self.uid, attempt, "tiny", "test", datetime.now(UTC))
            Lease.acquire(self.output, holder, take_over=True)
            self.port = free_port()
        command = self.command(1, nodes=2, node=node, port=self.port)
        return subprocess.Popen(command, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, attempt: int = 1, processes: int = 1, script: str | None = None, **more: str) -> tuple[int, str]:
        """(exit code, output) of an attempt that ends by itself."""
        with ended(self.start(attempt, processes, script, **more)) as process:
            output, _ = process.communicate(timeout=400)
        return process.returncode, output

    def words(self, attempt: int = 1, node: int = 0) -> LastWords:
        """The outcome of a node."""
        path = self.output / "outcomes" / f"attempt-{attempt}" / f"node-{node}.json"
        found = LastWords.parse(path.read_text(encoding="utf-8"))
        assert found is not None
        return found

    def failures(self, attempt: int = 1) -> list[LastWords]:
        """The outcomes of the ranks that failed."""
        folder = self.output / "outcomes" / f"attempt-{attempt}"
        found = [
            LastWords.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("node-*-rank-*.json"))
        ]
        return [words for words in found if words is not None]

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The events, of one kind or all."""
        path = self.output / "logs" / "events.jsonl"
        if not path.exists():
            return []
        every = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        return [event for event in every if name is None or event["event"] == name]

    def losses(self, attempt: int, rank: int = 0) -> dict[int, str]:
        """Loss of each step of one process, as exact hexadecimal."""
        path = self.output / "logs" / "losses" / f"attempt-{attempt}-rank-{rank}.jsonl"
        records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        return {record["step"]: record["loss"] for record in records}


def gang(root: Path, extra: dict[str, str] | None = None, **changes: Any) -> Gang:
    """A run with its data in place. extra: more environment for all its attempts."""
    (root / "data").mkdir(parents=True, exist_ok=True)
    write_conversations(root / "data" / "data.json")
    return Gang(root, manifest(**changes), extra=extra or {})


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """No process outlives its test."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=30)


def wait_for(condition: Any, seconds: float = 120.0) -> Any:
    """Poll until the condition holds. Raises: AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.05)
    raise AssertionError("the condition did not come true in time")


Environment = Mapping[str, str]
