"""Where the arms meet: one folder of data and one model for all, processes that take turns, and the raw results."""

from __future__ import annotations

import ast
import json
import multiprocessing
import os
import platform
import socket
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import rig
from bench.trainer.arms import Block, stock, tollgate
from bench.trainer.figures import Stretch
from tollgate.contract import Env
from tollgate.manifest.loader import load_document
from tollgate_trainer.lifecycle.lease import Holder, Lease

PATIENCE = 300.0
"""Seconds in which a block of steps, or a start, must have come."""
UID = "11111111-2222-3333-4444-555555555555"
ARMS: dict[str, Callable[..., None]] = {"tollgate": tollgate, "stock": stock}


def docstrings() -> list[str]:
    """Every docstring of the standard library's modules, each once, in the order of files: short and long texts."""
    found: dict[str, None] = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
                text = ast.get_docstring(node)
                if text and len(text) > 20:
                    found[text] = None
    return list(found)


def even(texts: Sequence[str], characters: int) -> list[str]:
    """The same text in pieces of one length."""
    whole = "\n\n".join(texts)
    return [whole[at : at + characters] for at in range(0, len(whole) - characters, characters)]


def config(hidden: int, layers: int, vocabulary: int) -> dict[str, Any]:
    """A Llama without dropout, so that what other processes draw changes nothing."""
    return {
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": 8 * hidden // 3 // 8 * 8,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    }


@dataclass(frozen=True, slots=True)
class Material:
    """A folder with data.json and base/, a saved model with its tokenizer. model: its config."""

    root: Path
    model: Mapping[str, Any]
    parameters: int
    documents: int

    def document(self, **changes: Any) -> dict[str, Any]:
        """A manifest without evaluation and saves on the way; dotted changes are merged in."""
        document: dict[str, Any] = {
            "name": "bench",
            "dataset": {"path": "data.json", "splits": {"validation": 0}},
            "model": {"base": "base"},
            "hyperparameters": {"learning_rate": 1e-3, "eval_steps": 10**6, "save_steps": 10**6},
            "reproducibility": {"seed": 11},
        }
        for key, value in changes.items():
            both = isinstance(value, dict) and isinstance(document.get(key), dict)
            document[key] = document[key] | value if both else value
        return document


def material(root: Path, texts: Sequence[str], model: Mapping[str, Any]) -> Material:
    """Data, a tokenizer of it, and a model with weights of chance."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tollgate_trainer.data.document import Document
    from tollgate_trainer.models import tokenizer as tokenizers

    root.mkdir(parents=True)
    (root / "data.json").write_text(json.dumps({"conversations": [{"text": text} for text in texts]}), encoding="utf-8")
    documents = [Document(text, str(number)) for number, text in enumerate(texts)]
    tokenizer = tokenizers.from_json(tokenizers.train(documents, int(model["vocab_size"])))
    torch.manual_seed(1)
    known = dict(model)
    make: Any = AutoModelForCausalLM.from_config
    made = make(AutoConfig.for_model(known.pop("model_type"), **known, pad_token_id=tokenizer.pad_token_id))
    made.save_pretrained(root / "base")
    tokenizer.save_pretrained(root / "base")
    return Material(root, model, sum(weights.numel() for weights in made.parameters()), len(texts))


def environment(root: Path, data: Path, document: Mapping[str, Any], attempt: int = 1) -> dict[str, str]:
    """What the operator and the launcher set, for an attempt in `root`, whose lease is taken."""
    loaded = load_document(dict(document), "bench")
    (root / "output").mkdir(parents=True, exist_ok=True)
    (root / "manifest.json").write_bytes(loaded.canonical)
    Lease.acquire(root / "output", Holder.here(UID, attempt, "bench", "bench", datetime.now(UTC)), take_over=True)
    return {
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        Env.RUN: "bench",
        Env.NAMESPACE: "bench",
        Env.UID: UID,
        Env.ATTEMPT: str(attempt),
        Env.MANIFEST: str(root / "manifest.json"),
        Env.MANIFEST_SHA256: loaded.digest,
        Env.DATASET_ROOT: str(data),
        Env.OUTPUT_ROOT: str(root / "output"),
        Env.STARTED_AT: f"{time.time():.3f}",
        Env.NODE_INDEX: "0",
        Env.GRACE_SECONDS: "60",
    }


def events(root: Path, name: str | None = None) -> list[dict[str, Any]]:
    """What the attempt in `root` has told; of one kind or all."""
    path = root / "output/logs/events.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    every = [json.loads(line) for line in lines if line.endswith("}")]
    return [event for event in every if name is None or event["event"] == name]


def starting() -> Any:
    """Processes come from one that has imported everything, so that a start takes a second."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.trainer.arms", "transformers.models.llama.modeling_llama"])
    return context


@dataclass
class Player:
    """The processes (ranks) of one arm."""

    name: str
    log: Path
    wires: list[Any] = field(default_factory=list)
    processes: list[Any] = field(default_factory=list)

    def answers(self) -> list[Any]:
        """One message of each rank. Raises: SystemExit when one has ended or does not answer."""
        found = []
        for wire in self.wires:
            try:
                if not wire.poll(PATIENCE):
                    raise EOFError
                found.append(wire.recv())
            except (EOFError, OSError) as error:
                tail = self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
                raise SystemExit(f"bench: {self.name} has ended or does not answer; it said:\n{tail}") from error
        return found

    def play(self) -> list[Block]:
        """A block of steps, by rank."""
        for wire in self.wires:
            wire.send("go")
        return self.answers()

    def finish(self) -> list[int]:
        """Let it go to its end; answers the peak memory by rank, in bytes."""
        for wire in self.wires:
            wire.send("go")
        return self.ended()

    def ended(self) -> list[int]:
        """As finish, for one without turns."""
        found = self.answers()
        for process in self.processes:
            process.join(PATIENCE)
        codes = [process.exitcode for process in self.processes]
        if any(codes):
            tail = self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise SystemExit(f"bench: {self.name} ended with {codes}; it said:\n{tail}")
        return found


def start(
    context: Any, root: Path, data: Path, document: Mapping[str, Any], arm: str, block: int, ranks: int = 1
) -> Player:
    """The processes of an arm ("tollgate" or "stock"), in a folder of their own below `root`."""
    player = Player(root.name, root / "said.txt")
    environ = environment(root, data, document)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for rank in range(ranks):
        mine = dict(environ)
        if ranks > 1:
            mine |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            mine |= {"LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        here, there = context.Pipe()
        process = context.Process(target=ARMS[arm], args=(mine, player.log, there, block), daemon=True)
        process.start()
        there.close()
        player.wires.append(here)
        player.processes.append(process)
    return player


@contextmanager
def players(*some: Player) -> Iterator[None]:
    """None outlives the block."""
    try:
        yield
    finally:
        for player in some:
            for process in player.processes:
                if process.is_alive():
                    process.kill()
                process.join(30)


def turns(
    some: Sequence[Player], rounds: int, skip: int, said: str
) -> tuple[list[dict[str, list[Block]]], dict[str, list[list[str]]]]:
    """All take turns, each round forth and back (ABBA for every two of them).

    Returns: stretches (two a round) as arm -> block of each rank without its first `skip` steps; losses of every step
    as arm -> rank -> exact losses.
    """
    stretches: list[dict[str, list[Block]]] = []
    losses: dict[str, list[list[str]]] = {player.name: [[] for _ in player.wires] for player in some}
    for number in range(2 * rounds):
        stretch: dict[str, list[Block]] = {}
        for player in some if number % 2 == 0 else list(reversed(some)):
            blocks = player.play()
            for rank, block in enumerate(blocks):
                losses[player.name][rank] += block.losses
            stretch[player.name] = [
                Block(one.seconds[skip:], one.losses[skip:], one.tokens[skip:] if one.tokens is not None else None)
                for one in blocks
            ]
        stretches.append(stretch)
        shown = ", ".join(f"{name} {1000 * min(b[0].seconds):.0f} ms" for name, b in sorted(stretch.items()))
        print(f"{said}: stretch {number + 1} of {2 * rounds}: at least {shown}", flush=True)
    return stretches, losses


def step_seconds(stretches: Sequence[Mapping[str, Sequence[Block]]]) -> list[Stretch]:
    """A step of an arm takes as long as its slowest rank."""
    return [
        {
            arm: [max(by_rank) for by_rank in zip(*(block.seconds for block in blocks), strict=True)]
            for arm, blocks in stretch.items()
        }
        for stretch in stretches
    ]


def rounded(stretches: Sequence[Stretch]) -> list[dict[str, list[float]]]:
    """For JSON: microseconds are enough."""
    return [{arm: [round(value, 6) for value in values] for arm, values in one.items()} for one in stretches]


def keep(what: str, before: Mapping[str, Any], figures: Mapping[str, Any]) -> Path:
    """bench/results/trainer-WHAT.json. before: rig.machine() at the start; that of the end is added."""
    return rig.keep(
        f"trainer-{what}",
        {
            "command": " ".join(["python", "-m", "bench", *sys.argv[1:]]),
            "load_at_start": before["load"],
            "seconds": round(time.time() - float(before["since"]), 1),
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("torch", "transformers", "accelerate")},
            },
            **figures,
        },
    )


def machine() -> dict[str, Any]:
    """At the start of a bench."""
    return {**rig.machine(), "since": time.time()}
