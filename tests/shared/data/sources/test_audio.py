"""WAV files, their spectrograms, and sets of recordings."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import wavfile

from calyx.shared.config.schema import DataConfig
from calyx.shared.data import load_split, partition
from calyx.shared.data.sources.audio import read_audio
from calyx.shared.data.sources.files import SourceFile
from calyx.shared.data.sources.log_mel import LogMel
from calyx.shared.data.sources.wav import read_wav
from calyx.shared.errors import DataError

PATTERN = "{label}_{client}_{index}.wav"


def file(content: bytes) -> SourceFile:
    return SourceFile("a.wav", "set/a.wav", lambda: content)


def config(place: Path, **more: object) -> DataConfig:
    given = {"source": "audio", "view": "sequence", "name_pattern": PATTERN, "sample_rate": 8000}
    return DataConfig.model_validate({**given, "directory": str(place), **more})


@pytest.mark.parametrize(
    ("bits", "kind", "error"),
    [
        (8, "8-bit PCM", 1 / 127),
        (16, "16-bit PCM", 1e-4),
        (24, "24-bit PCM", 1e-6),
        (32, "32-bit PCM", 1e-8),
        (-32, "32-bit float", 1e-7),
        (-64, "64-bit float", 0),
    ],
)
def test_all_widths_give_the_same_samples(wav, sine, bits: int, kind: str, error: float) -> None:
    sound = read_wav(file(wav(sine(440), bits=bits)))
    assert sound.kind == kind and sound.rate == 8000
    assert np.abs(sound.samples - sine(440)).max() <= error
    assert sound.samples.min() < -0.49  # the sign is where it belongs


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_what_scipy_writes_is_read_as_scipy_reads_it(dtype: type) -> None:
    rng = np.random.default_rng(0)
    info = None if dtype is np.float32 else np.iinfo(dtype)
    samples = rng.random((50, 2)) if info is None else rng.integers(info.min, info.max, (50, 2))
    buffer = io.BytesIO()
    wavfile.write(buffer, 22_050, samples.astype(dtype))
    sound = read_wav(file(buffer.getvalue()))
    expected = samples.astype(dtype).astype(np.float64)
    if info is not None:
        expected = (expected - 128) / 128 if dtype is np.uint8 else expected / -float(info.min)
    assert sound.channels == 2
    assert np.allclose(sound.samples, expected.mean(axis=1), atol=1e-7)


def test_an_extensible_format_and_other_chunks_are_read(wav, sine) -> None:
    content = wav(sine(440), bits=24)
    head = content[20:36]
    extension = struct.pack("<HHIH", 22, 24, 4, 1) + bytes.fromhex("000000001000800000aa00389b71")
    body = struct.pack("<H", 0xFFFE) + head[2:] + extension
    odd = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    made = b"RIFF\0\0\0\0WAVE" + odd + b"fmt " + struct.pack("<I", len(body)) + body + content[36:]
    assert np.array_equal(read_wav(file(made)).samples, read_wav(file(content)).samples)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: b"", r"set/a\.wav is empty \(0 bytes\)"),
        (lambda c: c[:-100], r"set/a\.wav is truncated: its chunk 'data' promises 4,800 bytes"),
        (lambda c: c[:30], r"set/a\.wav is truncated: its chunk 'fmt '"),
        (lambda c: c[:36], r"set/a\.wav is truncated: it has no samples"),
        (lambda c: c[:40] + bytes(4), r"set/a\.wav holds no samples"),
        (lambda c: c[:40] + struct.pack("<I", 3) + c[44:47], r"its last sample is not complete"),
        (lambda c: b"ID3" + c, r"set/a\.wav is not a WAV file"),
        (lambda c: c[:20] + b"\x55\0" + c[22:], r"set/a\.wav holds MP3, which is not read"),
        (lambda c: c[:34] + b"\x0c\0" + c[36:], r"holds 12-bit samples, which is not read"),
        (lambda c: c[:22] + b"\x02\0" + c[24:], r"set/a\.wav contradicts itself"),
        (lambda c: c[:12] + c[36:] + c[12:36], r"has samples before their format"),
    ],
)
def test_bad_recordings_are_refused_by_name(wav, sine, change, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_wav(file(change(wav(sine(440)))))


def test_samples_that_are_no_numbers_are_refused(wav) -> None:
    with pytest.raises(DataError, match=r"set/a\.wav holds samples that are NaN"):
        read_wav(file(wav(np.array([0.1, np.nan]), bits=-32)))


@given(data=st.data())
def test_any_damage_gives_samples_or_a_refusal(wav, sine, data) -> None:
    content = bytearray(wav(sine(440, 0.01)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    try:
        sound = read_wav(file(bytes(content)))
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(sound.samples).all()


def test_a_full_scale_tone_is_near_the_top_of_its_band_and_silence_is_zero() -> None:
    log_mel = LogMel(8000, 8000, 40)
    time = np.arange(8000) / 8000
    loud = log_mel(np.sin(2 * np.pi * 1000 * time))
    assert loud.shape == (98, 40) and loud.dtype == np.float32
    assert 0.9 < loud.max() <= 1
    higher = log_mel(np.sin(2 * np.pi * 3000 * time))
    assert higher.mean(axis=0).argmax() > loud.mean(axis=0).argmax()
    assert not log_mel(np.zeros(10)).any()


def test_a_spectrogram_is_on_a_grid_and_depends_on_nothing_else(sine) -> None:
    log_mel = LogMel(8000, 4000, 20)
    first = log_mel(sine(300))
    log_mel(100 * sine(900))
    assert np.array_equal(first, log_mel(sine(300)))
    assert np.array_equal(first * 1024, np.round(first * 1024))


@pytest.fixture
def recordings(wav: Callable[..., bytes], sine: Callable[..., np.ndarray]) -> dict[str, bytes]:
    return {
        f"recordings/{label}_{who}_{index}.wav": wav(sine(300 + 900 * label + 20 * index))
        for label in range(2)
        for who in ("anna", "bert")
        for index in range(3)
    }


def test_label_and_speaker_come_from_the_name(pack, recordings) -> None:
    place = pack("set.tar.xz", {**recordings, "recordings/noise.wav": b"no recording"})
    found = read_audio(config(place))
    assert found.features.shape == (12, 98, 40)
    assert found.class_names == ("0", "1")
    assert set(found.natural_ids) == {"anna", "bert"}
    assert found.warnings[0].startswith("1 of 13 files do not fit")
    assert "recordings/noise.wav" in found.warnings[0]
    split = load_split(config(place, partition="natural", test_names="*_2.wav"), 0)
    assert len(split.test) == 4
    parts = partition(split.train, config(place, partition="natural"), 2, 0)
    assert [set(split.train.natural_ids[part]) for part in parts] == [{"anna"}, {"bert"}]


def test_a_speaker_can_be_held_out_as_a_whole(pack, recordings) -> None:
    split = load_split(config(pack("set.tar", recordings), hold_out="client"), 0)
    assert len(set(split.train.natural_ids) | set(split.test.natural_ids)) == 2
    assert not set(split.train.natural_ids) & set(split.test.natural_ids)


def test_another_rate_is_resampled_and_stereo_averaged(pack, wav, sine) -> None:
    slow = {f"{i % 2}_a_{i}.wav": wav(sine(300 + 900 * (i % 2))) for i in range(4)}
    fast = {
        f"{i % 2}_a_{i}.wav": wav(
            np.repeat(sine(300 + 900 * (i % 2), rate=44_100), 2), rate=44_100, channels=2
        )
        for i in range(4)
    }
    one, other = (read_audio(config(pack(n, m))) for n, m in (("a.tar", slow), ("b.tar", fast)))
    assert np.abs(one.features - other.features)[:, 2:28].mean() < 0.02
    assert "4 recordings resampled from 44,100 Hz" in other.done
    assert "4 recordings of 2 channels averaged to one" in other.done
    assert "4 recordings shorter than 1 s were padded with silence" in one.done


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"name_pattern": "{client}_{index}.wav"}, r"does not say which part is the label"),
        ({"name_pattern": "{label}-{index}.wav"}, r"fits none of 12 files, such as"),
        ({"name_pattern": "{label}_*.wav", "partition": "natural"}, r"name the place .*\{client\}"),
        ({"test_names": "*.mp3"}, r"data\.test_names = \*\.mp3 names none of 12 files"),
        ({"test_names": "*"}, r"names all of 12 files"),
        ({"hold_out": "client", "name_pattern": "{label}_*.wav"}, r"does not say which client"),
        ({"classes": "1,2"}, r"0_anna_0\.wav: label '0' is not among data\.classes \(1, 2\)"),
    ],
)
def test_settings_that_do_not_fit_are_refused(pack, recordings, more, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_split(config(pack("set.tar", recordings), **more), 0)


def test_the_spoken_digits_by_their_official_split() -> None:
    place = Path(os.environ.get("CALYX_TEST_DATA", "")) / "fsdd" / "fsdd-recordings.tar.xz"
    if not place.is_file():
        pytest.skip("the spoken digits are not there: set CALYX_TEST_DATA to the folder with them")
    split = load_split(config(place, test_names="*_[0-4].wav"), 0)
    assert (len(split.train), len(split.test)) == (2700, 300)
    assert np.bincount(split.test.labels).tolist() == [30] * 10
    assert len(set(split.train.natural_ids)) == 6
    assert "20 recordings longer than 1 s were cut" in split.done
