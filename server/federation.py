"""The whole run on the server, in reading order.

gather → (sealed: open the run at the key authority) → for each round: choose a cohort → send
instructions → receive until the deadline → examine every reply → combine what passed → evaluate →
checkpoint → tell.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from server.averaging import RunningAverage
from server.checkpoint import Checkpoint, load_latest, save_checkpoint, save_model
from server.collecting import CentralCollection, Collection, PlainCollection
from server.exchange import exchange
from server.gathering import Gathering, gather
from server.journal import Journal
from server.planning import Plans
from server.rounds import Note, Roster, RoundRecord, is_enough
from server.sealed import SealedCollection, SealedRun, UnionStep, offer_to_clients
from server.strategy import Aggregator
from shared.config import Config
from shared.config.load import digest as config_digest
from shared.data import load_split
from shared.errors import (
    CheckpointError,
    ConfigError,
    EncryptionError,
    ProtocolError,
    ReleaseRefused,
    RoundError,
)
from shared.models import build_model
from shared.models.evaluate import Evaluation, evaluate_model
from shared.models.vector import dimension, trainable_names
from shared.privacy.noise import NoiseSource, SeededNoise, SystemNoise, seeded_key
from shared.protocol.arrays import Weights, load_weights, to_record, weights_of
from shared.protocol.authority_client import Authority
from shared.protocol.messages import (
    ARRAYS,
    CONFIG,
    INSTRUCTION,
    TrainInstruction,
    read_metrics,
)
from shared.protocol.refusals import read_failure
from shared.protocol.sealing import sealing_parameters


@dataclass(frozen=True)
class ServerSettings:
    """Settings of the machine the server runs on; never sent to clients.

    Attributes:
        run: identifier of the run, as it appears in the clients' ledgers.
        run_dir: the run folder.
        engine: name of the runtime, for the record.
        workers: client processes, for the record.
        simulation_seed: seed of central noise in a simulation; None for system entropy.
        device_names: in a deployment, who each of Flower's nodes was approved as.
    """

    run: str
    run_dir: Path
    engine: str
    workers: int
    simulation_seed: int | None = None
    device_names: Mapping[int, str] | None = None


class Federation:
    """One run: its clients, its model and its plans.

    Args:
        grid: Flower's way to the clients.
        config: the run.
        settings: this machine's own.
        authority: decrypts sums; needed for sealed runs.

    Raises:
        ConfigError: a sealed run without a key authority.
    """

    def __init__(
        self,
        grid: Grid,
        config: Config,
        settings: ServerSettings,
        authority: Authority | None = None,
    ) -> None:
        self._grid, self._config, self._settings = grid, config, settings
        self._is_sealed = config.secure_aggregation.scheme != "none"
        if self._is_sealed and authority is None:
            raise ConfigError("a sealed run needs a key authority; start one, or set scheme = none")
        self._authority = authority
        self._digest = config_digest(config)
        self._test = load_split(config.data, config.seed).test
        self._model = build_model(
            config.model, self._test.input_shape, self._test.classes, config.seed
        )
        self._names = trainable_names(self._model)
        self._strategy = Aggregator(config.federation)
        self._union = UnionStep(config.federation)
        self._average = RunningAverage(config.federation.average_decay)

    def run(self) -> Weights:
        """Carry out all rounds and return the final weights."""
        started = time.monotonic()
        found = gather(self._grid, self._config, self._settings.device_names)
        state = self._first_or_last_state(found)
        roster = Roster.from_json(state.roster, self._config.seed)
        plans = Plans(self._config, roster, dimension(self._model))
        sealed = self._open_sealed_run(roster, plans, found) if self._is_sealed else None
        journal = Journal(self._settings.run_dir, state.history)
        try:
            journal.write(self._start_event(state, roster, plans))
            while state.round < self._config.training.rounds:
                state = self._round(state, roster, plans, found, sealed, journal)
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
        self._strategy.restore(
            {k: v for k, v in saved.strategy_state.items() if not k.startswith("union.")}
        )
        self._union.restore(saved.strategy_state)
        self._average.restore(saved.average)
        return saved

    def _open_sealed_run(self, roster: Roster, plans: Plans, found: Gathering) -> SealedRun:
        """Get the run's public key and let every client check that it is the authority's."""
        assert self._authority is not None
        members, least = roster.active, self._config.secure_aggregation.min_contributors
        if len(members) < least:
            reasons = [m.reason for m in roster if m.reason]
            raise RoundError(
                f"{len(members)} clients can be used, a sealed sum needs {least}: "
                + ("; ".join(reasons[:3]) or "too few are there")
            )
        plan = plans.of(members[0])
        parameters = sealing_parameters(self._config, plan, dimension(self._model))
        opening = self._authority.open_run(
            self._settings.run,
            parameters,
            self._config.secure_aggregation.min_contributors,
            [member.client for member in members],
        )
        sealed = SealedRun(
            self._settings.run,
            self._config,
            plan,
            parameters,
            self._names,
            self._authority,
            opening,
        )
        refused = offer_to_clients(sealed, self._grid, found.node_ids)
        record = RoundRecord(0, [])
        record.declined += [Note(client, reason) for client, reason in refused.items()]
        roster.apply(record)
        return sealed

    def _round(
        self,
        state: Checkpoint,
        roster: Roster,
        plans: Plans,
        found: Gathering,
        sealed: SealedRun | None,
        journal: Journal,
    ) -> Checkpoint:
        started = time.monotonic()
        number, federation = state.round + 1, self._config.federation
        cohort = roster.cohort(number, self._config.cohort_size, federation.min_replies)
        record = RoundRecord(number, cohort)
        roster.asked(cohort)
        collection = self._collection(number, state.weights, roster, plans, sealed)
        self._train(record, state.weights, roster, plans, found, collection, journal)
        roster.apply(record)
        weights, skipped = state.weights, ""
        metrics: dict[str, float] = {}
        if is_enough(record, federation.min_replies):
            try:
                combined = collection.combine()
                weights, metrics = combined.weights, dict(combined.metrics)
            except (ReleaseRefused, RoundError) as error:
                skipped = str(error)
        else:
            skipped = f"{len(record.ok)} usable replies, {federation.min_replies} are needed"
        kept = self._average.update(number, weights)
        result = self._evaluate(kept)
        if federation.client_evaluation:
            metrics |= self._evaluate_on_clients(kept, record, found)
        event = {
            "event": "round",
            "round": number,
            "accuracy": result.accuracy,
            "loss": result.loss,
            "epsilon_max": plans.epsilon_max(roster),
            "ok": len(record.ok),
            "asked": len(record.asked),
            "declined": [asdict(n) for n in record.declined],
            "failed": [asdict(n) for n in record.failed],
            "rejected": [asdict(n) for n in record.rejected],
            "skipped": bool(skipped),
            "reason": skipped,
            "clients": metrics,
            "seconds": round(time.monotonic() - started, 4),
        }
        return Checkpoint(
            number,
            self._digest,
            weights,
            self._strategy.state() | self._union.state(),
            self._average.state(),
            roster.to_json(),
            [*state.history, event],
        )

    def _collection(
        self,
        number: int,
        weights: Weights,
        roster: Roster,
        plans: Plans,
        sealed: SealedRun | None,
    ) -> Collection:
        if sealed is not None:
            return SealedCollection(number, weights, sealed, self._strategy, self._union)
        if self._config.privacy.noise == "central":
            plan = plans.of(roster.active[0])
            noise = self._central_noise(number)
            return CentralCollection(
                number, weights, self._config, self._strategy, plan, self._names, noise
            )
        return PlainCollection(number, weights, self._config, self._strategy)

    def _central_noise(self, number: int) -> NoiseSource:
        if self._settings.simulation_seed is None:
            return SystemNoise()
        key = seeded_key("central", self._settings.simulation_seed, self._digest, number)
        return SeededNoise(key)

    def _train(
        self,
        record: RoundRecord,
        weights: Weights,
        roster: Roster,
        plans: Plans,
        found: Gathering,
        collection: Collection,
        journal: Journal,
    ) -> None:
        """Send the round's instructions and examine the replies as they come."""
        clients = {found.node_ids[client]: client for client in record.asked}
        arrays = to_record(weights)
        messages = []
        for node, client in clients.items():
            instruction = TrainInstruction(
                self._settings.run,
                record.round,
                plans.of(roster[client]),
                self._strategy.proximal_mu,
            )
            content = RecordDict({ARRAYS: arrays, INSTRUCTION: instruction.to_record()})
            messages.append(Message(content, node, MessageType.TRAIN, group_id=str(record.round)))
        timeout_s = self._config.federation.round_timeout_s
        for reply in exchange(self._grid, messages, timeout_s):
            client = clients.get(reply.metadata.src_node_id, "")
            if client not in record.silent:
                continue
            self._receive(reply, client, roster, record, collection)
            journal.write(
                {
                    "event": "reply",
                    "round": record.round,
                    "arrived": len(record.asked) - len(record.silent),
                    "asked": len(record.asked),
                }
            )
        record.close()

    def _receive(
        self,
        reply: Message,
        client: str,
        roster: Roster,
        record: RoundRecord,
        collection: Collection,
    ) -> None:
        if reply.has_error():
            failure = read_failure(reply)
            note = Note(client, failure.reason)
            (record.declined if failure.kind.is_final else record.failed).append(note)
            return
        try:
            collection.add(client, roster[client], reply)
        except (ProtocolError, EncryptionError) as error:
            record.rejected.append(Note(client, str(error)))
            return
        record.ok.append(client)

    def _evaluate(self, weights: Weights) -> Evaluation:
        load_weights(self._model, weights)
        test, device = self._test, self._config.training.device
        return evaluate_model(self._model, test.features, test.labels, device)

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

    def _start_event(self, state: Checkpoint, roster: Roster, all_plans: Plans) -> dict[str, Any]:
        plans = [all_plans.of(member) for member in roster]
        config = self._config
        return {
            "event": "start",
            "run_dir": str(self._settings.run_dir),
            "preset": config.name,
            "rounds": config.training.rounds,
            "first_round": state.round + 1,
            "clients": len(plans),
            "train_records": sum(member.declared_records for member in roster),
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
            "scheme": config.secure_aggregation.scheme,
        }
