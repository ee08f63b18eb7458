"""Every number of a model's section is either built or refused in one short line, at once."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from dgm.config.construction import MAX_NUMBERS
from dgm.config.params import Params, load_params
from dgm.config.parse import ConfigError
from dgm.registry import MODELS
from dgm.settings import build_model, check_model, model_config, training_config, validate
from dgm.types import CIFAR10

PARAMS = load_params()
TRIED: tuple[Any, ...] = (-1, 0, 2, 10**5, 10**12, 1e308, 1e-300, -0.5, math.nan, math.inf, "text", None, [], {}, [-1])
TOO_MUCH = (10**12, 1e308, math.nan, math.inf, "text", {})  # for every key
MAX_SECONDS = 3.0  # of processor time; the first build also imports


def changed(name: str, values: dict[str, Any], profile: str = "smoke") -> Params:
    return PARAMS.changed(name, profile, {"model": values})


def refusal(params: Params, name: str, profile: str = "smoke") -> str | None:
    try:
        check_model(params, name, profile)
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", MODELS)
def test_every_number_of_every_model_is_built_or_refused_in_one_line(name: str) -> None:
    """Of each key all that is too much for any, and one of the others in turn."""
    check_model(PARAMS, name, "smoke")
    for index, (key, value) in enumerate(model_config(PARAMS, name, "smoke").model_dump().items()):
        if isinstance(value, bool | str):
            continue
        for tried in (*TOO_MUCH, TRIED[index % len(TRIED)], TRIED[-1 - index % 9]):
            if tried == 10**12 and "seed" in key:
                continue
            start = time.process_time()
            text = refusal(changed(name, {key: tried}), name)
            assert time.process_time() - start < MAX_SECONDS, (key, tried)
            assert tried not in TOO_MUCH or text or isinstance(value, list), (key, tried)
            if text:
                assert text.startswith(f"models.{name}.") and len(text) < 320 and "\n" not in text, text


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("pixelcnn", {"num_blocks": 10**12}, r"model\.num_blocks: must be at most 64, got 1000000000000"),
        ("pixelcnn", {"num_features": 10**12}, r"model\.num_features: must be at most 100000, got"),
        ("pixelcnn", {"num_features": 99_999}, f"more than {MAX_NUMBERS:,} numbers; make it smaller"),
        ("mixture_of_gaussians", {"num_components": 2 * 10**12}, r"num_components: must be at most 100000"),
        ("mixture_of_gaussians", {"weight_pseudo_counts": -1.0}, r"weight_pseudo_counts: .*greater than 0"),
        ("conv_draw", {"read_kernel_size": 2}, "read_kernel_size 2 is below stride 8"),
        ("real_nvp", {"num_scales": 65}, "must be at most 64, got 65"),
        ("ridge_autoregressive", {"radius": 33}, "radius: must be at most 32, got 33"),
        ("ppca", {"num_fit_images": 50_001}, "num_fit_images: must be at most 50000"),
        ("made", {"hidden_sizes": [8] * 101}, "must have at most 100 entries, got 101"),
        ("histogram_left", {"candidate_pseudo_counts": [1e308]}, r"must be between 1e-12 and 1e\+09, got 1e\+308"),
        ("vae", {"correction_scale": 1e-300}, "must be between 1e-12 and"),
        ("vae", {"num_latents": 10**17}, "must be at most 100000"),
        ("vae", {"features": [0]}, r"model\.features: must be at least 1, got 0"),
        ("vae", {"features": [1] * 20_000}, "must have at most 100 entries, got 20000"),
    ],
)
def test_what_is_too_much_is_named_with_its_limit_by_check_and_by_training(
    name: str, values: dict[str, Any], message: str
) -> None:
    params = changed(name, values)
    with pytest.raises(ConfigError, match=message) as caught:
        check_model(params, name, "smoke")
    with pytest.raises(ConfigError) as again:
        build_model(params, name, "smoke", CIFAR10)
    assert str(again.value) == str(caught.value)


def test_many_problems_of_one_section_are_counted() -> None:
    text = refusal(changed("made", {"hidden_sizes": [-1] * 500}), "made")
    assert text is not None and len(text.splitlines()) == 21 and text.endswith("and 480 further problems")


@pytest.mark.parametrize(
    ("values", "available"), [({"num_fit_images": 5}, "5"), ({"num_fit_images": None, "min_images": 20_000.0}, "45000")]
)
def test_a_mixture_of_more_components_than_its_images_fill_is_refused_before_the_fit(
    values: dict[str, Any], available: str
) -> None:
    message = rf"model\.num_components: 3 components of at least .* do not fit in the {available} that there are"
    with pytest.raises(ConfigError, match=message):
        validate(
            changed("mixture_of_gaussians", values).model_copy(update={"suite": ["mixture_of_gaussians"]}), "smoke"
        )


@pytest.mark.parametrize("value", [1e308, 1e15, math.inf, math.nan, -1.0, 10**17])
@pytest.mark.parametrize(
    "key",
    ["learning_rate", "muon_learning_rate", "weight_decay", "max_seconds", "gradient_clip", "batch_size", "max_steps"],
)
def test_numbers_of_training_have_limits(key: str, value: float) -> None:
    params = PARAMS.changed("pixelcnn", "smoke", {"training": {key: value}})
    with pytest.raises(ConfigError, match=rf"^models\.pixelcnn\.smoke\.training\.{key}: .*, got \S+$"):
        training_config(params, "pixelcnn", "smoke")
