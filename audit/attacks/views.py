"""What each party of this run really got, and every attack on it.

The run is repeated for one round with its own configuration (`audit.twin`), so noise, sealing and
numbers of clients and records are those of the run, and the bytes that cross each boundary are
kept (`audit.views`). From them each observer makes the best estimate of a gradient that he can, a
*sight*, and then all attacks of `audit.attacks.inversion` are tried on it.

Only the first round is captured: weights are then untrained, which is when gradients give most
away. What several rounds give away together is for epsilon and the canaries to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load

from audit.attacks.inversion import closed_form, labels
from audit.attacks.inversion.ciphertexts import PublicKeyHolder
from audit.attacks.inversion.federation import Played
from audit.attacks.inversion.fedsgd import Observed, invert_piecewise, invert_smooth
from audit.attacks.inversion.ladder import as_gradient, contribution
from audit.attacks.inversion.quality import match
from audit.evidence import EvidenceStore
from audit.twin import Watching, twin
from audit.views import (
    AUTHORITY,
    PUBLIC,
    SERVER,
    Capture,
    CaptureComplete,
    Crossing,
    client_name,
    client_number,
    released_integers,
    restored_sum,
    table,
)
from shared.config import Config
from shared.data import Dataset, load_split
from shared.models import build_model
from shared.models.lstm import Lstm
from shared.models.vector import to_vector
from shared.protocol.arrays import load_weights, read_record, weights_of
from shared.protocol.messages import TrainInstruction, read_arrays
from shared.protocol.sealing import SealingOffer, read_sealed_reply
from simulations.run import partition_of
from simulations.run_folder import RunFolder

Progress = Callable[[str, float], None]
Vector = NDArray[np.float64]

NAME, CAPTURED, PICTURES = "views", "views-captured", "views-pictures"
# A sum over many records is searched for this many; more pictures would share what little there is.
MOST_PICTURES = 8
_FEW_RECORDS = 5000
_SEED = 1
_STRATEGIES_THAT_ADAPT = ("fedadam", "fedyogi")


@dataclass(frozen=True)
class Sight:
    """An estimate of a gradient that a party can make.

    Attributes:
        name: key in the evidence.
        party: whose.
        sees: what it is made of, in words.
        vector: the estimate, flat; of unknown scale where it is made of ciphertexts.
        crossings: the captured bytes that it was made from.
        clients: whose records are behind it.
    """

    name: str
    party: str
    sees: str
    vector: Vector
    crossings: tuple[Crossing, ...]
    clients: tuple[int, ...]


def run(folder: RunFolder, store: EvidenceStore, progress: Progress) -> None:
    """Capture a round, attack every view of it, and put bytes and results into evidence.

    Raises:
        CalyxError: the run could not be repeated.
    """
    config = folder.stored_config()
    progress("views", 0.0)
    played, test = replay(config)
    model_file = (folder.path / "model.safetensors").read_bytes()
    public = Crossing(config.training.rounds, "final model", SERVER, PUBLIC, (model_file,))
    crossings = [*played.capture.crossings, public]
    sights = sights_of(played, public)
    rows: list[dict[str, Any]] = []
    attacked: dict[int, tuple[dict[str, Any], dict[str, NDArray[Any]]]] = {}
    low, high = _range(test)
    mean = (test.features.mean(axis=0) - low) / (high - low)
    arrays: dict[str, NDArray[Any]] = {"baseline": mean.astype(np.float32)}
    for number, sight in enumerate(sights):

        def tick(share: float, number: int = number) -> None:
            progress("views", (number + 1 + share) / (len(sights) + 1))

        # Server and authority see the same sum: another search would find the same.
        if (key := id(sight.vector)) not in attacked:
            attacked[key] = _attack(sight, played, test, mean, tick)
        figures, found = attacked[key]
        rows.append(
            {
                "name": sight.name,
                "party": sight.party,
                "sees": sight.sees,
                "crossings": [crossings.index(c) for c in sight.crossings],
                **figures,
            }
        )
        arrays |= {f"{sight.name}-{key}": array for key, array in found.items()}
    used = sorted({index for row in rows for index in row["crossings"]})
    progress("views", 1.0)
    store.put_json(NAME, {"crossings": table(crossings), "sights": rows})
    store.put_arrays(
        CAPTURED,
        {
            f"crossing-{index}": np.frombuffer(b"".join(crossings[index].parts), dtype=np.uint8)
            for index in used
        },
    )
    store.put_arrays(PICTURES, arrays)


def replay(config: Config) -> tuple[Played, Dataset]:
    """The first round of a run once more, captured; and the server's test records."""
    capture, split = Capture(rounds=1), load_split(config.data, config.seed)
    watching = Watching(tap=capture, on_release=capture.on_release)
    # Worker processes take longer to start than a round over few records takes.
    workers = 1 if len(split.train) <= _FEW_RECORDS else None
    try:
        with twin(config, watching, workers=workers):
            pass
    except CaptureComplete:
        pass
    model = build_model(config.model, split.test.input_shape, split.test.classes, config.seed)
    sent = capture.find("train", 1)[0]
    plan = TrainInstruction.from_content(sent.message.content).plan
    load_weights(model, read_record(read_arrays(sent.message.content), like=weights_of(model)))
    model.eval()
    records = tuple(split.train.subset(indices) for indices in partition_of(config))
    after = capture.find("train", 2, sender=SERVER)
    final = (
        read_record(read_arrays(after[0].message.content), like=weights_of(model)) if after else {}
    )
    return Played(config, capture, records, model, plan, final), split.test


def sights_of(played: Played, public: Crossing) -> list[Sight]:
    """Every estimate that a single party can make."""
    cohort = sorted(
        client_number(c.receiver) for c in played.capture.find("train", 1, sender=SERVER)
    )
    first = _weights(played, weights_of(played.model))
    sights = []
    released = played.capture.find("released sum", 1)
    if played.config.secure_aggregation.scheme == "none":
        sights.append(_plain_update(played, cohort[0], first))
    else:
        sights.append(_ciphertext(played, cohort[0]))
    if released:
        requests = played.capture.find("release request", 1)
        vector = _sum_as_gradient(played, restored_sum(
            released_integers(released[0]), played.config, played.plan, 1
        )) / _records(played, cohort)  # fmt: skip
        words = "the released sum of " + _clients(len(cohort))
        sights += [
            Sight("server-sum", SERVER, words, vector, (released[0],), tuple(cohort)),
            Sight(
                "authority-sum",
                AUTHORITY,
                f"{words}, which it decrypts",
                vector,
                (*requests, released[0]),
                tuple(cohort),
            ),
        ]
    if (client := _colluder(played, cohort)) is not None:
        sights.append(_colluding(played, cohort, client, first))
    last = _weights(played, read_final(played, public))
    sights.append(
        Sight(
            "public-model",
            PUBLIC,
            "how the final model differs from the first weights",
            first - last,
            (public,),
            tuple(range(len(played.records))),
        )
    )
    return sights


def read_final(played: Played, public: Crossing) -> dict[str, NDArray[Any]]:
    """The weights in the final model's file."""
    loaded = load(public.parts[0])
    return {name: loaded[name] for name in weights_of(played.model)}


def _plain_update(played: Played, client: int, first: Vector) -> Sight:
    (sent,) = played.capture.find("train", 1, receiver=client_name(client))
    (reply,) = played.capture.find("train", 1, sender=client_name(client))
    update = _weights(played, played.reply(client)) - first
    return Sight(
        "server-update",
        SERVER,
        "the update of one client",
        -update / _scale(played),
        (sent, reply),
        (client,),
    )


def _ciphertext(played: Played, client: int) -> Sight:
    (offered,) = played.capture.find("query.sealing", 0, receiver=client_name(client))
    (reply,) = played.capture.find("train", 1, sender=client_name(client))
    offer = SealingOffer.from_content(offered.message.content)
    upload, _ = read_sealed_reply(reply.message.content)
    holder = PublicKeyHolder(offer.parameters, offer.public_context)
    return Sight(
        "server-ciphertext",
        SERVER,
        "the ciphertexts of one client, as numbers, and the public key",
        holder.numbers(upload.chunks, offer.parameters.length),
        (offered, reply),
        (client,),
    )


def _colluder(played: Played, cohort: list[int]) -> int | None:
    """A client that took part in the round and was shown its result."""
    shown = {client_number(c.receiver) for c in played.capture.find("train", 2, sender=SERVER)}
    both = sorted(shown & set(cohort)) if len(cohort) > 1 else []
    return both[-1] if both else None


def _colluding(played: Played, cohort: list[int], client: int, first: Vector) -> Sight:
    """Two global models, and what the client itself put in between."""
    others = tuple(number for number in cohort if number != client)
    step = first - _weights(played, played.final)
    federation, plan = played.config.federation, played.plan
    sees = "two global models, less its own part"
    if federation.strategy in _STRATEGIES_THAT_ADAPT:
        vector, sees = step, "two global models"
    elif plan.unit == "record" and plan.noise == "distributed":
        total = step / federation.server_learning_rate * plan.sampling_rate
        total *= len(cohort) * plan.declared_records
        total -= restored_sum(contribution(played, client), played.config, plan, 1)
        vector = total / _records(played, others)
    elif played.config.secure_aggregation.scheme == "none":
        own = first - _weights(played, played.reply(client))
        share = len(played.records[client]) / _records(played, cohort)
        vector = (step - share * own) / (1 - share) / _scale(played)
    else:
        vector, sees = step / _scale(played), "two global models"
    found = [
        *played.capture.find("train", 1, receiver=client_name(client)),
        *played.capture.find("train", 1, sender=client_name(client)),
        *played.capture.find("train", 2, receiver=client_name(client)),
    ]
    return Sight("client-models", client_name(client), sees, vector, tuple(found), others)


def _attack(
    sight: Sight, played: Played, test: Dataset, mean: NDArray[Any], tick: Callable[[float], None]
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """All attacks on one sight: what is said of them, and their pictures."""
    model, shape = played.model, test.input_shape
    low, high = _range(test)
    behind = [played.records[client] for client in sight.clients]
    truth = np.concatenate([(r.features - low) / (high - low) for r in behind])
    present = np.isin(np.arange(test.classes), np.concatenate([r.labels for r in behind]))
    gradient = as_gradient(sight.vector, played)
    by_name = dict(zip(played.names, gradient, strict=True))
    count = min(MOST_PICTURES, len(truth))
    arrays: dict[str, NDArray[Any]] = {}

    bias = labels.output_bias(model, test.classes)
    guess = torch.arange(count) % test.classes
    if bias is not None:
        arrays["bias"], arrays["present"] = by_name[bias].double().numpy(), present
        guess = labels.guessed(by_name[bias], count, _mean_probability(model, test))

    def keep(name: str, found: torch.Tensor) -> None:
        pictures = ((found.double() - low) / (high - low)).clamp(0, 1).numpy()
        chance = np.broadcast_to(mean, pictures.shape)
        arrays[name] = pictures.astype(np.float32)
        arrays[f"{name}-truth"] = truth[match(pictures, truth)].astype(np.float32)
        arrays[f"{name}-baseline-truth"] = truth[match(chance, truth)].astype(np.float32)

    is_smooth, unfit = isinstance(model, Lstm), ""
    invert = invert_smooth if is_smooth else invert_piecewise
    try:
        keep("inverted", invert(Observed(model, gradient, guess, shape, low, high), _SEED, tick))
    except (RuntimeError, NotImplementedError) as error:
        # A user's own model may have no second derivative.
        unfit = " ".join(str(error).split())[:200]
    names = closed_form.first_layer(model, shape)
    if names is not None:
        inputs = closed_form.layer_inputs(by_name[names[0]], by_name[names[1]], count)
        keep("closed", inputs.reshape(-1, *shape))
    return {
        "clients": len(sight.clients),
        "records": len(truth),
        "search": "L-BFGS" if is_smooth else "Adam on the angle",
        "search_failed": unfit,
        "closed_form": names is not None,
        "labels": bias is not None,
    }, arrays


def _range(test: Dataset) -> tuple[float, float]:
    """Between which values records lie, as far as test records tell."""
    low, high = float(test.features.min()), float(test.features.max())
    return low, high if high > low else low + 1.0


def _mean_probability(model: torch.nn.Module, test: Dataset) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.from_numpy(test.features[:200]))
        return torch.softmax(logits, dim=1).mean(dim=0)


def _sum_as_gradient(played: Played, total: Vector) -> Vector:
    """A released sum as a sum of gradients: of updates it is one up to sign and scale."""
    plan = played.plan
    if plan.unit == "record" and plan.noise == "distributed":
        return total
    return -total * plan.declared_records / _scale(played)


def _scale(played: Played) -> float:
    """By which local training multiplies a gradient, if it changes little on the way."""
    return played.config.training.learning_rate * played.plan.steps_per_round


def _records(played: Played, clients: tuple[int, ...] | list[int]) -> int:
    return sum(len(played.records[client]) for client in clients)


def _weights(played: Played, weights: dict[str, NDArray[Any]]) -> Vector:
    return to_vector(weights, played.names)


def _clients(count: int) -> str:
    return "one client" if count == 1 else f"{count} clients"
