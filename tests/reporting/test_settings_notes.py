"""What the page says of our models, images and machines follows the settings, and noisy figures say so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dgm.reporting.card_text import profile_figures
from dgm.reporting.files import make_report
from dgm.reporting.noise import noise_table
from dgm.reporting.page_cards import card_views
from dgm.reporting.results import noise_notes, result_tables
from dgm.reporting.rows import result_rows
from dgm.reporting.settings_notes import ModelSettings, ProfileSettings, with_acting_parameters
from tests.reporting.made_up import METRICS, metrics

VALUES: dict[str, dict[str, Any]] = {
    "deep_gmm": {},
    "draw": {"has_linear_start": True, "has_subpixel_scale": True},
    "vae_iaf": {"has_linear_start": True, "has_subpixel_scale": True},
    "deep_diffusion": {
        "num_steps": 200,
        "schedule": "log_snr",
        "first_variance": 1e-5,
        "has_linear_start": True,
        "num_evaluation_steps": 1,
    },
}
KEYS = dict.fromkeys(VALUES, "key")
NOISY: dict[str, Any] = {"kind": "lower_bound", "likelihood": "elbo", "num_draws": 2}


def settings(**changes: Any) -> ProfileSettings:
    """All four models, each value of `changes` taken over by the models that have it."""
    changed = {
        model: values | {key: value for key, value in changes.items() if key in values}
        for model, values in VALUES.items()
    }
    return ProfileSettings(
        45000, {model: ModelSettings(METRICS.parameters, 1000, values) for model, values in changed.items()}
    )


def notes(root: Path, keys: dict[str, str] = KEYS, **changes: Any) -> str:
    for model in VALUES:
        metrics(root, model)
    rows = result_rows("cpu", keys, root)
    views = card_views(rows, profile_figures("cpu", rows, settings(**changes)), settings(**changes), {}, None)
    return " ".join(f"{view.title}: {text}" for view in views if view.model in VALUES for text in view.differs)


def test_what_a_model_is_follows_its_settings(tmp_path: Path) -> None:
    text = notes(tmp_path)
    for part in (
        "of the workshop paper is not known",
        "The prior is learned",
        "start as tiles",
        "The decoder gives a scale for each sub-pixel",
        "200 steps with a schedule of equal falls",
        "variance 1e-05",
        "exact reverse of the Gaussian",
        "at 1 of the steps",
    ):
        assert part in text, part


def test_a_note_of_another_setting_is_not_given(tmp_path: Path) -> None:
    text = notes(
        tmp_path, has_linear_start=False, has_subpixel_scale=False, schedule="reciprocal", num_evaluation_steps=0
    )
    for part in ("tiles", "The decoder gives a scale", "equal falls", "exact reverse"):
        assert part not in text, part
    assert "the published schedule" in text and "The start is the paper's" in text and "at all of the steps" in text


def test_nothing_is_said_of_a_result_of_other_settings(tmp_path: Path) -> None:
    text = notes(tmp_path, {**KEYS, "draw": "another key"})
    assert "start as tiles" not in text and "The prior is learned" not in text
    assert "Deep GMM" in text


@pytest.mark.parametrize(("num_images", "text"), [(45000, "45,000 of the 50,000"), (50000, "50,000 of the 50,000")])
def test_the_page_says_what_its_figures_rest_on(tmp_path: Path, num_images: int, text: str) -> None:
    metrics(tmp_path, "made")
    html = make_report("cpu", {}, tmp_path, replace(settings(), num_training_images=num_images)).files["index.html"]
    page = html.decode("utf-8")
    assert text in page
    assert ("the last 5,000 are held out" in page) == (num_images == 45000)
    for part in ("figure of 10,000 of those", "found six", "0.0002 bits", "up to 0.0026 bits", "What a coder could"):
        assert part in page, part


def test_acting_parameters_are_given_only_with_the_settings_of_the_result(tmp_path: Path) -> None:
    metrics(tmp_path, "draw")
    (row,) = (row for row in result_rows("cpu", KEYS, tmp_path) if row.model == "draw")
    assert with_acting_parameters(row, settings()).acting_parameters == 1000
    other = ProfileSettings(45000, {"draw": ModelSettings(METRICS.parameters + 1, 1000, {})})
    assert with_acting_parameters(row, other).acting_parameters is None
    assert with_acting_parameters(row, ProfileSettings()).acting_parameters is None


def test_a_monte_carlo_error_that_shows_in_the_digits_is_under_the_table_and_on_the_page(tmp_path: Path) -> None:
    metrics(tmp_path, "deep_diffusion", **NOISY, test_monte_carlo_error=0.00143)
    metrics(tmp_path, "real_nvp", **{**NOISY, "likelihood": "dequantized"}, test_monte_carlo_error=0.00002)
    metrics(tmp_path, "made")
    rows = result_rows("cpu", {}, tmp_path)
    (line,) = noise_notes(rows)
    assert line.endswith("of: Deep Diffusion 0.0014.")
    assert line in result_tables(rows, "cpu")["cifar10_pixelrnn"].lines
    cells = {row[0]: row[1:] for row in noise_table(rows).cells}
    assert cells == {
        "Deep Diffusion": ("elbo", "2", "0.00143", "0.00840", "0.143"),
        "Real NVP": ("dequantized", "2", "0.00002", "0.00840", "0.002"),
    }
    assert "How noisy the estimates are" in make_report("cpu", {}, tmp_path).files["index.html"].decode("utf-8")
