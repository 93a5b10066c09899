"""Recordings: WAV files in folders or a tar archive, as log-mel spectrograms of one length.

Label and speaker are in a file's path, by ``data.name_pattern``; without it the folder is the
label. Rate, length and bands are public and fixed by the configuration, whatever the recordings
are.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from calyx.shared.config.schema import DataConfig
from calyx.shared.data.sources.class_labels import numbered
from calyx.shared.data.sources.files import source_files
from calyx.shared.data.sources.log_mel import LogMel
from calyx.shared.data.sources.naming import Named, named_files
from calyx.shared.data.sources.source_records import SourceRecords
from calyx.shared.data.sources.wav import Sound, read_wav
from calyx.shared.errors import DataError

SUFFIXES = (".wav",)
_MOST_BYTES = 16 << 30


def read_audio(config: DataConfig) -> SourceRecords:
    """Read all recordings.

    Returns:
        Features float32 (n, frames, mels) in [0, 1], classes, speakers where the pattern names
        them.

    Raises:
        DataError: a recording cannot be read; the file is named.
    """
    named = named_files(source_files(config.directory, SUFFIXES), config)
    classes = numbered(named.labels, config.classes, lambda record: named.files[record].shown)
    features, done = _spectrograms(named, config)
    return SourceRecords(
        features=features,
        labels=classes.labels,
        class_names=classes.names,
        natural_ids=named.clients,
        files=np.array([file.name for file in named.files]),
        is_test=named.is_test,
        done=(*done, classes.done),
        warnings=named.warnings,
    )


def _spectrograms(named: Named, config: DataConfig) -> tuple[NDArray[np.float32], list[str]]:
    length = math.ceil(config.seconds * config.sample_rate)
    log_mel = LogMel(config.sample_rate, length, config.mels)
    did: Counter[str] = Counter()
    features: NDArray[np.float32] | None = None
    for record, file in enumerate(named.files):
        sound = read_wav(file)
        spectrogram = log_mel(_prepared(sound, config, length, did))
        if features is None:
            if len(named.files) * spectrogram.nbytes > _MOST_BYTES:
                raise DataError(
                    f"{len(named.files):,} spectrograms of shape {spectrogram.shape} do not fit "
                    f"into {_MOST_BYTES >> 30} GiB",
                    hint="set data.seconds or data.mels lower",
                )
            features = np.empty((len(named.files), *spectrogram.shape), np.float32)
        features[record] = spectrogram
    assert features is not None  # `source_files` gives at least one
    frames, mels = features.shape[1:]
    said = [
        f"log-mel spectrograms of {frames} frames and {mels} bands at {config.sample_rate:,} Hz, "
        "-80 to 0 dB of full scale mapped to 0 to 1"
    ]
    return features, said + [f"{number:,} recordings {what}" for what, number in did.items()]


def _prepared(
    sound: Sound, config: DataConfig, length: int, did: Counter[str]
) -> NDArray[np.float64]:
    did[f"of {sound.kind}"] += 1
    if sound.channels > 1:
        did[f"of {sound.channels} channels averaged to one"] += 1
    samples = sound.samples
    if sound.rate != config.sample_rate:
        did[f"resampled from {sound.rate:,} Hz"] += 1
        samples = _resampled(samples, sound.rate, config.sample_rate, length)
    if len(samples) > length:
        did[f"longer than {config.seconds:g} s were cut"] += 1
    elif len(samples) < length:
        did[f"shorter than {config.seconds:g} s were padded with silence"] += 1
    return samples


def _resampled(
    samples: NDArray[np.float64], rate: int, wanted: int, length: int
) -> NDArray[np.float64]:
    """By SciPy's polyphase filter; what will be cut off anyway is left out, but for a margin."""
    from scipy.signal import resample_poly

    divisor = math.gcd(rate, wanted)
    margin = 1 + rate // 10
    needed = samples[: math.ceil((length + 1) * rate / wanted) + margin]
    made: NDArray[np.float64] = resample_poly(needed, wanted // divisor, rate // divisor)
    return made
