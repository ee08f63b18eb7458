"""Every model passes the checks of the trained ones, and faults that show at full size or in company are found."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from dgm.conformance.checks import Finding
from dgm.conformance.real_size import (
    costs_the_same_alone,
    examine,
    ignores_neighbours,
    sees_no_later_ending,
    sees_no_later_subpixel,
)
from dgm.model_api.contracts import AutoregressiveModel, DensityModel
from dgm.registry import MODELS, model_class
from dgm.types import CIFAR10, ImageSpec
from tests.tiny import SMALL, random_images, tiny_model

WIDE = ImageSpec(channels=3, height=32, width=32, levels=4)


def exact(name: str, spec: ImageSpec) -> AutoregressiveModel:
    return cast(AutoregressiveModel, tiny_model(name, spec))


def failures(model: Any, images: Tensor, num_changes: int = 6, num_endings: int = 3) -> list[Finding]:
    return [finding for finding in examine(model, images, num_changes, num_endings, 1, iter) if not finding.holds]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_passes(name: str) -> None:
    assert not failures(tiny_model(name, SMALL), random_images(SMALL, 4, seed=2))


def test_every_kind_is_asked_what_can_be_asked_of_it() -> None:
    asked = {
        name: [finding.check for finding in examine(tiny_model(name, SMALL), random_images(SMALL, 2), 2, 1, 1, iter)]
        for name in ("vae", "nice", "uniform")
    }
    assert asked["vae"] == ["repeats itself", "ignores its neighbours"]
    assert asked["nice"] == [*asked["vae"], "costs the same alone"]
    assert asked["uniform"][3:] == ["conditionals add up", "sees no later sub-pixel", "sees no later ending"]


def leaking(kind: Any, sees: tuple[int, int], shows: tuple[int, int]) -> Any:
    """log_pmf of `kind`, but on images of 32 columns the pixel `shows` depends on the later pixel `sees`."""
    plain = kind.log_pmf

    def log_pmf(self: AutoregressiveModel, images: Tensor) -> Tensor:
        result = plain(self, images).clone()
        if images.shape[-1] == 32:
            result[:, :, shows[0], shows[1], 0] += 1e-6 * images[:, :1, sees[0], sees[1]]
        return result

    return log_pmf


def test_a_leak_of_one_subpixel_that_only_large_images_have(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = exact("pixelcnn", SMALL), exact("pixelcnn", CIFAR10)
    assert sees_no_later_ending(large, random_images(CIFAR10, 2, seed=3), 12, 1).holds
    monkeypatch.setattr(model_class("pixelcnn"), "log_pmf", leaking(model_class("pixelcnn"), (20, 9), (12, 3)))
    assert sees_no_later_subpixel(small, random_images(SMALL, 2), 4, 1).holds
    finding = sees_no_later_ending(large, random_images(CIFAR10, 2, seed=3), 12, 1)
    assert not finding.holds
    assert finding.detail.startswith(f"(output {12 * 32 + 3}, input {20 * 32 + 9}): ")


@pytest.mark.parametrize(("shift", "pair"), [(1, 1), (32, 32)])
def test_a_leak_of_a_neighbour_at_every_place(shift: int, pair: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a mask that is off by one makes it: the sub-pixel to the right, or below, in the same channel."""
    model, kind = exact("uniform", WIDE), cast(Any, model_class("uniform"))
    plain = kind.log_pmf

    def log_pmf(self: AutoregressiveModel, images: Tensor) -> Tensor:
        flat = plain(self, images).clone().flatten(2, 3)
        flat[:, :, :-shift, 0] += 1e-6 * images.flatten(2)[:, :, shift:]
        return flat.view(len(images), 3, 32, 32, 4)

    monkeypatch.setattr(kind, "log_pmf", log_pmf)
    finding = sees_no_later_subpixel(model, random_images(WIDE, 4), 4, 1)
    assert not finding.holds
    output, seen = (int(part.split()[-1]) for part in finding.detail.split(")")[0].split(","))
    assert seen - output == pair


def test_impossible_levels_are_no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    model, kind = exact("uniform", WIDE), cast(Any, model_class("uniform"))
    plain = kind.log_pmf
    impossible = torch.tensor([0.0, 0.0, 0.0, -torch.inf])
    monkeypatch.setattr(kind, "log_pmf", lambda self, images: plain(self, images) + impossible)
    assert sees_no_later_subpixel(model, random_images(WIDE, 2), 4, 1).holds
    assert sees_no_later_ending(model, random_images(WIDE, 2), 2, 1).holds


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_conditional_that_becomes_undefined(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model, kind = exact("uniform", WIDE), cast(Any, model_class("uniform"))
    plain = kind.log_pmf

    def log_pmf(self: AutoregressiveModel, images: Tensor) -> Tensor:
        result = plain(self, images).clone()
        result[images[:, 2, 31, 31] == images[:, 2, 31, 30], 0, 0, 0, 0] = value
        return result

    monkeypatch.setattr(kind, "log_pmf", log_pmf)
    images = random_images(WIDE, 2)
    images[0, 2, 31, 30:], images[1, 2, 31, 30:] = torch.tensor([0, 1]), 2
    finding = sees_no_later_ending(model, images, 2, 1)
    assert not finding.holds and finding.detail.startswith("(output 0, input ")


@pytest.mark.parametrize("name", ["uniform", "nice", "ride", "vae", "deep_diffusion"])
def test_statistics_of_the_batch_name_the_image(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As batch normalisation of the test images: what an image costs moves with the mean of all."""
    model, images = cast(Any, tiny_model(name, SMALL)), random_images(SMALL, 4)
    images[2] = 3
    method = "log_prob" if isinstance(model, AutoregressiveModel) else "log_density"
    if not hasattr(model, method):
        plain = cast(Any, type(model)).bound_terms
        monkeypatch.setattr(
            type(model),
            "bound_terms",
            lambda self, x, noise: plain(self, x, noise) | {"more": x.double().mean().expand(len(x))},
        )
    else:
        before = getattr(type(model), method)
        monkeypatch.setattr(type(model), method, lambda self, x: before(self, x) + x.double().mean())
        assert isinstance(model, AutoregressiveModel | DensityModel)
        assert not costs_the_same_alone(model, images).holds
    finding = ignores_neighbours(model, images, 1)
    assert not finding.holds and finding.detail.startswith("image ")


def test_importance_weights_are_asked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cast(Any, tiny_model("vae", SMALL))
    plain = type(model).log_weights
    monkeypatch.setattr(type(model), "log_weights", lambda self, x, noise: plain(self, x, noise) + x.double().mean())
    assert [finding.check for finding in failures(model, random_images(SMALL, 4))] == ["ignores its neighbours"]


def test_a_score_that_its_conditionals_do_not_add_up_to(monkeypatch: pytest.MonkeyPatch) -> None:
    model = exact("pixelcnn", SMALL)
    plain = cast(Any, type(model)).log_prob
    monkeypatch.setattr(type(model), "log_prob", lambda self, x: plain(self, x) + 0.1)
    assert [finding.check for finding in failures(model, random_images(SMALL, 4))] == ["conditionals add up"]
