"""What every trial stands on: the undisturbed project, fresh copies of it, randomness, and how long a stage takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

import numpy as np
from matplotlib.backend_bases import FigureCanvasBase

from dgm.fingerprints import CODE, LOOPS, UNUSED, WORK_OF_ONE, fingerprint, loop_code
from dgm.registry import MODELS as ALL_MODELS
from tests.faults.judge import Verdict, judge
from tests.faults.processes import ROOT, Attempt
from tests.faults.projects import (
    MODELS,
    OUTPUTS,
    command,
    copy_project,
    differences,
    files_of,
    make_project,
    outputs,
    state_of,
)
from tests.faults.record import Kind
from tests.faults.shown import Shown, shown

IMPORTED = (  # by stages; torch._dynamo by the first optimizer
    "torch._dynamo",
    "dgm.tracking.mlflow_store",
    *(f"stages.{name}" for name in (*OUTPUTS, "documents")),
)


@dataclass(frozen=True)
class Ground:
    """seconds: of each command that ran undisturbed. models: those of the project. kept: where trials are kept."""

    folder: Path
    golden: Path
    state: dict[str, str]
    seconds: dict[tuple[str, ...], float]
    seed: int
    models: tuple[str, ...]
    announce: Callable[[str], None]
    kept: Path | None

    def copy(self, without: Iterable[str] = ()) -> Path:
        """A fresh project to disturb; the one before is gone."""
        return copy_project(self.golden, self.folder / "trial", without)

    def changed(self, project: Path, is_whole: bool = True) -> list[str]:
        """In what the project differs from the undisturbed one; unless it is to be whole, what is missing is fine."""
        return differences(self.state, project, missing_is_fine=not is_whole)

    def verdict(self, project: Path, attempts: list[Attempt], thing: str = "") -> Verdict:
        """Of commands after which everything should be as undisturbed."""
        return judge(attempts, self.changed(project, is_whole=attempts[-1].code == 0), thing)

    def shown(self) -> Shown:
        return shown(self.golden)

    def nats(self) -> dict[str, np.ndarray]:
        """Of the test images, by model."""
        folder = self.golden / "runs" / "smoke"
        return {name: np.load(folder / name / "nats" / "nats_test.npy") for name in self.models}

    @contextmanager
    def kind(self, name: str, description: str) -> Generator[Kind]:
        """Measures the trials of one kind, and checks that they left the undisturbed project alone."""
        found, own = Kind(name, description, self.seed, self.kept), own_files()
        yield found
        if changed := differences(self.state, self.golden):
            raise RuntimeError(f"the undisturbed project was changed: {changed[:3]}")
        if changed := set(own.items()) ^ set(own_files().items()):
            raise RuntimeError(f"a trial changed the files of the campaign's own project: {sorted(changed)[:3]}")
        bad = f", {len(found.bad)} BAD" if found.bad else ""
        self.announce(f"{name}: {len(found.verdicts)} in {found.seconds:.0f} s{bad}")
        for trial, verdict in found.bad[:40]:
            self.announce(f"  {trial}: {verdict.outcome.value}: {verdict.reason[:400]}")


def make_ground(
    folder: Path,
    seed: int,
    announce: Callable[[str], None],
    models: tuple[str, ...] = MODELS,
    is_quick: bool = False,
    kept: Path | None = None,
) -> Ground:
    """Imports what stages import and digests their code, for all forks at once; then runs every stage undisturbed."""
    warm_up()
    golden = folder / "golden"
    shutil.rmtree(golden, ignore_errors=True)
    done = make_project(golden, models, announce, is_quick)
    seconds = {each.command: each.seconds for each in done}
    return Ground(folder, golden, state_of(golden), seconds, seed, models, announce, kept)


def warm_up() -> None:
    """Imports what stages import, and digests their code. Pictures of the report are not drawn: most of its time."""
    for name in IMPORTED:
        import_module(name)
    setattr(FigureCanvasBase, "print_figure", _draw_nothing)  # noqa: B010  # its type is of the original
    for model in ALL_MODELS:  # the report asks for the code of each
        for stage in UNUSED:
            if stage != "ppca_ladder" or stage in WORK_OF_ONE.get(model, {}):
                fingerprint(stage, model)
    for name in LOOPS:
        loop_code(name, CODE)


def own_files() -> dict[str, int]:
    """What no trial may touch: when the results and the inputs beside this code were written."""
    paths = [ROOT / "params.yaml", ROOT / "dvc.yaml", ROOT / "dvc.lock"]
    paths += [path for name in ("fingerprints", "data", "runs") for path in files_of(ROOT / name)]
    return {str(path): path.stat().st_mtime_ns for path in paths if path.exists()}


def _draw_nothing(canvas: FigureCanvasBase, file: BinaryIO, **_: object) -> None:
    file.write(b"<svg></svg>")


def undone(ground: Ground, stage: str, model: str | None) -> tuple[tuple[str, ...], Path]:
    """The command of a stage, and a copy of the project before it."""
    return command(stage, model), ground.copy(outputs(stage, model))
