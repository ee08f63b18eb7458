"""Every key of params.yaml does something where it is in force: an inert one would be overridden in vain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dgm.config.document import read_document
from dgm.config.params import PROFILES, Params, load_params
from dgm.config.parse import ConfigError, parse
from dgm.errors import StageError
from dgm.model_api.contracts import Fitted, GradientTrained
from dgm.registry import MODELS, model_class
from dgm.seeds import generator_for
from dgm.settings import ACTS_WITH, acting_values, model_config
from tests.tiny import SMALL, TINY_MODELS, random_images

PARAMS = load_params()
IMAGES = random_images(SMALL, 40)
WORDS = (  # the values of one key of a model that is a choice
    ("closed_form", "em"),
    ("natural", "random", "order_agnostic"),
    ("act_norm", "batch_norm"),
    ("pca", "zca", "opponent"),
    ("reciprocal", "log_snr"),
)
COUNTED = ("num_masks", "ensemble_size")  # one of them is another case than several
LARGER: dict[str, dict[str, Any]] = {  # sizes at which every key shows
    "deep_diffusion": {"num_steps": 20, "first_variance": 0.01},
    "histogram_left": {"candidate_pseudo_counts": [1.2**power for power in range(80)]},
}
FURTHER: dict[str, list[Any]] = {
    "free_nats_per_map": [10.0],
    "min_images": [33.0],
    "validation_fraction": [0.6, 0.4],
    "candidate_pseudo_counts": [[1.0]],
}


def is_switch(value: Any) -> bool:
    return isinstance(value, bool | str) or value is None or value == 0


def tiny_values(name: str, profile: str) -> dict[str, Any]:
    """The tiny model with the switches that are in force in a profile."""
    tiny = TINY_MODELS[name] | LARGER.get(name, {})
    values: dict[str, Any] = {}
    for key, value in model_config(PARAMS, name, profile).model_dump().items():
        if is_switch(value):
            values[key] = value
        elif key in COUNTED or is_switch(tiny[key]):
            values[key] = min(value, 20 if tiny[key] is None else 2)
        else:
            values[key] = tiny[key]
    return values


def other_values(key: str, value: Any) -> list[Any]:
    kinds: dict[type, list[Any]] = {
        bool: [value is False],
        int: [value + 1, value - 1, 2 * value, 5] if isinstance(value, int) else [],
        float: [value / 2 or 0.25, 0.9] if isinstance(value, float) else [],
        list: [value[:-1], [*value, value[-1]], [2 * value[0], *value[1:]]] if isinstance(value, list) else [],
        type(None): [7],
        str: [word for words in WORDS if value in words for word in words if word != value],
    }
    return kinds[type(value)] + FURTHER.get(key, [])


def traces(name: str, values: dict[str, Any]) -> Iterator[Any]:
    """What comes of a configuration, one thing after the other, the cheap ones first."""
    torch.manual_seed(0)
    kind = model_class(name)
    model = kind(SMALL, parse(kind.config_type, values, name))
    yield [tuple(tensor.shape) for tensor in model.state_dict().values()]
    if isinstance(model, Fitted):
        model.start(IMAGES, generator_for(0))
        if type(model).iterate is not Fitted.iterate and values.get("method") != "closed_form":
            for iteration in range(2):
                model.iterate(IMAGES, iteration, generator_for(1))
        model.finish(IMAGES)
    else:
        assert isinstance(model, GradientTrained)
        model.prepare(IMAGES, generator_for(0))
        yield sums(model)
        generator = generator_for(5)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        torch.manual_seed(1)
        yield float(model.train().objective(IMAGES[:8], generator_for(1), 0.01).loss.detach().double().sum())
    yield sums(model)
    with torch.no_grad():
        yield float(model.eval().log_likelihood(IMAGES[:4], generator_for(2)).nats.double().sum())


def sums(model: torch.nn.Module) -> list[float]:
    return [float(tensor.double().sum()) for tensor in model.state_dict().values()]


def acts(name: str, values: dict[str, Any], before: list[Any], key: str) -> bool:
    """Whether some other value of the key changes anything; that the model refuses it is a change too."""
    for value in other_values(key, values[key]):
        try:
            if any(was != after for was, after in zip(before, traces(name, values | {key: value}), strict=True)):
                return True
        except (ValueError, StageError):
            return True
    return False


@pytest.mark.parametrize("name", MODELS)
def test_every_key_of_a_model_acts_beside_the_switches_in_force(name: str) -> None:
    """In each profile, with the profile's own switches: a key that a switch idles is no part of what acts."""
    cases: dict[str, tuple[dict[str, Any], set[str]]] = {}
    for profile in PROFILES:
        values, keys = tiny_values(name, profile), acting_values(PARAMS, name, profile)["model"].keys()
        cases[str(values)] = (values, set(keys))
    for values, keys in cases.values():
        before = list(traces(name, values))
        assert {key for key in values if acts(name, values, before, key)} == keys


@pytest.mark.parametrize(("name", "key"), ACTS_WITH)
def test_a_key_that_a_switch_idles_is_refused_in_the_block_of_the_profile(name: str, key: str) -> None:
    document = read_document(Path("params.yaml"))
    blocks = document["models"][name]
    switch, value = ACTS_WITH[name, key], blocks["all"]["model"][key]
    blocks["cpu"]["model"][key] = value
    for is_on in (True, False):
        blocks["cpu"]["model"][switch] = is_on
        params = parse(Params, document, "")
        if is_on:
            assert acting_values(params, name, "cpu")["model"][key] == value
        else:
            message = rf"^models\.{name}\.cpu\.model\.{key}: .*only where {switch} is true; remove the key$"
            with pytest.raises(ConfigError, match=message):
                model_config(params, name, "cpu")
