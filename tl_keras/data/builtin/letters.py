"""Letters of six alphabets in the fonts that matplotlib ships, as distance fields.

A distance field (how far each pixel is from the outline, in pixels, positive inside) makes a
change of the stroke's width one addition: Green, 'Improved alpha-tested magnification for
vector textures and special effects', SIGGRAPH 2007.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFont

from tl_keras.errors import DataError

__all__ = ["FIELD", "Glyphs", "draw_glyphs", "font_files", "letters"]

FIELD = 48
"""Side of a distance field, in pixels."""

_MARGIN = 5
_FINE = 2
_PEN = 96
_ALIKE = 0.85
_NO_LETTER = "\U0010fffe"

_FULL_FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono",
    "DejaVuSansMono-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralBolIta", "STIXGeneralItalic",
)  # fmt: skip
_LATIN_FONTS = ("cmb10", "cmmi10", "cmr10", "cmss10", "cmti10", "cmtt10")
_UPPER_FONTS = ("cmsy10",)
_SCRIPT_FONTS = ("STIXGeneral", "STIXGeneralBolIta")

_LATIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SCRIPT = range(0x1D4D0, 0x1D504)
_OTHERS = (
    range(0x391, 0x3AA),
    range(0x3B1, 0x3CA),
    range(0x410, 0x450),
    range(0x531, 0x557),
    range(0x561, 0x587),
    range(0x10D0, 0x10F1),
    range(0x5D0, 0x5EB),
)


@dataclass(frozen=True, eq=False)
class Glyphs:
    """Letters as distance fields, one a letter and font.

    Attributes:
        fields: float16 (n, 48, 48), signed distance to the outline in pixels, inside > 0.
        labels: int64 (n,), index into `names`.
        names: One letter a class; letters of one outline (Latin A, Greek Α) are one class.
    """

    fields: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


def font_files() -> dict[str, str]:
    """The fonts used here: name to path, as matplotlib ships them.

    Raises:
        DataError: If a font file is not there.
    """
    import matplotlib

    folder = os.path.join(matplotlib.get_data_path(), "fonts", "ttf")
    names = _FULL_FONTS + _LATIN_FONTS + _UPPER_FONTS
    files = {name: os.path.join(folder, f"{name}.ttf") for name in names}
    missing = [path for path in files.values() if not os.path.isfile(path)]
    if missing:
        raise DataError(f"no font at {missing[0]}; install matplotlib anew with its data files")
    return files


def letters() -> tuple[str, ...]:
    """All letters drawn, in order: Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew."""
    others = (chr(code) for codes in _OTHERS for code in codes)
    return tuple(_LATIN) + tuple(letter for letter in others if letter.isalpha())


@lru_cache(maxsize=1)
def draw_glyphs() -> Glyphs:
    """Draw every letter in every font that has it (about two thousand, in a few seconds)."""
    files = font_files()
    classes = _classes(files)
    names = tuple(dict.fromkeys(classes.values()))
    index = {name: number for number, name in enumerate(names)}
    drawn = [(mask, classes[letter]) for letter, mask in _all_masks(files)]
    fields = np.stack([_distance_field(mask) for mask, _ in drawn])
    labels = np.array([index[name] for _, name in drawn], np.int64)
    return Glyphs(fields, labels, names)


def _all_masks(files: dict[str, str]) -> list[tuple[str, np.ndarray]]:
    """Each (letter, mask), for all fonts; a calligraphic form counts as its Latin letter."""
    wanted = {name: [(letter, letter) for letter in letters()] for name in _FULL_FONTS}
    wanted |= {name: [(letter, letter) for letter in _LATIN] for name in _LATIN_FONTS}
    wanted |= {name: [(letter, letter) for letter in _LATIN[:26]] for name in _UPPER_FONTS}
    for name in _SCRIPT_FONTS:
        wanted[name] = wanted[name] + list(zip(_LATIN, map(chr, _SCRIPT), strict=True))
    masks = []
    for name, pairs in wanted.items():
        drawn = _masks(files[name], [form for _, form in pairs])
        masks += [(letter, drawn[form]) for letter, form in pairs if form in drawn]
    return masks


def _masks(file: str, forms: list[str]) -> dict[str, np.ndarray]:
    """Masks of the forms that the font file has."""
    font = ImageFont.truetype(file, _PEN)
    absent = _drawn(font, _NO_LETTER).tobytes()
    drawn = {form: _drawn(font, form) for form in forms}
    return {form: _framed(image) for form, image in drawn.items() if image.tobytes() != absent}


def _drawn(font: ImageFont.FreeTypeFont, form: str) -> Image.Image:
    """The form in gray, cut to its bounds."""
    core = font.getmask(form, mode="L")
    image = (
        Image.frombytes("L", core.size, bytes(core)) if min(core.size) else Image.new("L", (1, 1))
    )
    return image.crop(image.getbbox())


def _framed(image: Image.Image) -> np.ndarray:
    """Bool (96, 96): the form scaled to fill the frame less its margin, centered."""
    side = _FINE * FIELD
    ratio = (side - 2 * _FINE * _MARGIN) / max(image.size)
    width, height = (max(1, round(ratio * length)) for length in image.size)
    frame = Image.new("L", (side, side))
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    frame.paste(scaled, ((side - width) // 2, (side - height) // 2))
    return np.asarray(frame) > 127


def _distance_field(mask: np.ndarray) -> np.ndarray:
    """Signed distances, float16 (48, 48), from a mask `_FINE` times as fine."""
    from scipy.ndimage import distance_transform_edt

    fine = distance_transform_edt(mask) - distance_transform_edt(~mask)
    return (fine.reshape(FIELD, _FINE, FIELD, _FINE).mean((1, 3)) / _FINE).astype(np.float16)


def _classes(files: dict[str, str]) -> dict[str, str]:
    """Letter to the first letter of its shape, judged in DejaVu Sans."""
    masks = _masks(files["DejaVuSans"], list(letters()))
    flat = np.stack(list(masks.values())).reshape(len(masks), -1).astype(np.float32)
    shared = flat @ flat.T
    area = np.diag(shared)
    alike = shared / (area[:, None] + area - shared) > _ALIKE
    names = list(masks)
    classes: dict[str, str] = {}
    for number, letter in enumerate(names):
        earlier = [names[i] for i in np.flatnonzero(alike[number, :number])]
        firsts = [name for name in earlier if classes[name] == name]
        classes[letter] = firsts[0] if firsts else letter
    return classes
