"""Parameters that are left as they are: a part of a model that was trained before."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import nn

from calyx.shared.errors import ModelError


def freeze(model: nn.Module, patterns: str) -> None:
    """Take parameters out of training: no gradient, no clipping, no noise, no update.

    Args:
        model: changed in place.
        patterns: names of parameters as in a state dict, with ``*`` and ``?``, separated by commas;
            empty for none.

    Raises:
        ModelError: a pattern fits no parameter, or nothing is left to train.
    """
    # A parameter that is used in two places has two names.
    named = list(model.named_parameters(remove_duplicate=False))
    for pattern in filter(None, (part.strip() for part in patterns.split(","))):
        found = [parameter for name, parameter in named if fnmatchcase(name, pattern)]
        if not found:
            layers = sorted({name.rpartition(".")[0] or name for name, _ in named})
            raise ModelError(
                f"model.freeze = {pattern}: no parameter of the model has such a name",
                hint=f"use names such as {named[0][0]}, or all of a layer, such as {layers[0]}.*"
                if named
                else "leave it empty",
            )
        for parameter in found:
            parameter.requires_grad_(False)
    if patterns.strip(" ,") and not any(parameter.requires_grad for _, parameter in named):
        raise ModelError(
            f"model.freeze = {patterns}: all parameters are frozen, so there is nothing to train",
            hint="leave out the last layer",
        )
