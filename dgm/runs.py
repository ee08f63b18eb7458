"""One run of one model in one profile: where its files are, what they hold, how they are written. No torch.

reports/<profile>/   small text and pictures, in git
runs/<profile>/<model>/   binaries, cached by DVC
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np


class StageError(RuntimeError):
    """An expected failure: its text names what is wrong, where, and the remedy. Stages print it without a traceback."""


@dataclass(frozen=True)
class RunFiles:
    """Every path of one (profile, model), relative to `root`."""

    profile: str
    model: str
    root: Path = Path(".")

    @property
    def fingerprints(self) -> Path:
        """Folder of code fingerprints; train.json, evaluate.json, sample.json, compress.json."""
        return self.root / "fingerprints" / self.model

    @property
    def weights(self) -> Path:
        return self.root / "runs" / self.profile / self.model / "weights" / "weights.safetensors"

    def nats(self, split: str) -> Path:
        """Per-image nats of `split` (test or train), .npy float64 (N,), in the split's order."""
        return self.root / "runs" / self.profile / self.model / "nats" / f"nats_{split}.npy"

    @property
    def compressed(self) -> Path:
        return self.root / "runs" / self.profile / self.model / "compressed" / "test_images.dgm"

    @property
    def report(self) -> Path:
        return self.root / "reports" / self.profile

    @property
    def metrics(self) -> Path:
        return self.report / "metrics" / f"{self.model}.json"

    @property
    def curve(self) -> Path:
        return self.report / "curves" / f"{self.model}.csv"

    @property
    def provenance(self) -> Path:
        return self.report / "provenance" / f"{self.model}.json"

    @property
    def samples(self) -> Path:
        return self.report / "samples" / f"{self.model}.png"

    @property
    def compression(self) -> Path:
        return self.report / "compression" / f"{self.model}.json"


CURVE_COLUMNS = (
    "step",
    "images_seen",
    "learning_rate",
    "train_bits_per_subpixel",
    "validation_bits_per_subpixel",
)


@dataclass(frozen=True)
class Metrics:
    """metrics/<model>.json: what evaluation found. Deterministic: no time, no date, no machine.

    The unit of every *_bits_per_subpixel is bits per sub-pixel; smaller is better. `method` is exact, dequantized,
    elbo or importance-weighted (K): how `test_bits_per_subpixel` was reached. Errors are one standard error: of the
    mean over images (standard), and of the mean over noise draws (monte_carlo; None for exact models).
    """

    model: str
    profile: str
    method: str
    kind: str
    test_bits_per_subpixel: float
    test_standard_error: float
    test_monte_carlo_error: float | None
    train_bits_per_subpixel: float
    train_standard_error: float
    elbo_test_bits_per_subpixel: float | None
    terms_bits_per_subpixel: dict[str, float]
    num_test_images: int
    num_train_images: int
    num_draws: int
    num_parameters: int
    code_and_params_key: str


@dataclass(frozen=True)
class Provenance:
    """provenance/<model>.json: who trained the weights, where, how long, with how much arithmetic.

    Differs between machines and days. Floating-point operations of an image, a multiplication and an addition counted
    as two: of the training objective forward, and of a whole training step; None for models that are fitted.
    """

    model: str
    profile: str
    device: str
    train_seconds: float
    images_seen: int
    num_steps: int
    forward_flops_per_image: int | None
    training_flops_per_image: int | None
    mlflow_run_id: str | None
    git_commit: str | None
    git_is_dirty: bool | None
    finished_at: str
    packages: dict[str, str]
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Compression:
    """compression/<model>.json: what the entropy coder really wrote. None where the model has no conditionals."""

    model: str
    profile: str
    compressed_bits_per_subpixel: float | None
    claimed_bits_per_subpixel: float | None
    num_images: int
    file_bytes: int | None
    is_lossless: bool | None
    reason: str


@dataclass(frozen=True)
class ReferenceCodec:
    """One line of codecs.csv: what a general lossless codec needs for the same test images, whole files counted."""

    codec: str
    settings: str
    package: str
    library: str
    file_bits_per_subpixel: float
    joined_bits_per_subpixel: float
    num_images: int


def reference_codecs_file(profile: str, root: Path = Path(".")) -> Path:
    """Belongs to no model."""
    return RunFiles(profile, "", root).report / "codecs.csv"


def reference_codecs_csv(codecs: Sequence[ReferenceCodec]) -> str:
    """One line a codec under the names of its fields; numbers read back bit-identical."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(ReferenceCodec))
    writer.writerows(astuple(codec) for codec in codecs)
    return text.getvalue()


def read_reference_codecs(path: Path) -> list[ReferenceCodec]:
    """The codecs in the file's order; none if it is absent. Raises: StageError naming a file that is no such table."""
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))[1:]
        return [
            ReferenceCodec(codec, settings, package, library, float(in_files), float(joined), int(count))
            for codec, settings, package, library, in_files, joined, count in lines
        ]
    except ValueError as error:
        raise StageError(f"{path}: not a table of codecs ({error}); delete it and run `dvc repro`") from None


Record = TypeVar("Record", Metrics, Provenance, Compression)


def write_record(path: Path, record: Metrics | Provenance | Compression) -> None:
    """Writes a record as JSON, whole or not at all."""
    write_text(path, json.dumps(asdict(record), indent=2, sort_keys=False, allow_nan=False) + "\n")


def read_record(path: Path, kind: type[Record]) -> Record | None:
    """The record, or None if the file is absent. Raises: StageError naming a file that is no such record."""
    if not path.exists():
        return None
    try:
        return kind(**json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError) as error:
        raise StageError(f"{path}: not a {kind.__name__} record ({error}); delete it and run `dvc repro`") from None


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` whole, or not at all.

    Raises: OSError naming the path (disk full, folder read-only); the temporary file is removed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: make the folder writable", str(path)) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            reason = error.strerror or str(error)  # numpy's own errors on a full disk carry no errno
            raise OSError(error.errno, f"{reason}: nothing was written", str(path)) from None
        raise


def write_text(path: Path, text: str) -> None:
    with atomic_file(path) as file:
        file.write(text.encode("utf-8"))


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[float | None]]) -> None:
    """A CSV file; None is an empty field. Numbers are written so that they read back bit-identical."""
    lines = [",".join(columns)]
    lines.extend(",".join("" if value is None else repr(value) for value in row) for row in rows)
    write_text(path, "\n".join(lines) + "\n")


def write_array(path: Path, array: np.ndarray) -> None:
    """A .npy file, readable with numpy.load(path, allow_pickle=False)."""
    with atomic_file(path) as file:
        np.save(file, array, allow_pickle=False)


def read_array(path: Path, remedy: str) -> np.ndarray:
    """The array of a .npy file. Raises: StageError naming the file and the remedy if it is absent or damaged."""
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise StageError(f"{path}: absent; {remedy}") from None
    except (OSError, ValueError, EOFError) as error:
        raise StageError(f"{path}: damaged ({error}); delete it and {remedy}") from None


def key_of(*parts: Mapping[str, Any] | str) -> str:
    """Sixteen hex digits that change with any part: names scratch checkpoints and marks metrics as current."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
