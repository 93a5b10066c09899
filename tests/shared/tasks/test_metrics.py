"""Metrics are those of scikit-learn, and None where the records do not define them."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torchmetrics import MeanAbsoluteError
from torchmetrics.functional.regression import mean_absolute_error

from calyx.shared.errors import ModelError
from calyx.shared.target import Classes, MultiLabel, NextTokens, Reals
from calyx.shared.tasks import Metric, Task
from calyx.shared.tasks.classification import classification
from calyx.shared.tasks.multilabel import multilabel
from calyx.shared.tasks.next_token import next_token
from calyx.shared.tasks.regression import regression

Figures = dict[str, float | None]
# Figures are rounded to seven digits.
SAME = {"rel": 1e-5, "abs": 1e-6}


def figures(task: Task, outputs: torch.Tensor, labels: torch.Tensor) -> Figures:
    predictions = task.predictions(outputs, labels)
    return {metric.name: metric.value(predictions, labels) for metric in task.measured}


def logits(rng: np.random.Generator, labels: np.ndarray[Any, Any], number: int) -> torch.Tensor:
    """Of a model that is right more often than not."""
    drawn = rng.normal(size=(len(labels), number)) + 1.5 * np.eye(number)[labels]
    return torch.from_numpy(drawn.astype(np.float32))


@settings(max_examples=40)
@given(number=st.integers(2, 7), n=st.integers(30, 300), seed=st.integers(0, 2**32 - 1))
def test_classes_are_judged_as_scikit_learn_judges_them(number: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(number), rng.integers(0, number, n)])
    outputs = logits(rng, labels, number)
    found = figures(classification(Classes(number)), outputs, torch.from_numpy(labels))
    guessed = outputs.argmax(dim=1).numpy()
    shares = outputs.double().softmax(dim=1).numpy()
    scores = outputs[:, 1].double() - outputs[:, 0].double() if number == 2 else shares
    assert list(found) == ["accuracy", "balanced_accuracy", "f1", "auc"]
    assert found == pytest.approx(
        {
            "accuracy": sk.accuracy_score(labels, guessed),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, guessed),
            "f1": sk.f1_score(labels, guessed, average="macro"),
            "auc": sk.roc_auc_score(labels, scores, multi_class="ovr"),
        },
        **SAME,
    )


def test_a_class_without_test_records_has_no_recall_and_leaves_the_area_undefined() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 80)
    outputs = logits(rng, labels, 4)
    outputs[:9, 3] += 9  # it is predicted all the same
    found = figures(classification(Classes(4)), outputs, torch.from_numpy(labels))
    guessed = outputs.argmax(dim=1).numpy()
    recalls = [(guessed[labels == c] == c).mean() for c in range(3)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls), **SAME)
    assert found["f1"] == pytest.approx(sk.f1_score(labels, guessed, average="macro"), **SAME)
    assert found["auc"] is None


def test_a_model_that_is_sure_of_everything_is_ranked_by_how_sure_it_is() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 500)
    outputs = torch.from_numpy((60 * rng.normal(size=(500, 2))).astype(np.float32))
    outputs[:, 1] += 40 * torch.from_numpy(labels)
    found = figures(classification(Classes(2)), outputs, torch.from_numpy(labels))
    assert found["auc"] == pytest.approx(
        sk.roc_auc_score(labels, outputs[:, 1].double() - outputs[:, 0].double()), **SAME
    )
    several = torch.from_numpy(rng.integers(0, 2, (500, 3)).astype(np.float32))
    sure = torch.from_numpy((60 * rng.normal(size=(500, 3))).astype(np.float32)) + 40 * several
    found = figures(multilabel(MultiLabel(3)), sure, several)
    assert found["auc"] == pytest.approx(sk.roc_auc_score(several, sure), **SAME)


def test_equal_scores_count_half() -> None:
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    outputs = torch.tensor([[0.0, s] for s in (1, 1, 0, 0, 1, 0)])
    found = figures(classification(Classes(2)), outputs, labels)
    assert found["auc"] == pytest.approx(sk.roc_auc_score(labels, outputs[:, 1]), **SAME)
    assert figures(classification(Classes(2)), torch.zeros(6, 2), labels)["auc"] == 0.5


def test_many_classes_have_no_area() -> None:
    names = [metric.name for metric in classification(Classes(101)).measured]
    assert names == ["accuracy", "balanced_accuracy", "f1"]


@settings(max_examples=40)
@given(number=st.integers(1, 6), n=st.integers(20, 200), seed=st.integers(0, 2**32 - 1))
def test_several_labels_are_judged_as_scikit_learn_judges_them(
    number: int, n: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (n, number)).astype(np.float32)
    labels[0], labels[1] = 0, 1
    outputs = (rng.normal(size=(n, number)) + labels - 0.5).astype(np.float32)
    target = MultiLabel(number)
    found = figures(multilabel(target), torch.from_numpy(outputs), torch.from_numpy(labels))
    guessed = outputs > 0
    assert list(found) == ["f1", "accuracy", "auc"]
    assert found == pytest.approx(
        {
            "f1": sk.f1_score(labels.ravel(), guessed.ravel()),
            "accuracy": (guessed == labels).mean(),
            "auc": np.mean([sk.roc_auc_score(labels[:, i], outputs[:, i]) for i in range(number)]),
        },
        **SAME,
    )


def test_a_label_that_all_records_have_leaves_the_area_undefined() -> None:
    labels = torch.tensor([[1.0, 0], [1, 1], [1, 0]])
    found = figures(multilabel(MultiLabel(2)), torch.randn(3, 2), labels)
    assert found["auc"] is None
    assert found["f1"] is not None and found["accuracy"] is not None


@settings(max_examples=40)
@given(
    low=st.floats(-1e3, 1e3), width=st.floats(0.1, 1e3), n=st.integers(2, 200), seed=st.integers(0)
)
def test_real_values_are_judged_in_their_own_unit_as_scikit_learn_does(
    low: float, width: float, n: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = (low + width * rng.random(n)).astype(np.float32)
    outputs = rng.normal(size=(n, 1)).astype(np.float32)
    task = regression(Reals(low, low + width))
    found = figures(task, torch.from_numpy(outputs), torch.from_numpy(labels))
    values = task.predictions(torch.from_numpy(outputs), torch.from_numpy(labels)).double().numpy()
    np.testing.assert_allclose(
        values, low + width * (outputs[:, 0].astype(float) + 1) / 2, rtol=1e-4, atol=1e-3
    )
    assert list(found) == ["r2", "mae", "rmse"]
    assert found == pytest.approx(
        {
            "r2": sk.r2_score(labels.astype(float), values),
            "mae": sk.mean_absolute_error(labels, values),
            "rmse": math.sqrt(sk.mean_squared_error(labels, values)),
        },
        rel=1e-4,
        abs=1e-6,
    )


@pytest.mark.parametrize("labels", [[3.0], [3.0, 3.0, 3.0]], ids=["one record", "all equal"])
def test_labels_that_do_not_vary_explain_nothing(labels: list[float]) -> None:
    found = figures(regression(Reals(0, 8)), torch.zeros(len(labels), 1), torch.tensor(labels))
    assert found == {"r2": None, "mae": 1.0, "rmse": 1.0}


def test_tokens_are_judged_at_the_steps_that_have_a_follower() -> None:
    rng = np.random.default_rng(3)
    outputs = torch.from_numpy(rng.normal(size=(30, 7, 5)).astype(np.float32))
    labels = torch.from_numpy(rng.integers(0, 5, (30, 7)))
    found = figures(next_token(NextTokens((7,), 5)), outputs, labels)
    real, right, nats = 0, 0, 0.0
    for record in range(30):
        for step in range(7):
            label = int(labels[record, step])
            if label == 0:
                continue
            scores = outputs[record, step].double().numpy()
            real += 1
            right += int(scores.argmax()) == label
            nats += math.log(np.exp(scores).sum()) - scores[label]
    assert list(found) == ["accuracy", "perplexity"]
    assert found == pytest.approx(
        {"accuracy": right / real, "perplexity": math.exp(nats / real)}, **SAME
    )


def test_a_model_that_knows_nothing_is_as_perplexed_as_there_are_tokens() -> None:
    labels = torch.tensor([[1, 2, 3, 4, 0, 0]])
    found = figures(next_token(NextTokens((6,), 5)), torch.zeros(1, 6, 5), labels)
    assert found["perplexity"] == pytest.approx(5.0)


def test_texts_without_a_step_to_predict_define_nothing() -> None:
    labels = torch.zeros(2, 6, dtype=torch.int64)
    found = figures(next_token(NextTokens((6,), 5)), torch.randn(2, 6, 5), labels)
    assert found == {"accuracy": None, "perplexity": None}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("some", [1, 12], ids=["one record", "all records"])
def test_a_diverged_model_is_no_reason_to_stop_and_has_no_figure_by_chance(
    bad: float, some: int
) -> None:
    n = torch.arange(12)
    several = torch.stack([n % 2, (n + 1) % 2], dim=1).float()
    cases: list[tuple[Task, torch.Tensor, torch.Tensor]] = [
        (classification(Classes(2)), torch.randn(12, 2), n % 2),
        (classification(Classes(3)), torch.randn(12, 3), n % 3),
        (multilabel(MultiLabel(2)), torch.randn(12, 2), several),
        (regression(Reals(0, 12)), torch.randn(12, 1), n.float()),
        (next_token(NextTokens((2,), 4)), torch.randn(12, 2, 4), torch.ones(12, 2).long()),
    ]
    for task, outputs, labels in cases:
        outputs[:some] = bad
        found = figures(task, outputs, labels)
        undefined = {"auc", "r2", "mae", "rmse", "perplexity"} & set(found)
        # An infinite score is still more than all others.
        expected = undefined - ({"auc"} if task is cases[2][0] and math.isinf(bad) else set())
        assert {name for name, value in found.items() if value is None} == expected


def test_one_record_without_a_number_does_not_change_what_others_are_taken_for() -> None:
    labels = torch.tensor([[1.0, 0], [1, 0], [1, 0], [1, 0]])
    outputs = torch.tensor([[9.0, -9]] * 4)
    outputs[0] = math.nan
    found = figures(multilabel(MultiLabel(2)), outputs, labels)
    # What is not a number is a no: of eight answers one is wrong.
    assert found["accuracy"] == 0.875


def test_own_metrics_are_functions_or_those_of_torchmetrics() -> None:
    task = Task(
        lambda outputs, labels: (outputs[:, 0] - labels).abs(),
        {"mae": mean_absolute_error, "as_object": MeanAbsoluteError()},
    )
    outputs, labels = torch.tensor([[1.0], [5.0]]), torch.tensor([2.0, 2.0])
    values = {m.name: m.value(outputs[:, 0], labels) for m in task.measured}
    assert values == {"mae": 2.0, "as_object": 2.0}
    assert [m.higher_is_better for m in task.measured] == [True, False]
    assert (task.headline.name, task.headline.shown) == ("mae", "mae")
    assert asdict(task.measured[1].facts()) == {
        "name": "as_object",
        "shown": "as object",
        "is_share": False,
        "higher_is_better": False,
    }


def test_a_metric_object_of_torchmetrics_forgets_the_round_before() -> None:
    metric = Metric.of("mae", MeanAbsoluteError())
    zeros = torch.zeros(2)
    assert [metric.value(zeros, zeros + by) for by in (1.0, 3.0)] == [1.0, 3.0]


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        (lambda outputs, labels: 1 / 0, "ZeroDivisionError"),
        (lambda outputs, labels: outputs, "RuntimeError|ValueError"),
        (lambda outputs, labels: None, "TypeError"),
    ],
    ids=["fails", "many numbers", "nothing"],
)
def test_an_own_metric_that_fails_is_named(measure: Any, words: str) -> None:
    with pytest.raises(ModelError, match=f"metric mine failed with ({words})") as caught:
        Metric("mine", measure).value(torch.zeros(3, 2), torch.zeros(3))
    assert "returns one number" in caught.value.hint


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_no_number_is_none(value: float) -> None:
    assert (
        Metric("mine", lambda outputs, labels: value).value(torch.zeros(1), torch.zeros(1)) is None
    )
