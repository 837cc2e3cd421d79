"""How fast pictures are checked, and how fast views of them are made.

    python benchmarks/check_images.py FOLDER [--runs 5] [--workers 2] [--size 224]

The check (every picture read, decoded in full and hashed) is run once to warm the disk's
cache, then timed; the median of the runs is printed, with its ratio to one plain thread that
only decodes (Pillow's `Image.open(...).convert("RGB")`, without the hash). Views are decoded
and made by the same number of threads.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import PIL
from PIL import Image

from tl_keras.data.sources import load_samples
from tl_keras.modalities.image.augment import parse_augment, view
from tl_keras.modalities.image.decode import open_image
from tl_keras.modalities.image.modality import check_images


def _rates(job, count, runs):
    job()
    rates = []
    for _ in range(runs):
        start = time.perf_counter()
        job()
        rates.append(count / (time.perf_counter() - start))
    return rates


def _line(name, rates, plain=None):
    middle = statistics.median(rates)
    ratio = f"  {middle / plain:5.2f} x plain" if plain else ""
    spread = f"{min(rates):.0f} to {max(rates):.0f}"
    print(f"{name:28} {middle:8.0f} photos/s  ({spread}){ratio}")
    return middle


def _views(samples, size, text, workers):
    augment = parse_augment(text)

    def one(i):
        picture = open_image(samples.items[i], size)
        return view(picture, size, augment, 0, samples.keys[i], 1)[0, 0, 0]

    def job():
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(one, range(len(samples))):
                pass

    return job


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    samples = load_samples(options.folder)
    count, runs = len(samples), options.runs
    print(
        f"{count} pictures, {options.workers} threads, median of {runs} runs; "
        f"Python {platform.python_version()}, Pillow {PIL.__version__}"
    )
    files = samples.items
    plain = _rates(lambda: [Image.open(f).convert("RGB") for f in files], count, runs)
    middle = _line("plain decoding, one thread", plain)
    check = _rates(lambda: check_images(samples, workers=options.workers), count, runs)
    _line("check", check, middle)
    for text in ("none", "flip+crop+color", "randaugment", "affine"):
        job = _views(samples, options.size, text, options.workers)
        _line(f"decode + view {text}", _rates(job, count, runs), middle)


if __name__ == "__main__":
    main()
