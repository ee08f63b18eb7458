"""The package's description: one version, every dependency locked, every extra file and every name there."""

from __future__ import annotations

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import yaml

import dgm

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_but_torch_is_locked_at_the_version_that_is_asked_for() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pins = {normalised(name): version for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", lock, re.MULTILINE)}
    project = PROJECT["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    names = [normalised(re.split(r"[=<>]", item)[0]) for item in wanted]
    assert len(set(names)) == len(names)
    for name, item in zip(names, wanted, strict=True):
        if name != "torch":
            assert name in pins, f"{item}: run `make lock`"
            assert "==" not in item or item.endswith(f"=={pins[name]}"), f"{item}: run `make lock`"


def test_every_import_of_the_package_is_a_direct_dependency() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "dgm").rglob("*.py")]
    found = {name for text in sources for name in re.findall(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE)}
    as_package = {"PIL": "pillow", "yaml": "pyyaml", "pydantic_core": "pydantic"}
    extras = PROJECT["project"]["optional-dependencies"]
    allowed = [*PROJECT["project"]["dependencies"], *extras["pipeline"], *extras["reports"]]
    names = {normalised(re.split(r"[=<>]", item)[0]) for item in allowed}
    installed = {name for name in found if (spec := find_spec(name)) and "site-packages" in (spec.origin or "")}
    assert {normalised(as_package.get(name) or name) for name in installed} - {"dgm"} <= names


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == dgm.__version__ and citation["license"] == PROJECT["project"]["license"]


def test_the_files_and_the_command_that_the_package_promises_are_there() -> None:
    promised: set[Path] = set()
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items():
        for pattern in patterns:
            found = set((ROOT / package.replace(".", "/")).glob(pattern))
            assert found, f"{package}: {pattern}"
            promised |= found
    others = {path for path in (ROOT / "dgm").rglob("*") if path.is_file()} - promised
    assert {path.suffix for path in others} <= {".py", ".pyc"}
    assert PROJECT["project"]["scripts"]["dgm"] == "dgm.cli:run" and find_spec("dgm.cli")
