"""The scripts for a GPU machine: what they install is found by every process, also one that inherits no PYTHONPATH."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests.stages.killed_suites import wait_until

ROOT = Path(__file__).parents[2]
WHEEL = {
    "carried.py": "here = True\n",
    "carried-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n",
    "carried-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "carried-1.0.dist-info/RECORD": "carried.py,,\ncarried-1.0.dist-info/RECORD,,\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with the scripts and one wheel to install."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    wheels = tmp_path / ".work" / "wheels"
    wheels.mkdir(parents=True)
    with zipfile.ZipFile(wheels / "carried-1.0-py3-none-any.whl", "w") as archive:
        for name, text in WHEEL.items():
            archive.writestr(name, text)
    return tmp_path


@pytest.mark.parametrize("is_in_venv", [False, True])
def test_the_wheels_are_found_without_pythonpath(tree: Path, is_in_venv: bool) -> None:
    python = Path(sys.base_exec_prefix) / "bin" / "python3"  # that of no virtual environment
    folder = python.parent
    if is_in_venv:
        subprocess.run([python, "-m", "venv", "--without-pip", "--system-site-packages", tree / "own"], check=True)
        folder = tree / "own" / "bin"
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(tree)}
    subprocess.run(["bash", "scripts/gpu/1_install.sh"], cwd=tree, env=environment, capture_output=True)  # no torch
    assert (tree / ".work" / "env").exists() != is_in_venv
    asked = 'source scripts/gpu/environment.sh; exec env -i PATH="$PATH" python3 -c "import carried"'
    subprocess.run(["bash", "-c", asked], cwd=tree, env=environment, check=True)


PYTHON = """#!/usr/bin/env bash
echo "$PWD $*" >>"$CALLS"
for word in "$@"; do
    case "$word" in */parts) mkdir -p "$word"; sleep 3; touch "$word/results_01.zip" ;; esac
done
"""


def test_what_is_trained_lies_where_no_call_lays_the_tree_anew(tree: Path) -> None:
    """The next call removes what git does not ignore: on the first GPU that was reports/, under a suite that ran."""
    (tree / "params.yaml").write_text("profile: smoke\n")
    (tree / "bin").mkdir()
    (tree / "bin" / "python3").write_text(PYTHON)
    (tree / "bin" / "python3").chmod(0o755)
    calls, out = tree / "calls.txt", tree / "out"
    environment = {"PATH": f"{tree / 'bin'}:/usr/bin:/bin", "CALLS": str(calls), "OUT": str(out)}
    for command in ("2_data.sh smoke 1", "3_suite.sh smoke 2 --jobs 2", "4_more.sh smoke 5"):
        waits = {"WAIT": "1"} if command.startswith("3") else {}
        script = ["bash", *f"scripts/gpu/{command}".split()]
        began = time.monotonic()
        done = subprocess.run(script, cwd=tree, env={**environment, **waits}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        if command.startswith("3"):  # the call ends before the suite, which goes on
            assert time.monotonic() - began < 3 and not [*out.iterdir()]
            wait_until((tree / ".work/run/.work/parts/results_01.zip").exists, 10)
    run = str(tree / ".work" / "run")
    lines = calls.read_text().splitlines()
    assert [line.split()[0] for line in lines] == [run] * 5
    assert f"-m stages.suite --profile smoke --minutes 2 --out {run}/.work/parts --jobs 2" in lines[3]
    assert lines[4].endswith(f"-m stages.pack --profile smoke --first 5 --parts 4 --out {out}")
    assert (tree / ".work/run/params.yaml").exists() and not (tree / ".work/run/.work/wheels").exists()


# docs/gpu.md, "What travels": what the machine has, and what is carried there
THERE = ("torch", "numpy", "pandas", "matplotlib", "jinja2", "safetensors", "pyyaml", "tqdm", "pillow")
CARRIED = ("pydantic", "pydantic-core", "annotated-types", "typing-inspection", "typing-extensions", "constriction")
BARE = """
import sys
from importlib.machinery import PathFinder
class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        is_absent = name.partition(".")[0] in {absent!r}
        return None if is_absent else super().find_spec(name, path, target)
sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""


def needs(names: tuple[str, ...]) -> set[str]:
    """The packages and what they need in turn, by their canonical names."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        found.add(name)
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting += [re.split(r"[^\w.-]", text)[0] for text in requirements if "extra ==" not in text]
    return found


def absent_modules() -> set[str]:
    """The modules of every package here that is not among those that docs/gpu.md names."""
    there = needs(THERE + CARRIED)
    packages = importlib.metadata.packages_distributions()
    distributions = {
        name: {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} for name, owners in packages.items()
    }
    return {name for name, owners in distributions.items() if not owners & (there | {"dgm"})}


@pytest.mark.parametrize(
    ("module", "printed"),
    [
        ("stages.check", "params.yaml is sound"),
        ("stages.suite_row", ""),
        ("stages.suite", ""),
        ("stages.pack", ""),
        ("stages.download", ""),
    ],
)
def test_what_the_scripts_run_needs_no_package_that_the_machine_lacks(
    tmp_path: Path, module: str, printed: str
) -> None:
    absent = absent_modules()
    assert {"dvc", "ruamel", "mlflow", "scipy", "pytest", "submitit"} <= absent and not absent & {
        "torch",
        "yaml",
        "PIL",
    }
    (tmp_path / "sitecustomize.py").write_text(BARE.format(absent=absent))
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", module, *([] if printed else ["--help"])]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout


def test_the_tree_that_travels_is_small() -> None:
    command = ["git", "ls-files", "-z", "--", ":!weights", ":!reports"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    assert sum((ROOT / name).stat().st_size for name in names if (ROOT / name).is_file()) < 10e6
