"""A small project that every stage has finished undisturbed, its copies, and in what another one differs from it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from dgm.runs.atomic import file_digest
from tests.faults.images import know, write_images
from tests.faults.processes import ROOT, Attempt, core_seconds, run

PROFILE = "smoke"
MODELS = ("uniform", "histogram_per_channel", "ppca", "pixelcnn", "vae")  # exact, fitted, by gradient, with latents
MODEL_STAGES = ("train", "evaluate", "sample", "prove", "compress")
TABLE_STAGES = ("codecs", "ppca_ladder")
SLOW_STAGES = ("sample", "prove", "compress", "ppca_ladder")  # a campaign in the tests does without
COPY = "copy"  # folder of the images that a download takes
CHANGING = {  # keys of provenance/*.json that say when and how long, not what
    "train_seconds",
    "finished_at",
    "peak_memory_bytes",
    "mlflow_run_id",
    "git_commit",
    "git_is_dirty",
    "sha256",
}
PASSING = (".scratch", ".scratch/*", ".work/*", "mlflow.db*", "mlruns", "mlruns/*", "mlartifacts/*")  # no results
OUTPUTS = {  # of a stage of one model or of the profile; {} is the model
    "download": ("data/train.npy", "data/test.npy"),
    "check": ("fingerprints/*",),
    "train": ("runs/smoke/{}/weights/*", "reports/smoke/provenance/{}.json", "reports/smoke/curves/{}.csv"),
    "evaluate": ("runs/smoke/{}/nats/*", "reports/smoke/metrics/{}.json", "reports/smoke/bits/{}.json"),
    "sample": ("reports/smoke/samples/{}.png",),
    "prove": ("reports/smoke/conformance/{}.json",),
    "compress": ("runs/smoke/{}/compressed/*", "reports/smoke/compression/{}.json"),
    "codecs": ("reports/smoke/codecs.csv",),
    "ppca_ladder": ("reports/smoke/ppca_ladder.csv",),
    "report": ("reports/smoke/*.md", "reports/smoke/*.tex", "reports/smoke/index.html"),
}

_digests: dict[tuple[int, int, int, int], str] = {}


def command(stage: str, model: str | None = None) -> tuple[str, ...]:
    """A stage's command line, as in dvc.yaml."""
    if stage == "download":
        return ("stages.download", "--local-path", COPY)
    if stage in ("check", "documents"):
        return (f"stages.{stage}",)
    of_model = () if model is None else ("--model", model)
    return (f"stages.{stage}", *of_model, "--profile", PROFILE)


def small_params(models: Sequence[str]) -> dict[str, Any]:
    """The project's params.yaml without other profiles and models; trainings last long enough to be disturbed."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values |= {"profile": PROFILE, "suite": list(models)}
    for key in ("common", "training_defaults"):
        values[key] = {PROFILE: values[key][PROFILE]}
    values["models"] = {name: {block: values["models"][name][block] for block in ("all", PROFILE)} for name in models}
    values["common"][PROFILE]["run"]["threads"] = 1
    values["common"][PROFILE]["ppca_ladder"] |= {"num_components": [1, 8], "em_components": [1], "num_em_iterations": 5}
    values["training_defaults"][PROFILE] |= {"max_steps": 12, "validate_every": 4}
    return values


def small_lock() -> dict[str, Any]:
    """The first stages of dvc.lock: DVC's reader takes a second for all of them."""
    lines = (ROOT / "dvc.lock").read_text(encoding="utf-8").splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("  ") and line[2] != " "]
    return yaml.safe_load("\n".join(lines[: starts[4]]))


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False), encoding="utf-8")


def make_project(root: Path, models: Sequence[str], announce: Callable[[str], None], is_quick: bool) -> list[Attempt]:
    """Runs every stage in a new project; if it has to be quick, without the slowest.

    Raises: RuntimeError with what a stage says that does not finish.
    """
    write_images(root / COPY)
    know(root / COPY)
    (root / "data").mkdir()
    for path in (root / COPY).iterdir():
        os.link(path, root / "data" / path.name)
    write_yaml(root / "params.yaml", small_params(models))
    write_yaml(root / "dvc.lock", small_lock())
    shutil.copy(ROOT / "dvc.yaml", root)
    commands = [command("check")]
    commands += [command(stage, model) for model in models for stage in MODEL_STAGES]
    commands += [command(stage) for stage in (*TABLE_STAGES, "report")]
    commands = [line for line in commands if not (is_quick and line[0].removeprefix("stages.") in SLOW_STAGES)]
    done: list[Attempt] = []
    for line in commands:
        done.append(run(root, line))
        if done[-1].code != 0:
            raise RuntimeError(f"{' '.join(line)} does not finish undisturbed: {done[-1].said}")
        announce(f"{' '.join(line)}: {done[-1].seconds:.2f} s, {core_seconds():.1f}")
    return done


def copy_project(golden: Path, target: Path, without: Iterable[str] = ()) -> Path:
    """A copy that shares the files' bytes with the golden one: stages and damage replace files, they edit none.

    without: patterns of files that it lacks.
    """
    if target.exists():
        shutil.rmtree(target)
    absent = tuple(without)
    for path in files_of(golden):
        name = path.relative_to(golden).as_posix()
        if any(fnmatch(name, pattern) for pattern in (*absent, *PASSING)):
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target / name)
    return target


def outputs(stage: str, model: str | None = None) -> tuple[str, ...]:
    """Patterns of what a stage writes."""
    names = tuple(pattern.format(model) for pattern in OUTPUTS[stage])
    if stage == "report":
        tables = ("results", "paired_differences", "bound_terms", "curves", "reference_codecs", "compute", "cifar10_*")
        pictures = ("training_curves", "ladder", "ppca_ladder")
        return (
            *names,
            *(f"reports/smoke/{table}.csv" for table in tables),
            *(f"reports/smoke/{name}.png" for name in pictures),
        )
    return names


def replace_file(path: Path, content: bytes) -> None:
    """Other content in a copy: the golden project keeps its own."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() or path.is_symlink())


def state_of(root: Path) -> dict[str, str]:
    """Name -> digest of every file that is a result or an input; names alone of what changes from run to run."""
    state: dict[str, str] = {}
    for path in files_of(root):
        name = path.relative_to(root).as_posix()
        if not any(fnmatch(name, pattern) for pattern in PASSING):
            state[name] = _digest(path, name)
    return state


def differences(golden: Mapping[str, str], project: Path, missing_is_fine: bool = False) -> list[str]:
    """In what the project's files differ from the golden ones; what was left behind by a killed process, too."""
    found, state = [], state_of(project)
    for name in sorted({*golden, *state}):
        if name not in golden:
            found.append(f"{name} is left")
        elif name not in state:
            if not missing_is_fine:
                found.append(f"{name} is missing")
        elif state[name] != golden[name]:
            found.append(f"{name} differs")
    found += [f"{path.relative_to(project)} is left" for path in leftovers(project)]
    return found


def leftovers(project: Path) -> list[Path]:
    """Unfinished files in the scratch folder: checkpoints may be there, halves of files may not."""
    scratch = project / ".scratch"
    names = ("*.incoming.pt*", "*.dgm-tmp", "download/*")
    return sorted(path for name in names for path in scratch.rglob(name))


def _digest(path: Path, name: str) -> str:
    if name.endswith(".npy"):
        return _of_large(path)
    content = path.read_bytes()
    if "/provenance/" in name:
        try:
            values = {key: value for key, value in json.loads(content).items() if key not in CHANGING}
            content = json.dumps(values, sort_keys=True).encode()
        except (ValueError, AttributeError):
            return sha256(content).hexdigest()  # damaged
    return sha256(content).hexdigest()


def _of_large(path: Path) -> str:
    """Read once: a file that is there in several projects has one inode."""
    status = path.stat()
    place = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if place not in _digests:
        _digests[place] = file_digest(path)
    return _digests[place]
