"""Whether a model can be trained with record-level privacy, found out before any data is read.

Per-record clipping bounds what one record does to the sum of gradients only if no record
reaches the others inside the model. Batch norm is the usual offender. Random numbers are another
way: with one record less, the masks of a dropout move on to other records. `check_private` looks
at the layers; `try_private` runs made-up records through the model and so also finds what
hides in a ``forward`` of the user's own.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from calyx.shared.errors import CalyxError, ModelError
from calyx.shared.models.inputs import call, each, joined, made_up, made_up_labels
from calyx.shared.models.recurrent import SequenceGRU, SequenceLSTM
from calyx.shared.models.seeding import torch_seeded
from calyx.shared.record_spec import RecordSpec
from calyx.shared.target import Target
from calyx.shared.tasks.task import Task

# What to write instead, by Opacus' reasons for refusing a layer.
_REPLACEMENTS: tuple[tuple[type[nn.Module], str, str], ...] = (
    (
        nn.modules.batchnorm._BatchNorm,
        "it mixes the records of a batch, so no record's influence can be bounded",
        "use GroupNorm or LayerNorm",
    ),
    (
        nn.MultiheadAttention,
        "per-record gradients of its weights are not available",
        "use calyx.shared.models.attention.SelfAttention, which takes masks",
    ),
    (
        nn.LSTM,
        "per-record gradients of its weights are not available",
        "use calyx.shared.models.recurrent.SequenceLSTM, which takes the same weights, or "
        "calyx.shared.models.recurrent.RecurrentStack for lengths and both directions",
    ),
    (
        nn.RNN,
        "per-record gradients of its weights are not available",
        "use calyx.shared.models.recurrent.SequenceGRU",
    ),
    (
        nn.GRU,
        "per-record gradients of its weights are not available",
        "use calyx.shared.models.recurrent.SequenceGRU, which takes the same weights, or its "
        "RecurrentStack for lengths and both directions",
    ),
)
_RECURRENT: tuple[type[nn.Module], ...] = (SequenceLSTM, SequenceGRU)
_RANDOM: tuple[type[nn.Module], ...] = (
    nn.RReLU,
    nn.FractionalMaxPool2d,
    nn.FractionalMaxPool3d,
)
_RANDOMNESS = (
    "it draws random numbers in training, and which record gets which depends on the other records"
)
_NO_RANDOMNESS = (
    "leave it out (a dropout: p=0, model.dropout=0); the noise of private training regularises the "
    "model too"
)
_PROBE_RECORDS = 2
_LABELS_DRAWN = 64


def check_private(model: nn.Module) -> None:
    """Refuse a model with a layer that record-level differential privacy does not allow.

    Raises:
        ModelError: names the layer, why it is refused and what to use instead.
    """
    from calyx.shared.models.per_record.opacus_bridge import ModuleValidator

    if not any(p.requires_grad for p in model.parameters()):
        raise ModelError("the model has no trainable parameters, so there is nothing to train")
    for name, layer in model.named_modules():
        if _is_random(layer):
            raise ModelError(f"{_named(name, layer)}: {_RANDOMNESS}", hint=_NO_RANDOMNESS)
        if type(layer) in _RECURRENT:
            continue
        for kind, reason, replacement in _REPLACEMENTS:
            if isinstance(layer, kind):
                raise ModelError(f"{_named(name, layer)}: {reason}", hint=replacement)
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
            _check_table(name, layer)
        trainable = [p for p in layer.parameters(recurse=False) if p.requires_grad]
        keeps = getattr(layer, "track_running_stats", False)
        if keeps or (trainable and any(True for _ in layer.buffers(recurse=False))):
            raise ModelError(
                f"{_named(name, layer)}: it keeps buffers beside its weights, which would leave "
                "the client without noise",
                hint="set track_running_stats=False or drop the buffers",
            )
        for error in ModuleValidator.VALIDATORS.get(type(layer), lambda _: [])(layer):
            raise ModelError(f"{_named(name, layer)}: {' '.join(str(error).split())[:200]}")


def _check_table(name: str, layer: nn.Embedding | nn.EmbeddingBag) -> None:
    """Refuse what an embedding does with the tokens of a whole batch."""
    for setting, off, reason in (
        ("max_norm", None, "it shortens rows of its table in each forward pass, without noise"),
        ("scale_grad_by_freq", False, "it counts tokens over all records of a batch"),
        ("sparse", False, "it keeps gradients of the tokens that occurred, which shows them"),
    ):
        if getattr(layer, setting) != off:
            raise ModelError(f"{_named(name, layer)}: {reason}", hint=f"set {setting}={off}")


def try_private(model: nn.Module, spec: RecordSpec, task: Task) -> None:
    """Train nothing, but see on made-up records that per-record clipping would be right.

    Four things must hold in training mode: a record's output and gradient stay the same, bit for
    bit, when the other records change; no random number is drawn; a forward pass changes no buffer;
    the per-record gradients add up to what autograd says. It is a copy with weights of our own that
    is tried: a sender could choose weights which hide a fault. The model and PyTorch's global
    random state are left as they were.

    Args:
        model: the model; `check_private` has passed.
        spec: what is public about a record.
        task: its loss is tried with the model.

    Raises:
        ModelError: names what does not hold.
    """
    from calyx.shared.models.per_record.gradients import watched

    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    # Where lengths vary, the first record is the longest and the second has one step; beside
    # others, each has a neighbour of the other length than before. Labels differ, and beside others
    # each has a neighbour with its own: a loss may count how many records of the batch have it.
    drawn, other = (made_up(spec, _PROBE_RECORDS, generator) for _ in range(2))
    labels = _different_labels(spec.target, generator).to(device)
    x = each(drawn, lambda x: x.to(device))
    beside = [
        (each(joined(*pair), lambda x: x.to(device)), torch.cat(their_labels))
        for pair, their_labels in (
            (
                (each(drawn, lambda x: x[:1]), each(other, lambda x: x[:1])),
                (labels[:1], labels[:1]),
            ),
            (
                (each(other, lambda x: x[1:]), each(drawn, lambda x: x[1:])),
                (labels[1:], labels[1:]),
            ),
        )
    ]
    try:
        model = with_made_up_weights(model, generator)
        parameters = [p for p in model.parameters() if p.requires_grad]
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        with torch_seeded(0, device), watched(model) as gradients:
            losses = task.record_losses(call(model, x), labels)
            expected = torch.autograd.grad(
                losses.sum(), parameters, retain_graph=True, allow_unused=True
            )
            found = gradients.clipped_sum(losses, clip_norm=math.inf)
            states = _random_states(device)
            outputs = call(model, x)
            rows = [outputs.detach(), *gradients.rows(task.record_losses(outputs, labels))]
            outputs = call(model, x)
            repeated = [outputs.detach(), *gradients.rows(task.record_losses(outputs, labels))]
            drew = any(
                not torch.equal(a, b) for a, b in zip(states, _random_states(device), strict=True)
            )
            beside_others = []
            for records, their_labels in beside:
                outputs = call(model, records)
                losses = task.record_losses(outputs, their_labels)
                beside_others.append([outputs.detach(), *gradients.rows(losses)])
        changed = [n for n, b in model.named_buffers() if not torch.equal(b, buffers[n])]
    except CalyxError:
        raise
    except Exception as error:
        # The user's own layers may fail with anything.
        raise ModelError(
            "the model cannot be trained privately: on two made-up records it failed with "
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
        ) from error
    if changed:
        raise ModelError(
            f"the model cannot be trained privately: buffer {changed[0]} changes with the records "
            "it sees and would leave the client without noise",
            hint="remove it",
        )
    # If no number came from PyTorch's generators, it may have come from another one.
    if drew or not all(torch.equal(a, b) for a, b in zip(rows, repeated, strict=True)):
        raise ModelError(
            f"the model cannot be trained privately: {_RANDOMNESS}", hint=_NO_RANDOMNESS
        )
    if not all(
        torch.equal(a[i], b[i])
        for i, others in enumerate(beside_others)
        for a, b in zip(rows, others, strict=True)
    ):
        raise ModelError(
            "the model cannot be trained privately: one record's gradient changes with the other "
            "records of the batch",
            hint="compute nothing across the batch dimension",
        )
    names = {p: name for name, p in model.named_parameters()}
    scale = max(float(g.abs().max()) for g in expected if g is not None)
    for parameter, gradient in zip(parameters, expected, strict=True):
        wanted = torch.zeros_like(parameter) if gradient is None else gradient
        if not torch.allclose(found[parameter], wanted.double(), rtol=1e-3, atol=1e-4 * scale):
            raise ModelError(
                f"the model cannot be trained privately: {names[parameter]} is used outside its "
                "layer's forward, where its gradient cannot be clipped",
                hint="call the layer instead",
            )


def _different_labels(target: Target, generator: torch.Generator) -> torch.Tensor:
    """Two labels that `target` allows, of many drawn those that differ the most: (2, *shape)."""
    drawn = made_up_labels(target, _LABELS_DRAWN, generator)
    places = (drawn != drawn[:1]).reshape(_LABELS_DRAWN, -1).sum(dim=1)
    return torch.stack([drawn[0], drawn[int(places.argmax())]])


def with_made_up_weights(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy in training mode whose parameters are random, of the size of fresh ones."""
    made_up = copy.deepcopy(model).train()
    with torch.no_grad():
        for parameter in made_up.parameters():
            inputs = parameter[0].numel() if parameter.dim() > 1 else 4
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn / math.sqrt(max(1, inputs)))
    return made_up


def _is_random(layer: nn.Module) -> bool:
    """Whether this layer of PyTorch's draws random numbers in training."""
    if isinstance(layer, nn.modules.dropout._DropoutNd):
        return layer.p > 0
    # Recurrent layers have a dropout of their own, between their layers.
    return isinstance(layer, _RANDOM) or (isinstance(layer, nn.RNNBase) and layer.dropout > 0)


def _random_states(device: torch.device) -> list[torch.Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _named(name: str, layer: nn.Module) -> str:
    where = name or "(the model itself)"
    return f"layer {where} ({type(layer).__name__}) cannot be trained privately"
