"""WAV files: uncompressed samples of 8, 16, 24 or 32 bits, or floats of 32 or 64.

Read here and not by a library, because those that come with Python or SciPy take what is truncated
for whole, warn instead of refusing, or lack 24 bits or floats. The format is the one of Microsoft's
"Multimedia Programming Interface and Data Specifications 1.0" (1991) with WAVE_FORMAT_EXTENSIBLE.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calyx.shared.data.sources.files import SourceFile
from calyx.shared.errors import DataError

_PCM, _FLOAT, _EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
_NAMES = {
    0x0002: "ADPCM",
    0x0006: "A-law",
    0x0007: "µ-law",
    0x0011: "IMA ADPCM",
    0x0055: "MP3",
}
# The rest of the identifier that an extensible format gives its samples.
_EXTENSION = bytes.fromhex("000000001000800000aa00389b71")
_MOST_CHANNELS = 64


@dataclass(frozen=True)
class Sound:
    """One recording.

    Attributes:
        samples: float64 (n,), full scale is 1; channels are averaged.
        rate: samples a second.
        channels: how many there were.
        kind: how samples were stored, in words.
    """

    samples: NDArray[np.float64] = field(repr=False)
    rate: int
    channels: int
    kind: str


def read_wav(file: SourceFile) -> Sound:
    """Read one WAV file.

    Raises:
        DataError: it is empty, truncated, compressed or no WAV file; the file is named.
    """
    content = file.content()
    if not content:
        raise DataError(f"{file.shown} is empty (0 bytes)", hint="record it again or leave it out")
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise DataError(f"{file.shown} is not a WAV file", hint="convert it (ffmpeg -i IN OUT.wav)")
    stated, data = _chunks(file, content)
    kind, channels, rate, bits = stated
    width = channels * bits // 8
    if len(data) % width:
        raise _truncated(file, "its last sample is not complete")
    if not data:
        raise DataError(f"{file.shown} holds no samples", hint="record it again or leave it out")
    samples = _samples(file, data, kind, bits)
    if not np.isfinite(samples).all():
        raise DataError(
            f"{file.shown} holds samples that are NaN or infinite",
            hint="record it again",
        )
    if channels > 1:
        samples = samples.reshape(-1, channels).mean(axis=1)
    stored = f"{bits}-bit {'float' if kind == _FLOAT else 'PCM'}"
    return Sound(samples, rate, channels, stored)


def _chunks(file: SourceFile, content: bytes) -> tuple[tuple[int, int, int, int], bytes]:
    stated: tuple[int, int, int, int] | None = None
    place = 12
    while place + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, place)
        body = content[place + 8 : place + 8 + size]
        if len(body) < size:
            raise _truncated(
                file,
                f"its chunk {name.decode('latin-1')!r} promises {size:,} bytes, the file "
                f"holds {len(body):,}",
            )
        if name == b"fmt ":
            stated = _format(file, body)
        elif name == b"data":
            if stated is None:
                raise DataError(
                    f"{file.shown} has samples before their format",
                    hint="convert it again",
                )
            return stated, body
        place += 8 + size + size % 2
    raise _truncated(file, "it has no samples")


def _format(file: SourceFile, body: bytes) -> tuple[int, int, int, int]:
    """Kind, channels, rate and bits of a sample."""
    if len(body) < 16:
        raise _truncated(file, "its format is not complete")
    kind, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", body)
    if kind == _EXTENSIBLE:
        if len(body) < 40 or body[26:40] != _EXTENSION:
            raise DataError(
                f"{file.shown} has samples of an unknown kind",
                hint="convert it to PCM",
            )
        kind = struct.unpack_from("<H", body, 24)[0]
    widths = {_PCM: (8, 16, 24, 32), _FLOAT: (32, 64)}.get(kind, ())
    if bits not in widths:
        what = f"{bits}-bit samples" if widths else _NAMES.get(kind, f"format 0x{kind:04x}")
        raise DataError(
            f"{file.shown} holds {what}, which is not read",
            hint="convert it to 16-bit PCM (ffmpeg -i IN -c:a pcm_s16le OUT.wav)",
        )
    if not 1 <= channels <= _MOST_CHANNELS or block != channels * bits // 8 or not rate:
        raise DataError(
            f"{file.shown} contradicts itself ({channels} channels of {bits} bits in blocks of "
            f"{block} bytes, {rate} a second)",
            hint="convert it again",
        )
    return kind, channels, rate, bits


def _samples(file: SourceFile, data: bytes, kind: int, bits: int) -> NDArray[np.float64]:
    if kind == _FLOAT:
        return np.frombuffer(data, f"<f{bits // 8}").astype(np.float64)
    if bits == 8:  # the only width without a sign
        return (np.frombuffer(data, np.uint8).astype(np.float64) - 128) / 128
    if bits == 24:
        # As the high bytes of 32 bits, so that the sign is where it belongs.
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0] / 2.0**31
    return np.frombuffer(data, f"<i{bits // 8}") / 2.0 ** (bits - 1)


def _truncated(file: SourceFile, how: str) -> DataError:
    return DataError(f"{file.shown} is truncated: {how}", hint="record it again or leave it out")
