"""python -m stages.ppca_ladder: what it hands to the model's ladder, and the table it writes."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import stages.ppca_ladder
from dgm.config.params import load_params
from dgm.config.parse import ConfigError, parse
from dgm.config.sections import PPCALadderConfig
from dgm.data.splits import Splits
from dgm.distributions.gaussian import image_moments
from dgm.errors import StageError
from dgm.models.ppca import Moments
from dgm.runs.files import ladder_file
from dgm.runs.records import Rung, read_rungs
from dgm.types import CIFAR10
from dgm.units import bits_per_subpixel_to_nats
from tests.data.fake_cifar import fake_arrays

PARAMS = Path("params.yaml").resolve()
SETTINGS = {
    "num_components": [1, 3071],
    "num_fit_images": 5,
    "num_test_images": 3,
    "em_components": [],
    "num_em_iterations": 20,
    "em_tolerance_bits": 1.0e-4,
}


def write_settings(folder: Path, **changes: object) -> None:
    values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    values["common"]["gpu"]["ppca_ladder"] = SETTINGS | changes
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose gpu profile has SETTINGS, with the images of fake_arrays and perhaps without a GPU."""
    write_settings(tmp_path)
    arrays = fake_arrays()
    splits = Splits(train=arrays.train, validation=arrays.train, test=arrays.test, train_sample=arrays.train)
    monkeypatch.setattr(stages.ppca_ladder, "load_arrays", lambda folder: arrays)
    monkeypatch.setattr(stages.ppca_ladder, "make_splits", lambda arrays, count: splits)
    monkeypatch.setattr(sys, "argv", ["ppca_ladder", "--profile", "gpu"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_table_is_the_mean_over_dequantized_test_images(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ladder(moments: Moments, x: torch.Tensor, num_components: Sequence[int]) -> torch.Tensor:
        expected = image_moments(torch.from_numpy(fake_arrays().train[:5]))
        assert all(torch.equal(one, other) for one, other in zip(moments, expected, strict=True))
        noise = x.numpy() - fake_arrays().test[:3]
        assert noise.min() >= 0 and noise.max() < 1 and 0.25 < noise.std() < 0.33
        bits = torch.tensor([[5.0, 4.0], [6.0, 4.5], [7.0, 5.0]], dtype=torch.float64)
        return -bits_per_subpixel_to_nats(bits, CIFAR10)[:, : len(num_components)]

    monkeypatch.setattr(stages.ppca_ladder, "ladder", ladder)
    stages.ppca_ladder.main()
    low, high = read_rungs(ladder_file("gpu", project))
    assert (low.num_components, low.parameters, low.num_test_images) == (1, 3072 + 3072 + 1, 3)
    assert low.test_bits_per_subpixel == pytest.approx(6.0, abs=1e-12)
    assert low.test_standard_error == pytest.approx(3**-0.5, abs=1e-12)
    assert (high.num_components, high.test_bits_per_subpixel) == (3071, pytest.approx(4.5, abs=1e-12))
    assert low.em_test_bits_per_subpixel is None


def closed_form(train: np.ndarray, x: torch.Tensor, num_components: Sequence[int]) -> torch.Tensor:
    """Oracle of the model's ladder, for few images: their singular values in place of an eigensystem."""
    values = train.reshape(len(train), -1).astype(np.float64) + 0.5
    _, singular, axes = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    variances = np.full(values.shape[1], 1 / 12)
    variances[: len(singular)] += singular**2 / len(values)
    centred = x.flatten(1).double().numpy() - values.mean(axis=0)
    nats = []
    for q in num_components:
        noise, squares = variances[q:].mean(), (centred @ axes[:q].T) ** 2
        rest = ((centred**2).sum(axis=1) - squares.sum(axis=1)) / noise
        log_determinant = np.log(variances[:q]).sum() + (len(variances) - q) * np.log(noise)
        constant = len(variances) * np.log(2 * np.pi) + log_determinant
        nats.append(-0.5 * (constant + (squares / variances[:q]).sum(axis=1) + rest))
    return torch.from_numpy(np.stack(nats, axis=1))


@pytest.fixture
def along_few_axes(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project with images along five axes of very different lengths, which EM tells apart soon."""
    axes = (
        np.random.default_rng(0).choice([-1, 1], (5, *CIFAR10.shape)) * np.array([60, 30, 8, 3, 1])[:, None, None, None]
    )
    train, test = (128 + axes).astype(np.uint8), (128 + axes[[0, 1, 2]] + axes[[3, 4, 3]]).astype(np.uint8)
    splits = Splits(train=train, validation=train, test=test, train_sample=train)
    monkeypatch.setattr(stages.ppca_ladder, "make_splits", lambda arrays, count: splits)
    monkeypatch.setattr(stages.ppca_ladder, "ladder", lambda moments, x, qs: closed_form(train, x, qs))
    return project


def once(function: Callable[..., Any] | None) -> Callable[..., Any]:
    """The function, which may be called once; None: never."""
    left = [function] if function else []
    return lambda *arguments: left.pop()(*arguments)


def test_em_reaches_the_closed_form_on_the_same_images_and_noise(
    along_few_axes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_settings(along_few_axes, num_components=[1, 2, 3], em_components=[1, 2])
    monkeypatch.setattr(stages.ppca_ladder, "image_moments", once(image_moments))
    monkeypatch.setattr("dgm.models.ppca.image_moments", once(None))  # EM makes none of its own
    stages.ppca_ladder.main()
    one, two, three = read_rungs(ladder_file("gpu", along_few_axes))
    assert one.em_test_bits_per_subpixel is not None and three.em_test_bits_per_subpixel is None
    assert two.em_test_bits_per_subpixel == pytest.approx(two.test_bits_per_subpixel, abs=1e-4)
    assert two.em_test_bits_per_subpixel != two.test_bits_per_subpixel
    assert "ppca_ladder: 2 components: EM is " in capsys.readouterr().out


def test_a_figure_that_is_not_finite_names_its_components(
    along_few_axes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_settings(along_few_axes, num_components=[1, 3], em_components=[3])
    bad = {3: torch.full((3,), math.nan)}
    monkeypatch.setattr(stages.ppca_ladder, "em_ladder", lambda *arguments: bad)
    with pytest.raises(StageError, match="not finite with 3 components"):
        stages.ppca_ladder.main()
    assert not ladder_file("gpu", along_few_axes).exists()


def test_em_that_is_not_there_yet_names_the_rung_and_leaves_no_table(along_few_axes: Path) -> None:
    write_settings(along_few_axes, num_components=[1, 3], em_components=[3], num_em_iterations=1)
    problem = r"with 3 components EM reaches \d\.\d+ bits .* raise common\.gpu\.ppca_ladder\.num_em_iterations"
    with pytest.raises(StageError, match=problem):
        stages.ppca_ladder.main()
    assert not ladder_file("gpu", along_few_axes).exists()


@pytest.mark.parametrize(("em_bits", "is_refused"), [(6.1, True), (5.9, True), (6.04, False)])
def test_em_may_differ_by_the_tolerance(em_bits: float, is_refused: bool) -> None:
    rungs = [Rung(1, 6145, 5.0, 0.1, 3, None), Rung(16, 52105, 6.0, 0.1, 3, em_bits)]
    with pytest.raises(StageError, match="with 16 components") if is_refused else nullcontext():
        stages.ppca_ladder.check_agreement(rungs, 0.05, "common.cpu.ppca_ladder")


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_the_published_ladders_hold_em_to_a_ten_thousandth_of_a_bit(profile: str) -> None:
    config = load_params(PARAMS).common_config(profile).ppca_ladder
    assert len(config.em_components) >= 3 and config.em_tolerance_bits <= 1e-4
    assert config.num_fit_images is None and config.num_test_images == 10000


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_components": [0]}, r"ladder.num_components.0: .*greater than or equal to 1"),
        ({"num_components": [1, 3072]}, r"ladder.num_components.1: .*less than 3072"),
        ({"num_components": []}, r"ladder.num_components: .*at least 1 item"),
        (
            {"em_components": [2, 1, 4]},
            r"ladder.em_components: .*among num_components, which has no 2, 4, got \[2, 1, 4\]",
        ),
        ({"num_em_iterations": 0}, r"ladder.num_em_iterations: .*greater than 0"),
        ({"em_tolerance_bits": 0.0}, r"ladder.em_tolerance_bits: .*greater than 0"),
        ({"num_test_image": 3}, r"ladder.num_test_image: unknown key; did you mean num_test_images\?"),
    ],
)
def test_wrong_settings_are_refused_by_name(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse(PPCALadderConfig, SETTINGS | changes, "ladder")
