"""The base class of all modalities: everything that depends on what a model is shown."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tl_keras.errors import DataError, PlanError

if TYPE_CHECKING:
    import keras

__all__ = ["BadSample", "CheckReport", "InputSpec", "Modality", "Reader", "SampleLike", "in_order"]

_SHOWN = 20


class SampleLike(Protocol):
    """What a modality needs to know of samples; :class:`tl_keras.data.samples.Samples` is one."""

    @property
    def items(self) -> Sequence[Any] | np.ndarray:
        """Paths or arrays."""

    @property
    def keys(self) -> tuple[str, ...]:
        """One stable name a sample."""

    @property
    def root(self) -> str:
        """Where they came from."""


@dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    Attributes:
        shape: Of one sample, such as (224, 224, 3).
        dtype: Of what a reader gives, such as "uint8".
        values: What the numbers are, for whoever runs the model without this package.
    """

    shape: tuple[int, ...]
    dtype: str
    values: str


class Reader(Protocol):
    """Reads samples as a model sees them."""

    samples: Any
    specs: dict[str, InputSpec]

    def __len__(self) -> int:
        """Return the number of samples."""

    @property
    def varied(self) -> bool:
        """Whether augmented views differ from the plain sample."""

    def read(
        self, indices: Sequence[int] | np.ndarray, views: int | np.ndarray = 0
    ) -> dict[str, np.ndarray]:
        """Return one array (n, ...) for each input, in the order of `specs`.

        Args:
            indices: Which samples, n of them.
            views: The augmented view of each, or one number for all; 0 is the plain sample.

        Raises:
            DataError: A sample cannot be read.
        """


@dataclass(frozen=True)
class BadSample:
    """One sample that cannot be used.

    Attributes:
        path: Its file or key.
        reason: Why, in a few words.
        index: Its place among the samples.
    """

    path: str
    reason: str
    index: int


@dataclass(frozen=True)
class CheckReport:
    """What a look at every sample found.

    Attributes:
        bad: Those that cannot be used.
        digests: A hash of each sample's decoded content, "" for a bad one.
        root: Where the samples came from.
        noun: What one is called.
        settings: What was decided over the set, see :attr:`Modality.settings`.
        notes: What a user should know of that, one sentence each.
    """

    bad: tuple[BadSample, ...]
    digests: tuple[str, ...]
    root: str = ""
    noun: str = "sample"
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def good(self) -> list[int]:
        """Indices of the samples that can be used."""
        lost = {one.index for one in self.bad}
        return [index for index in range(len(self.digests)) if index not in lost]

    def usable(self, samples: Any) -> Any:
        """Return the samples that can be used, which are read as was decided over the set."""
        if self.settings:
            modality = samples.modality.with_settings(self.settings)
            samples = dataclasses.replace(samples, modality=modality)
        return samples.take(self.good) if self.bad else samples

    def error(self) -> DataError:
        """Build the error that lists what is bad (the first 20, and how many there are)."""
        lines = [f"  {one.path}: {one.reason}" for one in self.bad[:_SHOWN]]
        if len(self.bad) > _SHOWN:
            lines.append(f"  ... and {len(self.bad) - _SHOWN} more")
        return DataError(
            f"{len(self.bad)} of {len(self.digests)} {self.noun}s in {self.root or 'the data'} "
            "cannot be used:\n" + "\n".join(lines) + "\nReplace or remove them, or go on "
            "without them (--skip-bad)."
        )


class Modality:
    """What a model is shown. A subclass declares the attributes and the methods that differ.

    Attributes:
        name: In commands and records.
        noun: What one sample is called in messages.
        suffixes: Endings of its files in lower case, without the dot.
        default_augment: Augmentation that suits most data of the kind.
        input_name: Of the input in exported files.
        preparation: What has to be done to a file before the model sees it, as text.
        elsewhere: Where a model may do worse than measured, as the end of a sentence.
        size_unit: What the size of a model's input is counted in.
        written: Whether samples are written in a table itself, rather than named there by paths.
        tuned_epochs: Epochs for which plan "tuned" trains more than a head; None leaves it to the
            plan.
        repeats: Whether the same sample comes up again by chance, as a short text does; else a
            second one is taken for a mistake.
        last_step: Name of the step that makes of an item what a model sees.
        tolerance: Mean difference of that between machines which is none, in the input's units.
    """

    name = ""
    noun = "sample"
    suffixes: frozenset[str] = frozenset()
    default_augment = "none"
    input_name = "input"
    preparation = "none"
    elsewhere = "from another place or time"
    size_unit = ""
    written = False
    repeats = False
    tuned_epochs: int | None = None
    last_step = "read"
    tolerance = 0.0

    @property
    def settings(self) -> dict[str, Any]:
        """What was decided over a data set, JSON-able: with it, other items are read alike."""
        return {}

    @property
    def files(self) -> dict[str, bytes]:
        """What a run keeps beside `settings`, as files by name: a vocabulary."""
        return {}

    @property
    def word_pieces(self) -> bytes | None:
        """A vocabulary of lowercase word pieces, where a model takes their ids: others know it."""
        return None

    @property
    def programs(self) -> dict[str, bytes]:
        """What an exported bundle needs to read samples without this package, as files by name."""
        return {}

    @property
    def input_size(self) -> int | None:
        """Size of the model's input that was chosen for the data; None leaves it to the base."""
        return None

    def with_settings(
        self, settings: Mapping[str, Any], folder: str | os.PathLike[str] | None = None
    ) -> Modality:
        """Return a modality that reads as one with these `settings` did.

        Args:
            settings: From :attr:`settings`.
            folder: Where its :attr:`files` lie; None where it has them.
        """
        return self

    def fitted(
        self, reading: Any, size: int | None, most: int | None, samples: SampleLike
    ) -> Modality:
        """Return a modality that reads samples as a base takes them.

        Args:
            reading: What the base brings along to read with, a tokenizer; None for nothing.
            size: Size of the model's input as asked for.
            most: Largest that the base takes; None for any.
            samples: What will be read.

        Raises:
            ModelError: The base cannot be shown such samples.
        """
        return self

    def specs(self, model: keras.Model) -> dict[str, InputSpec]:
        """Return what a model takes, by name of its inputs, in their order.

        Raises:
            ModelError: The model takes something else.
        """
        return {
            tensor.name: InputSpec(tuple(tensor.shape[1:]), str(tensor.dtype), "numbers")
            for tensor in model.inputs
        }

    def reader(
        self, samples: SampleLike, specs: dict[str, InputSpec], augment: str = "none", seed: int = 0
    ) -> Reader:
        """Return what reads samples as a model sees them.

        Args:
            samples: What to read.
            specs: From :meth:`specs`.
            augment: See :meth:`check_augment`.
            seed: With a sample's key and the view's number, decides each view.
        """
        raise NotImplementedError

    def check_augment(self, text: str) -> None:
        """Check the name of an augmentation.

        Raises:
            PlanError: There is none of that name.
        """
        if text not in ("", "none"):
            raise PlanError(f"got augmentation {text!r}; {self.noun}s know 'none' only")

    def check(
        self, samples: SampleLike, *, progress: Callable[[int, int], None] | None = None
    ) -> CheckReport:
        """Read every sample in full; nothing is raised for a bad one."""
        bad, digests = [], []
        for index, item in enumerate(samples.items):
            try:
                digests.append(self.digest(item))
            except (DataError, OSError, ValueError) as error:
                digests.append("")
                bad.append(BadSample(samples.keys[index], str(error), index))
            if progress:
                progress(index + 1, len(samples.keys))
        return CheckReport(tuple(bad), tuple(digests), samples.root, self.noun)

    def digest(self, item: Any) -> str:
        """Return a hash of an item's decoded content, the same for every lossless copy.

        Raises:
            DataError: It cannot be read.
        """
        content = item if isinstance(item, np.ndarray) else np.fromfile(item, np.uint8)
        head = f"{content.dtype} {content.shape}".encode()
        return hashlib.blake2b(head + content.tobytes(), digest_size=16).hexdigest()

    def facts(self, specs: dict[str, InputSpec]) -> dict[str, Any]:
        """Return what a run's record says of its model's inputs, JSON-able."""
        inputs = {name: {"shape": list(s.shape), "dtype": s.dtype} for name, s in specs.items()}
        return {"inputs": inputs}

    def check_arrays(self, items: np.ndarray) -> np.ndarray:
        """Return arrays given as samples, as `Samples.items` has them.

        Raises:
            DataError: Shape, dtype or range is not as expected.
        """
        return np.asarray(items)

    def thumbnail(self, item: Any, most: int = 320) -> Any:
        """Return a small PIL image of an item for a report; None where there is none."""
        return None

    def perceptual_hash(self, item: Any) -> np.ndarray | None:
        """Return packed bits, uint8, that copies nearly share, however they were saved.

        None where the modality knows no such thing, or the item cannot be read.
        """
        return None

    def encode(self, batch: dict[str, np.ndarray], index: int) -> dict[str, bytes]:
        """Return one sample of a batch as small files {ending: content}, for golden samples."""
        stream = io.BytesIO()
        np.savez(stream, **{name: array[index] for name, array in batch.items()})  # type: ignore
        return {"npz": stream.getvalue()}

    def describe_steps(self, specs: Mapping[str, InputSpec]) -> list[dict[str, Any]]:
        """Return what is done to a file before the model sees it, step by step, JSON-able."""
        return [{"step": "all", "rule": self.preparation}]

    def trace(self, item: Any, specs: Mapping[str, InputSpec]) -> dict[str, Any]:
        """Return what an item is before the last step, JSON-able, to find the step that differs.

        Raises:
            DataError: It cannot be read, or would take too much memory.
        """
        return {}

    def whole_file(self, item: Any) -> tuple[str, bytes] | None:
        """Return an item as a file (ending, contents) that is read as it is; None if it is none."""
        if not isinstance(item, (str, os.PathLike)):
            return None
        with open(item, "rb") as file:
            return os.path.splitext(item)[1].lstrip(".").lower(), file.read()

    def sketch(self, item: Any) -> str:
        """Say in a word or two what kind of file an item is, to choose a few that vary."""
        return os.path.splitext(os.fspath(item))[1].lower()

    def other_ways(self) -> Sequence[Any]:
        """Return how platforms make of an item what a model takes, see `image.platforms.Way`."""
        return ()

    def open(self, item: Any, at_least: int | None = None) -> Any:
        """Return an item decoded, before the last step.

        Args:
            item: As in `Samples.items`.
            at_least: A size that suffices, where a part of the work can be spared.

        Raises:
            DataError: It cannot be read.
        """
        return item

    def make_probes(self) -> dict[str, tuple[str, bytes]]:
        """Make small files that come out otherwise where one step is left out.

        Returns:
            By file name: which step it proves, and its contents.
        """
        return {}

    def compress(self, item: Any, specs: dict[str, InputSpec]) -> tuple[str, bytes]:
        """Return an item as a small file (ending, content) that a run keeps to learn from again.

        Args:
            item: As in `Samples.items`.
            specs: What the model sees.

        Raises:
            DataError: It cannot be read.
        """
        if isinstance(item, np.ndarray):
            stream = io.BytesIO()
            np.save(stream, item, allow_pickle=False)
            return "npy", stream.getvalue()
        with open(item, "rb") as file:
            return os.path.splitext(item)[1].lstrip("."), file.read()


def in_order(work: Callable[[int], Any], count: int, workers: int, chunk: int = 8) -> Iterable[Any]:
    """Yield work(0), work(1)... in order, done by threads that run a little ahead."""
    from collections import deque
    from concurrent.futures import ThreadPoolExecutor

    def some(start: int) -> list[Any]:
        return [work(index) for index in range(start, min(start + chunk, count))]

    pool = ThreadPoolExecutor(workers, thread_name_prefix="tl_keras")
    waiting: deque[Any] = deque()
    try:
        for start in range(0, count, chunk):
            waiting.append(pool.submit(some, start))
            if len(waiting) > 4 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        # On Ctrl-C nobody waits for what has not begun.
        pool.shutdown(wait=True, cancel_futures=True)
