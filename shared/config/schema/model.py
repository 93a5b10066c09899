"""``[model]``: the network."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from calyx.shared.config.schema.section import Positive, PositiveFloat, Probability, Section


class ModelConfig(Section):
    """The model; its input and output sizes come from the data."""

    name: str = Field(
        "cnn",
        description="`cnn`: images; `mlp`: tables; `cnn1d`: signals; `lstm`, `attention`: "
        "sequences and text; or a model of your own as `module:function`. The function is called "
        "as `function(input_shape, classes)` (where a record is not one float32 tensor, as "
        "`function(spec, classes)` with its `RecordSpec`) and returns a "
        "`torch.nn.Module`. This key chooses code that is imported and run, on the server and on "
        "the clients.",
    )
    hidden: Positive = Field(
        128,
        description="`lstm`: size of the state; `attention`: size of the embedding; `mlp`: units "
        "of a layer; `cnn1d`: channels of a block.",
    )
    layers: Positive = Field(
        1,
        description="How many are stacked: layers of `lstm` and `attention`, hidden layers of "
        "`mlp`, blocks of `cnn1d`.",
    )
    heads: Positive = Field(
        4, description="`attention` only: number of heads; it must divide `model.hidden`."
    )
    embedding: Annotated[int, Field(ge=0)] = Field(
        0, description="`lstm` with tokens: size of a token's vector; 0 is `model.hidden`."
    )
    token_scale: PositiveFloat = Field(
        1.0,
        description="`lstm` and `attention` with tokens: what a token's vector is multiplied by; "
        "the table starts smaller by as much. With record-level privacy a large one (100) lets "
        "what few records say about a word stand out from the noise on its numbers.",
    )
    mean_over_steps: bool = Field(
        False,
        description="`lstm` with floats: the mean of all states decides, not the last one, which "
        "may see only the silence that a recording was padded with. With tokens it always does.",
    )
    bidirectional: bool = Field(
        False,
        description="`lstm` only: also read backwards. Not for `next_token`, where that would show "
        "what is to be predicted.",
    )
    dropout: Probability = Field(
        0.0,
        description="Share of values that built-in models leave out in training. Not with "
        "record-level privacy, where random numbers would pass from one record to another.",
    )
    freeze: str = Field(
        "",
        description="Parameters that are not trained, as `conv1.*,embedding.weight`: names with "
        "`*` and `?`, separated by commas. They take no part in clipping, noise and updates.",
    )
