"""``[task]``: what is learned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from calyx.shared.config.schema.section import Section, written_as

_OWN = r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*"
TaskKind = Annotated[
    str, Field(pattern=rf"^(classification|multilabel|regression|next_token|{_OWN})$")
]


MOST_COPIES = {"": 1, "flip": 2, "shift": 9, "flip,shift": 18}
"""Views that there are of each kind of ``task.augment``, the record itself among them."""


def weights_in(text: str) -> tuple[float, ...]:
    """Numbers from 1e-6 to 1e6, separated by commas; empty text is no weights.

    Raises:
        ValueError: it is something else.
    """
    if not text.strip():
        return ()
    try:
        weights = tuple(float(item) for item in text.split(","))
    except ValueError:
        raise ValueError("it must be numbers parted by commas") from None
    if len(weights) < 2 or not all(1e-6 <= weight <= 1e6 for weight in weights):
        raise ValueError("it must be two numbers or more from 1e-6 to 1e6, one for each class")
    return weights


class TaskConfig(Section):
    """What is learned: its loss and its metrics."""

    kind: TaskKind = Field(
        "classification",
        description="`classification`: one class a record; `multilabel`: several labels, each yes "
        "or no; `regression`: a real value; `next_token`: what follows in a text; or a task of "
        "your own as `module:object`. The last is code that is imported and run, on the server and "
        "on the clients.",
    )
    class_weights: Annotated[str, written_as(weights_in)] = Field(
        "",
        description="`classification` only: public weight of each class in the loss, in their "
        "order, parted by commas. Weights computed from private records would be a release.",
    )

    augment: Literal["", "flip", "shift", "flip,shift"] = Field(
        "",
        description="Images: how further views of a record are made, mirrored or moved by a pixel. "
        "They are the same in each step, so that no random number decides what a record is.",
    )
    copies: Annotated[int, Field(ge=1, le=64)] = Field(
        1,
        description="Views of each record, itself among them; its loss is their mean, *before* its "
        "gradient is clipped, so more views cost time and no privacy (De et al. 2022).",
    )

    @property
    def is_own(self) -> bool:
        """Whether the task is the user's own code."""
        return ":" in self.kind

    @property
    def weights(self) -> tuple[float, ...]:
        """The class weights; empty if all count the same."""
        return weights_in(self.class_weights)
