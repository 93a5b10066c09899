"""Independent coins pass; every other way to make batches is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.findings.promised import guarantee, sampling
from calyx.audit.finished_run import AuditedRun
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.event import PrivacyEvent

STEPS, RECORDS, RATE, CLIENTS = 40, 60, 0.2, 3
Log = NDArray[np.bool_]


def coins(generator: np.random.Generator, rate: float = RATE) -> Log:
    return generator.random((STEPS, RECORDS)) < rate


def fixed_size(generator: np.random.Generator) -> Log:
    batch = int(RATE * RECORDS)
    log = np.zeros((STEPS, RECORDS), dtype=np.bool_)
    for step in log:
        step[generator.choice(RECORDS, batch, replace=False)] = True
    return log


def shuffled(generator: np.random.Generator) -> Log:
    batch = int(RATE * RECORDS)
    order = np.concatenate([generator.permutation(RECORDS) for _ in range(STEPS)])
    log = np.zeros((STEPS, RECORDS), dtype=np.bool_)
    for number, step in enumerate(log):
        step[order[number * batch : (number + 1) * batch]] = True
    return log


def every_batch_twice(generator: np.random.Generator) -> Log:
    return np.repeat(coins(generator)[: STEPS // 2], 2, axis=0)


def favoured(generator: np.random.Generator) -> Log:
    log = coins(generator)
    log[:, 0] = True
    return log


def higher_rate(generator: np.random.Generator) -> Log:
    return coins(generator, 1.25 * RATE)


def is_in_line(logs: list[Log]) -> bool:
    return all(test.passed for test in sampling.sampling_tests(logs, [RATE] * len(logs)))


def test_independent_coins_fail_no_more_often_than_stated() -> None:
    generator = np.random.default_rng(0)
    runs = 2000
    failed = sum(not is_in_line([coins(generator) for _ in range(CLIENTS)]) for _ in range(runs))
    # Mean 2 by the stated rate; 9 or more has a chance below 3e-4.
    assert failed < 9


@pytest.mark.parametrize(
    "make",
    [fixed_size, shuffled, every_batch_twice, favoured, higher_rate],
    ids=lambda f: f.__name__,
)
def test_other_ways_to_make_batches_are_found(make: object) -> None:
    generator = np.random.default_rng(1)
    for _ in range(20):
        assert not is_in_line([make(generator) for _ in range(CLIENTS)])  # type: ignore[operator]


def test_a_real_run_is_in_line(finished_run: Path) -> None:
    run = AuditedRun(finished_run)
    found = sampling.find(run, EvidenceStore(finished_run))
    assert found.verdict == "as assumed"
    assert found.batches == sum(plan.steps_per_round * plan.rounds for plan in run.plans)
    assert len(found.tests) == 4


def rewrite(path: Path, change: object) -> None:
    """Rewrite a client's batch log, each batch as `change` makes it."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for number, line in enumerate(lines):
        mask = np.zeros(line["records"], dtype=np.bool_)
        mask[change(number, line["records"])] = True  # type: ignore[operator]
        line["batch"] = np.packbits(mask).tobytes().hex()
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_fixed_batches_move_the_headline_to_what_holds_without_amplification(
    run_dir: Path,
) -> None:
    before = guarantee.find(AuditedRun(run_dir), EvidenceStore(run_dir))
    for path in (run_dir / "batches").iterdir():
        rewrite(path, lambda number, records: np.arange(32))
    run = AuditedRun(run_dir)
    store = EvidenceStore(run_dir)
    assert sampling.find(run, store).verdict == "not as assumed"
    found = guarantee.find(run, store)
    assert found.epsilon is not None and before.epsilon is not None
    assert found.epsilon > before.epsilon
    assert found.epsilon_as_charged == before.epsilon
    assert "without amplification" in found.note
    # The most-used record of each client decides, as a use of the mechanism on all records each.
    expected = 0.0
    for ledger in run.ledgers:
        log = run.batches(ledger.client)
        assert log is not None
        event = ledger.events[0]
        full = PrivacyEvent(
            "gaussian",
            "record",
            event.noise_multiplier,
            "full",
            1.0,
            int(log.used.sum(axis=0).max()),
        )
        expected = max(expected, spent([full], found.delta).epsilon)
    assert found.epsilon == pytest.approx(expected, rel=1e-9)


def test_without_a_log_every_batch_counts_in_full(run_dir: Path) -> None:
    for path in (run_dir / "batches").iterdir():
        path.unlink()
    run = AuditedRun(run_dir)
    store = EvidenceStore(run_dir)
    assert sampling.find(run, store).verdict == "not measured"
    found = guarantee.find(run, store)
    event = run.ledgers[0].events[0]
    full = PrivacyEvent("gaussian", "record", event.noise_multiplier, "full", 1.0, 2 * event.count)
    assert found.by_client[0].epsilon == pytest.approx(spent([full], found.delta).epsilon)


def test_a_log_with_gaps_is_not_believed(run_dir: Path) -> None:
    path = next(iter(sorted((run_dir / "batches").iterdir())))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    run = AuditedRun(run_dir)
    found = sampling.find(run, EvidenceStore(run_dir))
    assert found.verdict == "not as assumed"
    assert "charged for" in found.answer
