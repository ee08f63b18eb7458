"""What is no file is refused in one line by every reader: none waits for a pipe, none reads a device without end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
from torch import nn

from dgm.config.document import read_document
from dgm.errors import StageError
from dgm.reporting.page_images import read_samples
from dgm.reporting.written import read_results
from dgm.runs.atomic import read_array
from dgm.runs.checkpoint import Scratch
from dgm.runs.proof_records import Conformance, read_proof
from dgm.runs.records import Metrics, read_curve, read_record, read_reference_codecs, read_rungs
from dgm.runs.weights import load_weights
from dgm.small_files import LARGEST, read_small

PATIENCE_SECONDS = 10


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """A reader that waits fails instead of holding up the tests."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("the reader waits")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def checkpoint(path: Path) -> None:
    """Reads the checkpoint of that name."""
    with Scratch(path.parent.parent.name, path.parent.name, path.stem, path.parent.parent.parent) as scratch:
        scratch.load()


READERS: dict[str, Callable[[Path], object]] = {
    "metrics": lambda path: read_record(path, Metrics),
    "proof": lambda path: read_proof(path, Conformance),
    "curve": read_curve,
    "codecs": read_reference_codecs,
    "ladder": read_rungs,
    "results": read_results,
    "samples": lambda path: read_samples(path, "MADE"),
    "settings": read_document,
    "nats": lambda path: read_array(path, "run `dvc repro`"),
    "weights": lambda path: load_weights(path, nn.Linear(1, 1), "train it"),
    "checkpoint": checkpoint,
}
THINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (Path.mkdir, "folder"),
    "pipe": (os.mkfifo, "a pipe or a device"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
    "loop": (lambda path: path.symlink_to(path.name), "link"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("thing", THINGS)
def test_what_is_no_file_is_one_line(tmp_path: Path, reader: str, thing: str) -> None:
    make, reason = THINGS[thing]
    path = tmp_path / "smoke" / "made" / "a.pt"
    path.parent.mkdir(parents=True)
    make(path)
    with pytest.raises(StageError, match=rf"a\.pt.*{reason}") as caught:
        READERS[reader](path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reader", [name for name in READERS if name != "checkpoint"])
def test_a_link_to_nowhere_is_not_taken_for_an_absent_file(tmp_path: Path, reader: str) -> None:
    path = tmp_path / "a.json"
    path.symlink_to("nowhere")
    with pytest.raises(StageError, match=r"a\.json"):
        READERS[reader](path)


def test_a_file_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(OSError, match="more than the 64 MiB"):
        read_small(path)
    with pytest.raises(StageError, match=r"metrics\.json: damaged \(64 MiB"):
        read_record(path, Metrics)
