"""The one configuration schema: what a run is, frozen and validated.

A TOML file, ``--set key=value`` and Flower's flat run config all end in the same
`Config` (see `calyx.shared.config.load`). Keys are written dotted, as in ``privacy.epsilon``.
Values that change only speed (workers, engine) are not here: they must not change results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, LiteralString

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from calyx.shared.config import data_settings

# Type of the validation error that carries the faults between sections.
FAULTS: LiteralString = "calyx_faults"

# In a sum of two, either contributor can subtract itself and is left with the other. So each
# party's default is three; two is for those who say so: the run, every device, the authority.
FEWEST_CONTRIBUTORS, DEFAULT_CONTRIBUTORS = 2, 3
# Outside, clipped values or their noise come near the ends of single precision, where rounding is
# no longer small beside them. No gradient or update needs another bound.
SMALLEST_CLIP_NORM, LARGEST_CLIP_NORM = 1e-6, 1e6

Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """Base of every section: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _written_as(form: Callable[[str], Any]) -> AfterValidator:
    """Text that `form` can read, kept as text."""

    def check(text: str) -> str:
        form(text)
        return text

    return AfterValidator(check)


# A single number is text too: a column may be named 5.
_Text = Annotated[str, Field(coerce_numbers_to_str=True)]
Names = Annotated[_Text, _written_as(data_settings.names)]


class DataConfig(Section):
    """Which records there are and how they are divided among clients."""

    source: Literal["digits", "idx", "npz", "hub", "table", "images", "audio", "sensors"] = Field(
        "digits",
        description="digits: ships with scikit-learn; idx: MNIST-format files; npz: NumPy "
        "archives (x_train, y_train, x_test, y_test); hub: a Hugging Face data set; table: CSV or "
        "Parquet; images: PNG or JPEG in a folder a class; audio: WAV; sensors: a CSV a recording",
    )
    view: Literal["image", "sequence"] = Field(
        "image", description="image: (1, height, width); sequence: rows as time steps"
    )
    directory: str = Field("", description="folder or file with the records (--data-dir)")
    hub_name: str = Field("", description="hub only: name of the data set, OWNER/NAME")
    hub_features: str = Field("image", description="hub only: column with the input")
    hub_label: str = Field("label", description="hub only: column with the class")
    allow_download: bool = Field(False, description="hub only: fetch it if it is not cached")
    partition: Literal["iid", "dirichlet", "shards", "natural"] = "iid"
    dirichlet_alpha: PositiveFloat = Field(0.5, description="smaller is more uneven")
    classes_per_client: Positive = Field(2, description="shards only: classes each client holds")
    natural_id: str = Field("client_id", description="natural only: array or column with the id")
    min_records: Positive = Field(1, description="a client with fewer records is an error")
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="held out for the server where the source has no test set of its own"
    )
    max_records: Annotated[int, Field(ge=0)] = Field(
        0, description="use only that many training records, drawn by the seed (0: all)"
    )
    label: Names = Field("", description="table, sensors: column with the class")
    classes: Annotated[_Text, _written_as(data_settings.class_names)] = Field(
        "",
        description="all classes in their order, parted by commas, or how many there are; empty: "
        "those that the records have",
    )
    value_range: Annotated[_Text, _written_as(data_settings.value_range)] = Field(
        "", description="LOW,HIGH of stored values, mapped to 0..1; empty: by their dtype"
    )
    columns: Names = Field("", description="table, sensors: columns to learn from; empty: all")
    bounds: Annotated[_Text, _written_as(data_settings.bounds)] = Field(
        "",
        description="table, sensors: public COLUMN=LOW:HIGH (* for all others), mapped to -1..1",
    )
    categories: Annotated[_Text, _written_as(data_settings.categories)] = Field(
        "", description="table: public COLUMN=ONE|OTHER of columns that hold words"
    )
    missing: Literal["refuse", "indicator"] = Field(
        "refuse",
        description="table: an empty cell is an error, or 0 with a column that says it was missing",
    )
    record_id: str = Field("", description="table: column with an id that no two records share")
    encoding: Literal["utf-8", "utf-16", "cp1252", "latin-1"] = Field(
        "utf-8", description="table, sensors: encoding of CSV files"
    )
    name_pattern: str = Field(
        "",
        description="images, audio, sensors: what paths say, as in {label}_{client}_{index}.wav",
    )
    test_names: str = Field(
        "", description="images, audio, sensors: files for testing, as in *_[0-4].wav"
    )
    hold_out: Literal["auto", "record", "file", "client"] = Field(
        "auto", description="what is held out as a whole; auto: sensors client or file, else record"
    )
    image_size: Annotated[_Text, _written_as(data_settings.image_size)] = Field(
        "", description="images: HEIGHTxWIDTH to scale to; empty: all must be equal"
    )
    colour: Literal["as_stored", "grey", "rgb"] = Field(
        "as_stored", description="images: convert them all to one or three channels"
    )
    sample_rate: Annotated[int, Field(ge=1000, le=192_000)] = Field(
        16_000, description="audio: samples a second; recordings of another rate are resampled"
    )
    seconds: Annotated[float, Field(gt=0, le=600)] = Field(
        1.0, description="audio: length that recordings are cut or padded to"
    )
    mels: Annotated[int, Field(ge=4, le=256)] = Field(40, description="audio: mel bands")
    window: Annotated[int, Field(ge=1, le=1 << 20)] = Field(
        128, description="sensors: rows of a record"
    )
    window_step: Annotated[int, Field(ge=0, le=1 << 20)] = Field(
        0, description="sensors: rows from one record to the next; 0: as many as it has"
    )


class ModelConfig(Section):
    """The model; its input and output sizes come from the data."""

    name: str = Field("cnn", description="cnn, lstm, attention, or your own as module:function")
    hidden: Positive = Field(128, description="lstm: state size; attention: embedding size")
    layers: Positive = Field(1, description="lstm and attention: stacked layers")
    heads: Positive = Field(4, description="attention only: must divide hidden")


class TrainingConfig(Section):
    """Rounds and local optimisation."""

    rounds: Positive = 30
    local_epochs: PositiveFloat = Field(1.0, description="passes over the local records a round")
    local_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="optimiser steps a round; 0 derives it from local_epochs"
    )
    batch_size: Positive = Field(32, description="with DP: the expected size of a Poisson batch")
    optimizer: Literal["sgd", "adam", "rmsprop"] = "sgd"
    learning_rate: PositiveFloat = 0.1
    momentum: Probability = 0.0
    weight_decay: NonNegativeFloat = 0.0
    device: Literal["cpu", "cuda"] = "cpu"


class FederationConfig(Section):
    """Who takes part in a round and how replies become one model."""

    clients: Positive = 10
    clients_per_round: Annotated[int, Field(ge=0)] = Field(0, description="0: all of them")
    min_replies: Positive = Field(2, description="fewer usable replies: the round is skipped")
    strategy: Literal[
        "fedavg", "fedprox", "fedadam", "fedyogi", "fedmedian", "trimmed_mean", "krum", "multikrum"
    ] = "fedavg"
    server_learning_rate: PositiveFloat = Field(
        0.1,
        description="fedadam, fedyogi, and the step over the union of unit record with "
        "distributed noise",
    )
    server_momentum: Probability = Field(
        0.0, description="unit record with distributed noise: momentum of the step over the union"
    )
    proximal_mu: NonNegativeFloat = Field(0.1, description="fedprox only")
    trim_fraction: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.2, description="trimmed_mean only: share cut off at each end"
    )
    malicious_clients: Annotated[int, Field(ge=0)] = Field(
        1, description="krum and multikrum: how many bad replies to withstand"
    )
    selected_clients: Positive = Field(3, description="multikrum only: replies averaged")
    average_decay: Probability = Field(
        0.0, description="decay of the running average of global models that is kept; 0: none"
    )
    round_timeout_s: PositiveFloat = Field(600.0, description="deadline of a round")
    join_timeout_s: PositiveFloat = Field(
        60.0, description="how long to wait until so many clients are there"
    )
    max_update_norm: PositiveFloat = Field(
        1000.0, description="an update with a larger L2 norm is rejected"
    )
    client_evaluation: bool = Field(
        False, description="also evaluate on the clients' own records after each round"
    )


class PrivacyConfig(Section):
    """What is promised, to whom, by which noise. See docs and ARCHITECTURE.md."""

    unit: Literal["record", "client"] = Field("record", description="whom epsilon protects")
    noise: Literal["none", "local", "distributed", "central"] = Field(
        "local", description="who adds the noise; none means no differential privacy"
    )
    # Below lies no use, above no promise, and in both no accountant that answers in time.
    epsilon: Annotated[float, Field(ge=0.001, le=10_000, allow_inf_nan=False)] = Field(
        8.0, description="total budget of the run, not of a round"
    )
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    clip_norm: Annotated[
        float, Field(ge=SMALLEST_CLIP_NORM, le=LARGEST_CLIP_NORM, allow_inf_nan=False)
    ] = Field(1.0, description="L2 bound of one unit's contribution")
    sampling: Literal["poisson", "full"] = "poisson"
    record_counts: Literal["public", "nominal"] = Field(
        "public",
        description="public: each client's record count is declared public; nominal: every "
        "client uses nominal_records and its own count never leaves it",
    )
    nominal_records: Annotated[int, Field(ge=0)] = Field(0, description="with nominal only")
    release_metrics: bool = Field(
        False, description="let clients send exact, unprotected metrics in a private run"
    )


MAX_BITS = 24
"""Widest quantised value that can be asked for."""


class SecureAggregationConfig(Section):
    """How single updates are hidden from the server."""

    scheme: Literal["none", "bfv", "ckks"] = "none"
    min_contributors: Annotated[int, Field(ge=FEWEST_CONTRIBUTORS)] = Field(
        DEFAULT_CONTRIBUTORS,
        description="no sum of fewer clients is ever released; the noise counts on so many",
    )
    bits: Annotated[int, Field(ge=2, le=MAX_BITS)] = Field(
        14, description="least width of a quantised value; free room beside it is used too"
    )
    clamp: PositiveFloat = Field(
        1.0,
        description="without distributed noise: largest coordinate of a rotated update; what is "
        "beyond it is cut off",
    )


class Sections(Section):
    """All sections, each valid by itself; `Config` checks them together."""

    name: str = Field("", description="preset or file the run was made from")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    federation: FederationConfig = FederationConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    secure_aggregation: SecureAggregationConfig = SecureAggregationConfig()

    @property
    def is_private(self) -> bool:
        """Whether the run gives any differential privacy."""
        return self.privacy.noise != "none"

    @property
    def tells_record_counts(self) -> bool:
        """Whether each client's own number of records reaches the server."""
        return not self.is_private or self.privacy.record_counts == "public"

    @property
    def cohort_size(self) -> int:
        """Clients asked each round."""
        return self.federation.clients_per_round or self.federation.clients
