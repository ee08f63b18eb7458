"""The library: the documented example runs as it stands, files survive, and what is not theirs is refused."""

from __future__ import annotations

import copy
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import dgm
from dgm import saved_run
from dgm.config.params import load_params
from dgm.config.parse import ConfigError
from dgm.errors import StageError
from dgm.fingerprints import training_key
from dgm.runs.files import RunFiles
from dgm.runs.weights import save_weights
from dgm.saved_run import load_run
from dgm.types import CIFAR10
from tests.untrained import sign, train_for_no_time

ROOT = Path(__file__).parent.parent
NAMES = ["Übung.png", "a.png", "b c.png"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose cpu profile is as small as the smoke profile, and a folder of pictures: copied, never changed."""
    root = tmp_path_factory.mktemp("original")
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for blocks in values["models"].values():
        blocks["cpu"] = copy.deepcopy(blocks["smoke"])  # the same object would be written as an anchor
    (root / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    (root / "pictures").mkdir()
    pixels = np.random.default_rng(0).integers(100, 140, (len(NAMES), 32, 32, 3)).astype(np.uint8)
    for name, picture in zip(NAMES, pixels, strict=True):
        Image.fromarray(picture).save(root / "pictures" / name)
    train_for_no_time("cpu", "pixelcnn_pp", root)
    train_for_no_time("cpu", "histogram_left", root)
    return root


@pytest.fixture
def project(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project as the working folder."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: Image.open(path).tobytes() for path in Path(folder).iterdir()}


def test_the_example_of_the_readme_runs_and_loses_nothing(project: Path) -> None:
    (example,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "library.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
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
        ("LARGE.PNG", picture_of("RGB", (32, 31)), {"format": "PNG"}),
        ("no_suffix", picture_of("RGBA", (32, 32)), {"format": "PNG"}),
        (".hidden", picture_of("L", (32, 32)), {"format": "PNG"}),
    ],
)
def test_a_picture_that_does_not_fit_is_named(project: Path, name: str, picture: Image.Image, keywords: dict) -> None:
    picture.save(project / "pictures" / name, **keywords)
    with pytest.raises(StageError, match=rf"pictures/{name}: not an 8-bit RGB PNG of 32x32 pixels"):
        load_run("cpu", "histogram_left").compress("pictures", "pictures.dgm")
    assert not Path("pictures.dgm").exists()


def test_a_damaged_picture_and_folders_without_pictures_are_named(project: Path) -> None:
    run = load_run("cpu", "histogram_left")
    data = (project / "pictures" / "a.png").read_bytes()
    for damaged in (data[:-200], data[:20], b"", data[:40] + bytes(50) + data[90:]):
        (project / "pictures" / "a.png").write_bytes(damaged)
        with pytest.raises(StageError, match=r"pictures/a\.png: not an 8-bit RGB PNG"):
            run.compress("pictures", "pictures.dgm")
    (project / "empty" / "inner").mkdir(parents=True)
    with pytest.raises(StageError, match=r"inner: empty; put 32x32 RGB PNG files there"):
        run.compress("empty/inner", "pictures.dgm")
    with pytest.raises(StageError, match=r"empty: only inner \(a folder\); put"):
        run.compress("empty", "pictures.dgm")
    with pytest.raises(StageError, match="absent: no folder"):
        run.compress("absent", "pictures.dgm")
    assert not Path("pictures.dgm").exists()


def test_content_decides_what_is_compressed_and_the_rest_is_listed(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project / "pictures"
    wanted = {**contents("pictures")}
    for name in ("UPPER.PNG", "noext", ".hidden.png"):
        Image.new("RGB", (32, 32), len(name)).save(folder / name, format="PNG")
        wanted[name] = Image.open(folder / name).tobytes()
    picture_of("RGB", (32, 32)).save(folder / "photo.jpg")
    for name in (".DS_Store", "Thumbs.db", "._a.png", "notes.txt"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    (folder / "sub.png").mkdir()
    (folder / "lost.png").symlink_to("absent")
    os.mkfifo(folder / "pipe.png")
    run = load_run("cpu", "histogram_left")
    run.compress("pictures", "pictures.dgm")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert line == (
        "pictures: skipped .DS_Store (not a PNG image), ._a.png (not a PNG image), Thumbs.db (not a PNG image), "
        "lost.png (a broken link), notes.txt (not a PNG image), photo.jpg (not a PNG image), "
        "pipe.png (not a regular file), sub.png (a folder)"
    )
    run.decompress("pictures.dgm", "again")
    assert contents("again") == wanted


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("A.PNG", "a.PNG"), "are one file on some systems"),
        (("\u00e9.png", "e\u0301.png"), "are one file on some systems"),
        (("stra\u00dfe.png", "STRASSE.png"), "are one file on some systems"),
        (("x.png", "x.png."), "are one file on some systems"),
        (("a\\b.png",), "is a path or holds characters"),
        (("c:d.png",), "is a path or holds characters"),
        (("line\nbreak.png",), "is a path or holds characters"),
        (("x" * 241 + ".png",), "is longer than 240 bytes"),
        (("\udcff.png",), "is not valid Unicode"),
    ],
)
def test_names_that_another_system_would_lose_are_refused(project: Path, names: tuple[str, ...], message: str) -> None:
    for name in names:
        picture_of("RGB", (32, 32)).save(project / "pictures" / name, format="PNG")
    with pytest.raises(StageError, match=f"^pictures: the file name .*{message}.*; rename it"):
        load_run("cpu", "histogram_left").compress("pictures", "pictures.dgm")
    assert not Path("pictures.dgm").exists()


def test_a_write_that_fails_leaves_no_picture_behind(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = load_run("cpu", "histogram_left")
    run.compress("pictures", "pictures.dgm")
    save, calls = Image.Image.save, list[int]()

    def full_disk(self: Image.Image, *arguments: object, **keywords: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        save(self, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        run.decompress("pictures.dgm", "again")
    assert list(Path("again").iterdir()) == []


def test_scores_are_those_of_the_tensor_whatever_form_the_images_have(project: Path) -> None:
    run = load_run("cpu", "histogram_left")
    images = run.sample(3, seed=0)
    bits = run.bits_per_subpixel(images)
    assert torch.equal(run.bits_per_subpixel(images.permute(0, 2, 3, 1).numpy()), bits)
    scores = run.score("pictures")
    assert scores.names == ["a.png", "b c.png", "\u00dcbung.png"] and (scores.method, scores.kind) == ("exact", "exact")
    assert scores.mean == pytest.approx(float(run.bits_per_subpixel("pictures").mean()))
    assert scores.standard_error == pytest.approx(float(scores.bits_per_subpixel.std()) / 3**0.5)
    assert run.score("pictures/a.png").standard_error is None
    with pytest.raises(StageError, match=r"numpy array float32 \(4, 32, 32, 3\), expected uint8 \(N, 3, 32, 32\)"):
        run.log_likelihood(np.zeros((4, 32, 32, 3), np.float32))


@pytest.mark.parametrize("temperature", [-1.0, -0.001, float("nan"), float("inf"), "1", None, True])
def test_a_temperature_that_is_none_is_refused_by_name(project: Path, temperature: object) -> None:
    with pytest.raises(StageError, match=r"^temperature: must be a finite number of at least 0, got"):
        load_run("cpu", "histogram_left").sample(1, 0, temperature)  # type: ignore[arg-type]


@pytest.mark.parametrize(("num", "seed"), [(0, 0), (-1, 0), (1.5, 0), (True, 0), (1, -1), (1, 0.5), (1, None)])
def test_a_count_or_seed_out_of_range_is_refused_by_name(project: Path, num: object, seed: object) -> None:
    with pytest.raises(StageError, match=r"^(number of images|seed): must be a whole number of at least [01], got"):
        load_run("cpu", "histogram_left").sample(num, seed)  # type: ignore[arg-type]


def test_many_samples_come_in_passes_of_one_stream(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_for_no_time("cpu", "ppca")
    run = load_run("cpu", "ppca")
    monkeypatch.setattr(saved_run, "MAX_SAMPLES_AT_ONCE", 2)
    images = run.sample(5, seed=0)
    assert images.shape == (5, 3, 32, 32) and len({image.numpy().tobytes() for image in images}) == 5


def test_the_project_is_found_from_a_folder_inside_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project / "pictures")
    assert dgm.load_run("cpu", "histogram_left").model.spec == CIFAR10
    monkeypatch.chdir("/")
    assert dgm.load_run("cpu", "histogram_left", root=project).model.spec == CIFAR10
    with pytest.raises(StageError, match=r"no params\.yaml here or in a folder above"):
        dgm.load_run("cpu", "histogram_left")


def test_another_file_is_not_overwritten_by_a_compressed_one(project: Path) -> None:
    run = load_run("cpu", "histogram_left")
    Path("notes.txt").write_text("mine", encoding="utf-8")
    for path in ("notes.txt", "pictures"):
        with pytest.raises(StageError, match=f"{path}: exists and is not a compressed image file"):
            run.compress("pictures", path)
    assert Path("notes.txt").read_text(encoding="utf-8") == "mine"


def test_other_weights_another_model_and_a_damaged_file_are_refused(project: Path) -> None:
    load_run("cpu", "histogram_left").compress("pictures", "pictures.dgm")
    train_for_no_time("cpu", "histogram_per_channel")
    with pytest.raises(StageError, match=r"pictures\.dgm: written with another model"):
        load_run("cpu", "histogram_per_channel").decompress("pictures.dgm", "again")
    data = bytearray(Path("pictures.dgm").read_bytes())
    for position in (0, 40, len(data) // 2):
        Path("pictures.dgm").write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(StageError, match=r"pictures\.dgm: (truncated or altered|not a compressed)"):
            load_run("cpu", "histogram_left").decompress("pictures.dgm", "again")
    Path("pictures.dgm").write_bytes(data)
    state = load_run("cpu", "histogram_left").model.state_dict()
    files = RunFiles("cpu", "histogram_left")
    others = {name: tensor + 1e-3 if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    save_weights(files.weights, others)
    with pytest.raises(StageError, match=r"not the weights that .*histogram_left\.json is of"):
        load_run("cpu", "histogram_left")
    sign(files, training_key(load_params(), "histogram_left", "cpu"))
    with pytest.raises(StageError, match="other weights"):
        load_run("cpu", "histogram_left").decompress("pictures.dgm", "again")
    assert not Path("again").exists()


def test_files_are_never_overwritten(project: Path) -> None:
    run = load_run("cpu", "histogram_left")
    run.compress("pictures", "pictures.dgm")
    with pytest.raises(StageError, match="pictures: exists and is not an empty folder"):
        run.decompress("pictures.dgm", "pictures")


@pytest.mark.parametrize("model", ["vae", "draw"])
def test_a_latent_variable_model_compresses_by_bits_back(project: Path, model: str) -> None:
    train_for_no_time("cpu", model)
    run = load_run("cpu", model)
    bits = run.compress("pictures", "pictures.dgm")
    assert bits == pytest.approx(8 * Path("pictures.dgm").stat().st_size / (len(NAMES) * 3072))
    assert [path.name for path in run.decompress("pictures.dgm", "again")] == sorted(NAMES)
    assert contents("again") == contents("pictures")
    Path("pictures.dgm").write_bytes(Path("pictures.dgm").read_bytes()[:-4])
    with pytest.raises(StageError, match=r"^pictures\.dgm: truncated or altered[^\n]*$"):
        run.decompress("pictures.dgm", "third")


def test_a_run_that_is_not_there_and_a_model_that_cannot_compress(project: Path) -> None:
    with pytest.raises(StageError, match=r"made/weights/weights\.safetensors: no trained weights; run `python"):
        load_run("cpu", "made")
    with pytest.raises(ConfigError, match="did you mean made"):
        load_run("cpu", "maed")
    train_for_no_time("cpu", "ppca")
    with pytest.raises(StageError, match="ppca cannot compress"):
        load_run("cpu", "ppca").compress("pictures", "pictures.dgm")
