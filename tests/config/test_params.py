"""params.yaml is refused with the key, the problem and the remedy."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from dgm.config.document import read_document
from dgm.config.params import BLOCKS, PROFILES, SECTIONS, SHARED_SECTIONS, Params, load_params
from dgm.config.parse import ConfigError, parse
from dgm.registry import MODELS
from dgm.settings import build_model, training_config, validate
from dgm.types import CIFAR10

DOCUMENT = read_document(Path(__file__).parents[2] / "params.yaml")


@pytest.fixture
def values() -> dict[str, Any]:
    return copy.deepcopy(DOCUMENT)


def params_of(values: dict[str, Any]) -> Params:
    return parse(Params, values, "")


@pytest.mark.parametrize("profile", PROFILES)
def test_the_file_in_the_repository_is_sound_in_every_profile(profile: str) -> None:
    validate(load_params(), profile)


def test_every_problem_is_listed_with_its_key(values: dict[str, Any]) -> None:
    broken = copy.deepcopy(values)
    broken["suite"] = ["pixelcnn_pp", "pixelcn", "uniform", "uniform"]
    block = broken["models"]["pixelcnn_pp"]["cpu"]["training"]
    block["lerning_rate"] = block.pop("learning_rate")
    del broken["models"]["pixelcnn_pp"]["cpu"]["model"]["num_filters"]
    del broken["models"]["uniform"]["cpu"]["evaluation"]
    with pytest.raises(ConfigError) as caught:
        validate(params_of(broken), "cpu")
    text = str(caught.value)
    assert "models.pixelcnn_pp.cpu.training.lerning_rate: unknown key; did you mean learning_rate?" in text
    assert "models.pixelcnn_pp.cpu.model.num_filters: missing" in text
    assert "unknown model 'pixelcn'; did you mean pixelcnn?" in text
    assert "models.uniform.cpu.evaluation: missing" in text
    assert "suite: uniform listed more than once" in text


def test_a_number_in_quotes_is_explained(values: dict[str, Any]) -> None:
    block = values["models"]["pixelcnn_pp"]["cpu"]["training"]
    for text, field in (("1e-3", "learning_rate"), ("3", "max_steps")):
        block[field] = text
        with pytest.raises(ConfigError, match=rf"cpu.training.{field}: '{text}' is text, .*; remove the quotes"):
            training_config(params_of(values), "pixelcnn_pp", "cpu")
        block[field] = 1
    for text, field in (("1_000", "max_steps"), ("0.000_1", "learning_rate")):  # numbers to Python and to YAML 1.1
        block[field] = text
        with pytest.raises(ConfigError, match=rf"cpu.training.{field}: '{text}' is text, .*; write it without _"):
            training_config(params_of(values), "pixelcnn_pp", "cpu")
        block[field] = 1
    for text in ("nan", "inf", "x" * 5000):
        block["max_seconds"] = text
        with pytest.raises(ConfigError, match=r"max_seconds: Input should be a valid number, got '") as caught:
            training_config(params_of(values), "pixelcnn_pp", "cpu")
        assert len(str(caught.value)) < 200


def test_figures_are_of_all_test_images_and_of_enough_training_images(values: dict[str, Any]) -> None:
    counts = values["common"]["cpu"]["evaluation"]
    counts["num_test_images"], counts["num_train_images"] = 9999, 1999
    with pytest.raises(ConfigError) as caught:
        validate(params_of(values), "cpu")
    assert str(caught.value).splitlines() == [
        "common.cpu.evaluation.num_test_images: must be 10000 outside the smoke profile, got 9999",
        "common.cpu.evaluation.num_train_images: must be at least 2000 outside the smoke profile, got 1999",
    ]
    counts["num_test_images"], counts["num_train_images"] = 10000, 2000
    validate(params_of(values), "cpu")


@pytest.mark.parametrize("bad", [0, -1, 2.5, True, None, "many"])
def test_mistyped_values_name_the_value(values: dict[str, Any], bad: object) -> None:
    values["models"]["uniform"]["cpu"]["compression"] = {"num_images": bad}
    with pytest.raises(ConfigError, match=r"models.uniform.cpu.compression.num_images: .*got"):
        validate(params_of(values), "cpu")


def test_unknown_profiles_models_and_missing_blocks(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="profile"):
        params_of({**values, "profile": "cpuu"})
    with pytest.raises(ConfigError, match=r"models.nothing: no such model"):
        validate(params_of({**values, "models": {**values["models"], "nothing": {}}}), "cpu")
    del values["models"]["uniform"]["gpu"]
    with pytest.raises(ConfigError, match=r"models.uniform.gpu: missing"):
        training_config(params_of(values), "uniform", "gpu")


@pytest.mark.parametrize("name", ["multivariate_gaussian", "ppca", "uniform"])
def test_a_closed_form_with_iterations_is_refused_with_the_remedy(values: dict[str, Any], name: str) -> None:
    values["models"][name]["cpu"]["training"] = {"num_iterations": 0}
    with pytest.raises(ConfigError, match=rf"^models.{name}.cpu.training.num_iterations: .*closed form.*; remove the"):
        validate(params_of(values), "cpu")
    values["models"]["ppca"]["cpu"] |= {"model": {"method": "em"}, "training": {"num_iterations": 3}}
    assert training_config(params_of(values), "ppca", "cpu") is not None


def test_an_iterated_fit_without_iterations_is_refused(values: dict[str, Any]) -> None:
    values["models"]["deep_gmm"]["cpu"]["training"] = {}
    with pytest.raises(ConfigError, match=r"^models.deep_gmm.cpu.training.num_iterations: missing from params.yaml$"):
        validate(params_of(values), "cpu")


@pytest.mark.parametrize(
    ("name", "section", "key"),
    [
        ("made", "evaluation", "num_draws"),
        ("uniform", "evaluation", "num_importance_samples"),
        ("nice", "evaluation", "num_importance_samples"),
        ("deep_diffusion", "evaluation", "num_importance_samples"),
        ("nice", "compression", "num_images"),
        ("deep_diffusion", "compression", "num_images"),
        ("made", "training", "muon_learning_rate"),
        ("uniform", "training", "learning_rate"),
        ("deep_gmm", "training", "batch_size"),
    ],
)
def test_a_key_that_would_do_nothing_is_refused_where_it_stands(
    values: dict[str, Any], name: str, section: str, key: str
) -> None:
    values["models"][name]["cpu"][section][key] = 1
    with pytest.raises(ConfigError, match=rf"^models.{name}.cpu.{section}.{key}: "):
        validate(params_of(values), "cpu")


def test_a_default_of_muon_is_not_inherited_beside_adamw(values: dict[str, Any]) -> None:
    values["models"]["made"]["cpu"]["training"]["optimizer"] = "adamw"
    assert training_config(params_of(values), "made", "cpu").model_dump()["muon_learning_rate"] is None
    values["models"]["made"]["cpu"]["training"]["optimizer"] = "muon"
    rate = values["training_defaults"]["cpu"]["muon_learning_rate"]
    assert training_config(params_of(values), "made", "cpu").model_dump()["muon_learning_rate"] == rate
    del values["training_defaults"]["cpu"]["muon_learning_rate"]
    with pytest.raises(ConfigError, match=r"^models.made.cpu.training.muon_learning_rate: missing from params.yaml;"):
        training_config(params_of(values), "made", "cpu")


def test_an_error_is_placed_where_the_value_stands(values: dict[str, Any]) -> None:
    values["training_defaults"]["cpu"]["ema_decay"] = 2.0
    values["models"]["made"]["all"]["model"]["dropout"] = 2.0
    with pytest.raises(ConfigError) as caught:
        validate(params_of(values), "cpu")
    places = {line.partition(": ")[0] for line in str(caught.value).splitlines()}
    assert places == {"models.made.all.model.dropout", "training_defaults.cpu.ema_decay"}


def test_a_profile_without_defaults_is_one_line(values: dict[str, Any]) -> None:
    del values["training_defaults"]["cpu"]
    with pytest.raises(ConfigError, match=r"^training_defaults\.cpu: missing from .*; every profile") as caught:
        validate(params_of(values), "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("models", "uniform", "cpu", "model", "a"), "models.uniform.cpu.model.a: unknown key; no key belongs here"),
        (("models", "made", "all", "evaluation"), "models.made.all.evaluation: unknown key"),
        (("models", "made", "al"), "models.made.al: no such profile; did you mean all?"),
        (
            ("training_defaults", "cpu", "lerning_rate"),
            "training_defaults.cpu.lerning_rate: unknown key; did you mean",
        ),
    ],
)
def test_blocks_that_nothing_reads_are_refused(values: dict[str, Any], path: tuple[str, ...], text: str) -> None:
    node = values
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = {}
    with pytest.raises(ConfigError, match=re.escape(text)):
        validate(params_of(values), "cpu")


def test_an_architecture_that_cannot_take_the_image_size_says_which(values: dict[str, Any]) -> None:
    values["models"]["pixelcnn_pp"]["cpu"]["model"]["num_stages"] = 7
    with pytest.raises(ConfigError, match=r"models.pixelcnn_pp.cpu.model: .*multiples of 64"):
        build_model(params_of(values), "pixelcnn_pp", "cpu", CIFAR10)


@pytest.mark.parametrize(
    ("name", "key", "value", "text"),
    [
        ("conv_draw", "read_kernel_size", 2, "model: read_kernel_size 2 is below stride 8"),
        ("pixelcnn_pp", "num_stages", 7, "model: num_stages 7 halves the image 6 times"),
        ("ppca", "num_components", 5000, "model: num_components: 5000 must be below 3072"),
        ("draw", "read_size", 50, "model: windows of 50 x 50 do not tile"),
        ("pixelcnn", "num_features", 10**12, "model.num_features: must be at most 100000, got 1000000000000"),
        ("pixelcnn", "num_blocks", 10**12, "model.num_blocks: must be at most"),
        ("mixture_of_gaussians", "num_components", 2 * 10**12, "model.num_components: must be at most"),
        ("deep_diffusion", "num_steps", 10**9, "model.num_steps: must be at most"),
        ("wavenet", "pixel_dilations", [1, 10**12], "model.pixel_dilations: must be at most"),
    ],
)
def test_what_training_would_refuse_is_refused_before(
    values: dict[str, Any], name: str, key: str, value: object, text: str
) -> None:
    values["models"][name]["cpu"]["model"][key] = value
    values["suite"] = [name]
    with pytest.raises(ConfigError, match=rf"^models.{name}.cpu.{re.escape(text)}"):
        validate(params_of(values), "cpu")


def test_an_ensemble_without_an_order_is_refused_before_its_samples_and_files_are(values: dict[str, Any]) -> None:
    values["models"]["made"]["cpu"]["model"] |= {"ordering": "order_agnostic", "num_masks": 2, "ensemble_size": 2}
    values["suite"] = ["made"]
    with pytest.raises(
        ConfigError, match=r"^models.made.cpu.model: an ensemble over several orders .*ensemble_size to 1"
    ):
        validate(params_of(values), "cpu")
    values["models"]["made"]["cpu"]["model"]["ensemble_size"] = 1
    validate(params_of(values), "cpu")


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent.yaml: cannot be read"):
        load_params(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"list.yaml: must be a mapping"):
        load_params(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(ConfigError, match=r"broken.yaml, line 2: not valid YAML"):
        load_params(tmp_path / "broken.yaml")


def test_every_registered_model_is_configured_in_every_profile(values: dict[str, Any]) -> None:
    assert set(values["models"]) == set(MODELS)
    for blocks in values["models"].values():
        assert tuple(blocks) == BLOCKS
        for block, sections in blocks.items():
            assert tuple(sections) == (
                SHARED_SECTIONS if block == "all" else SECTIONS
            )  # DVC fails where one is missing
