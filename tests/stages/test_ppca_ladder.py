"""python -m stages.ppca_ladder: what it hands to the model's ladder, and the table it writes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import stages.ppca_ladder
from dgm.config import ConfigError, PPCALadderConfig, parse
from dgm.data.splits import Splits
from dgm.models.ppca import PPCA, PPCAConfig
from dgm.reporting.ppca_ladder import ladder_file, read_rungs
from dgm.types import CIFAR10
from dgm.units import bits_per_subpixel_to_nats
from tests.data.fake_cifar import fake_arrays

PARAMS = Path("params.yaml").resolve()
SETTINGS = {"num_components": [1, 3071], "num_fit_images": 5, "num_test_images": 3}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose gpu profile has SETTINGS, with the images of fake_arrays and perhaps without a GPU."""
    values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    values["common"]["gpu"]["ppca_ladder"] = SETTINGS
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    arrays = fake_arrays()
    splits = Splits(train=arrays.train, validation=arrays.train, test=arrays.test, train_sample=arrays.train)
    monkeypatch.setattr(stages.ppca_ladder, "load_arrays", lambda folder: arrays)
    monkeypatch.setattr(stages.ppca_ladder, "make_splits", lambda arrays, count: splits)
    monkeypatch.setattr(sys, "argv", ["ppca_ladder", "--profile", "gpu"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_table_is_the_mean_over_dequantized_test_images(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ladder(training_images: torch.Tensor, x: torch.Tensor, num_components: Sequence[int]) -> torch.Tensor:
        np.testing.assert_array_equal(training_images.numpy(), fake_arrays().train[:5])
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


@pytest.mark.parametrize("num_components", [1, 3071])
def test_parameters_are_those_of_the_model(num_components: int) -> None:
    model = PPCA(CIFAR10, PPCAConfig(num_components=num_components, method="closed_form", num_fit_images=None))
    assert stages.ppca_ladder.num_parameters(num_components) == model.num_parameters()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_components": [0]}, r"ladder.num_components.0: .*greater than or equal to 1"),
        ({"num_components": [1, 3072]}, r"ladder.num_components.1: .*less than 3072"),
        ({"num_components": []}, r"ladder.num_components: .*at least 1 item"),
        ({"num_test_image": 3}, r"ladder.num_test_image: unknown key; did you mean num_test_images\?"),
    ],
)
def test_wrong_settings_are_refused_by_name(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse(PPCALadderConfig, SETTINGS | changes, "ladder")
