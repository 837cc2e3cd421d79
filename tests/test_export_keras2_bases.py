from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tl_keras.utils.quiet import start_tensorflow

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import export_parity

start_tensorflow()
# The smallest of each family, in full width; benchmarks/twin_parity.py takes them all.
FAMILIES = [name.split("@")[0] for name in export_parity.SMALLEST.values()]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_base_has_an_equal_counterpart_there_and_back(name):
    import keras
    from twin_parity import compare, passed

    result = compare(name)
    assert passed(result), result
    assert (keras.config.floatx(), keras.config.dtype_policy().name) == ("float32", "float32")


def test_mobilenet_v2_at_96_pixels_has_an_equal_counterpart():
    import keras

    from export.compress.keras2.convert import to_keras2

    model = keras.applications.MobileNetV2((96, 96, 3), 0.35, weights=None, classes=5)
    batch = np.random.default_rng(0).uniform(-1, 1, (2, 96, 96, 3)).astype("float32")
    expected = np.asarray(model(batch, training=False))
    found = np.asarray(to_keras2(model)(batch, training=False))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
