"""The registry, params.yaml, dvc.yaml, the published table, the documents and the code name the same things."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from dvc.schema import COMPILED_LOCKFILE_SCHEMA

from dgm.cli import make_parser as make_dgm_parser
from dgm.config.documents import NEEDED_STAGES
from dgm.config.params import PROFILES, load_params
from dgm.fingerprints import STAGES, WORK_OF_ONE
from dgm.model_api.contracts import AutoregressiveModel, Fitted
from dgm.registry import MODELS, model_class
from dgm.runs.files import BUDGETS, ROW_BUDGET, BudgetFiles
from stages.cli import make_parser
from stages.readme_tables import cost, with_tables

ROOT = Path(__file__).parent.parent
DEFAULTS = "training_defaults.${item.profile}"
DESCRIBED = ("experiments", "gpu", "library", "proofs", "prove")
STAGES_OF_A_MODEL = ("train", "evaluate", "sample", "compress")


def pipeline() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def documented_commands(*documents: str) -> list[str]:
    """Every command line of the documents, the parts of a pipe one by one."""
    text = "".join((ROOT / document).read_text(encoding="utf-8") for document in documents)
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.split("  #")[0] for block in blocks for line in block.splitlines() if line.strip()]
    return [command.strip() for line in lines for command in re.split(r"[|;]|&&", line)]


def test_a_model_has_one_name_everywhere() -> None:
    folder = ROOT / "dgm" / "models"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    rooms = {path.parent.name for path in folder.glob("*/model.py")}
    assert not files & rooms
    assert files | rooms == set(MODELS)
    assert set(load_params().models) == set(MODELS)
    for name, target in MODELS.items():
        assert target.startswith((f"dgm.models.{name}:", f"dgm.models.{name}.model:"))


def test_the_suite_is_every_model() -> None:
    assert set(load_params().suite) == set(MODELS)


def test_every_stage_of_the_pipeline_is_a_module_that_parses_its_command() -> None:
    for name, stage in pipeline().items():
        command = stage["cmd"].replace("${item.model}", "uniform").replace("${item.profile}", "cpu")
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", f"stages.{name}"]
        assert (ROOT / "stages" / f"{name}.py").exists()
        if "--model" in words:
            make_parser("", can_pause=False).parse_args(words[3:])
    assert set(STAGES) <= set(pipeline())


def test_training_tracks_its_code_and_the_three_places_of_a_number() -> None:
    stage = pipeline()["train"]
    assert "fingerprints/${item.model}/${item.profile}/train.json" in stage["deps"]
    blocks = ("models.${item.model}.all", "models.${item.model}.${item.profile}")
    own = {f"{block}.{section}" for block in blocks for section in ("model", "training")}
    assert set(stage["params"]) == own | {"training_defaults.${item.profile}", "common.${item.profile}.run"}


def test_the_stages_after_training_find_code_and_numbers_in_one_small_file() -> None:
    """No `params`: each costs a reading of the whole params.yaml, of which a no-op `dvc repro` would consist."""
    for name in STAGES:
        stage = pipeline()[name]
        assert stage["matrix"] == {"profile": ["${profile}"], "model": "${suite}"}
        if name != "train":
            assert f"fingerprints/${{item.model}}/${{item.profile}}/{name}.json" in stage["deps"]
            assert "params" not in stage
    code = "fingerprints/${item.model}/${item.profile}/train.json"
    assert code in pipeline()["evaluate"]["deps"]  # current_key is made of it


def test_the_proof_beside_the_pipeline_is_of_every_exact_model_and_of_what_compression_depends_on() -> None:
    """Nothing in dvc.yaml may ask for it: DVC would then run hours of it on every `dvc repro`."""
    stage = yaml.safe_load((ROOT / "proof" / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["proof"]
    exact = [name for name in MODELS if issubclass(model_class(name), AutoregressiveModel)]
    assert sorted(stage["matrix"]["model"]) == sorted(exact)
    compress = pipeline()["compress"]
    assert stage["deps"] == [name.replace("/compress.json", "/proof.json") for name in compress["deps"]]
    assert "params" not in stage
    needed = {dependency for other in pipeline().values() for dependency in other["deps"]}
    assert not needed & set(stage["outs"])
    for profile in PROFILES:  # the report depends on the folder, which DVC wants to be there
        assert (ROOT / "reports" / profile / "proof" / ".gitkeep").exists()


def test_the_budgets_beside_the_pipeline_are_of_every_model_that_is_trained_and_train_as_it_does() -> None:
    """Nothing in dvc.yaml may ask for them either."""
    document = yaml.safe_load((ROOT / "scaling" / "dvc.yaml").read_text(encoding="utf-8"))
    (trained,) = (part["trained"] for part in document["vars"] if isinstance(part, dict))
    assert sorted(trained) == sorted(name for name in MODELS if not issubclass(model_class(name), Fitted))
    train, score, row = (document["stages"][name] for name in ("train", "score", "row"))
    for stage in (train, score, row):
        budgets = stage["matrix"].pop("budget", [ROW_BUDGET])
        assert stage["matrix"] == {"profile": ["${profile}"], "model": "${trained}"} and stage["wdir"] == ".."
        assert set(budgets) == ({ROW_BUDGET} if stage is row else set(BUDGETS) - {ROW_BUDGET})
    same = pipeline()["train"]
    assert (train["deps"], train["params"]) == (same["deps"], same["params"])
    assert train["cmd"] == f"{same['cmd']} --budget ${{item.budget}}"
    files = BudgetFiles("${item.profile}", "${item.model}", Path(), "${item.budget}")
    assert train["outs"] == [str(files.folder)] and str(files.weights).startswith(train["outs"][0])
    for stage, weights in ((score, train["outs"][0]), (row, same["outs"][0])):
        code = ["stages/scaling.py", "stages/budget.py"]
        assert stage["deps"] == [*pipeline()["evaluate"]["deps"][:-1], *code, weights]
        assert "outs" not in stage
    assert not set(train["outs"]) & {dependency for other in pipeline().values() for dependency in other["deps"]}
    for profile in PROFILES:
        assert (ROOT / "reports" / profile / "scaling" / ".gitkeep").exists()


def test_a_stage_of_one_model_tracks_its_fingerprint() -> None:
    for model, names in WORK_OF_ONE.items():
        for name in names:
            assert f"fingerprints/{model}/{name}.json" in pipeline()[name]["deps"]


def test_documented_commands_are_commands() -> None:
    from dvc.cli.parser import get_main_parser

    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    documents = ("README.md", "CONTRIBUTING.md", *(f"docs/{name}.md" for name in DESCRIBED))
    commands = documented_commands(*documents)
    assert {"make run", "make test"} <= set(commands)
    for command in commands:
        words = shlex.split(command)
        if words[0] == "torchrun":
            words = ["python", *words[words.index("-m") :]]
        if words[0] == "make":
            assert set(words[1:]) <= targets, command
        elif words[0] == "dvc":
            get_main_parser().parse_args(words[1:])
        elif words[:3] == ["python", "-m", "pytest"]:
            assert all((ROOT / path).exists() for path in words[3:]), command
        elif words[:2] == ["python", "-m"]:
            module = words[2]
            assert (ROOT / (module.replace(".", "/") + ".py")).exists(), command
            if "--model" in words and "<name>" not in words:
                arguments = make_parser("", can_pause="--stop-after-seconds" in words).parse_args(words[3:])
                assert arguments.model in MODELS, command
        elif words[0] == "bash":
            assert (ROOT / words[1]).exists(), command
        elif words[0] == "dgm":
            make_dgm_parser().parse_args(words[1:])
        else:
            assert words[0] in (".", "git", "mlflow", "pip", "ruff", "pyright", "lint-imports"), command


def test_the_readme_shows_the_tables_of_the_report() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_tables(text, ROOT / "reports" / "cpu") == text, "run `python -m stages.readme_tables`"
    assert text.count("| PixelCNN ") == 2


def test_the_readme_says_what_the_models_cost(tmp_path: Path) -> None:
    table = tmp_path / "compute.csv"
    table.write_text("name,train_seconds,peak_memory_bytes\nA,60,1073741824\nB,300.5,2147483648\nC,,0\n")
    assert cost(table).startswith(
        "**What they cost:** 6 minutes of one CPU core to train all 2 models, at most 5 for one (B), and up to 2.0 GiB"
    )


def test_what_the_documents_link_to_is_there() -> None:
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for document in documents:
        text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not target.startswith(("http", "#")):
                assert (document.parent / target.partition("#")[0]).exists(), f"{document.name}: {target}"


def test_every_document_is_reached_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= set(re.findall(r"docs/(\w+\.md)\)", text))


def test_profiles_are_the_ones_that_params_offer() -> None:
    assert set(load_params().common) == set(PROFILES)


def test_dvc_can_read_what_is_committed() -> None:
    """Half a dvc.lock, as a kill inside a write leaves it, stops the first command of a clone."""
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))
    COMPILED_LOCKFILE_SCHEMA(lock)
    measured = {path.stem for path in (ROOT / "reports" / "cpu" / "metrics").glob("*.json")}
    assert measured
    assert {f"{stage}@cpu-{name}" for stage in STAGES_OF_A_MODEL for name in measured} <= set(lock["stages"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "schema: '2.0'\nstages:\n  download:\n    nf",
            "error: dvc.lock: stage download has no cmd: .*git checkout dvc.lock",
        ),
        (
            "schema: '2.0'\nstages:\n  download: {cmd: x, deps: 3}\n",
            "error: dvc.lock: deps of stage download is cut; .*git checkout dvc.lock",
        ),
        ("schema: '2.0'\nstages:\n  download: {cmd: x, extra: 3}\n", "If dvc.lock is invalid .*git checkout dvc.lock"),
        ("", ""),
    ],
)
def test_make_run_says_what_to_do_about_half_a_lock_file(tmp_path: Path, text: str, said: str) -> None:
    """Of a project whose stages fail: of another failure it says nothing."""
    Repo.init(str(tmp_path), no_scm=True)
    for name in ("Makefile", "params.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "requirements.lock").touch()
    stages = {name: {"cmd": "exit 3"} for name in NEEDED_STAGES["dvc.yaml"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    if text:
        (tmp_path / "dvc.lock").write_text(text, encoding="utf-8")
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    command = ["make", "--old-file", ".venv/.ok", "run"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode and bool(re.search("git checkout", done.stderr)) == bool(said), done.stderr
    assert re.search(said, done.stderr), done.stderr


def test_make_installs_into_the_projects_environment_whatever_other_one_is_active() -> None:
    command = ["make", "--eval=show: ; @echo $$VIRTUAL_ENV", "show"]
    of_outer_make = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}  # `make test` runs this: its flags would print folders' names
    variables = {key: value for key, value in os.environ.items() if key not in of_outer_make}
    variables["VIRTUAL_ENV"] = "/elsewhere"
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(ROOT / ".venv")]
