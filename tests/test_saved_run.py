"""The library: the README's example runs as it stands, files survive, and what is not theirs is refused."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dgm.config.params import load_params
from dgm.config.parse import ConfigError
from dgm.errors import StageError
from dgm.runs.files import RunFiles
from dgm.runs.weights import save_weights
from dgm.saved_run import load_run
from dgm.settings import build_model
from dgm.types import CIFAR10

ROOT = Path(__file__).parent.parent
NAMES = ["Übung.png", "a.png", "b c.png"]


def train_for_no_time(model: str, seed: int = 0) -> None:
    """Weights as they are before training, under the name of a cpu run of the working directory."""
    torch.manual_seed(seed)
    save_weights(RunFiles("cpu", model).weights, build_model(load_params(), model, "cpu", CIFAR10).state_dict())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose cpu profile is as small as the smoke profile, and a folder of pictures, as the working folder."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for blocks in values["models"].values():
        blocks["cpu"] = copy.deepcopy(blocks["smoke"])  # the same object would be written as an anchor
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    (tmp_path / "pictures").mkdir()
    pixels = np.random.default_rng(0).integers(100, 140, (len(NAMES), 32, 32, 3)).astype(np.uint8)
    for name, picture in zip(NAMES, pixels, strict=True):
        Image.fromarray(picture).save(tmp_path / "pictures" / name)
    monkeypatch.chdir(tmp_path)
    train_for_no_time("pixelcnn_pp")
    train_for_no_time("histogram_left")
    return tmp_path


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: Image.open(path).tobytes() for path in Path(folder).iterdir()}


def test_the_example_of_the_readme_runs_and_loses_nothing(project: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    values: dict[str, torch.Tensor] = {}
    exec(example, values)
    assert values["images"].dtype == torch.uint8 and values["images"].shape == (4, 3, 32, 32)
    torch.testing.assert_close(values["bits"], -values["nats"] / (3072 * torch.tensor(2.0).double().log()))
    assert bool((values["bits"] > 0).all())
    assert contents("pictures_again") == contents("pictures") and sorted(contents("pictures")) == sorted(NAMES)


def test_the_size_that_is_returned_is_that_of_the_file(project: Path) -> None:
    bits = load_run("cpu", "histogram_left").compress("pictures", "pictures.dgm")
    assert bits == pytest.approx(8 * Path("pictures.dgm").stat().st_size / (3 * 3072))


def picture_of(mode: str, size: tuple[int, int]) -> Image.Image:
    return Image.new(mode, size)


@pytest.mark.parametrize(
    ("name", "picture", "keywords"),
    [
        ("large.png", picture_of("RGB", (33, 32)), {"format": "PNG"}),
        ("grey.png", picture_of("L", (32, 32)), {"format": "PNG"}),
        ("alpha.png", picture_of("RGBA", (32, 32)), {"format": "PNG"}),
        ("keyed.png", picture_of("RGB", (32, 32)), {"format": "PNG", "transparency": (0, 0, 0)}),
        ("photo.png", picture_of("RGB", (32, 32)), {"format": "JPEG"}),
        ("photo.jpg", picture_of("RGB", (32, 32)), {"format": "JPEG"}),
    ],
)
def test_a_picture_that_does_not_fit_is_named(project: Path, name: str, picture: Image.Image, keywords: dict) -> None:
    picture.save(project / "pictures" / name, **keywords)
    with pytest.raises(StageError, match=rf"pictures/{name}: not an 8-bit RGB PNG of 32x32 pixels"):
        load_run("cpu", "histogram_left").compress("pictures", "pictures.dgm")
    assert not Path("pictures.dgm").exists()


def test_a_damaged_picture_a_folder_and_nothing_are_named(project: Path) -> None:
    run = load_run("cpu", "histogram_left")
    data = (project / "pictures" / "a.png").read_bytes()
    (project / "pictures" / "a.png").write_bytes(data[:-200])
    with pytest.raises(StageError, match=r"pictures/a\.png: not an 8-bit RGB PNG"):
        run.compress("pictures", "pictures.dgm")
    (project / "pictures" / "a.png").unlink()
    (project / "pictures" / "inner").mkdir()
    with pytest.raises(StageError, match=r"pictures/inner: not an 8-bit RGB PNG"):
        run.compress("pictures", "pictures.dgm")
    with pytest.raises(StageError, match="inner: empty"):
        run.compress("pictures/inner", "pictures.dgm")
    with pytest.raises(StageError, match="absent: no folder"):
        run.compress("absent", "pictures.dgm")


def test_other_weights_another_model_and_a_damaged_file_are_refused(project: Path) -> None:
    load_run("cpu", "histogram_left").compress("pictures", "pictures.dgm")
    train_for_no_time("histogram_per_channel")
    with pytest.raises(StageError, match=r"pictures\.dgm: written with another model"):
        load_run("cpu", "histogram_per_channel").decompress("pictures.dgm", "again")
    data = bytearray(Path("pictures.dgm").read_bytes())
    for position in (0, 40, len(data) // 2):
        Path("pictures.dgm").write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(StageError, match=r"pictures\.dgm: (truncated or altered|not a compressed)"):
            load_run("cpu", "histogram_left").decompress("pictures.dgm", "again")
    Path("pictures.dgm").write_bytes(data)
    state = load_run("cpu", "histogram_left").model.state_dict()
    save_weights(
        RunFiles("cpu", "histogram_left").weights,
        {name: tensor + 1e-3 if tensor.is_floating_point() else tensor for name, tensor in state.items()},
    )
    with pytest.raises(StageError, match="other weights"):
        load_run("cpu", "histogram_left").decompress("pictures.dgm", "again")
    assert not Path("again").exists()


def test_files_are_never_overwritten(project: Path) -> None:
    run = load_run("cpu", "histogram_left")
    run.compress("pictures", "pictures.dgm")
    with pytest.raises(StageError, match="pictures: exists and is not an empty folder"):
        run.decompress("pictures.dgm", "pictures")


def test_a_run_that_is_not_there_and_a_model_that_cannot_compress(project: Path) -> None:
    with pytest.raises(StageError, match=r"made/weights/weights\.safetensors: no trained weights; run `python"):
        load_run("cpu", "made")
    with pytest.raises(ConfigError, match="did you mean made"):
        load_run("cpu", "maed")
    train_for_no_time("ppca")
    with pytest.raises(StageError, match="ppca cannot compress"):
        load_run("cpu", "ppca").compress("pictures", "pictures.dgm")
