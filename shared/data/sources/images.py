"""Pictures: PNG and JPEG files, in a folder a class or by a pattern of their names.

``cats/1.png`` is of class cats. With ``train/cats`` and ``test/cats`` the set has its own test set.
A picture is turned upright by its EXIF orientation; transparency is dropped. Eight bits are divided
by 255, sixteen by 65,535 or by what ``data.value_range`` declares.
"""

from __future__ import annotations

import io
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.config import data_settings
from calyx.shared.config.schema import DataConfig
from calyx.shared.data.sources.class_labels import numbered
from calyx.shared.data.sources.files import SourceFile, source_files
from calyx.shared.data.sources.naming import Named, named_files
from calyx.shared.data.sources.scaling import scaled
from calyx.shared.data.sources.source_records import SourceRecords
from calyx.shared.errors import DataError
from calyx.shared.host.optional_packages import require

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg")
# A small file can claim to be of any size; Pillow itself draws the line at three times this.
_MOST_PIXELS = 1 << 26
_MOST_BYTES = 16 << 30


def read_images(config: DataConfig) -> SourceRecords:
    """Read all pictures.

    Returns:
        Features float32 (n, 1 or 3, height, width) in [0, 1], classes, clients where the pattern
        names them.

    Raises:
        DataError: a picture is damaged, too large, or has another size or number of channels than
            the first; the file is named.
        UsageError: Pillow is not installed.
    """
    require("PIL", "images", "the data source images")
    named = named_files(source_files(config.directory, SUFFIXES), config)
    classes = numbered(named.labels, config.classes, lambda record: named.files[record].shown)
    pixels, done = _all_pixels(named, config)
    values = scaled(pixels, data_settings.value_range(config.value_range), "pixels")
    return SourceRecords(
        features=values.values,
        labels=classes.labels,
        class_names=classes.names,
        natural_ids=named.clients,
        files=np.array([file.name for file in named.files]),
        is_test=named.is_test,
        done=(*done, values.done, classes.done),
        warnings=(*named.warnings, *((values.warning,) if values.warning else ())),
    )


def size_and_mode(file: SourceFile) -> tuple[tuple[int, int], bool]:
    """(height, width) of a picture once it is upright, and whether it is grey; its head only.

    Raises:
        DataError: it is damaged or no picture; the file is named.
        UsageError: Pillow is not installed.
    """
    require("PIL", "images", "the data source images")
    from PIL import Image

    try:
        with Image.open(io.BytesIO(file.content()), formats=("PNG", "JPEG")) as opened:
            width, height = opened.size
            # Orientations from 5 on lie on their side.
            if opened.getexif().get(0x0112, 1) >= 5:
                width, height = height, width
            return (height, width), opened.mode in ("1", "L", "LA") or opened.mode.startswith("I")
    except (OSError, SyntaxError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{file.shown} is damaged or not a PNG or JPEG picture ({reason})",
            hint="leave it out or store it again",
        ) from None


def _all_pixels(named: Named, config: DataConfig) -> tuple[NDArray[Any], list[str]]:
    size = data_settings.image_size(config.image_size)
    stack: NDArray[Any] | None = None
    did: Counter[str] = Counter()
    for record, file in enumerate(named.files):
        pixels = _pixels(file, config.colour, size, did)
        if stack is None:
            if len(named.files) * pixels.size * 4 > _MOST_BYTES:
                raise DataError(
                    f"{len(named.files):,} pictures of shape {pixels.shape} do not fit into "
                    f"{_MOST_BYTES >> 30} GiB",
                    hint="set data.image_size to something smaller",
                )
            stack = np.empty((len(named.files), *pixels.shape), pixels.dtype)
        if pixels.shape != stack.shape[1:] or pixels.dtype != stack.dtype:
            raise _other_kind(file, pixels, named.files[0], stack[0])
        stack[record] = pixels
    assert stack is not None  # `source_files` gives at least one
    return stack, [f"{what} ({number:,} pictures)" for what, number in did.items()]


def _other_kind(
    file: SourceFile, pixels: NDArray[Any], first: SourceFile, its: NDArray[Any]
) -> DataError:
    if pixels.shape[0] != its.shape[0]:
        kinds = {1: "grey", 3: "in colour"}
        return DataError(
            f"{file.shown} is {kinds[pixels.shape[0]]} but {first.shown} {kinds[its.shape[0]]}",
            hint="set data.colour=grey or data.colour=rgb to convert them all",
        )
    if pixels.dtype != its.dtype:
        return DataError(
            f"{file.shown} has {8 * pixels.itemsize} bits a pixel but {first.shown} "
            f"{8 * its.itemsize}",
            hint="store all with the same number of bits",
        )
    (_, height, width), (_, other, wide) = pixels.shape, its.shape
    return DataError(
        f"{file.shown} has {height}x{width} pixels but {first.shown} {other}x{wide}",
        hint=(
            f"set data.image_size={min(height, other)}x{min(width, wide)}, or another size, to "
            "scale them"
        ),
    )


def _pixels(
    file: SourceFile, colour: str, size: tuple[int, int] | None, did: Counter[str]
) -> NDArray[Any]:
    """One picture as uint8 or uint16 (channels, height, width)."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    upright: Image.Image
    content = file.content()
    if not content:
        raise DataError(f"{file.shown} is empty", hint="leave it out")
    try:
        # Only what is asked for: each further format is more code that reads untrusted bytes.
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as opened:
            width, height = opened.size
            if width * height > _MOST_PIXELS:
                raise DataError(
                    f"{file.shown} has {width}x{height} pixels, more than the {_MOST_PIXELS:,} "
                    "that are read",
                    hint="store it smaller",
                )
            opened.load()
            upright = ImageOps.exif_transpose(opened)
            if opened.getexif().get(0x0112, 1) != 1:
                did["turned upright by their EXIF orientation"] += 1
            return _array(_converted(upright, file, colour, did), file, size, did)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(
            f"{file.shown} has more than the {_MOST_PIXELS:,} pixels that are read",
            hint="store it smaller",
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, UnidentifiedImageError):
            reason = "its bytes are of neither"
        raise DataError(
            f"{file.shown} is damaged or not a PNG or JPEG picture ({reason})",
            hint="leave it out or store it again",
        ) from None


def _converted(image: Image, file: SourceFile, colour: str, did: Counter[str]) -> Image:
    if image.mode.startswith("I"):
        if colour == "rgb":
            raise DataError(
                f"{file.shown} has 16 bits a pixel and is grey, and data.colour=rgb needs 8 bits",
                hint="store it with 8 bits, or use another data.colour",
            )
        return image
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        did["transparency dropped"] += 1
    is_grey = image.mode in ("1", "L", "LA")
    wanted = {"grey": "L", "rgb": "RGB", "as_stored": "L" if is_grey else "RGB"}[colour]
    if colour != "as_stored" and is_grey != (wanted == "L"):
        did[f"converted to {colour}"] += 1
    return image if image.mode == wanted else image.convert(wanted)


def _array(
    image: Image, file: SourceFile, size: tuple[int, int] | None, did: Counter[str]
) -> NDArray[Any]:
    if size is not None and (image.height, image.width) != size:
        from PIL.Image import Resampling

        if image.mode.startswith("I"):
            raise DataError(
                f"{file.shown} has 16 bits a pixel and {image.height}x{image.width} pixels, and "
                "data.image_size scales pictures of 8 bits only",
                hint="store all in the same size",
            )
        did[f"scaled to {size[0]}x{size[1]} pixels"] += 1
        image = image.resize((size[1], size[0]), Resampling.BILINEAR)
    array = np.asarray(image)
    if image.mode.startswith("I"):
        if array.min() < 0 or array.max() > 65535:
            raise DataError(
                f"{file.shown} has more than 16 bits a pixel",
                hint="store it with 8 or 16",
            )
        array = array.astype(np.uint16)
    return array[np.newaxis] if array.ndim == 2 else np.moveaxis(array, 2, 0)
