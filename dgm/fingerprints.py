"""Which code and numbers produced a result: the keys that mark it as current, and what each DVC stage depends on.

A stage depends on the digest of the code that its work on one model reaches (dgm/runs/reached_code.py), not on files
or folders: moved code, comments, docstrings, printing, tracking and other models rerun nothing. Training tracks its
numbers in params.yaml itself; the stages after it find theirs beside the digest, for DVC reads all of params.yaml
once for each stage that tracks a number there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dgm.config.params import Params
from dgm.config.parse import ConfigError
from dgm.model_api.contracts import Fitted, LatentVariableModel
from dgm.registry import MODELS, SCORED, model_class
from dgm.runs.atomic import key_of, write_text
from dgm.runs.files import RunFiles
from dgm.runs.reached_code import CodeGraph
from dgm.settings import acting_values

CODE = Path(__file__).resolve().parent.parent  # the code that runs here: in a DVC experiment, its copy
PACKAGES = ("dgm", "stages")
PASSIVE = (  # modules that only pass values on; fingerprints depend on what the values are
    "dgm.coding.coders",
    "dgm.config",
    "dgm.errors",
    "dgm.fingerprints",
    "dgm.registry",
    "dgm.reporting",
    "dgm.runs",
    "dgm.settings",
    "dgm.tracking",
    "stages.cli",
)
FITTED = "stages.train:learn_by_fit"
TRAINED = "stages.train:learn_by_gradient"
SLICED = "stages.train:learn_in_slices"
GRAPHED = "stages.train:learn_by_graph"


@dataclass(frozen=True)
class Loop:
    """A way to train that is not the plain loop: the key of `training` that chooses it, and where its code begins."""

    key: str
    entry: str


LOOPS = {"slices": Loop("num_slices", SLICED), "graph": Loop("cuda_graph", GRAPHED)}
WORK = {  # what a stage does with a model, besides the model itself
    "evaluate": "stages.evaluate:score",
    "sample": "stages.sample:draw",
    "compress": "dgm.coding.proof:prove",
    "prove": "dgm.conformance.real_size:examine",
}
BOUND_CODED = "dgm.coding.bound_proof:prove_bound"  # what compress does with a latent-variable model
FURTHER_WORK = {"compress": ("dgm.decoder:decoded_images",)}  # in a process of its own, which also decodes
STAGES = ("train", *WORK)
SCALING = "stages.scaling:measure"
PROOF = "proof"  # beside the pipeline: the code of compress, on every image
COMMON = {"evaluate": "evaluation", "sample": "sampling", "prove": "conformance"}  # a stage's part of common.<profile>
WORK_OF_ONE = {"ppca": {"ppca_ladder": "stages.ppca_ladder:make_rungs"}}  # stages that only this model has
COUNTING = ("num_acting_parameters", "idle_weights")  # for the report only
STEPS = ("latent_steps",)  # for the coder only
UNUSED = {  # methods of models that a stage never calls: an edit of a sampler trains nothing anew
    "train": ("sample", "sample_density", "conditionals", "importance_weighted", "num_parameters", *COUNTING, *STEPS),
    "evaluate": ("sample", "sample_density", "conditionals", "objective", *COUNTING, *STEPS),
    "sample": (*COUNTING, *STEPS),
    "compress": ("sample", "sample_density", "objective", "prepare", *COUNTING),
    "prove": ("sample", "sample_density", "conditionals", "objective", "prepare", *COUNTING, *STEPS),
    "ppca_ladder": COUNTING,
}
EVERYWHERE = ("stages.device:prepare_device",)


def fingerprint(stage: str, model: str, root: Path = CODE) -> str:
    """Digest of all code that can change what `stage` makes of `model`, in the code at `root`."""
    return code_graph(root.resolve(), UNUSED[stage]).digest(entries(stage, model))


def coder_code(model: str, root: Path = CODE) -> str:
    """Digest of the code that reads what `model` compressed."""
    return code_graph(root.resolve(), UNUSED["compress"]).digest([decoder_of(model), MODELS[model]])


def decoder_of(model: str) -> str:
    """What reads the files of `model`; dgm.coding.coders, which chooses it, is passive."""
    is_bound = issubclass(model_class(model), LatentVariableModel)
    return "dgm.coding.bits_back:decompress_by_bits_back" if is_bound else "dgm.coding.codec:decompress"


def entries(stage: str, model: str) -> list[str]:
    """Where the work of a stage on a model begins, as "package.module:name"."""
    if stage == "train":
        work = FITTED if issubclass(model_class(model), Fitted) else TRAINED
    elif stage == "compress" and issubclass(model_class(model), LatentVariableModel):
        work = BOUND_CODED
    else:
        work = {**WORK, **WORK_OF_ONE.get(model, {})}[stage]
    scored = SCORED if stage in ("evaluate", "prove") else {}
    further = (*FURTHER_WORK[stage], decoder_of(model)) if stage in FURTHER_WORK else ()
    return [work, *further, scored.get(model, MODELS[model]), *EVERYWHERE]


@lru_cache(maxsize=8)
def code_graph(root: Path, unused: tuple[str, ...] = ()) -> CodeGraph:
    """The code under `root` without the methods that are not used, read once per process."""
    return CodeGraph(root, PACKAGES, PASSIVE, unused)


def write_fingerprints(params: Params, models: Iterable[str], root: Path = CODE) -> None:
    """fingerprints/<model>/<profile>/<stage>.json of the code and, after training, of the numbers that act.

    train.json has the code alone, with that of the loop where it is one of LOOPS: DVC tracks the numbers of training
    itself. A profile in which the model's numbers are wrong has none of them: `validate` refuses it before it is used.
    """
    for model in models:
        for stage in WORK_OF_ONE.get(model, {}):
            path = RunFiles("", model, root).fingerprints / f"{stage}.json"
            _write(path, json.dumps({"code": fingerprint(stage, model, root)}))
        for profile in params.common:
            folder = RunFiles(profile, model, root).fingerprints
            try:
                training = acting_values(params, model, profile)["training"]
                settings = {stage: settings_of(stage, params, model, profile) for stage in (*WORK, PROOF)}
            except ConfigError:
                for stage in (*STAGES, PROOF):
                    (folder / f"{stage}.json").unlink(missing_ok=True)
                continue
            loops = {name: loop_code(name, root) for name, loop in LOOPS.items() if loop.key in training}
            _write(folder / "train.json", json.dumps({"code": fingerprint("train", model, root), **loops}))
            for stage, numbers in settings.items():
                code = fingerprint("compress" if stage == PROOF else stage, model, root)
                _write(folder / f"{stage}.json", json.dumps({"code": code, "settings": numbers}, indent=1))


def settings_of(stage: str, params: Params, model: str, profile: str) -> dict[str, Any]:
    """Section -> key -> value: the numbers that act on what `stage`, one after training, makes of `model`.

    Those of training are with evaluation, whose metrics carry the key of both.
    Raises: ConfigError if a section of the model is wrong or the profile has no common block.
    """
    acting, common = acting_values(params, model, profile), params.common_config(profile).model_dump()
    sections = {"evaluate": ("model", "training", "evaluation"), "compress": ("model", "compression")}
    settings = {name: acting[name] for name in sections.get(stage, ("model",)) if name in acting}
    names = ("run", COMMON[stage]) if stage in COMMON else ("run",)
    return {**settings, "common": {name: common[name] for name in names}}


def _write(path: Path, text: str) -> None:
    """Leaves a file that says the same alone."""
    if not path.exists() or path.read_text(encoding="utf-8") != f"{text}\n":
        write_text(path, f"{text}\n")


def loop_code(loop: str, root: Path) -> str:
    """Digest of what training by one of LOOPS reaches, besides the model."""
    return code_graph(root.resolve(), UNUSED["train"]).digest([LOOPS[loop].entry])


def scaling_key(params: Params, model: str, profile: str, num_images: int, root: Path = CODE) -> str:
    """Changes with anything that changes the figure of one budget on so many validation images.

    params: of that budget. Raises: ConfigError if a section of the model is wrong.
    """
    return key_of(
        training_key(params, model, profile, root),
        acting_values(params, model, profile)["evaluation"],
        fingerprint("evaluate", model, root),
        code_graph(root.resolve(), UNUSED["evaluate"]).digest([SCALING]),
        str(num_images),
    )


def training_key(params: Params, model: str, profile: str, root: Path = CODE) -> str:
    """Changes with anything that changes the trained weights: code, the model's numbers, the shared run's numbers.

    Raises: ConfigError if a section of the model is wrong.
    """
    acting = acting_values(params, model, profile)
    run = params.common_config(profile).run.model_dump()
    code = [fingerprint("train", model, root)]
    code += [loop_code(name, root) for name, loop in LOOPS.items() if loop.key in acting["training"]]
    return key_of(acting["model"], acting["training"], run, *code)


def current_key(params: Params, model: str, profile: str, root: Path = CODE) -> str:
    """Changes with anything that changes the metrics: the report marks results of another key as stale.

    Raises: ConfigError if a section of the model is wrong.
    """
    return key_of(
        training_key(params, model, profile, root),
        acting_values(params, model, profile)["evaluation"],
        params.common_config(profile).evaluation.model_dump(),
        fingerprint("evaluate", model, root),
    )
