"""Planted faults are found, clean runs are not suspected, and nothing stays planted."""

from __future__ import annotations

import pytest

from calyx.audit.selftest import mutants
from calyx.audit.selftest.mutants import examine
from calyx.audit.selftest.planted_faults import MUTANTS
from calyx.audit.selftest.planting import ALONE, CLIENTS, SAMPLED, SEALED, planted
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.event import PrivacyEvent
from calyx.shared.privacy.skellam_mechanism import SkellamMechanism

# The others take the same checks; `calyx audit mutants` plants them all.
IN_TESTS = (
    "no noise",
    "clipped by the norm of something else",
    "the same noise in every second round",
    "coins of the right size for noise",
    "a new accountant every round",
    "accountants that say half",
    "a Rényi bound that says half",
    "shuffled batches called Poisson",
    "a batch drawn and another one used",
    "a wrong number of records",
    "a client that poisons",
    "clients' updates with half the noise",
    "the server's noise halved",
    "a client's rounds counted once for a record",
)


@pytest.mark.parametrize("name", IN_TESTS)
def test_a_planted_fault_is_found_in_one_run(name: str) -> None:
    found = mutants.run(names=(name,), clean_runs=0, workers=1)
    assert [verdict.name for verdict in found.mutants] == [name]
    assert found.caught == 1, name


@pytest.mark.parametrize(
    "settings", [SEALED, SAMPLED, CLIENTS, ALONE], ids=["sealed", "sampled", "clients", "alone"]
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
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) == 34


def test_faults_of_accountants_leave_no_figures_behind() -> None:
    """What plans and accountants keep would otherwise outlive the fault, or hide it."""
    event = PrivacyEvent("gaussian", "record", 2.0, "full", 1.0, 10)
    mutant = next(m for m in MUTANTS if m.name == "accountants that say half")
    before = spent([event], 1e-5).epsilon
    with planted(mutant):
        assert spent([event], 1e-5).epsilon == pytest.approx(before / 2)
    assert spent([event], 1e-5).epsilon == before
