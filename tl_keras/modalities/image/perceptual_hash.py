"""A hash of what an image looks like, which saving it again hardly changes."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["SIDE", "perceptual_hash"]

SIDE = 64
_KEPT = 16


def perceptual_hash(image: Image.Image) -> np.ndarray:
    """Return 256 bits that say how the low spatial frequencies of an image's brightness stand.

    The image is made 64 x 64 and gray; of its discrete cosine transform the lowest 16 x 16
    coefficients are compared with their median (pHash, Zauner 2010). The same for every size and
    nearly the same for every quality that an image is saved at; cropping changes it.

    Args:
        image: in any mode that has a gray version.

    Returns:
        uint8 (32,), packed bits. Compare two by the share of bits that differ: 0.5 by chance.
    """
    from scipy.fft import dctn

    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    low = dctn(np.asarray(small, np.float64), norm="ortho")[:_KEPT, :_KEPT].ravel()
    # The mean brightness is no shape; and rounding of a flat image is none either.
    low[0], low[np.abs(low) < 1e-6] = 0.0, 0.0
    return np.packbits(low > np.median(low))
