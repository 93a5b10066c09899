"""The whole run on the server, in reading order.

gather → for each round: choose a cohort → send instructions → receive until the deadline →
examine every reply → aggregate what passed → evaluate → checkpoint → tell.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from server.averaging import RunningAverage
from server.checkpoint import Checkpoint, load_latest, save_checkpoint, save_model
from server.exchange import exchange
from server.gathering import Gathering, gather
from server.journal import Journal
from server.replies import Update, examine
from server.rounds import Member, Note, Roster, RoundRecord, is_enough
from server.strategy import Aggregator
from shared.config import Config
from shared.config.load import digest as config_digest
from shared.data import Dataset, load_split
from shared.errors import CheckpointError, ProtocolError
from shared.models import build_model
from shared.models.evaluate import Evaluation, evaluate_model
from shared.privacy.plan import PrivacyPlan, make_plan
from shared.protocol.arrays import Weights, load_weights, to_record, weights_of
from shared.protocol.messages import (
    ARRAYS,
    CONFIG,
    INSTRUCTION,
    TrainInstruction,
    read_metrics,
)
from shared.protocol.refusals import read_failure


@dataclass(frozen=True)
class ServerSettings:
    """Settings of the machine the server runs on; never sent to clients.

    Attributes:
        run: identifier of the run, as it appears in the clients' ledgers.
        run_dir: the run folder.
        engine: name of the runtime, for the record.
        workers: client processes, for the record.
    """

    run: str
    run_dir: Path
    engine: str
    workers: int


class Federation:
    """One run: its clients, its model and its plans."""

    def __init__(self, grid: Grid, config: Config, settings: ServerSettings) -> None:
        self._grid, self._config, self._settings = grid, config, settings
        self._digest = config_digest(config)
        self._test = load_split(config.data, config.seed).test
        self._model = build_model(
            config.model, self._test.input_shape, self._test.classes, config.seed
        )
        self._aggregator = Aggregator(config.federation)
        self._average = RunningAverage(config.federation.average_decay)
        self._plans: dict[int, PrivacyPlan] = {}

    def run(self) -> Weights:
        """Carry out all rounds and return the final weights."""
        started = time.monotonic()
        found = gather(self._grid, self._config)
        state = self._first_or_last_state(found)
        roster = Roster.from_json(state.roster, self._config.seed)
        journal = Journal(self._settings.run_dir, state.history)
        try:
            journal.write(self._start_event(state, roster))
            while state.round < self._config.training.rounds:
                state = self._round(state, roster, found, journal)
                save_checkpoint(self._settings.run_dir / "checkpoints", state)
                journal.write(state.history[-1])
            final = state.average or state.weights
            save_model(self._settings.run_dir / "model.safetensors", final)
            journal.write({"event": "finished", "seconds": time.monotonic() - started})
        finally:
            journal.close()
        return final

    def _first_or_last_state(self, found: Gathering) -> Checkpoint:
        saved = load_latest(self._settings.run_dir / "checkpoints", self._digest)
        if saved is None:
            roster = Roster(found.members, self._config.seed)
            weights = weights_of(self._model)
            return Checkpoint(0, self._digest, weights, roster=roster.to_json())
        if missing := {m["client"] for m in saved.roster} - set(found.node_ids):
            raise CheckpointError(f"clients {sorted(missing)} of this run are not there")
        declared = {m.client: m.declared_records for m in found.members}
        if any(declared[m["client"]] != m["declared_records"] for m in saved.roster):
            raise CheckpointError("a client declares another record count than before the restart")
        self._aggregator.restore(saved.strategy_state)
        self._average.restore(saved.average)
        return saved

    def _round(
        self, state: Checkpoint, roster: Roster, found: Gathering, journal: Journal
    ) -> Checkpoint:
        started = time.monotonic()
        number, federation = state.round + 1, self._config.federation
        cohort = roster.cohort(number, self._config.cohort_size, federation.min_replies)
        record = RoundRecord(number, cohort)
        roster.asked(cohort)
        updates = self._train(record, state.weights, roster, found, journal)
        roster.apply(record)
        enough = is_enough(record, federation.min_replies)
        weights = state.weights
        metrics: dict[str, float] = {}
        if enough:
            weights, metrics = self._aggregator.aggregate(number, state.weights, updates)
        kept = self._average.update(number, weights)
        result = self._evaluate(kept)
        if federation.client_evaluation:
            metrics |= self._evaluate_on_clients(kept, record, found)
        event = {
            "event": "round",
            "round": number,
            "accuracy": result.accuracy,
            "loss": result.loss,
            "epsilon_max": self._epsilon_max(roster),
            "ok": len(record.ok),
            "asked": len(record.asked),
            "declined": [asdict(n) for n in record.declined],
            "failed": [asdict(n) for n in record.failed],
            "rejected": [asdict(n) for n in record.rejected],
            "skipped": not enough,
            "clients": metrics,
            "seconds": round(time.monotonic() - started, 4),
        }
        return Checkpoint(
            number,
            self._digest,
            weights,
            self._aggregator.state(),
            self._average.state(),
            roster.to_json(),
            [*state.history, event],
        )

    def _train(
        self,
        record: RoundRecord,
        weights: Weights,
        roster: Roster,
        found: Gathering,
        journal: Journal,
    ) -> list[Update]:
        """Send the round's instructions and examine the replies as they come."""
        clients = {found.node_ids[client]: client for client in record.asked}
        arrays = to_record(weights)
        messages = [
            Message(
                RecordDict(
                    {
                        ARRAYS: arrays,
                        INSTRUCTION: self._instruction(record.round, roster[client]).to_record(),
                    }
                ),
                node,
                MessageType.TRAIN,
                group_id=str(record.round),
            )
            for node, client in clients.items()
        ]
        updates: dict[str, Update] = {}
        timeout_s = self._config.federation.round_timeout_s
        for reply in exchange(self._grid, messages, timeout_s):
            client = clients.get(reply.metadata.src_node_id)
            if client is None or client not in record.silent:
                continue
            self._receive(reply, client, weights, roster[client], record, updates)
            arrived = len(record.asked) - len(record.silent)
            journal.write(
                {
                    "event": "reply",
                    "round": record.round,
                    "arrived": arrived,
                    "asked": len(record.asked),
                }
            )
        record.close()
        # Sums of floats depend on their order, so the order is fixed, not that of arrival.
        return [updates[client] for client in record.asked if client in updates]

    def _receive(
        self,
        reply: Message,
        client: str,
        weights: Weights,
        member: Member,
        record: RoundRecord,
        updates: dict[str, Update],
    ) -> None:
        if reply.has_error():
            failure = read_failure(reply)
            note = Note(client, failure.reason)
            (record.declined if failure.kind.is_final else record.failed).append(note)
            return
        try:
            updates[client] = examine(
                reply,
                client=client,
                reference=weights,
                declared_records=member.declared_records,
                max_update_norm=self._config.federation.max_update_norm,
            )
        except ProtocolError as error:
            record.rejected.append(Note(client, str(error)))
            return
        record.ok.append(client)

    def _instruction(self, number: int, member: Member) -> TrainInstruction:
        return TrainInstruction(
            self._settings.run,
            number,
            self._plan(member.declared_records),
            self._aggregator.proximal_mu,
        )

    def _plan(self, declared_records: int) -> PrivacyPlan:
        if declared_records not in self._plans:
            self._plans[declared_records] = make_plan(self._config, declared_records)
        return self._plans[declared_records]

    def _evaluate(self, weights: Weights) -> Evaluation:
        load_weights(self._model, weights)
        test: Dataset = self._test
        return evaluate_model(self._model, test.features, test.labels, self._config.training.device)

    def _evaluate_on_clients(
        self, weights: Weights, record: RoundRecord, found: Gathering
    ) -> dict[str, float]:
        """Record-weighted mean of the clients' own metrics; clients that fail are left out."""
        arrays = to_record(weights)
        messages = [
            Message(
                RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord({"round": record.round})}),
                found.node_ids[client],
                MessageType.EVALUATE,
                group_id=str(record.round),
            )
            for client in record.ok
        ]
        total, sums = 0.0, {"loss": 0.0, "accuracy": 0.0}
        replies = exchange(self._grid, messages, self._config.federation.round_timeout_s)
        for reply in sorted(replies, key=lambda r: r.metadata.src_node_id):
            if reply.has_error():
                continue
            try:
                metrics = read_metrics(reply.content)
            except ProtocolError:
                continue
            weight = metrics.get("num-examples", 0.0)
            if set(metrics) != {"num-examples", *sums} or not 0 < weight <= 1e9:
                continue
            total += weight
            for key in sums:
                sums[key] += weight * metrics[key]
        return {f"client-{key}": value / total for key, value in sums.items()} if total else {}

    def _epsilon_max(self, roster: Roster) -> float:
        """Largest epsilon any client may have spent so far, infinite without privacy."""
        if not self._config.is_private:
            return math.inf
        most: dict[int, int] = {}
        for member in roster:
            most[member.declared_records] = max(
                most.get(member.declared_records, 0), member.rounds_asked
            )
        return max(self._plan(n).spent(rounds).epsilon for n, rounds in most.items())

    def _start_event(self, state: Checkpoint, roster: Roster) -> dict[str, Any]:
        plans = [self._plan(member.declared_records) for member in roster]
        config = self._config
        return {
            "event": "start",
            "run_dir": str(self._settings.run_dir),
            "preset": config.name,
            "rounds": config.training.rounds,
            "first_round": state.round + 1,
            "clients": len(plans),
            "train_records": sum(plan.declared_records for plan in plans),
            "test_records": len(self._test),
            "parameters": sum(int(w.size) for w in state.weights.values()),
            "unit": config.privacy.unit,
            "noise": config.privacy.noise,
            "epsilon_target": plans[0].target_epsilon,
            "delta": config.privacy.delta,
            "noise_multiplier": max(plan.noise_multiplier for plan in plans),
            "largest_client": max(plan.declared_records for plan in plans),
            "engine": self._settings.engine,
            "workers": self._settings.workers,
        }
