"""Planted faults are found, clean runs are not suspected, and nothing stays planted."""

from __future__ import annotations

import pytest

from audit import mutants
from audit.mutants import CLIENTS, MUTANTS, SAMPLED, SEALED, examine, planted
from shared.privacy.skellam_mechanism import SkellamMechanism

# The others take the same checks; `calyx audit mutants` plants them all.
IN_TESTS = (
    "no noise",
    "half the noise",
    "no clipping",
    "clipped by the norm of something else",
    "the same noise every round",
    "a new accountant every round",
    "shuffled batches called Poisson",
    "a wrong number of records",
    "a client that poisons",
    "a client's rounds counted once for a record",
)


@pytest.mark.parametrize("name", IN_TESTS)
def test_a_planted_fault_is_found_in_one_run(name: str) -> None:
    found = mutants.run(names=(name,), clean_runs=0)
    assert [verdict.name for verdict in found.mutants] == [name]
    assert found.caught == 1, name


@pytest.mark.parametrize(
    "settings", [SEALED, SAMPLED, CLIENTS], ids=["sealed", "sampled", "clients"]
)
def test_a_clean_run_is_not_suspected(settings: tuple[str, ...]) -> None:
    assert examine(settings, seed=3) == ()


def test_a_fault_is_gone_after_its_block_even_if_the_run_fails() -> None:
    before = SkellamMechanism.noise
    mutant = next(m for m in MUTANTS if m.name == "no noise")
    with pytest.raises(RuntimeError, match="failed"), planted(mutant):
        assert SkellamMechanism.noise is not before
        raise RuntimeError("failed")
    assert SkellamMechanism.noise is before


def test_there_are_so_many_different_faults() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) == 14
