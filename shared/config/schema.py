"""The one configuration schema: what a run is, frozen and validated.

A TOML file, ``--set key=value`` and Flower's flat run config all end in the same
`Config` (see `calyx.shared.config.load`). Keys are written dotted, as in ``privacy.epsilon``.
The table in docs/configuration.md is made of the descriptions here (`make docs`).
Values that change only speed (workers, engine) are not here: they must not change results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, LiteralString

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from calyx.shared.config import data_settings
from calyx.shared.config.protection import Protection

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


def weights_of(text: str) -> tuple[float, ...]:
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


def _written_weights(text: str) -> str:
    weights_of(text)
    return text


class Section(BaseModel):
    """Base of every section: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _written_as(form: Callable[[str], Any]) -> AfterValidator:
    """Text that `form` can read, kept as text."""

    def check(text: str) -> str:
        form(text)
        return text

    return AfterValidator(check)


View = Literal["image", "sequence", "stored"]
# A single number is text too: a column may be named 5.
_Text = Annotated[str, Field(coerce_numbers_to_str=True)]
Names = Annotated[_Text, _written_as(data_settings.names)]


class DataConfig(Section):
    """Which records there are, and how they are divided among clients."""

    source: Literal[
        "digits", "idx", "npz", "hub", "table", "images", "audio", "sensors", "text", "task"
    ] = Field(
        "digits",
        description="`digits`: 1,797 images that ship with scikit-learn; `idx`: files in MNIST's "
        "format, under the names of MNIST or EMNIST; `npz`: NumPy archives with `x_train` and "
        "`y_train`, and `x_test` and `y_test` if there is a test set, or the names of MedMNIST; "
        "`hub`: a Hugging Face data set; `table`: CSV or Parquet; `images`: PNG or JPEG, one "
        "folder for each class; `audio`: WAV files; `sensors`: one CSV file for each recording; "
        "`text`: sentences or the speeches of roles; `task`: what a task of your own reads. "
        "`calyx data inspect PATH` proposes the settings.",
    )
    view: View = Field(
        "image",
        description="`image`: one record is (channels, height, width), with 1 to 16 channels; "
        "`sequence`: the rows are time steps, one record is (steps, features); `stored`: a record "
        "is as the source gives it. Tokens of text are always as they are.",
    )
    directory: str = Field(
        "",
        description="Folder or file with the records, or a local folder for `hub`; `--data-dir` "
        "sets it. `table`, `images`, `audio`, `sensors` and `text` also read a tar archive "
        "(`.tar`, `.tar.xz`, `.tar.gz`, `.tar.bz2`). `digits` reads no folder and refuses it. A "
        "real device ignores it and uses its own folder.",
    )
    hub_name: str = Field(
        "",
        description="`hub` only: name of the data set, `OWNER/NAME`, or a local folder of Parquet "
        "files or images. `data.directory` wins over it.",
    )
    hub_features: str = Field("image", description="`hub` only: column that holds the input.")
    hub_label: str = Field("label", description="`hub` only: column that holds the class.")
    allow_download: bool = Field(
        False,
        description="`hub` only: fetch the data set if it is not on this machine yet. Nothing is "
        "downloaded otherwise.",
    )
    partition: Literal["iid", "dirichlet", "shards", "natural"] = Field(
        "iid",
        description="How a simulation divides the training records among clients. `iid`: equal "
        "numbers, at random; `dirichlet`: uneven shares of each class; `shards`: each client holds "
        "a few classes only; `natural`: by the source's own ids, the first `federation.clients` of "
        "them in sorted order.",
    )
    dirichlet_alpha: PositiveFloat = Field(
        0.5, description="`dirichlet` only: concentration; smaller is more uneven."
    )
    classes_per_client: Positive = Field(
        2, description="`shards` only: how many classes each client holds."
    )
    natural_id: str = Field(
        "client_id",
        description="`npz`, `hub`, `table`: array or column that says whose record it is, for "
        "`natural`. A table's column of this name is never learned from.",
    )
    min_records: Positive = Field(
        1, description="A simulated client with fewer records is an error."
    )
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2,
        description="Share held out as the server's test set, where the source has no test set of "
        "its own.",
    )
    max_records: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Use only this many training records, drawn by the seed, each equally likely; "
        "0 uses all. The test set is not cut.",
    )
    label: Names = Field(
        "",
        description="`table`, `sensors`, `text` of CSV files: column with the class or the value; "
        "several, separated by commas, for `multilabel`.",
    )
    layout: Literal["auto", "lines", "csv", "class_files", "roles"] = Field(
        "auto",
        description="`text`: `lines`: `LABEL`, a tab and the text; `csv`: the columns `data.text` "
        "and `data.label`; `class_files`: one sentence a line, in files that differ after the last "
        "dot, as in `reviews.pos` and `reviews.neg`; `roles`: blocks that begin with `ROLE:`, for "
        "`next_token`; `auto`: the one that it seems to be.",
    )
    text: str = Field("text", description="`text` of CSV files: column with the text.")
    vocabulary: Annotated[str, _written_as(data_settings.vocabulary)] = Field(
        "hashed:8192",
        description="`text`: public numbers for words. `hashed:N`: each word in one of N buckets; "
        "`characters`: printable ASCII; `list:FILE`: the words of a public list, one a line. A "
        "vocabulary made from private text would be a release.",
    )
    length: Annotated[int, Field(ge=1, le=1 << 16)] = Field(
        64, description="`text`: tokens of a record; longer texts are cut, shorter ones padded."
    )
    classes: Annotated[_Text, _written_as(data_settings.class_names)] = Field(
        "",
        description="All classes in their order, separated by commas, or how many there are. "
        "Empty: those that the records have, in sorted order. Whole numbers, such as "
        "`25000,41401`, also map the labels of `idx`, `npz` and `hub`.",
    )
    value_range: Annotated[_Text, _written_as(data_settings.value_range)] = Field(
        "",
        description="`idx`, `npz`, `hub`, `images`: `LOW,HIGH`, what stored values can be, mapped "
        "to 0 and 1. Empty: bytes are divided by 255, unsigned 16-bit values by 65,535, all others "
        "are taken as stored. Twelve-bit images are `0,4095`.",
    )
    columns: Names = Field(
        "",
        description="`table`, `sensors`: columns to learn from, separated by commas. Empty: all "
        "but the label and ids.",
    )
    bounds: Annotated[_Text, _written_as(data_settings.bounds)] = Field(
        "",
        description="`table`, `sensors`: what columns can hold, as `COLUMN=LOW:HIGH`, separated by "
        "commas, `*` for all others; mapped to -1 and 1, and cut off there. The bounds must be "
        "known without the records. A column without bounds is taken as stored.",
    )
    categories: Annotated[_Text, _written_as(data_settings.categories)] = Field(
        "",
        description="`table`: the words of a column, as `COLUMN=ONE|OTHER`, separated by commas. "
        "Empty: those that occur. A device must have them stated.",
    )
    missing: Literal["refuse", "indicator"] = Field(
        "refuse",
        description="`table`: what an empty cell is. `refuse`: an error; `indicator`: 0, and each "
        "column gets another one that is 1 where the cell was missing.",
    )
    record_id: str = Field(
        "",
        description="`table`: column with an id that no two records may share. It is not learned "
        "from.",
    )
    encoding: Literal["utf-8", "utf-16", "cp1252", "latin-1"] = Field(
        "utf-8", description="`table`, `sensors`: encoding of CSV files."
    )
    name_pattern: str = Field(
        "",
        description="`images`, `audio`, `sensors`: what the last parts of a path say, as "
        "`{label}_{client}_{index}.wav` or `{client}/*_log.csv`. `{label}` is the class, "
        "`{client}` whose record it is; files that do not fit are left out and named. Empty: the "
        "folder is the class.",
    )
    test_names: str = Field(
        "",
        description="`images`, `audio`, `sensors`: the files of the test set, as `*_[0-4].wav`; "
        "several are separated by commas.",
    )
    hold_out: Literal["auto", "record", "file", "client"] = Field(
        "auto",
        description="What is held out as a whole where the source has no test set. `auto`: with "
        "`sensors` a client, or a file where clients are not known; otherwise single records, "
        "evenly from all classes.",
    )
    image_size: Annotated[_Text, _written_as(data_settings.image_size)] = Field(
        "",
        description="`images`: `HEIGHTxWIDTH` that they are scaled to. Empty: all must have the "
        "same size.",
    )
    colour: Literal["as_stored", "grey", "rgb"] = Field(
        "as_stored", description="`images`: convert them all to one or three channels."
    )
    sample_rate: Annotated[int, Field(ge=1000, le=192_000)] = Field(
        16_000,
        description="`audio`: samples per second; recordings with another rate are resampled.",
    )
    seconds: Annotated[float, Field(gt=0, le=600)] = Field(
        1.0,
        description="`audio`: length that recordings are cut to, or padded to with silence.",
    )
    mels: Annotated[int, Field(ge=4, le=256)] = Field(
        40, description="`audio`: mel bands of a spectrogram."
    )
    orientation: Literal["as_stored", "gravity"] = Field(
        "as_stored",
        description="`sensors`: `gravity` turns x, y, z of each sensor into what is along gravity "
        "and across it, so that it does not matter how the device was worn. The columns are in "
        "threes, the accelerometer first.",
    )
    window: Annotated[int, Field(ge=1, le=1 << 20)] = Field(
        128, description="`sensors`: rows of a record."
    )
    window_step: Annotated[int, Field(ge=0, le=1 << 20)] = Field(
        0,
        description="`sensors`: rows from the start of one record to the start of the next; 0 is "
        "`data.window`, so that they do not overlap.",
    )


_OWN = r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*"
TaskKind = Annotated[
    str, Field(pattern=rf"^(classification|multilabel|regression|next_token|{_OWN})$")
]


MOST_COPIES = {"": 1, "flip": 2, "shift": 9, "flip,shift": 18}
"""Views that there are of each kind of ``task.augment``, the record itself among them."""


class TaskConfig(Section):
    """What is learned: its loss and its metrics."""

    kind: TaskKind = Field(
        "classification",
        description="`classification`: one class a record; `multilabel`: several labels, each yes "
        "or no; `regression`: a real value; `next_token`: what follows in a text; or a task of "
        "your own as `module:object`. The last is code that is imported and run, on the server and "
        "on the clients.",
    )
    class_weights: Annotated[str, AfterValidator(_written_weights)] = Field(
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
        return weights_of(self.class_weights)


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


class TrainingConfig(Section):
    """Rounds and local optimisation."""

    rounds: Positive = Field(
        30,
        description="Rounds of the run. The privacy budget is divided over all of them before the "
        "first.",
    )
    local_epochs: PositiveFloat = Field(
        1.0,
        description="Passes over the local records in a round. With differential privacy it only "
        "fixes the number of steps: records × epochs / batch size, rounded, at least 1.",
    )
    local_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="Optimiser steps in a round; 0 derives them from `training.local_epochs`."
    )
    batch_size: Positive = Field(
        32,
        description="Size of a batch; with differential privacy the *expected* size of a Poisson "
        "batch, and the public divisor of the noisy gradient sum. A client with fewer records "
        "uses all of them.",
    )
    optimizer: Literal["sgd", "adam", "rmsprop"] = Field(
        "sgd", description="The local optimiser. Its state does not outlive a round."
    )
    learning_rate: PositiveFloat = Field(0.1, description="Step size of the local optimiser.")
    momentum: Probability = Field(
        0.0, description="For `sgd` and `rmsprop`; `adam` has its own and ignores it."
    )
    weight_decay: NonNegativeFloat = Field(0.0, description="L2 penalty of the local optimiser.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant",
        description="How the step size falls over the rounds, of local training and of the "
        "server's step over all clients' records.",
    )
    warmup_rounds: Annotated[int, Field(ge=0)] = Field(
        0, description="Rounds in which the step size rises to its full value."
    )
    micro_batch: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Records that go through the model at once where there is no record-level "
        "privacy; their gradients add up to those of the batch. Less memory, same step; 0: the "
        "whole batch. Record-level privacy bounds memory by itself.",
    )
    patience: Annotated[int, Field(ge=0)] = Field(
        0,
        description="End the run when the first metric on the server's test set has not improved "
        "for this many rounds; 0: never. What is left of the budget stays unspent. The test figure "
        "then favours the model, because it chose when to stop.",
    )
    start: str = Field(
        "",
        description="Weights to start from: a `.safetensors` file or a run folder (`--from`). What "
        "they were trained on is outside the guarantee of this run.",
    )
    start_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = Field(
        "", description="SHA-256 of these weights; filled in when the configuration is read."
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu",
        description="Where models are trained and evaluated; `cuda` is refused before anything "
        "starts where PyTorch finds none. It is part of the digest, because it can change the "
        "last bits of a result.",
    )


class FederationConfig(Section):
    """Who takes part in a round, and how replies become one model."""

    clients: Positive = Field(
        10, description="Clients of the run. The server waits until that many are there."
    )
    clients_per_round: Annotated[int, Field(ge=0)] = Field(
        0, description="Clients asked each round; 0 asks all."
    )
    min_replies: Positive = Field(
        2,
        description="A round with fewer usable replies is skipped and the model stays as it was; "
        "three such rounds in a row end the run. With fewer usable *clients* the run ends.",
    )
    strategy: Literal[
        "fedavg", "fedprox", "fedadam", "fedyogi", "fedmedian", "trimmed_mean", "krum", "multikrum"
    ] = Field(
        "fedavg",
        description="How the updates of a round become the next model; these are Flower's "
        "strategies.",
    )
    server_learning_rate: PositiveFloat = Field(
        0.1,
        description="Step size of the server: FedAdam, FedYogi, and the one step a round over all "
        'clients\' records of `unit = "record"` with distributed noise.',
    )
    server_momentum: Probability = Field(
        0.0, description="Momentum of that step over all clients' records."
    )
    proximal_mu: NonNegativeFloat = Field(
        0.1, description="`fedprox` only: weight of the proximal term in the clients' loss."
    )
    trim_fraction: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.2, description="`trimmed_mean` only: share cut off at each end."
    )
    malicious_clients: Annotated[int, Field(ge=0)] = Field(
        1, description="`krum` and `multikrum` only: number f of bad replies to withstand."
    )
    selected_clients: Positive = Field(
        3, description="`multikrum` only: how many replies are averaged."
    )
    average_decay: Probability = Field(
        0.0,
        description="Decay of the running average of the global models that is evaluated and kept, "
        "with a warm-up; 0 keeps the newest model. Clients always train on the newest. It uses "
        "released models only and costs no privacy.",
    )
    round_timeout_s: PositiveFloat = Field(
        600.0,
        description="Deadline of a round, in seconds. A client that has not answered by then is "
        "late, and the round goes on without it.",
    )
    join_timeout_s: PositiveFloat = Field(
        60.0,
        description="How long the server waits at the start for `federation.clients` nodes, in "
        "seconds.",
    )
    max_update_norm: PositiveFloat = Field(
        1000.0,
        description="An update whose L2 distance from the model it started from is larger is "
        "rejected, and its sender is quarantined. In sealed runs without distributed noise no "
        "single update is seen; there the sum is held against the number of contributors times "
        'this. No effect with `privacy.noise = "central"`, where updates are clipped on arrival '
        "and none is left out for what it holds.",
    )
    client_evaluation: bool = Field(
        False, description="Also evaluate on the clients' own records after each round."
    )


class PrivacyConfig(Protection, Section):
    """What is promised, to whom, by which noise; SECURITY.md says against whom."""

    unit: Literal["record", "client"] = Field(
        "record",
        description="Whom epsilon protects: one record of a client, or everything a client "
        "contributes. With distributed and central noise the latter means its update against none; "
        "what that is for one record, or for other data of the client, is told beside it ([ADR "
        "0017](adr/0017-what-an-event-says-for-each-unit.md)).",
    )
    noise: Literal["none", "local", "distributed", "central"] = Field(
        "local",
        description="Who adds the noise. `none`: there is no differential privacy. `local`: each "
        "client to what it sends. `distributed`: each client a share of what a sealed sum needs. "
        "`central`: the server, which sees updates without noise, to the sum of clipped updates "
        "divided by the clients asked each round.",
    )
    # Below lies no use, above no promise, and in both no accountant that answers in time.
    epsilon: Annotated[float, Field(ge=0.001, le=10_000, allow_inf_nan=False)] = Field(
        8.0,
        description='Budget of the whole run, not of a round. Ignored with `noise = "none"`.',
    )
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(
        1e-4,
        description="The δ at which `privacy.epsilon` is meant. It should be well below 1 / "
        '(records of all clients), or 1 / (clients) for `privacy.unit = "client"`: from there on '
        "plan and run warn, and no report calls the run guaranteed.",
    )
    clip_norm: Annotated[
        float, Field(ge=SMALLEST_CLIP_NORM, le=LARGEST_CLIP_NORM, allow_inf_nan=False)
    ] = Field(
        1.0,
        description="L2 bound C of one unit's contribution: of one record's gradient, or of one "
        "client's update.",
    )
    sampling: Literal["poisson", "full"] = Field(
        "poisson",
        description="`poisson`: each record enters each batch by an independent coin, which "
        "amplifies privacy; `full`: every record enters every batch, and no assumption on sampling "
        "is needed.",
    )
    record_counts: Literal["public", "nominal"] = Field(
        "public",
        description="`public`: each client's record count is declared public; `nominal`: every "
        "client calculates with `privacy.nominal_records`, and its own count never leaves it. A "
        "device whose policy lacks `[release] record_counts = true` takes part in nominal runs "
        "only ([ADR 0007](adr/0007-public-and-nominal-record-counts.md)).",
    )
    nominal_records: Annotated[int, Field(ge=0)] = Field(
        0, description="`nominal` only: the public number."
    )
    release_metrics: bool = Field(
        False,
        description="Let clients send exact, unprotected metrics in a private run. Epsilon does "
        "not cover them and the ledger is not charged; the report names them in its headline and "
        "gives no bound against the server.",
    )


MAX_BITS = 24
"""Widest quantised value that can be asked for."""


class SecureAggregationConfig(Section):
    """How single updates are hidden from the server."""

    scheme: Literal["none", "bfv", "ckks"] = Field(
        "none", description="Encryption under which updates are added up."
    )
    min_contributors: Annotated[int, Field(ge=FEWEST_CONTRIBUTORS)] = Field(
        DEFAULT_CONTRIBUTORS,
        description="No sum of fewer clients is ever released; distributed noise counts on that "
        "many shares.",
    )
    bits: Annotated[int, Field(ge=2, le=MAX_BITS)] = Field(
        14,
        description="Least width of a quantised value. It decides how many values share a slot; "
        "room that is free beside them is used too.",
    )
    clamp: PositiveFloat = Field(
        1.0,
        description="Without distributed noise: largest coordinate of a rotated update; what is "
        "beyond it is cut off.",
    )


class Sections(Section):
    """All sections, each valid by itself; `Config` checks them together."""

    name: str = Field(
        "",
        description="Name of the preset or file the run was made from. Filled in when it is read; "
        "no effect on results.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0,
        description="Seed of everything that is random in a simulation: held-out test set, "
        "partition, initial weights, cohorts, order of batches and, in simulations only, the "
        "noise. On a real device the noise comes from the operating system.",
    )
    data: DataConfig = DataConfig()
    task: TaskConfig = TaskConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    federation: FederationConfig = FederationConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    secure_aggregation: SecureAggregationConfig = SecureAggregationConfig()

    @property
    def is_private(self) -> bool:
        """Whether the run gives any differential privacy."""
        return self.privacy.is_private

    @property
    def is_sealed(self) -> bool:
        """Whether single updates are encrypted, so that the server sees only sums."""
        return self.secure_aggregation.scheme != "none"

    @property
    def has_common_plan(self) -> bool:
        """Whether all clients follow one plan, that of the client with the most records.

        A sealed sum needs one grid and one noise. With local noise each client protects itself.
        """
        return self.is_sealed and self.privacy.noise != "local"

    @property
    def tells_record_counts(self) -> bool:
        """Whether each client's own number of records reaches the server."""
        return not self.is_private or self.privacy.record_counts == "public"

    @property
    def cohort_size(self) -> int:
        """Clients asked each round."""
        return self.federation.clients_per_round or self.federation.clients
