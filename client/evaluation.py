"""Evaluating a model, and the client's side of federated evaluation."""

from __future__ import annotations

from flwr.app import RecordDict

from calyx.client.node import Node
from calyx.shared.config import Config
from calyx.shared.errors import DataError, ModelError, PolicyViolation
from calyx.shared.models import build_model
from calyx.shared.models.evaluate import evaluate_model
from calyx.shared.protocol.arrays import LARGEST_WEIGHT, load_weights, read_record, weights_of
from calyx.shared.protocol.messages import evaluate_reply, read_arrays
from calyx.shared.tasks.find import task_of


def evaluate_round(content: RecordDict, config: Config, node: Node) -> RecordDict:
    """Evaluate the received model on this client's records.

    Raises:
        PolicyViolation: the release of exact figures about private records was not agreed, or the
            owner does not allow the model; nothing was loaded or called.
        DataError: loss or metrics cannot be computed of these records.
    """
    if config.is_private and not config.privacy.release_metrics:
        raise PolicyViolation(
            "exact metrics would be an unprotected release",
            hint="set privacy.release_metrics = true or leave evaluation to the server's test set",
        )
    node.check_evaluation(config)
    records = node.records(config)
    task = task_of(config.task, records.spec.target)
    model = build_model(config.model, records.spec, config.seed, task)
    received = read_record(read_arrays(content), like=weights_of(model), largest=LARGEST_WEIGHT)
    load_weights(model, received)
    try:
        result = evaluate_model(
            model, records.features, records.labels, task, config.training.device
        )
    except ModelError as error:
        # A metric of the owner's own, or a library's, may quote labels. The reasons of errors about
        # a model are sent; those about records stay here.
        raise DataError(error.full_text) from error
    # The weight of this client's vote; in a run with nominal counts it reveals nothing about it.
    weight = len(records) if config.tells_record_counts else config.privacy.nominal_records
    return evaluate_reply(result.loss, result.metrics, weight)
