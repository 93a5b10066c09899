"""The batch log says which records the model was given, and repeated rounds count once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from calyx.client.instrumentation.batch_log import BatchLog, BatchSeen, read_batches
from calyx.client.instrumentation.hooks import Audit
from calyx.client.training.local import train_locally
from calyx.shared.config import Config
from calyx.shared.data import Dataset
from calyx.shared.models import build_model
from calyx.shared.privacy.noise import SeededNoise, seeded_key
from calyx.shared.privacy.plan import make_plan
from calyx.shared.record_spec import RecordSpec
from calyx.shared.target import Classes
from calyx.shared.tasks.classification import classification


def records(count: int) -> Dataset:
    features = np.random.default_rng(1).random((count, 1, 8, 8), dtype=np.float32)
    return Dataset(features, np.arange(count) % 3, 3)


def seen(data: Dataset, given: NDArray[np.int64], drawn: NDArray[np.int64]) -> BatchSeen:
    """`given` went into the model, in two parts, and was said to be `drawn`."""
    found = BatchSeen(data)
    for part in (slice(0, 2), slice(2, None)):
        enter(found, data.floats[given[part]], data.labels[given[part]], drawn[part])
    return found


def enter(
    found: BatchSeen,
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    drawn: NDArray[np.int64],
) -> None:
    found.entered(torch.from_numpy(features), torch.from_numpy(labels), drawn)


def add(log: BatchLog, indices: list[int], count: int) -> None:
    log.add(seen(records(count), np.array(indices), np.array(indices)))


def test_batches_are_read_as_they_were_used(tmp_path: Path) -> None:
    path, data = tmp_path / "client.jsonl", records(19)
    used = np.random.default_rng(0).random((6, 19)) < 0.3
    for number in (1, 2):
        log = BatchLog(path, round=number)
        for mask in used[3 * (number - 1) : 3 * number]:
            log.add(seen(data, np.flatnonzero(mask), np.flatnonzero(mask)))
    found = read_batches(path, path.parent)
    assert (found.used == used).all()
    assert found.out_of_place == 0


def test_what_the_model_was_given_counts_and_not_what_was_drawn() -> None:
    found = seen(records(9), np.array([5, 1, 3]), np.array([0, 1, 2]))
    assert np.flatnonzero(found.mask).tolist() == [1, 3, 5]
    assert found.out_of_place == 0


def test_a_record_that_is_given_twice_or_is_nobodys_is_out_of_place() -> None:
    data = records(9)
    assert seen(data, np.array([4, 4, 4]), np.array([4, 4, 4])).out_of_place == 2
    strange = BatchSeen(data)
    enter(strange, data.floats[:2] + 1, data.labels[:2], np.arange(2))
    enter(strange, data.floats[2:4], data.labels[2:4] + 1, np.arange(2, 4))
    assert not strange.mask.any()
    assert strange.out_of_place == 4


def test_equal_records_are_told_apart_by_their_number() -> None:
    one = records(4)
    data = Dataset(np.concatenate([one.features] * 2), np.concatenate([one.labels] * 2), 3)
    found = seen(data, np.array([1, 5, 6]), np.array([1, 5, 6]))
    assert np.flatnonzero(found.mask).tolist() == [1, 5, 6]
    assert found.out_of_place == 0


def test_training_logs_the_records_behind_its_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where other records are read than were drawn."""
    import calyx.client.training.dp_sgd as dp_sgd

    config = Config.model_validate(
        {"privacy": {"noise": "local", "sampling": "poisson"}, "training": {"batch_size": 8}}
    )
    data, plan = records(40), make_plan(config, 40)
    real = dp_sgd.batch_tensors

    def first(
        data: Dataset, indices: NDArray[np.int64], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return real(data, np.arange(len(indices)), device)

    def used() -> NDArray[np.bool_]:
        path = tmp_path / "log.jsonl"
        path.unlink(missing_ok=True)
        train_locally(
            build_model(config.model, RecordSpec.floats((1, 8, 8), Classes(3)), 0),
            data,
            classification(Classes(3)),
            config.training,
            plan,
            proximal_mu=0.0,
            noise=SeededNoise(seeded_key("test")),
            order_seed=0,
            audit=Audit(BatchLog(path, 1)),
        )
        return read_batches(path, tmp_path).used

    honest = used()
    assert 0 < honest.mean() < 1 and not honest[:, 0].all()
    monkeypatch.setattr(dp_sgd, "batch_tensors", first)
    assert used()[:, 0].all()


def test_a_round_that_was_repeated_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "client.jsonl"
    add(BatchLog(path, round=1), [0, 1], 4)
    add(BatchLog(path, round=1), [2], 4)
    assert read_batches(path, path.parent).used.tolist() == [[False, False, True, False]]


def test_batches_of_different_data_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "client.jsonl"
    add(BatchLog(path, round=1), [0], 4)
    add(BatchLog(path, round=2), [0], 40)
    with pytest.raises(ValueError, match="different data"):
        read_batches(path, path.parent)
