from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import tensorflow as tf
processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    processor, [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
)
import numpy as np
from training_models import small_model, splits, weights_of
from tl_keras.errors import PlanError
from tl_keras.training.trainer import fit
from tl_keras.training.plan import Plan, Stage

model, data = small_model(), splits()
before = weights_of(model)
stage = Stage("some", ("head", "block2*"), epochs=30, learning_rate=0.02)
result = fit(model, data, Plan("two devices", (stage,), batch_size=16), devices=2)
after = weights_of(model)
moved = {path for path in before if not np.array_equal(before[path], after[path])}
learning = {p for p in before if p.startswith(("block2_conv", "head_logits"))}
assert moved == learning, moved ^ learning
losses = [row["loss"] for row in result.history]
assert losses[-1] < 0.7 * losses[0], losses
assert max(row["val_accuracy"] for row in result.history) > 0.8, result.history
try:
    fit(model, data, "probe", devices=3)
except PlanError as error:
    assert "3 devices asked for and 2 found" in str(error)
else:
    raise SystemExit("three devices were not refused")
"""


@pytest.mark.slow
def test_two_devices_train_the_selected_layers_and_learn():
    command = [sys.executable, "-c", CHILD]
    tests = Path(__file__).parent
    environment = {"PYTHONPATH": f"{tests}:{tests.parent}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tests)
    assert done.returncode == 0, done.stderr[-3000:]
