"""Every key of a model's configuration is read by code of that model: a dead key would do nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dgm.config.parse import Config, parse
from dgm.model_api.contracts import Fitted, GradientTrained
from dgm.registry import MODELS, model_class
from dgm.seeds import generator_for
from tests.tiny import SMALL, TINY_MODELS, random_images

SWITCHED: dict[str, dict[str, Any]] = {"row_lstm": {"num_mixtures": 2}, "ppca": {"method": "em"}}


def recording(kind: type[Config], read: set[str]) -> type[Config]:
    """The same configuration, which notes what is read of it."""

    class Recording(kind):
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    return Recording


@pytest.mark.parametrize("name", MODELS)
def test_every_key_is_read_by_the_model(name: str) -> None:
    """Built, prepared, trained for a step, scored and sampled, in one tiny configuration with its switches on."""
    read: set[str] = set()
    kind = model_class(name)
    config = parse(recording(kind.config_type, read), TINY_MODELS[name] | SWITCHED.get(name, {}), name)
    read.clear()  # of the validation itself
    torch.manual_seed(0)
    model, images = kind(SMALL, config), random_images(SMALL, 64)
    if isinstance(model, Fitted):
        model.start(images, generator_for(0))
        if type(model).iterate is not Fitted.iterate:
            for iteration in range(2):
                model.iterate(images, iteration, generator_for(1))
        model.finish(images)
    else:
        assert isinstance(model, GradientTrained)
        model.prepare(images, generator_for(0))
        model.objective(images[:4], generator_for(1), 0.5)
    with torch.no_grad():
        model.eval().log_likelihood(images[:2], generator_for(2))
    assert set(kind.config_type.model_fields) <= read
