"""A training in slices is the same on one, two and three processes, and where their number changes on the way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dgm.config.sections import TrainingConfig
from dgm.engine.finite import NonFiniteError
from dgm.engine.loop import Trainer
from dgm.engine.optimizers import Muon, orthogonalize
from dgm.engine.session import Session
from dgm.engine.shared_muon import SharedMuon, owners_of
from dgm.engine.sliced import JointSession, SlicedTrainer
from dgm.ranks import ALONE, Ranks
from dgm.runs.checkpoint import Scratch
from dgm.runs.records import CurvePoint
from dgm.seeds import generator_for, seed_global
from tests.processes import in_ranks
from tests.tiny import PLAIN, SMALL, UntrackedRun, random_images, tiny_training, untrained_model

SLICES = 3  # two processes have unequal shares of them
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "dropout": ("pixelcnn_pp", {"dropout": 0.5}, {"optimizer": "muon"}),
    "batch_norm": ("real_nvp", {"norm": "batch_norm"}, {"ema_decay": 0.99}),
    "muon": ("pixelcnn", PLAIN, {"optimizer": "muon", "muon_learning_rate": 0.02, "gradient_clip": 0.1}),
    "idle": ("made", {}, {"optimizer": "adamw"}),  # some of its weights have no gradient
}
RESUMED = ("batch_norm", "muon")
Outcome = tuple[list[CurvePoint], Mapping[str, Tensor], int]


def run(ranks: Ranks, folder: Path, case: str, stop_after_seconds: float | None = None, **changes: Any) -> Outcome:
    """One training, or its continuation: curve, weights, steps."""
    name, model_changes, training_changes = CASES[case]
    values = {"batch_size": 12, "num_slices": SLICES, "max_steps": 3, "validate_every": 2, "validation_batch_size": 7}
    config = TrainingConfig.model_validate(tiny_training(**{**values, **training_changes, **changes}))
    seed_global(1)
    model: Any = untrained_model(name, SMALL, changes=model_changes).double()
    scratch = Scratch("smoke", name, "key", folder / case)
    session = JointSession(scratch, UntrackedRun(), scratch.load(), 1e9, stop_after_seconds)
    images, held_out = random_images(SMALL, 50), random_images(SMALL, 20, 1)
    if ranks.is_first:
        with scratch:
            result = SlicedTrainer(model, images, held_out, config, 1, session, ranks).run()
    else:
        result = SlicedTrainer(model, images, held_out, config, 1, session, ranks).run()
    ranks.wait()
    return list(result.curve), result.state, result.num_steps


def run_all(ranks: Ranks, folder: Path, cases: Iterable[str] = CASES) -> dict[str, Outcome]:
    return {case: run(ranks, folder, case) for case in cases}


def begin_on_two(ranks: Ranks, folder: Path) -> list[int]:
    """Paused after a step: rank 0 alone is asked to."""
    stop = 0.0 if ranks.is_first else None
    return [run(ranks, folder, case, stop)[2] for case in RESUMED]


def of_two(ranks: Ranks, folder: Path) -> Any:
    return run_all(ranks, folder / "2", ("dropout", *RESUMED)), begin_on_two(ranks, folder / "changed")


def of_three(ranks: Ranks, folder: Path) -> Any:
    return run_all(ranks, folder / "3", ("idle",)), run_all(ranks, folder / "changed", RESUMED)


def assert_close(actual: Outcome, expected: Outcome) -> None:
    for point, other in zip(actual[0], expected[0], strict=True):
        assert (point.step, point.images_seen, point.learning_rate) == (
            other.step,
            other.images_seen,
            other.learning_rate,
        )
        assert point.train_bits_per_subpixel == pytest.approx(other.train_bits_per_subpixel, abs=1e-9)
        assert point.validation_bits_per_subpixel == pytest.approx(other.validation_bits_per_subpixel, abs=1e-9)
    assert actual[1].keys() == expected[1].keys()
    for name, tensor in actual[1].items():
        torch.testing.assert_close(tensor, expected[1][name], rtol=1e-5, atol=1e-7, msg=name)


def test_the_number_of_processes_changes_nothing(tmp_path: Path) -> None:
    """One test, since what it starts is slow: 1, 2 and 3 processes, and 3 that go on from what 2 began."""
    alone = run_all(ALONE, tmp_path / "1")
    for case in CASES:
        assert [point.step for point in alone[case][0]] == [0, 2, 3] and alone[case][0][-1].images_seen == 36
    two, three = in_ranks(2, of_two, tmp_path), in_ranks(3, of_three, tmp_path)
    assert [steps for _, steps in two] == [[1] * len(RESUMED)] * 2
    for finished in (*(finished for finished, _ in two), *(outcome for outcomes in three for outcome in outcomes)):
        for case in finished:
            assert_close(finished[case], alone[case])


def test_batch_norm_sees_slices_and_its_counters_count_steps(tmp_path: Path) -> None:
    _, fine, _ = run(ALONE, tmp_path / "fine", "batch_norm")
    _, coarse, _ = run(ALONE, tmp_path / "coarse", "batch_norm", num_slices=2)
    counters = [tensor for name, tensor in fine.items() if name.endswith("num_batches_tracked")]
    assert counters and all(int(counter) == 1 + 3 for counter in counters)  # preparing the model counts as one
    assert not torch.allclose(fine["scales.0.0.variance"], coarse["scales.0.0.variance"], rtol=1e-3)


def test_without_noise_slices_learn_what_the_plain_loop_learns(tmp_path: Path) -> None:
    """A step of the mean gradient, whatever it was cut into; a pixel CNN that scores all pixels draws nothing."""
    changes = {"horizontal_flip": False, "optimizer": "muon"}
    sliced = run(ALONE, tmp_path / "sliced", "muon", **changes)
    name, model_changes, training = CASES["muon"]
    values = {"batch_size": 12, "max_steps": 3, "validate_every": 2, "validation_batch_size": 7}
    config = TrainingConfig.model_validate(tiny_training(**{**values, **training, **changes}))
    seed_global(1)
    model: Any = untrained_model(name, SMALL, changes=model_changes).double()
    with Scratch("smoke", name, "key", tmp_path / "plain") as scratch:
        session = Session(scratch, UntrackedRun(), None, 1e9)
        plain = Trainer(model, random_images(SMALL, 50), random_images(SMALL, 20, 1), config, 1, session).run()
    assert_close(sliced, (list(plain.curve), plain.state, plain.num_steps))


def test_slices_have_flips_of_their_own(tmp_path: Path) -> None:
    drawn: list[Tensor] = []

    class Watched(SlicedTrainer):
        def _images(self, indices: Any, generator: torch.Generator) -> Tensor:
            images = super()._images(indices, generator)
            original = self.train_images[torch.from_numpy(indices)]
            drawn.append((images != original).flatten(1).any(dim=1))
            return images

    config = TrainingConfig.model_validate(tiny_training(batch_size=40, num_slices=2, max_steps=1))
    model: Any = untrained_model("pixelcnn", SMALL)
    with Scratch("smoke", "pixelcnn", "key", tmp_path) as scratch:
        session = JointSession(scratch, UntrackedRun(), None, 1e9)
        Watched(model, random_images(SMALL, 50), random_images(SMALL, 20), config, 1, session, ALONE).run()
    first, second = drawn
    assert 0 < int(first.sum()) < 20 and not torch.equal(first, second)


def begin_apart(ranks: Ranks, folder: Path) -> str:
    """Only rank 0 finds a checkpoint."""
    run(ALONE, folder / "0", "muon", 0.0)
    try:
        run(ranks, folder / str(ranks.rank), "muon")
    except Exception as error:
        return str(error)
    return ""


def poisoned(ranks: Ranks, folder: Path) -> str:
    """The images of one slice, which one rank learns, give a loss that is NaN."""
    config = TrainingConfig.model_validate(tiny_training(batch_size=12, num_slices=2))
    model: Any = untrained_model("pixelcnn", SMALL)
    plain = model.objective

    def objective(images: Tensor, generator: torch.Generator, progress: float) -> Any:
        found = plain(images, generator, progress)
        return type(found)(found.loss * (math.nan if ranks.rank == 1 else 1.0), found.nats)

    vars(model)["objective"] = objective
    session = JointSession(Scratch("smoke", "pixelcnn", "key", folder), UntrackedRun(), None, 1e9)
    images = random_images(SMALL, 50)
    try:
        SlicedTrainer(model, images, images, config, 1, session, ranks).run()
    except NonFiniteError as error:
        return str(error)
    return ""


def timed(ranks: Ranks, folder: Path) -> int:
    """The steps of a training that the clock ends; every rank has a clock of its own."""
    return run(ranks, folder, "muon", max_steps=10**6, max_seconds=0.3 + 10 * ranks.rank, validate_every=10**6)[2]


def faults(ranks: Ranks, folder: Path) -> tuple[int, str, str]:
    return (
        timed(ranks, folder / "timed"),
        poisoned(ranks, folder / "poisoned"),
        begin_apart(ranks, folder / "apart" / str(ranks.rank)),
    )


def test_all_ranks_end_together_and_see_what_is_wrong_on_one(tmp_path: Path) -> None:
    first, second = in_ranks(2, faults, tmp_path)
    assert first[0] == second[0] > 0
    for _, not_finite, apart in (first, second):
        assert not_finite.startswith("loss at step 0 (learning rate ") and "is nan" in not_finite
        assert apart.startswith("the ranks begin at the steps 1, 0: .scratch must be on a disk that all share")


def test_each_matrix_belongs_to_one_rank_and_work_is_even() -> None:
    shapes = [(8, 8), (2, 3), (8, 8), (8, 4), (8, 4), (1, 1)]
    owners = owners_of(shapes, 2)
    assert owners[0] != owners[2] and owners[3] != owners[4]
    assert owners_of(shapes, 1) == [0] * 6


def test_shared_muon_takes_muons_steps_and_its_state() -> None:
    shapes = [(4, 6), (4, 6), (5, 3, 2)]
    parameters = [[torch.randn(shape, generator=generator_for(index)) for index, shape in enumerate(shapes)]] * 2
    plain, shared = ([torch.nn.Parameter(tensor.clone()) for tensor in tensors] for tensors in parameters)
    muon = Muon(plain, lr=0.1, weight_decay=0.2)
    other = Muon(shared, lr=0.1, weight_decay=0.2)
    for step in range(3):
        for parameter, twin in zip(plain, shared, strict=True):
            parameter.grad = torch.randn(parameter.shape, generator=generator_for(9, step, parameter.numel()))
            twin.grad = parameter.grad.clone()
        muon.step()
        other = SharedMuon(other, ALONE)  # as on a resume
        other.step()
    for parameter, twin in zip(plain, shared, strict=True):
        torch.testing.assert_close(parameter, twin)
    assert orthogonalize(torch.eye(3)[None]).shape == (1, 3, 3)
