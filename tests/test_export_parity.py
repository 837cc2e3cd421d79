"""The way out keeps the answers, whatever the base; all bases: benchmarks/export_parity.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import export_parity


@pytest.mark.slow
@pytest.mark.parametrize("base", export_parity.SMALLEST.values())
def test_a_base_answers_alike_in_every_runtime_for_batches_of_any_size(base):
    (found,) = export_parity.each_alone(export_parity.compare, [base])
    assert found["pictures"] == 12, "batches of 1, 3 and 8"
    assert found["equal"]
    assert found["onnx"] <= 1e-5
    # What Keras' own answer moves by when its input moves in the last place is no mistake.
    assert found["litert"] <= max(1e-5, min(1e-4, 10 * found["rounding"]))
    assert found["spread"] > 1e-3, "pictures that all look alike would prove nothing"
