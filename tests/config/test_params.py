"""params.yaml is refused with the key, the problem and the remedy."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from dgm.config.params import Params, load_params
from dgm.config.parse import ConfigError, parse
from dgm.config.sections import TrainingConfig
from dgm.registry import MODELS
from dgm.settings import build_model, training_config, validate
from dgm.types import CIFAR10


@pytest.fixture
def values() -> dict[str, Any]:
    return yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))


def params_of(values: dict[str, Any]) -> Params:
    return parse(Params, values, "")


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_the_file_in_the_repository_is_sound_in_every_profile(profile: str) -> None:
    validate(load_params(), profile)


def test_every_problem_is_listed_with_its_key(values: dict[str, Any]) -> None:
    broken = copy.deepcopy(values)
    broken["suite"] = ["pixelcnn_pp", "pixelcn", "uniform", "uniform"]
    block = broken["models"]["pixelcnn_pp"]["cpu"]["training"]
    block["lerning_rate"] = block.pop("learning_rate")
    del broken["models"]["uniform"]["cpu"]["evaluation"]
    with pytest.raises(ConfigError) as caught:
        validate(params_of(broken), "cpu")
    text = str(caught.value)
    assert "models.pixelcnn_pp.cpu.training.lerning_rate: unknown key; did you mean learning_rate?" in text
    assert "models.pixelcnn_pp.cpu.training.learning_rate: missing" in text
    assert "unknown model 'pixelcn'; did you mean pixelcnn?" in text
    assert "models.uniform.cpu.evaluation: missing" in text
    assert "suite: uniform listed more than once" in text


def test_numbers_that_yaml_reads_as_text_are_explained(values: dict[str, Any]) -> None:
    block = values["models"]["pixelcnn_pp"]["cpu"]["training"]
    block["learning_rate"] = "1e-3"
    with pytest.raises(ConfigError, match=r"learning_rate: '1e-3' is text to YAML; write 1.0e-03"):
        parse(TrainingConfig, block, "models.pixelcnn_pp.cpu.training")


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


@pytest.mark.parametrize("name", ["multivariate_gaussian", "ppca"])
def test_a_closed_form_with_iterations_is_refused_with_the_remedy(values: dict[str, Any], name: str) -> None:
    values["models"][name]["cpu"]["training"] = {"num_iterations": 3}
    with pytest.raises(ConfigError, match=rf"^models.{name}.cpu.training.num_iterations: 3, but .*; set it to 0$"):
        validate(params_of(values), "cpu")
    values["models"]["ppca"]["cpu"]["model"] |= {"method": "em"}
    assert training_config(params_of(values), "ppca", "cpu") is not None


def test_an_architecture_that_cannot_take_the_image_size_says_which(values: dict[str, Any]) -> None:
    values["models"]["pixelcnn_pp"]["cpu"]["model"]["num_stages"] = 7
    with pytest.raises(ConfigError, match=r"models.pixelcnn_pp.cpu.model: .*multiples of 64"):
        build_model(params_of(values), "pixelcnn_pp", "cpu", CIFAR10)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent.yaml: cannot be read"):
        load_params(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"list.yaml: must be a mapping"):
        load_params(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(ConfigError, match=r"broken.yaml: not valid YAML"):
        load_params(tmp_path / "broken.yaml")


def test_every_registered_model_is_configured_in_every_profile(values: dict[str, Any]) -> None:
    assert set(values["models"]) == set(MODELS)
    for blocks in values["models"].values():
        assert set(blocks) == {"smoke", "cpu", "gpu"}
