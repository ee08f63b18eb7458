"""Every model's keys: they follow the code that its results come from, wherever that code stands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from dgm.config.params import PROFILES, load_params
from dgm.fingerprints import (
    PACKAGES,
    PASSIVE,
    PROOF,
    STAGES,
    UNUSED,
    WORK,
    WORK_OF_ONE,
    entries,
    settings_of,
    write_fingerprints,
)
from dgm.model_api.contracts import Fitted, GradientTrained
from dgm.registry import MODELS, SCORED, model_class
from dgm.runs.reached_code import CodeGraph
from dgm.seeds import generator_for
from tests.tiny import SMALL, random_images, untrained_model

ROOT = Path(__file__).parent.parent
FITTED = [name for name in MODELS if issubclass(model_class(name), Fitted)]
PARAMS = load_params(ROOT / "params.yaml")
GRADIENT_ONLY = ("dgm.engine.loop", "dgm.engine.optimizers", "dgm.engine.averaging", "dgm.engine.schedule")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def digests(root: Path) -> dict[tuple[str, str], str]:
    """Of all stages of all models, from graphs that nothing else has used: the code under `root` may have changed."""
    graphs = {unused: CodeGraph(root, PACKAGES, PASSIVE, unused) for unused in {(), *UNUSED.values()}}
    stages = {name: (*STAGES, *WORK_OF_ONE.get(name, {})) for name in MODELS}
    return {
        (name, stage): graphs[UNUSED.get(stage, ())].digest(entries(stage, name))
        for name in MODELS
        for stage in stages[name]
    }


@pytest.fixture(scope="module")
def before() -> dict[tuple[str, str], str]:
    """The digests of the code as it is, which every copy of it starts from."""
    return digests(ROOT)


@pytest.fixture(scope="module")
def training() -> CodeGraph:
    """What training reaches in the code as it is."""
    return CodeGraph(ROOT, PACKAGES, PASSIVE, UNUSED["train"])


def changed(before: dict[tuple[str, str], str], after: dict[tuple[str, str], str]) -> set[tuple[str, str]]:
    return {key for key in before if before[key] != after[key]}


def rename_modules(root: Path, names: dict[str, str]) -> None:
    """Old dotted name -> new one, in every file at once."""
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b")
    for file in root.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        file.write_text(pattern.sub(lambda found: names[found[0]], text), encoding="utf-8")


def test_models_that_are_fitted_do_not_depend_on_training_by_gradient(training: CodeGraph) -> None:
    for name in FITTED:
        reached = training.reached(entries("train", name))
        assert "dgm.engine.fit:fit" in reached
        assert not [place for place in reached if place.startswith(GRADIENT_ONLY)], name


@pytest.mark.parametrize("name", sorted(MODELS))
def test_training_depends_on_its_own_model_and_not_on_counting_operations(name: str, training: CodeGraph) -> None:
    reached = training.reached(entries("train", name))
    rooms = {place.split(".")[2].split(":")[0] for place in reached if place.startswith("dgm.models.")}
    assert rooms == {name}
    assert not [place for place in reached if place.startswith(("dgm.engine.flops", "dgm.tracking", "dgm.reporting"))]
    assert name in FITTED or "dgm.engine.loop:Trainer" in reached


@pytest.mark.parametrize("name", sorted(MODELS))
def test_training_never_calls_the_methods_that_its_key_leaves_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = untrained_model(name, SMALL), random_images(SMALL, 64)
    for method in UNUSED["train"]:
        if hasattr(model, method):
            monkeypatch.setattr(type(model), method, None)
    generator = generator_for(0)
    if isinstance(model, Fitted):
        model.start(images, generator)
        if type(model).iterate is not Fitted.iterate and getattr(model.config, "method", "em") == "em":
            model.iterate(images, 0, generator)
        model.finish(images)
    else:
        assert isinstance(model, GradientTrained)
        model.prepare(images, generator)
        model.objective(images, generator, 0.5).loss.sum().backward()
    model.eval().log_likelihood(images, generator)


@pytest.mark.parametrize("name", sorted(SCORED))
def test_a_class_for_scoring_belongs_to_the_keys_of_evaluation_and_proof_only(
    name: str, copy: Path, before: dict[tuple[str, str], str]
) -> None:
    file = copy / (SCORED[name].split(":")[0].replace(".", "/") + ".py")
    file.write_text(file.read_text(encoding="utf-8").replace("dim=1", "dim=-1"), encoding="utf-8")
    assert changed(before, digests(copy)) == {(name, "evaluate"), (name, "prove")}


def test_a_count_of_parameters_that_act_belongs_to_no_key(copy: Path, before: dict[tuple[str, str], str]) -> None:
    file = copy / "dgm/nets/masked_conv.py"
    text = file.read_text(encoding="utf-8")
    assert "self.mask == 0" in text
    file.write_text(text.replace("self.mask == 0", "self.mask == 1"), encoding="utf-8")
    assert changed(before, digests(copy)) == set()


def test_a_sampler_belongs_to_the_keys_of_sampling_only(copy: Path, before: dict[tuple[str, str], str]) -> None:
    file = copy / "dgm/model_api/ancestral.py"
    text = file.read_text(encoding="utf-8")
    assert ".cumsum(dim=-1)" in text
    file.write_text(text.replace(".cumsum(dim=-1)", ".cumsum(dim=-1) + 0"), encoding="utf-8")
    after = changed(before, digests(copy))
    assert {stage for name, stage in after if name == "pixelcnn"} == {"sample"}


def test_no_module_that_makes_numbers_does_anything_when_it_is_imported(training: CodeGraph) -> None:
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            if file.name not in ("__init__.py", "__main__.py") and not name.startswith(PASSIVE):
                assert training.module(name) is not None


def test_renamed_modules_change_no_key(copy: Path, before: dict[tuple[str, str], str]) -> None:
    """All of nets, families and distributions at once, and the inner modules of every room."""
    scoring = {place.split(":")[0] for place in SCORED.values()}  # where the registry looks, like `model`
    names: dict[str, str] = {}
    for folder in ("nets", "families", "distributions"):
        (copy / "dgm" / folder).rename(copy / "dgm" / f"{folder}_elsewhere")
        names[f"dgm.{folder}"] = f"dgm.{folder}_elsewhere"
    for room in (copy / "dgm" / "models").iterdir():
        for file in room.glob("*.py") if room.is_dir() else ():
            if file.stem not in ("__init__", "model") and f"dgm.models.{room.name}.{file.stem}" not in scoring:
                file.rename(file.with_stem(f"{file.stem}_moved"))
                names[f"dgm.models.{room.name}.{file.stem}"] = f"dgm.models.{room.name}.{file.stem}_moved"
    assert len(names) >= 15
    rename_modules(copy, names)
    assert changed(before, digests(copy)) == set()


def test_a_moved_function_changes_no_key_and_a_changed_one_those_that_reach_it(
    copy: Path, before: dict[tuple[str, str], str]
) -> None:
    source, target = copy / "dgm/distributions/discretized_logistic.py", copy / "dgm/nets/moved.py"
    source.rename(target)  # the functions are in another folder now, and their old module takes them from there
    names = re.findall(r"^(?:def )?(\w+)(?:\(| = )", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
    source.write_text("".join(f"from dgm.nets.moved import {name}\n" for name in names), encoding="utf-8")
    assert len(names) >= 5
    assert changed(before, digests(copy)) == set()
    text = target.read_text(encoding="utf-8")
    assert "MAX_ABS_LOG_SCALE = 20.0" in text
    target.write_text(text.replace("MAX_ABS_LOG_SCALE = 20.0", "MAX_ABS_LOG_SCALE = 21.0"), encoding="utf-8")
    after = changed(before, digests(copy))
    assert {name for name, _ in after} >= {"pixelcnn_pp", "vae", "draw"}
    assert not {name for name, _ in after} & {"uniform", "nice", "ppca", "deep_gmm", "mixture_of_gaussians"}


def test_fingerprints_are_files_that_change_only_with_the_code(copy: Path) -> None:
    write_fingerprints(PARAMS, ["ppca", "uniform"], copy)
    files = {path: path.read_text() for path in (copy / "fingerprints").rglob("*.json")}
    stages = [f"{profile}/{stage}.json" for profile in PROFILES for stage in ("train", *WORK, PROOF)]
    expected = {f"{name}/{file}" for name in ("ppca", "uniform") for file in stages}
    expected |= {f"ppca/{stage}.json" for stage in WORK_OF_ONE["ppca"]}
    assert {str(path.relative_to(copy / "fingerprints")) for path in files} == expected
    times = {path: path.stat().st_mtime_ns for path in files}
    write_fingerprints(PARAMS, ["ppca", "uniform"], copy)
    assert {path: path.stat().st_mtime_ns for path in files} == times


ACTS_ON = {  # a number of row_lstm or of its profile -> the stages after training that it acts on
    "models.row_lstm.all.model.num_mixtures=5": {"evaluate", "sample", "prove", "compress", "proof"},
    "models.row_lstm.cpu.model.num_hidden=8": {"evaluate", "sample", "prove", "compress", "proof"},
    "++models.row_lstm.cpu.training.learning_rate=0.5": {"evaluate"},
    "training_defaults.cpu.ema_decay=0.5": {"evaluate"},
    "models.row_lstm.cpu.evaluation.batch_size=7": {"evaluate"},
    "models.row_lstm.cpu.compression.num_images=7": {"compress"},
    "common.cpu.run.seed=7": {"evaluate", "sample", "prove", "compress", "proof"},
    "common.cpu.evaluation.num_train_images=7": {"evaluate"},
    "common.cpu.sampling.temperature=0.5": {"sample"},
    "common.cpu.conformance.num_changes=7": {"prove"},
    "common.cpu.codecs.num_images=4": set(),
    "models.row_lstm.gpu.model.num_hidden=8": set(),
    "models.pixelcnn.cpu.model.num_features=8": set(),
    "profile=gpu": set(),
}


@pytest.mark.parametrize(("override", "stages"), ACTS_ON.items())
def test_a_number_changes_the_files_of_the_stages_that_it_acts_on(
    tmp_path: Path, override: str, stages: set[str]
) -> None:
    file = tmp_path / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", file)
    apply_overrides(file, [override])
    after = load_params(file)
    changed_stages = {
        stage
        for stage in (*WORK, PROOF)
        if settings_of(stage, PARAMS, "row_lstm", "cpu") != settings_of(stage, after, "row_lstm", "cpu")
    }
    assert changed_stages == stages


def test_a_profile_in_which_the_numbers_are_wrong_has_no_file_and_harms_no_other(copy: Path) -> None:
    write_fingerprints(PARAMS, ["vae"], copy)
    wrong = PARAMS.changed("vae", "gpu", {"training": {"learning_rate": "fast"}})
    write_fingerprints(wrong, ["vae"], copy)
    folder = copy / "fingerprints" / "vae"
    assert not [*(folder / "gpu").iterdir()] and len([*(folder / "cpu").iterdir()]) == len(WORK) + 2
