from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calyx.shared.config.schema import DataConfig
from calyx.shared.data import Dataset, partition
from calyx.shared.errors import DataError

ARTIFICIAL = ("iid", "dirichlet", "shards")


def config(kind: str, **more: object) -> DataConfig:
    return DataConfig.model_validate({"source": "npz", "partition": kind, **more})


def unevenness(train: Dataset, parts: list[np.ndarray]) -> float:
    """Mean total variation distance of the clients' class shares from those of all records."""
    overall = np.bincount(train.labels, minlength=train.classes) / len(train)
    shares = [np.bincount(train.labels[p], minlength=train.classes) / len(p) for p in parts]
    return float(np.mean([np.abs(share - overall).sum() / 2 for share in shares]))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(ARTIFICIAL),
    clients=st.integers(5, 20),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_record_belongs_to_exactly_one_client(
    labelled: Dataset, kind: str, clients: int, seed: int
) -> None:
    parts = partition(labelled, config(kind, dirichlet_alpha=5), clients, seed)
    assert len(parts) == clients
    for part in parts:
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labelled)))


@pytest.mark.parametrize("kind", ARTIFICIAL)
def test_the_seed_decides(labelled: Dataset, kind: str) -> None:
    first, again, other = (partition(labelled, config(kind), 8, seed) for seed in (3, 3, 4))
    assert all(map(np.array_equal, first, again))
    assert not any(map(np.array_equal, first, other))


def test_iid_parts_are_equal_in_size_and_alike(labelled: Dataset) -> None:
    parts = partition(labelled, config("iid"), 7, 0)
    assert {len(part) for part in parts} == {85, 86}
    assert unevenness(labelled, parts) < 0.25


def test_dirichlet_is_more_uneven_the_smaller_alpha_is(labelled: Dataset) -> None:
    by_alpha = [
        unevenness(labelled, partition(labelled, config("dirichlet", dirichlet_alpha=a), 8, 0))
        for a in (0.1, 1.0, 1000.0)
    ]
    assert by_alpha[0] > by_alpha[1] + 0.1
    assert by_alpha[1] > by_alpha[2] + 0.1


@pytest.mark.parametrize(
    ("clients", "each"), [(10, 2), (5, 2), (20, 2), (7, 3), (3, 4), (13, 1), (4, 10), (1, 10)]
)
def test_shards_give_each_client_so_many_classes_and_leave_none_out(
    labelled: Dataset, clients: int, each: int
) -> None:
    parts = partition(labelled, config("shards", classes_per_client=each), clients, 0)
    held = [set(labelled.labels[part].tolist()) for part in parts]
    assert {len(classes) for classes in held} == {each}
    assert set.union(*held) == set(range(10))


@pytest.mark.parametrize("as_text", [True, False])
def test_natural_parts_are_the_first_ids_in_sorted_order(labelled: Dataset, as_text: bool) -> None:
    ids = labelled.natural_ids
    assert ids is not None
    if not as_text:
        ids = np.array([int(name[-2:]) - 6 for name in ids], dtype=np.int64)
    train = Dataset(labelled.features, labelled.labels, 10, ids)
    parts = partition(train, config("natural"), 5, 0)
    for part, owner in zip(parts, np.unique(ids)[:5], strict=True):
        assert np.array_equal(part, np.flatnonzero(ids == owner))


@pytest.mark.parametrize(
    ("settings", "clients", "message"),
    [
        ({"partition": "iid"}, 601, "only 600 training records\nhint: use at most 600"),
        ({"partition": "dirichlet"}, 601, "use at most 600"),
        ({"partition": "iid"}, 0, "at least one client"),
        ({"partition": "iid", "min_records": 61}, 10, "need 610 training records; there are 600"),
        ({"partition": "shards", "min_records": 55}, 10, "fewer than data.min_records = 55"),
        ({"partition": "dirichlet", "dirichlet_alpha": 0.01}, 60, "use another alpha"),
        ({"partition": "dirichlet", "dirichlet_alpha": 1e-300}, 60, "use another alpha"),
        ({"partition": "dirichlet", "dirichlet_alpha": 1e308}, 60, "use another alpha"),
        ({"partition": "shards", "classes_per_client": 11}, 5, "use at most 10"),
        (
            {"partition": "shards", "classes_per_client": 2},
            4,
            "(?s)4 clients of 2 classes cannot hold all 10.*at least 3, or .* at least 5",
        ),
        ({"partition": "shards", "classes_per_client": 5}, 300, "fewer records than .* clients"),
        ({"partition": "natural"}, 13, "12 different ids, fewer than .* 13\nhint: use at most 12"),
        ({"partition": "natural", "min_records": 500}, 3, "fewer than data.min_records = 500"),
    ],
)
def test_impossible_requests_say_what_to_change(
    labelled: Dataset, settings: dict, clients: int, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        partition(labelled, config(**{"kind": settings["partition"], **settings}), clients, 0)
    assert "\n" not in str(caught.value)


def test_natural_needs_ids() -> None:
    data = Dataset(np.zeros((6, 2), np.float32), np.arange(6) % 2, 2)
    with pytest.raises(DataError, match="needs a client id for each record"):
        partition(data, config("natural"), 2, 0)


@pytest.mark.parametrize("kind", [*ARTIFICIAL, "natural"])
def test_nothing_is_written_to_the_terminal_and_settings_are_put_back(
    labelled: Dataset, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    import logging
    import threading
    import warnings

    import datasets

    before = (
        datasets.are_progress_bars_disabled(),
        logging.root.manager.disable,
        warnings.filters[:],
        sys.stderr,
        threading.active_count(),
    )
    partition(labelled, config(kind, min_records=2), 8, 0)
    with pytest.raises(DataError):
        partition(labelled, config(kind, min_records=400), 2, 0)
    after = (
        datasets.are_progress_bars_disabled(),
        logging.root.manager.disable,
        warnings.filters[:],
        sys.stderr,
        threading.active_count(),
    )
    assert after == before
    assert capfd.readouterr() == ("", "")
