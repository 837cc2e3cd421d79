"""What a conversion to ONNX costs: `export.convert.onnx` against tf2onnx as a user would call it.

    python benchmarks/onnx_memory.py                     # resnet50 and convnext_base
    python benchmarks/onnx_memory.py mobilenet_v2 vgg16

Random weights, 64 px. Each conversion has a process of its own, in turn, three of each kind. Memory
is the process' peak less what it held before the conversion (Linux, VmHWM), over the size of the
file. Both files must have the same nodes and constants.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))
from base_parity import each_alone, randomize

REPEATS = 3


def ours(model) -> bytes:
    """The project's conversion."""
    from export.convert import onnx

    return onnx.convert(model)


def plain(model) -> bytes:
    """What a user would write."""
    import tensorflow as tf
    import tf2onnx

    from tl_keras.models.onnx_graph import OPSET, _know_erfc

    _know_erfc()
    spec = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="image")]
    serve = tf.function(lambda image: model(image, training=False), input_signature=spec)
    proto, _ = tf2onnx.convert.from_function(serve, input_signature=spec, opset=OPSET)
    return proto.SerializeToString()


def held(key: str) -> int:
    """Bytes that this process holds (`VmRSS`) or held at most (`VmHWM`)."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text("utf-8"))
    return int(found[1]) * 1024 if found else 0


def measure(case: str) -> dict:
    """One conversion of one base."""
    import onnx

    from tl_keras.models.build import build_model

    way, name = case.split(" ")
    model = build_model(name, 7, size=64, weights=None)
    randomize(model)
    Path("/proc/self/clear_refs").write_text("5", "utf-8")  # VmHWM begins anew.
    before, start = held("VmRSS"), time.perf_counter()
    contents = {"ours": ours, "plain": plain}[way](model)
    seconds, peak = time.perf_counter() - start, held("VmHWM") - before
    graph = onnx.load_from_string(contents).graph
    values = sorted(hashlib.sha256(one.raw_data).hexdigest() for one in graph.initializer)
    return {
        "way": way, "seconds": seconds, "memory": peak / len(contents), "file": len(contents),
        "values": values, "nodes": Counter(node.op_type for node in graph.node),
    }  # fmt: skip


def main() -> int:
    """Print one line per base."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bases", nargs="*", default=["resnet50", "convnext_base"])
    same = True
    for name in parser.parse_args().bases:
        found = list(each_alone(measure, [f"plain {name}", f"ours {name}"] * REPEATS))
        same &= all(one["values"] == found[0]["values"] for one in found)
        same &= all(one["nodes"] == found[0]["nodes"] for one in found)
        print(f"{name}, {found[0]['file'] / 2**20:.0f} MiB; same nodes and constants: {same}")
        for way in ("plain", "ours"):
            rows = [one for one in found if one["way"] == way]
            for key, unit in (("seconds", "s"), ("memory", "times the file")):
                numbers = [one[key] for one in rows]
                print(f"  {way:5} {statistics.median(numbers):6.1f} {unit} "
                      f"({min(numbers):.1f} to {max(numbers):.1f})")  # fmt: skip
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
