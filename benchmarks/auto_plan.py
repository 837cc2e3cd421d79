"""Plan auto against every plan on its own: what it chose, what that gave, what it cost.

    python benchmarks/auto_plan.py photos/ --base mobilenet_v2 --weights FILE --minutes 10

Each plan is run in full, then auto; a line for each with its validation accuracy and time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tl_keras.analysis.plan_search import ARMS, score
from tl_keras.runs.config import RunConfig
from tl_keras.workflows.fit import train


def main() -> None:
    """Print a line a plan, auto last, and auto's gap to the best."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--base", default="small_resnet")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--size", type=int)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    asked = parser.parse_args()
    job = RunConfig.of(asked.data, asked.base, asked.size, asked.weights, minutes=asked.minutes)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in (*asked.arms, "auto"):
            began = time.perf_counter()
            run = train(job.replace(plan=name), Path(folder) / name)
            accuracy, loss = score(run.model(), run.samples("val"))
            found[name] = accuracy or 0.0
            seconds = time.perf_counter() - began
            print(f"{name:8s} val accuracy {accuracy:.3f} loss {loss:.3f} {seconds:.0f} s")
        print(run.record["auto"]["why"], run.record["auto"]["final"])
    best = max(found[name] for name in asked.arms)
    print(f"auto {100 * (found['auto'] - best):+.1f} points to the best plan run alone")


if __name__ == "__main__":
    main()
