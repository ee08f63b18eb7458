"""How long a row trains: its share of the table's minutes; one number for all, one for each row."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from dgm.config.construction import without_weights
from dgm.config.document import read_document
from dgm.config.params import PROFILES, Params, load_params
from dgm.config.parse import ConfigError, parse
from dgm.config.sections import TrainingConfig
from dgm.fingerprints import training_key
from dgm.settings import HAS_TABLES, build_model, training_config, training_minutes
from dgm.types import CIFAR10
from tests.tiny import TRAINED

DOCUMENT = read_document(Path(__file__).parents[2] / "params.yaml")
TIMED = ("gpu", "published")
PUBLISHED_SIZES = {  # weights of the architectures that the papers trained; two have no paper
    "pixelcnn": 5_340_416,
    "pixelcnn_pp": 53_659_080,
    "gated_pixelcnn": 13_415_424,
    "row_lstm": 9_621_248,
    "diagonal_bilstm": 8_837_888,
    "ride": 713_132,
    "neighbourhood": 2_961_611,
    "hourglass": 49_229_955,
    "nice": 77_340_416,
    "real_nvp": 19_649_172,
    "vae": 8_564_631,
    "vae_iaf": 41_065_926,
    "draw": 2_715_507,
    "deep_diffusion": 12_692_282,
    "conv_draw": 8_549_622,
    "made": 204_572_672,
    "wavenet": 3_608_320,
    "char_rnn": 4_743_744,
}


@pytest.fixture
def values() -> dict[str, Any]:
    """params.yaml without the seconds of its own that a row has whose result came from another machine."""
    document = copy.deepcopy(DOCUMENT)
    for name in TRAINED:
        document["models"][name]["gpu"]["training"].pop("max_seconds", None)
    return document


def seconds_of(values: dict[str, Any], name: str, profile: str = "gpu") -> float | None:
    config = training_config(parse(Params, values, ""), name, profile)
    assert isinstance(config, TrainingConfig)
    return config.max_seconds


def keys_of(values: dict[str, Any], profile: str = "gpu") -> dict[str, str]:
    params = parse(Params, values, "")
    return {name: training_key(params, name, profile) for name in params.suite}


@pytest.mark.parametrize("profile", TIMED)
def test_a_row_trains_for_its_share_of_the_minutes(values: dict[str, Any], profile: str) -> None:
    minutes = values["training_defaults"][profile]["table_minutes"]
    for name in TRAINED:
        share = values["models"][name][profile]["training"]["share"]
        assert seconds_of(values, name, profile) == pytest.approx(minutes * 60 * share)


@pytest.mark.parametrize("profile", TIMED)
def test_the_table_fits_its_minutes_with_room_for_scoring(values: dict[str, Any], profile: str) -> None:
    minutes = training_minutes(parse(Params, values, ""), profile)
    assert minutes is not None
    assert 0.7 * DOCUMENT["training_defaults"][profile]["table_minutes"] < minutes
    assert minutes < DOCUMENT["training_defaults"][profile]["table_minutes"]
    assert training_minutes(load_params(), "cpu") is None


def test_one_number_changes_every_trained_row_and_a_share_only_its_own(values: dict[str, Any]) -> None:
    before = keys_of(values)
    values["training_defaults"]["gpu"]["table_minutes"] = 9.0
    assert {name for name, key in keys_of(values).items() if key != before[name]} == set(TRAINED)
    values["training_defaults"]["gpu"]["table_minutes"] = 60.0
    values["models"]["nice"]["gpu"]["training"]["share"] = 0.5
    assert {name for name, key in keys_of(values).items() if key != before[name]} == {"nice"}


@pytest.mark.parametrize(("own", "expected"), [(300.0, 300.0), (None, None)])
def test_seconds_of_a_row_go_before_its_share(values: dict[str, Any], own: float | None, expected: float) -> None:
    before = keys_of(values)
    values["models"]["made"]["gpu"]["training"]["max_seconds"] = own
    assert seconds_of(values, "made") == expected
    assert {name for name, key in keys_of(values).items() if key != before[name]} == {"made"}
    values["training_defaults"]["gpu"]["table_minutes"] = 9.0
    assert seconds_of(values, "made") == expected


@pytest.mark.parametrize("bad", [0, -0.1, 1.5, "0.1", True, None])
def test_a_wrong_share_is_named_where_it_stands(values: dict[str, Any], bad: object) -> None:
    values["models"]["made"]["gpu"]["training"]["share"] = bad
    with pytest.raises(ConfigError, match=r"^models.made.gpu.training.share: .*, got|remove the quotes"):
        seconds_of(values, "made")


def test_a_share_without_minutes_and_minutes_without_a_share_are_refused(values: dict[str, Any]) -> None:
    values["models"]["made"]["cpu"]["training"]["share"] = 0.1
    with pytest.raises(ConfigError, match=r"^models.made.cpu.training.table_minutes: missing from params.yaml$"):
        seconds_of(values, "made", "cpu")
    del values["models"]["made"]["gpu"]["training"]["share"]
    with pytest.raises(ConfigError, match=r"^models.made.gpu.training.share: missing from params.yaml$"):
        seconds_of(values, "made")
    values["training_defaults"]["gpu"]["table_minutes"] = -1.0
    with pytest.raises(ConfigError, match=r"^training_defaults.gpu.table_minutes: "):
        seconds_of(values, "nice")


def test_only_training_by_gradient_has_a_share(values: dict[str, Any]) -> None:
    values["models"]["deep_gmm"]["gpu"]["training"]["share"] = 0.1
    with pytest.raises(ConfigError, match=r"^models.deep_gmm.gpu.training.share: unknown key"):
        training_config(parse(Params, values, ""), "deep_gmm", "gpu")


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_the_published_profile_has_the_published_sizes(name: str) -> None:
    with without_weights(name in HAS_TABLES):
        model = build_model(load_params(), name, "published", CIFAR10)
    assert model.num_parameters() == PUBLISHED_SIZES[name]


def test_what_is_fitted_is_the_same_in_both_timed_profiles() -> None:
    blocks = {name: DOCUMENT["models"][name] for name in DOCUMENT["suite"] if name not in TRAINED}
    assert all(block["gpu"] == block["published"] for block in blocks.values())
    assert set(PUBLISHED_SIZES) == set(TRAINED)
    assert set(TIMED) < set(PROFILES)
