"""``[data]``: which records there are, how they are read, and who has them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from calyx.shared.config import data_settings
from calyx.shared.config.schema.section import Positive, PositiveFloat, Section, written_as

View = Literal["image", "sequence", "stored"]
# A single number is text too: a column may be named 5.
_Text = Annotated[str, Field(coerce_numbers_to_str=True)]
Names = Annotated[_Text, written_as(data_settings.names)]


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
    vocabulary: Annotated[str, written_as(data_settings.vocabulary)] = Field(
        "hashed:8192",
        description="`text`: public numbers for words. `hashed:N`: each word in one of N buckets; "
        "`characters`: printable ASCII; `list:FILE`: the words of a public list, one a line. A "
        "vocabulary made from private text would be a release.",
    )
    length: Annotated[int, Field(ge=1, le=1 << 16)] = Field(
        64, description="`text`: tokens of a record; longer texts are cut, shorter ones padded."
    )
    classes: Annotated[_Text, written_as(data_settings.class_names)] = Field(
        "",
        description="All classes in their order, separated by commas, or how many there are. "
        "Empty: those that the records have, in sorted order. Whole numbers, such as "
        "`25000,41401`, also map the labels of `idx`, `npz` and `hub`.",
    )
    value_range: Annotated[_Text, written_as(data_settings.value_range)] = Field(
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
    bounds: Annotated[_Text, written_as(data_settings.bounds)] = Field(
        "",
        description="`table`, `sensors`: what columns can hold, as `COLUMN=LOW:HIGH`, separated by "
        "commas, `*` for all others; mapped to -1 and 1, and cut off there. The bounds must be "
        "known without the records. A column without bounds is taken as stored.",
    )
    categories: Annotated[_Text, written_as(data_settings.categories)] = Field(
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
        "`sensors` and `text` a client, where clients are known; of other `sensors` a file; "
        "otherwise single records, evenly from all classes.",
    )
    image_size: Annotated[_Text, written_as(data_settings.image_size)] = Field(
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
