"""Who holds which training record, by the partitioners of Flower Datasets.

=============  =============================================================================
``iid``        equally many records for each client, drawn at random
``dirichlet``  the shares of each class follow Dirichlet(alpha) (Yurochkin et al. 2019)
``shards``     each client holds exactly ``classes_per_client`` classes, in the way of
               McMahan et al. 2017 and Li et al. 2022, and every class is held by someone
``natural``    by the source's own client ids; the first ``clients`` ids in sorted order
=============  =============================================================================

The partitioners see row numbers and labels or ids only, in an order shuffled by the seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.data.dataset import Dataset
from calyx.shared.data.quiet import quiet
from calyx.shared.errors import DataError
from calyx.shared.target import Classes

if TYPE_CHECKING:
    from calyx.shared.config.schema import DataConfig

# Keeps this stream of random numbers apart from others drawn from the same seed.
_STREAM = 0x9A47


def partition(
    train: Dataset, config: DataConfig, clients: int, seed: int
) -> list[NDArray[np.int64]]:
    """Divide the training records among the clients.

    Args:
        train: all training records.
        config: ``partition`` and the settings of that kind, ``min_records``.
        clients: number of parts.
        seed: the same seed gives the same parts.

    Returns:
        For each client the indices of its records: int64, sorted, disjoint. Together they are all
        records, except with ``natural``, where records of further ids are left out.

    Raises:
        DataError: more clients than records, fewer ids than clients, a class for no client, or a
            client that would hold fewer than ``min_records`` records.
    """
    if clients < 1:
        raise DataError(f"federation.clients = {clients}", hint="use at least one client")
    if config.partition != "natural":
        _enough_records(len(train), config, clients)
    order = np.random.default_rng((_STREAM, seed)).permutation(len(train))
    with quiet():
        match config.partition:
            case "iid":
                parts = _iid(order, clients)
            case "dirichlet":
                parts = _dirichlet(order, train, config, clients, seed)
            case "shards":
                parts = _shards(order, train, config, clients, seed)
            case "natural":
                parts = _natural(order, train, config, clients)
    smallest = min(range(clients), key=lambda client: len(parts[client]))
    if len(parts[smallest]) < config.min_records:
        raise DataError(
            f"client {smallest} would hold {len(parts[smallest])} records, fewer than "
            f"data.min_records = {config.min_records}",
            hint=f"lower it, use fewer clients or another data.partition than {config.partition}",
        )
    return [np.sort(part) for part in parts]


def _enough_records(records: int, config: DataConfig, clients: int) -> None:
    if clients > records:
        raise DataError(
            f"federation.clients = {clients} but there are only {records} training records",
            hint=f"use at most {records} clients",
        )
    if clients * config.min_records > records:
        raise DataError(
            f"{clients} clients of at least data.min_records = {config.min_records} need "
            f"{clients * config.min_records} training records; there are {records}",
            hint="lower federation.clients or data.min_records",
        )


def _check_classes(train: Dataset, config: DataConfig) -> None:
    if not isinstance(train.spec.target, Classes):
        raise DataError(
            f"data.partition = {config.partition} divides records by class, and the labels are "
            f"{train.spec.target}",
            hint="use iid or natural",
        )


def _iid(order: NDArray[np.int64], clients: int) -> list[NDArray[np.int64]]:
    from flwr_datasets.partitioner import IidPartitioner

    return _parts(IidPartitioner(num_partitions=clients), clients, order)


def _dirichlet(
    order: NDArray[np.int64], train: Dataset, config: DataConfig, clients: int, seed: int
) -> list[NDArray[np.int64]]:
    from flwr_datasets.partitioner import DirichletPartitioner

    _check_classes(train, config)
    alpha = config.dirichlet_alpha
    partitioner = DirichletPartitioner(
        num_partitions=clients,
        partition_by="key",
        alpha=alpha,
        # It draws again, up to ten times, if a client gets less.
        min_partition_size=config.min_records,
        shuffle=False,
        seed=seed,
    )
    try:
        parts = _parts(partitioner, clients, order, train.labels)
    except ValueError:
        raise DataError(
            f"data.dirichlet_alpha = {alpha:g} did not give each of {clients} clients "
            f"data.min_records = {config.min_records} records, even after redrawing",
            hint=(
                "use another alpha (0.1 is very uneven, 100 nearly even), fewer clients or a lower "
                "data.min_records"
            ),
        ) from None
    if not np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(train))):
        # Shares that are not numbers, for alpha beyond what floating point can do.
        raise DataError(
            f"data.dirichlet_alpha = {alpha:g} is too extreme to draw from",
            hint="use 0.01 to 1000",
        )
    return parts


def _shards(
    order: NDArray[np.int64], train: Dataset, config: DataConfig, clients: int, seed: int
) -> list[NDArray[np.int64]]:
    """Deal the classes out in ``classes_per_client`` rounds.

    The classes are shuffled and cut into that many groups. In each round one group goes round
    the shuffled clients, one class each, until all have one; a class that several clients hold is
    divided evenly among them. So a client gets one class of each group, and none is left over.
    """
    from flwr_datasets.partitioner import PathologicalPartitioner

    _check_classes(train, config)
    each = config.classes_per_client
    classes = np.unique(train.labels)
    if each > len(classes):
        raise DataError(
            f"data.classes_per_client = {each} but the training records have {len(classes)} "
            "classes",
            hint=f"use at most {len(classes)}",
        )
    if clients * each < len(classes):
        raise DataError(
            f"{clients} clients of {each} classes cannot hold all {len(classes)}",
            hint=(
                f"set data.classes_per_client to at least {-(-len(classes) // clients)}, or "
                f"federation.clients to at least {-(-len(classes) // each)}"
            ),
        )
    rng = np.random.default_rng((_STREAM, seed, each))
    held: list[list[NDArray[np.int64]]] = [[] for _ in range(clients)]
    for group in np.array_split(rng.permutation(classes), each):
        partitioner = PathologicalPartitioner(
            num_partitions=clients,
            partition_by="key",
            num_classes_per_partition=1,
            class_assignment_mode="deterministic",
            shuffle=False,
            seed=seed,
        )
        rows = order[np.isin(train.labels[order], group)]
        try:
            parts = _parts(partitioner, clients, rows, train.labels)
        except ValueError:
            raise DataError(
                f"a class has fewer records than there are clients to hold it, with {clients} "
                f"clients of {each} classes",
                hint="lower federation.clients or data.classes_per_client",
            ) from None
        for client, part in zip(rng.permutation(clients), parts, strict=True):
            held[client].append(part)
    return [np.concatenate(parts) for parts in held]


def _natural(
    order: NDArray[np.int64], train: Dataset, config: DataConfig, clients: int
) -> list[NDArray[np.int64]]:
    from flwr_datasets.partitioner import NaturalIdPartitioner

    ids = train.natural_ids
    if ids is None:
        raise DataError(
            "data.partition = natural needs a client id for each record, and source "
            f"{config.source} gave none",
            hint="use another data.partition",
        )
    if (number := len(np.unique(ids))) < clients:
        raise DataError(
            f"data.partition = natural: {config.natural_id} has {number} different ids, fewer than "
            f"federation.clients = {clients}",
            hint=f"use at most {number} clients",
        )
    return _parts(NaturalIdPartitioner(partition_by="key"), clients, order, ids)


def _parts(
    partitioner: Any,
    clients: int,
    rows: NDArray[np.int64],
    keys: NDArray[Any] | None = None,
) -> list[NDArray[np.int64]]:
    """What `partitioner` gives the first `clients` of its partitions, as record indices."""
    import datasets

    columns = {"row": rows} if keys is None else {"row": rows, "key": keys[rows]}
    # In Arrow's own format a column becomes an array at once, not value by value.
    partitioner.dataset = datasets.Dataset.from_dict(columns).with_format("arrow")
    return [
        partitioner.load_partition(client)[:]["row"].to_numpy().astype(np.int64)
        for client in range(clients)
    ]
