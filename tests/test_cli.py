"""The dgm command: every sub-command works from any folder, and what goes wrong ends in one line and the right code."""

from __future__ import annotations

import csv
import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dgm.cli
import dgm.saved_run
from dgm.cli import main
from dgm.registry import MODELS
from dgm.reporting.written import ResultLine
from dgm.runs.files import RunFiles
from tests.untrained import train_for_no_time

ROOT = Path(__file__).parent.parent
RUN = ["--profile", "smoke", "--model"]
A_FILE = "pictures/b.png"
NO_FOLDER = f"cannot be written, because {A_FILE} is not a folder; name another one"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two models as they are before training: copied, never changed."""
    root = tmp_path_factory.mktemp("original")
    shutil.copy(ROOT / "params.yaml", root)
    for name in ("uniform", "ppca"):
        train_for_no_time("smoke", name, root)
    (root / "inner" / "pictures").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    for name, picture in zip(("b.png", "A.PNG", "c d.png"), pixels, strict=True):
        Image.fromarray(picture).save(root / "inner" / "pictures" / name)
    return root


@pytest.fixture
def project(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project; the working folder is one inside it."""
    root = tmp_path / "project"
    shutil.copytree(original, root)
    monkeypatch.chdir(root / "inner")
    return root


def test_every_model_is_listed_within_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= dgm.cli.WIDTH
    by_model = {line.split()[0]: line.split() for line in lines[2:]}
    assert set(by_model) == set(MODELS)
    assert by_model["pixelcnn_pp"][-2:] == ["exact", "yes"]
    assert by_model["ride"][-2:] == ["dequantized", "no"]
    assert by_model["deep_diffusion"][-2:] == ["elbo", "no"]
    assert by_model["vae"][-2:] == ["importance-weighted", "yes"]


def test_a_folder_is_scored_and_the_table_of_all_images_is_written(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", *RUN, "uniform", "pictures", "--csv", "out.csv"]) == 0
    out = capsys.readouterr().out
    assert "mean of 3 images: 8.0000 ± 0.0000 bits per sub-pixel (exact)" in out
    with Path("out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["A.PNG", "b.png", "c d.png"]
    assert [float(row["bits_per_subpixel"]) for row in rows] == pytest.approx([8.0] * 3)


def test_a_bound_is_marked_and_one_image_has_no_error(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["score", *RUN, "ppca", "pictures/b.png"]) == 0
    out, err = capfd.readouterr()
    assert "mean of 1 image: ≤ " in out and "±" not in out and "(dequantized)" in out
    assert "Warning" not in err


def test_a_long_list_is_cut_and_says_so(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("many.npy", np.zeros((25, 3, 32, 32), np.uint8))
    assert main(["score", *RUN, "uniform", "many.npy"]) == 0
    out = capsys.readouterr().out
    assert "... and 5 more; --csv FILE writes all" in out and "mean of 25 images" in out


def test_compress_and_decompress_lose_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pictures/.DS_Store").write_bytes(b"\0\0\0\1Bud1")
    assert main(["compress", *RUN, "uniform", "pictures", "p.dgm"]) == 0
    captured = capsys.readouterr()
    assert f"p.dgm: {Path('p.dgm').stat().st_size:,} bytes, 8.0" in captured.out
    assert "pictures: skipped .DS_Store (not a PNG image)" in captured.err
    assert main(["decompress", *RUN, "uniform", "p.dgm", "again"]) == 0
    for name in ("b.png", "A.PNG", "c d.png"):
        assert Image.open(Path("again") / name).tobytes() == Image.open(Path("pictures") / name).tobytes()
    assert not Path("again/.DS_Store").exists()
    assert main(["decompress", *RUN, "uniform", "p.dgm", "again"]) == 1
    capsys.readouterr()
    assert main(["decompress", *RUN, "uniform", "p.dgm", f"{A_FILE}/again"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert NO_FOLDER in line


def test_samples_go_to_a_grid_an_array_or_a_folder(project: Path) -> None:
    for output in ("grid.png", "samples.npy", "folder", "other"):
        assert main(["sample", *RUN, "ppca", "--num", "11", "--output", output]) == 0
    samples = np.load("samples.npy")
    assert samples.shape == (11, 3, 32, 32) and samples.dtype == np.uint8
    assert sorted(path.name for path in Path("folder").iterdir())[:2] == ["sample_00.png", "sample_01.png"]
    assert np.array_equal(np.asarray(Image.open("folder/sample_10.png")), samples[10].transpose(1, 2, 0))
    assert Image.open("grid.png").width > 8 * 32
    assert main(["sample", *RUN, "ppca", "--num", "11", "--seed", "1", "--output", "samples.npy"]) == 0
    assert not np.array_equal(np.load("samples.npy"), samples)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", *RUN, "unifrom", "pictures"], "did you mean uniform"),
        (["score", *RUN, "made", "pictures"], "no trained weights; run `python -m stages.train"),
        (["score", *RUN, "uniform", "absent"], "absent: cannot be read (No such file or directory)"),
        (["score", *RUN, "uniform", "pictures", "--csv", "pictures"], "pictures: is a folder; name a file"),
        (["score", *RUN, "uniform", "pictures", "--csv", f"{A_FILE}/x.csv"], NO_FOLDER),
        (["compress", *RUN, "uniform", "pictures", f"{A_FILE}/x.dgm"], NO_FOLDER),
        (["sample", *RUN, "uniform", "--output", f"{A_FILE}/x.npy"], NO_FOLDER),
        (["sample", *RUN, "uniform", "--output", f"{A_FILE}/new/folder"], NO_FOLDER),
        (["sample", *RUN, "uniform", "--output", f"{'x' * 250}.npy"], "cannot be written (File name too long)"),
        (["compress", *RUN, "ppca", "pictures", "p.dgm"], "ppca cannot compress"),
        (["compress", *RUN, "uniform", "pictures", "pictures/b.png"], "exists and is not a compressed image file"),
        (["decompress", *RUN, "uniform", "pictures/b.png", "new"], "not a compressed image file"),
        (["decompress", *RUN, "uniform", "absent", "new"], "absent: cannot be read"),
        (["sample", *RUN, "uniform", "--output", "x.gif"], "must end with .png or .npy"),
        (["sample", *RUN, "uniform", "--output", "pictures"], "not an empty folder"),
        (["sample", *RUN, "uniform", "--output", "x.npy", "--temperature", "nan"], "temperature: must be a finite"),
        (["sample", *RUN, "uniform", "--output", "x.npy", "--num", "0"], "number of images: must be"),
        (["sample", *RUN, "uniform", "--output", "x.npy", "--seed", "-1"], "seed: must be"),
        (["results", "--root", "pictures"], "params.yaml: cannot be read"),
        (["results", "--profile", "gpu"], "results.csv: no results yet; run `dvc repro`"),
    ],
)
def test_what_goes_wrong_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    before = sorted(project.rglob("*"))
    assert main(arguments) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()  # and no progress bar: nothing was computed in vain
    assert line.startswith("error: ") and message in line
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments", [[], ["scroe"], ["score", "x"], ["score", "--profile", "big", "--model", "uniform", "x"]]
)
def test_wrong_usage_is_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2 and "usage: dgm" in capsys.readouterr().err


def test_outside_a_project_the_remedy_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["results"]) == 1
    assert "no params.yaml here or in a folder above" in capsys.readouterr().err
    assert main(["results", "--root", str(ROOT), "--profile", "cpu"]) == 0


def test_the_committed_results_fit_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results", "--profile", "cpu", "--root", str(ROOT)]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= dgm.cli.WIDTH and "PixelCNN++" in out


RESULTS = ",".join(field.name for field in dataclasses.fields(ResultLine)) + "\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "has no columns model, name"),
        ("name,kind\nx,y\n", "has no columns model, name"),
        (RESULTS, "has no rows"),
        (f"{RESULTS}a,A,exact,exact,x,,,,,,,\n", "line 2: test_bits_per_subpixel"),
        (f"{RESULTS}a,A,exact,exact,nan,,,,,,,\n", "line 2: test_bits_per_subpixel"),
        (f"{RESULTS}a,A,exact,exact,-3.0,,,,,,,\n", "line 2: test_bits_per_subpixel"),
        (f"{RESULTS}a,A,exact,exact,1e300,,,,,,,\n", "line 2: test_bits_per_subpixel"),
        (f"{RESULTS}a,A,exact,other,3.0,,,,,,,\n", "line 2: kind"),
        (f"{RESULTS}a,A,exact,exact,3.0,,,,,,\n", "line 2 has 11 fields, expected 12"),
        (f"{RESULTS}a,A,exact,exact,3.0,0.1,,,True,,,", "line 2 is cut off"),
        (RESULTS + "a,A,exact,exact,3.0,,,,,,,\n" * 2, "line 3 is the second of 'a'"),
    ],
)
def test_damaged_results_are_named(
    project: Path, capsys: pytest.CaptureFixture[str], content: str, reason: str
) -> None:
    path = RunFiles("smoke", "", project).report / "results.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    assert main(["results", "--profile", "smoke"]) == 1
    assert f"results.csv: {reason}" in capsys.readouterr().err


def test_importing_the_package_is_cheap_and_the_module_is_the_command() -> None:
    code = "import sys, dgm.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert dgm.load_run is dgm.saved_run.load_run
    result = subprocess.run([sys.executable, "-m", "dgm", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stdout) == (0, f"dgm {dgm.__version__}\n")
