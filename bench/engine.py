"""What the local engine costs by itself: rounds in which the clients do nothing.

``python -m bench.engine [--json]`` runs rounds of 10 train and 10 evaluate messages against a
ClientApp that answers at once, and reports medians in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from calyx.server.exchange import exchange
from calyx.shared.protocol.arrays import to_record
from calyx.simulations.engines.grid import (
    ClientExecutor,
    InProcessExecutor,
    LocalGrid,
    client_contexts,
)
from calyx.simulations.engines.pool import WorkerPool

CLIENTS = 10
app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Send the model back."""
    content = RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord({"n": 1})})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Send a number back."""
    return Message(RecordDict({"metrics": MetricRecord({"n": 1})}), reply_to=message)


def _round(grid: LocalGrid, arrays: ArrayRecord) -> float:
    started = time.perf_counter()
    for kind in (MessageType.TRAIN, MessageType.EVALUATE):
        content = RecordDict({"arrays": arrays})
        messages = [Message(content, node, kind) for node in grid.get_node_ids()]
        replies = list(exchange(grid, messages, timeout_s=60))
        if len(replies) != CLIENTS or any(reply.has_error() for reply in replies):
            raise SystemExit("a client did not answer")
    return 1000 * (time.perf_counter() - started)


def _executors() -> Iterator[tuple[str, ClientExecutor]]:
    nodes: dict[int, dict[str, str | int | float | bool]] = {2 + i: {} for i in range(CLIENTS)}
    yield "in_process", InProcessExecutor(app, client_contexts(nodes, {}))
    pool = WorkerPool(2, "bench.engine:app", nodes, {})
    pool.wait_until_ready()
    yield "two_workers", pool


def measure(rounds: int) -> dict[str, float]:
    """Median milliseconds of a round, by executor and model size."""
    generator = np.random.default_rng(0)
    models = {"100": 100, "421642": 421_642}
    figures: dict[str, float] = {}
    for name, executor in _executors():
        grid = LocalGrid(executor, range(2, 2 + CLIENTS))
        for size, values in models.items():
            weights = {"w": generator.standard_normal(values).astype(np.float32)}
            times = [_round(grid, to_record(weights)) for _ in range(rounds)]
            figures[f"{name}_{size}_values_ms"] = round(statistics.median(times), 3)
        executor.close()
    figures["noop_round_ms"] = figures["in_process_100_values_ms"]
    return figures


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=50, help="rounds a figure (default 50)")
    arguments = parser.parse_args()
    figures = measure(arguments.rounds)
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:28} {value:9.3f}", file=sys.stdout)


if __name__ == "__main__":
    main()
