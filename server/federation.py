"""The whole run on the server, in reading order.

gather → ask each client whether it would take part in the whole run → (sealed: open the run at the
key authority) → for each round: choose a cohort of those present → send instructions → receive
until the deadline → examine every reply → combine what passed → evaluate → checkpoint → report →
stop if rounds keep being lost.

A killed server resumes with the round after its last checkpoint. If that round is sealed and its
sum was complete, the server only has the sum released (`calyx.server.state.pending_release`);
otherwise it repeats the instructions, and devices that have answered send the same bytes again
(`calyx.client.sealing.kept_reply`).
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import partial

from flwr.serverapp import Grid

from calyx.server.aggregation.collection import (
    CentralCollection,
    Collection,
    Combined,
    PlainCollection,
)
from calyx.server.aggregation.gradient_step import ServerGradientStep
from calyx.server.aggregation.running_average import RunningAverage
from calyx.server.aggregation.sealed import SealedCollection, SealedRun, SealedStep
from calyx.server.aggregation.strategy import Strategy
from calyx.server.roster import Roster, RoundRecord, Standing
from calyx.server.round.attendance import Attendance
from calyx.server.round.availability import Availability
from calyx.server.round.client_evaluation import evaluate_on_clients
from calyx.server.round.dispatch import Dispatcher
from calyx.server.round.events import declined_event, round_event, start_event
from calyx.server.round.key_offers import KeyOffers
from calyx.server.round.lost_rounds import reason_to_stop
from calyx.server.round.patience import has_stalled
from calyx.server.round.plans import Plans
from calyx.server.round.preflight import Preflight
from calyx.server.round.releasing import Combine, outcome
from calyx.server.run_settings import RunSettings
from calyx.server.state.checkpoint import Checkpoint, load_latest, save_checkpoint, save_model
from calyx.server.state.journal import Journal
from calyx.server.state.pending_release import discard_pending, load_pending, save_pending
from calyx.server.state.witness import Witness
from calyx.shared.config import Config
from calyx.shared.config.load import digest as config_digest
from calyx.shared.data import load_split
from calyx.shared.errors import ConfigError, ReleaseRefused, RoundError
from calyx.shared.models import build_model
from calyx.shared.models.evaluate import Evaluation, evaluate_model
from calyx.shared.models.start import load_start
from calyx.shared.models.tryout import torch_device
from calyx.shared.models.vector import dimension, frozen_names, trainable_names
from calyx.shared.privacy.noise import NoiseSource, SeededNoise, SystemNoise, seeded_key
from calyx.shared.protocol.arrays import Weights, load_weights, weights_of
from calyx.shared.protocol.authority.interface import Authority, Refusal
from calyx.shared.protocol.sealed.messages import common_plan_digest, sealing_parameters
from calyx.shared.tasks.find import task_of


@dataclass(frozen=True)
class _Sealing:
    step: SealedStep
    offers: KeyOffers


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
        settings: RunSettings,
        authority: Authority | None = None,
    ) -> None:
        self._grid, self._config, self._settings = grid, config, settings
        self._is_sealed = config.is_sealed
        if self._is_sealed and authority is None:
            raise ConfigError(
                "a sealed run needs a key authority",
                hint="start one, or set secure_aggregation.scheme = none",
            )
        self._authority = authority
        torch_device(config.training.device)  # it evaluates there
        self._digest = config_digest(config)
        self._test = load_split(config.data, config.seed, config.task).test
        self._task = task_of(config.task, self._test.spec.target)
        self._model = build_model(config.model, self._test.spec, config.seed, self._task)
        load_start(self._model, config.training)
        self._names, self._frozen = trainable_names(self._model), frozen_names(self._model)
        self._strategy = Strategy(config.federation)
        self._server_step = ServerGradientStep(config.federation)
        self._average = RunningAverage(config.federation.average_decay, self._frozen)
        self._attendance = Attendance(grid, config, settings.device_names, settings.record_limits)
        self._availability = Availability(self._attendance, self._least, settings.device_names)

    @property
    def _least(self) -> int:
        """A round with fewer replies has no effect."""
        fewest = self._config.federation.min_replies
        if self._is_sealed:
            return max(fewest, self._config.secure_aggregation.min_contributors)
        return fewest

    def run(self) -> Weights:
        """Carry out all rounds, or those that are left, and return the final weights."""
        started = time.monotonic()
        directory, rounds = self._settings.run_dir / "checkpoints", self._config.training.rounds
        saved = load_latest(directory, self._digest)
        journal = Journal(self._settings.run_dir, saved.history if saved else [])
        try:
            members = saved.roster if saved else [asdict(m) for m in self._attendance.gather()]
            roster = Roster.from_json(members, self._config.seed)
            plans = Plans(self._config, roster, dimension(self._model))
            timeout_s = self._config.federation.round_timeout_s
            preflight = Preflight(self._grid, self._settings.run, plans, timeout_s)
            if saved:
                state = self._restored(saved)
            else:
                state = self._first_state(roster, preflight, journal)
                # From here on the participants, and so every plan, are settled.
                save_checkpoint(directory, state)
            sealed = None
            if self._is_sealed and state.round < rounds:
                sealed = self._open_sealed_run(state, roster, plans)
            journal.write(
                start_event(
                    config=self._config,
                    run_dir=self._settings.run_dir,
                    engine=self._settings.engine,
                    workers=self._settings.workers,
                    first_round=state.round + 1,
                    parameters=sum(int(w.size) for w in state.weights.values()),
                    test_records=len(self._test),
                    task=self._task,
                    members=list(roster),
                    plans=plans,
                )
            )
            while state.round < rounds and not self._has_stalled(state):
                state = self._round(state, roster, plans, preflight, sealed, journal)
                save_checkpoint(directory, state)
                discard_pending(self._settings.run_dir)
                journal.write(state.history[-1])
                if state.round < rounds and (reason := reason_to_stop(state.history)):
                    raise RoundError(reason)
            discard_pending(self._settings.run_dir)
            final = state.average or state.weights
            save_model(self._settings.run_dir / "model.safetensors", final)
            journal.write({"event": "finished", "seconds": time.monotonic() - started})
        finally:
            journal.close()
        return final

    def _has_stalled(self, state: Checkpoint) -> bool:
        patience = self._config.training.patience
        return has_stalled(state.history, self._task.headline, patience)

    def _first_state(self, roster: Roster, preflight: Preflight, journal: Journal) -> Checkpoint:
        """Ask each client before the run has cost any of them anything.

        Raises:
            RoundError: too few clients would take part in all of it.
        """
        clients, rounds = [m.client for m in roster.active], self._config.training.rounds
        _, unwilling = preflight.ask(clients, self._attendance.node_ids, roster, rounds)
        roster.apply(RoundRecord(0, [], declined=unwilling))
        if out := [m for m in roster if m.reason]:
            journal.write(declined_event(0, out))
        contributors = [member.client for member in roster.active]
        if len(contributors) < self._least:
            reasons = [f"{m.client}: {m.reason}" for m in out]
            more = f"; and {len(reasons) - 5} more" if len(reasons) > 5 else ""
            raise RoundError(
                f"{len(contributors)} of {len(list(roster))} clients can take part in all of this "
                f"run, which needs {self._least} ({'; '.join(reasons[:5])}{more}); no client was "
                "charged",
                hint="see the logs of the clients that decline, or lower what the run needs",
            )
        return Checkpoint(
            0,
            self._digest,
            weights_of(self._model),
            roster=roster.to_json(),
            contributors=contributors if self._is_sealed else [],
        )

    def _restored(self, saved: Checkpoint) -> Checkpoint:
        self._strategy.restore(
            {k: v for k, v in saved.strategy_state.items() if not k.startswith("union.")}
        )
        self._server_step.restore(saved.strategy_state)
        self._average.restore(saved.average)
        return saved

    def _open_sealed_run(self, state: Checkpoint, roster: Roster, plans: Plans) -> _Sealing:
        """Get the run's public key; the same terms give the same one after a restart."""
        assert self._authority is not None
        plan = plans.of(roster[state.contributors[0]])
        parameters = sealing_parameters(self._config, plan, dimension(self._model))
        run, least = self._settings.run, self._config.secure_aggregation.min_contributors
        is_simulated = self._settings.simulation_seed is not None
        witness = Witness(None if is_simulated else self._settings.run_dir)
        opening = self._authority.open_run(
            run,
            parameters,
            least,
            state.contributors,
            common_plan_digest(plan),
            self._digest,
            witness.head,
        )
        sealed = SealedRun(
            run, self._config, plan, parameters, self._names, self._authority, opening, witness
        )
        step = SealedStep(sealed, self._strategy, self._server_step)
        return _Sealing(step, KeyOffers(sealed, self._grid))

    def _round(
        self,
        state: Checkpoint,
        roster: Roster,
        plans: Plans,
        preflight: Preflight,
        sealed: _Sealing | None,
        journal: Journal,
    ) -> Checkpoint:
        started = time.monotonic()
        number, federation = state.round + 1, self._config.federation
        offers = sealed.offers if sealed else None
        ask = partial(self._ask, state, roster, plans, sealed, journal)
        look = partial(self._present, state, roster, preflight, offers, journal)
        left = self._left_by_a_crash(state, sealed)
        if left is None:
            cohort = roster.cohort(number, self._config.cohort_size, self._least, look())
            record = RoundRecord(number, cohort)
            combine = ask(record, cohort)
        else:
            record, combine = left
        roster.asked(record.asked)

        def again() -> Combine:
            roster.apply(record)
            return ask(record, look())

        try:
            result = outcome(
                record, combine, again, min_replies=federation.min_replies, least=self._least
            )
        except ReleaseRefused as error:
            # The round stays open: without the refused sum its devices are asked again, and give
            # the same answers. Not where the authority has forgotten releases: a sum of other
            # contributors could be a second one of this round.
            if Refusal.of(error) is not Refusal.ROLLED_BACK:
                discard_pending(self._settings.run_dir)
            raise
        roster.apply(record)
        combined = result.combined or Combined(state.weights, {})
        weights = self._without_frozen(combined.weights, state.weights)
        kept = self._average.update(number, weights)
        metrics = dict(combined.metrics)
        evaluation = self._evaluate(kept)
        if federation.client_evaluation:
            metrics |= evaluate_on_clients(
                self._grid,
                kept,
                record,
                self._attendance.node_ids,
                {member.client: member.declared_records for member in roster},
                self._task,
                federation.round_timeout_s,
            )
        event = round_event(
            record,
            evaluation,
            epsilon_max=plans.epsilon_max(roster),
            skipped=result.reason,
            fault=result.fault,
            client_metrics=metrics,
            seconds=time.monotonic() - started,
        )
        return Checkpoint(
            number,
            self._digest,
            weights,
            self._strategy.state() | self._server_step.state(),
            self._average.state(),
            roster.to_json(),
            [*state.history, event],
            state.contributors,
        )

    def _without_frozen(self, weights: Weights, before: Weights) -> Weights:
        """`weights`, but frozen parameters as before: neither a client nor rounding moves them."""
        return {name: before[name] if name in self._frozen else w for name, w in weights.items()}

    def _left_by_a_crash(
        self, state: Checkpoint, sealed: _Sealing | None
    ) -> tuple[RoundRecord, Combine] | None:
        """The next round, if all it still needs is the release of its sum."""
        if sealed is None:
            return None
        run_dir, context = self._settings.run_dir, sealed.step.run.context
        pending = load_pending(run_dir, self._digest, state.round + 1, context)
        if pending is None:
            return None
        return pending.record, partial(sealed.step.finish, pending, state.weights)

    def _present(
        self,
        state: Checkpoint,
        roster: Roster,
        preflight: Preflight,
        offers: KeyOffers | None,
        journal: Journal,
    ) -> list[str]:
        """Clients that can be asked in the next round; those now out are noted in the journal."""
        before = {member.client for member in roster.active}
        rounds_left = self._config.training.rounds - state.round
        there = self._availability.of(roster, preflight, rounds_left, offers)
        out = [m for m in roster if m.client in before and m.standing is not Standing.ACTIVE]
        if out:
            journal.write(declined_event(state.round + 1, out))
        return there

    def _ask(
        self,
        state: Checkpoint,
        roster: Roster,
        plans: Plans,
        sealed: _Sealing | None,
        journal: Journal,
        record: RoundRecord,
        present: list[str],
    ) -> Combine:
        """Have those present clients train that are silent in `record`."""
        collection = self._collection(record, state.weights, roster, plans, sealed)
        asked = len(record.asked)

        def on_reply(arrived: int) -> None:
            journal.write(
                {"event": "reply", "round": record.round, "arrived": arrived, "asked": asked}
            )

        dispatcher = Dispatcher(
            self._grid,
            self._settings.run,
            self._config.federation.round_timeout_s,
            self._strategy.proximal_mu,
        )
        node_ids = {client: self._attendance.node_ids[client] for client in present}
        late = dispatcher.ask(record, state.weights, roster, plans, node_ids, collection, on_reply)
        self._attendance.doubt(late)
        return collection.combine

    def _collection(
        self,
        record: RoundRecord,
        weights: Weights,
        roster: Roster,
        plans: Plans,
        sealed: _Sealing | None,
    ) -> Collection:
        if sealed is not None:
            keep = partial(save_pending, self._settings.run_dir)
            return SealedCollection(record, weights, sealed.step, keep)
        if self._config.privacy.noise == "central":
            plan = plans.of(roster.active[0])
            noise = self._central_noise(record.round)
            return CentralCollection(
                record.round, weights, self._config, self._strategy, plan, self._names, noise
            )
        return PlainCollection(record.round, weights, self._config, self._strategy)

    def _central_noise(self, number: int) -> NoiseSource:
        if self._settings.simulation_seed is None:
            return SystemNoise()
        key = seeded_key("central", self._settings.simulation_seed, self._digest, number)
        return SeededNoise(key)

    def _evaluate(self, weights: Weights) -> Evaluation:
        load_weights(self._model, weights)
        test, device = self._test, self._config.training.device
        return evaluate_model(self._model, test.features, test.labels, self._task, device)
