"""Weights in git: `pull` brings those of the active profile into a fresh clone, `publish` puts dvc.lock's there.

weights/ is a DVC remote inside the repository. It holds the evaluated weights of every row up to a size, byte for byte,
and the nats of every row; each file is named by its MD5. `pull` needs no network and trains nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgm.config.params import load_params
from dgm.errors import StageError
from dgm.registry import MODELS
from dgm.runs.atomic import atomic_file
from dgm.runs.files import RunFiles
from dgm.runs.locks import remove_if_empty
from dgm.runs.records import Provenance, read_record
from stages.cli import run_stage
from stages.dvc_command import dvc, locked_stages

REMOTE, FOLDER = "weights", Path("weights")
OBJECTS = Path("files") / "md5"  # where a DVC remote keeps them
PROFILES = ("cpu", "gpu", "published")  # smoke is for tests
MAX_ROW_BYTES, MAX_BYTES = 16_000_000, 100_000_000
STAGES = {"train": "weights", "evaluate": "nats"}  # and the folder of each that travels


@dataclass(frozen=True)
class Output:
    """A folder that dvc.lock names: the stage that made it, its digest (of the list of its files) and its bytes."""

    stage: str
    profile: str
    model: str
    md5: str
    size: int

    @property
    def target(self) -> str:
        """The name of the stage for DVC."""
        return f"{self.stage}@{self.profile}-{self.model}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("pull", help="bring the published weights and nats of the active profile into runs/")
    commands.add_parser("publish", help="after retraining: put what dvc.lock names into weights/, remove what is older")
    command = parser.parse_args().command
    outputs = outputs_of(locked_stages())
    if command == "pull":
        pull(load_params().profile, outputs)
    else:
        publish(outputs, Path(dvc("cache", "dir").strip()))


def pull(profile: str, outputs: Iterable[Output]) -> None:
    """Brings what is there. Raises: StageError if nothing is, or a file is damaged, or DVC fails."""
    own = [output for output in outputs if output.profile == profile]
    there = [output for output in own if files_of(output, FOLDER) is not None]
    if not there:
        raise StageError(f"{FOLDER}: holds nothing of profile {profile} that dvc.lock names; `dvc repro` trains it")
    dvc("pull", "-r", REMOTE, "--allow-missing", *STAGES)
    trained = [output.model for output in there if output.stage == "train"]
    print(f"{len(trained)} models of profile {profile} have their weights: {', '.join(trained)}")
    for output in own:
        if output.stage == "train" and output not in there:
            print(f"{output.model}: not published ({output.size / 1e6:.1f} MB){remedy(output)}")


def publish(outputs: Iterable[Output], cache: Path) -> None:
    """Makes weights/ hold what dvc.lock names, from DVC's cache, and nothing else.

    Raises: StageError if it would be too large, or if a file is damaged.
    """
    wanted = [output for output in outputs if output.size <= MAX_ROW_BYTES]
    size = sum(output.size for output in wanted)
    if size > MAX_BYTES:
        largest = ", ".join(output.target for output in sorted(wanted, key=lambda output: -output.size)[:3])
        raise StageError(f"{FOLDER}: would hold {size / 1e6:.1f} MB, {MAX_BYTES / 1e6:g} at most; largest: {largest}")
    kept: set[Path] = set()
    for output in wanted:
        files = files_of(output, FOLDER) or copied(output, cache)
        if not files:
            print(f"{output.target}: neither in {FOLDER} nor in the cache here: not published")
        kept.update(files)
    for path in set(objects(FOLDER)) - kept:
        path.unlink()
        remove_if_empty(path.parent)
    for output in outputs:
        if output not in wanted:
            print(f"{output.target}: {output.size / 1e6:.1f} MB, {MAX_ROW_BYTES / 1e6:g} at most: not published")
    print(f"{FOLDER}: {len(kept)} files, {sum(path.stat().st_size for path in kept) / 1e6:.1f} MB")


def copied(output: Output, cache: Path) -> list[Path]:
    """The files of an output, copied from DVC's cache, which is laid out as a remote is; none if they are not there."""
    sources = files_of(output, cache) or []
    for path in sources:
        with atomic_file(FOLDER / path.relative_to(cache)) as file:
            file.write(path.read_bytes())
    return [FOLDER / path.relative_to(cache) for path in sources]


def outputs_of(stages: Mapping[str, Any]) -> list[Output]:
    """The weights and nats that dvc.lock names, of models that are still here."""
    found: list[Output] = []
    for name, entry in stages.items():
        match = re.fullmatch(r"(\w+)@(\w+)-(\w+)", name)
        if match is None or match[1] not in STAGES or match[2] not in PROFILES or match[3] not in MODELS:
            continue
        stage, profile, model = match.groups()
        path = (RunFiles(profile, model).weights.parent.parent / STAGES[stage]).as_posix()
        found += [Output(stage, profile, model, o["md5"], o["size"]) for o in entry["outs"] if o["path"] == path]
    return found


def files_of(output: Output, folder: Path) -> list[Path] | None:
    """The files in a remote or a cache that an output consists of; None if one is not there.

    Raises: StageError naming one whose content is not what its name says.
    """
    listing = object_path(output.md5, folder)
    if not listing.exists():
        return None
    check(listing)
    paths = [object_path(entry["md5"], folder) for entry in json.loads(listing.read_bytes())]
    if not all(path.exists() for path in paths):
        return None
    for path in paths:
        check(path)
    return [listing, *paths]


def object_path(md5: str, folder: Path) -> Path:
    """Where a DVC remote keeps a file."""
    return folder / OBJECTS / md5[:2] / md5[2:]


def objects(folder: Path) -> Iterator[Path]:
    """Every file of the remote."""
    return (path for path in folder.rglob("*") if path.is_file())


def check(path: Path) -> None:
    """Raises: StageError if the file's MD5 is not its name."""
    name = (path.parent.name + path.name).removesuffix(".dir")
    if hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != name:
        raise StageError(f"{path}: damaged; delete it, and get it anew (in {FOLDER}: git checkout -- {FOLDER})")


def remedy(output: Output) -> str:
    """How long fitting it takes, as far as is known."""
    record = read_record(RunFiles(output.profile, output.model).provenance, Provenance)
    seconds = "" if record is None else f" in {record.train_seconds:.0f} s"
    return f"; `dvc repro {output.target}` trains it{seconds}"


if __name__ == "__main__":
    run_stage(main)
