"""The fitting loop: pauses, what it counts, and fits that are not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dgm.config.parse import Config, parse
from dgm.config.sections import FitConfig
from dgm.engine.finite import NonFiniteError
from dgm.engine.fit import fit
from dgm.engine.result import TrainingResult
from dgm.engine.session import Session
from dgm.model_api.contracts import Fitted
from dgm.models.uniform import Uniform
from dgm.registry import MODELS, model_class
from dgm.runs.checkpoint import Scratch
from dgm.types import ImageSpec
from tests.tiny import SMALL, TINY_MODELS, UntrackedRun, random_images

SPEC = ImageSpec(1, 2, 2, levels=4)
FITTED = [name for name in MODELS if issubclass(model_class(name), Fitted)]
FEWER_IMAGES = {"num_fit_images": 20, "num_shared_images": 11}


class CountingConfig(Config):
    """The names that a remedy can use."""

    num_components: int = 1
    mean_pseudo_counts: float = 1.0


class Counting(Uniform):
    """Counts its iterations in a buffer; breaks where it is told to."""

    breaks_at = ""
    total: Tensor

    def __init__(self) -> None:
        super().__init__(SPEC, CountingConfig())  # type: ignore[arg-type]
        self.register_buffer("total", torch.zeros(()))

    def images_used(self, images: Tensor, iteration: int | None = None) -> Tensor:
        return images if iteration is None else images[: 2 + iteration]

    def start(self, images: Tensor, generator: torch.Generator) -> None:
        self._break("start")

    def iterate(self, images: Tensor, iteration: int, generator: torch.Generator) -> float:
        self.total += torch.rand((), generator=generator) + iteration
        self._break(f"iterate {iteration}")
        return float("-inf") if self.breaks_at == f"nats {iteration}" else -1.0

    def finish(self, images: Tensor) -> None:
        self._break("finish")

    def _break(self, where: str) -> None:
        if self.breaks_at == where:
            self.total.fill_(float("nan"))
        if self.breaks_at == f"solve in {where}":
            torch.linalg.solve(torch.zeros(2, 2), torch.ones(2))


def run(folder: Path, num_iterations: int, stop: float | None = None, breaks_at: str = "", every: float = 1e9) -> Any:
    model = Counting()
    model.breaks_at = breaks_at
    with Scratch("smoke", "counting", "key", folder) as scratch:
        session = Session(scratch, UntrackedRun(), scratch.load(), every, stop)
        return fit(model, random_images(SPEC, 50), FitConfig(num_iterations=num_iterations), 1, session)


def test_a_fit_that_is_paused_between_iterations_ends_the_same(tmp_path: Path) -> None:
    undisturbed = run(tmp_path / "a", 4)
    paused: list[TrainingResult] = [run(tmp_path / "b", 4, stop=0.0) for _ in range(3)]
    assert [(result.num_steps, result.is_finished) for result in paused] == [(1, False), (2, False), (3, False)]
    resumed = run(tmp_path / "b", 4)
    assert torch.equal(undisturbed.state["total"], resumed.state["total"])
    assert undisturbed.curve == resumed.curve
    assert undisturbed.images_seen == resumed.images_seen == 2 + 3 + 4 + 5


def test_iterations_count_the_images_that_they_look_at_and_a_closed_form_those_it_fits(tmp_path: Path) -> None:
    assert [point.images_seen for point in run(tmp_path / "a", 3).curve] == [2, 5, 9]
    closed = run(tmp_path / "b", 0)
    assert (closed.images_seen, closed.num_steps) == (50, 0)


@pytest.mark.parametrize("name", FITTED)
def test_a_model_looks_at_the_images_that_are_counted_and_at_no_others(name: str) -> None:
    """Other images in place of those that are not counted change nothing; in place of a counted one they do."""
    block = TINY_MODELS[name]
    block = block | {key: count for key, count in FEWER_IMAGES.items() if key in block}
    is_em = "method" in block or name in ("mixture_of_gaussians", "deep_gmm")
    block |= {"method": "em"} if "method" in block else {}
    images = random_images(SMALL, 64)

    def state(images: Tensor, num_iterations: int) -> list[Tensor]:
        kind = model_class(name)
        model = kind(SMALL, parse(kind.config_type, block, name))
        assert isinstance(model, Fitted)
        model.start(images, torch.Generator().manual_seed(1))
        for iteration in range(num_iterations):
            model.iterate(images, iteration, torch.Generator().manual_seed(1))
        return [tensor.clone() for tensor in model.state_dict().values()]

    kind = model_class(name)
    model = kind(SMALL, parse(kind.config_type, block, name))
    assert isinstance(model, Fitted)
    for num_iterations in (0, 2) if is_em else (0,):
        count = max(len(model.images_used(images, i)) for i in (None, *range(num_iterations)))
        assert count == (0 if name == "uniform" else 20 if "num_fit_images" in block else 64)
        expected = state(images, num_iterations)
        others, last = images.clone(), images.clone()
        others[count:] = 3 - others[count:]
        assert all(torch.equal(a, b) for a, b in zip(expected, state(others, num_iterations), strict=True))
        if count:
            last[count - 1] = 3 - last[count - 1]
            assert not all(torch.equal(a, b) for a, b in zip(expected, state(last, num_iterations), strict=True))


def test_shared_iterations_of_the_deep_mixture_count_their_images() -> None:
    kind = model_class("deep_gmm")
    model: Any = kind(SMALL, parse(kind.config_type, TINY_MODELS["deep_gmm"] | FEWER_IMAGES, "deep_gmm"))
    images = random_images(SMALL, 64)
    assert [len(model.images_used(images, i)) for i in (0, 1, 2)] == [11, 20, 20]
    model.start(images, torch.Generator())

    def nats(changed: slice) -> float:
        twin: Any = kind(SMALL, model.config)
        twin.load_state_dict(model.state_dict())
        seen = images.clone()
        seen[changed] = 3 - seen[changed]
        return twin.iterate(seen, 0, torch.Generator())

    assert nats(slice(11, None)) == model.iterate(images, 0, torch.Generator()) != nats(slice(10, 11))


@pytest.mark.parametrize(
    ("breaks_at", "num_iterations", "problem"),
    [
        ("nats 0", 3, "log-likelihood at EM iteration 0 is -inf;"),
        ("nats 2", 3, "log-likelihood at EM iteration 2 is -inf;"),
        ("iterate 1", 3, "total is not finite after EM iteration 1;"),
        ("start", 3, "total is not finite after the start of EM;"),
        ("start", 0, "total is not finite after the closed form;"),
        ("finish", 3, "total is not finite after the end of the fit;"),
        ("finish", 0, "total is not finite after the end of the fit;"),
        ("solve in start", 0, r"the closed form failed \(.*singular.*\);"),
        ("solve in iterate 1", 3, r"EM iteration 1 failed \(.*singular.*\);"),
    ],
)
def test_a_fit_that_is_not_finite_says_where_and_what_helps(
    tmp_path: Path, breaks_at: str, num_iterations: int, problem: str
) -> None:
    with pytest.raises(NonFiniteError, match=problem) as caught:
        run(tmp_path, num_iterations, breaks_at=breaks_at, every=0.0)
    assert "Raise mean_pseudo_counts or lower num_components in params.yaml" in str(caught.value)
    assert "learning" not in str(caught.value)
    with Scratch("smoke", "counting", "key", tmp_path) as scratch:
        saved = scratch.load()
    assert saved is None or torch.isfinite(saved["model"]["total"])
    assert ("none yet" if saved is None else "key.pt") in str(caught.value)
