"""A stage in several processes: who starts them, how they end, and what one line says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dgm.config.params import Params, load_params
from dgm.config.parse import ConfigError
from dgm.data import verify
from dgm.errors import StageError
from dgm.fingerprints import training_key, write_fingerprints
from dgm.runs.files import RunFiles
from dgm.settings import acting_values, training_config
from stages.launch import num_processes, start_processes, supervise
from stages.train import Limits, train

ROOT = Path(__file__).parent.parent.parent
MODEL = "pixelcnn"
STAGE = ("stages.train", "--model", MODEL, "--profile", "smoke")


def python(text: str) -> list[str]:
    return [sys.executable, "-c", f"import os, signal, time; rank = os.environ['RANK']\n{text}"]


def test_the_variable_or_the_gpus_say_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (num_processes("3", "cpu"), num_processes(None, "cpu"), num_processes("", "cpu")) == (3, 1, 1)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert (num_processes(None, "cuda"), num_processes("2", "cuda"), num_processes(None, "cpu")) == (4, 2, 1)
    for wrong in ("0", "-1", "two", "1.5", "²"):
        with pytest.raises(StageError, match=f"^DGM_PROCESSES={wrong}: must be a whole number from 1"):
            num_processes(wrong, "cpu")


def test_a_stage_is_started_again_as_often_as_it_can_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    monkeypatch.setattr("stages.launch.supervise", lambda command, count: started.append(count) or 7)
    monkeypatch.setenv("DGM_PROCESSES", "5")
    with pytest.raises(SystemExit, match="7"):
        start_processes(3, "cpu")
    start_processes(1, "cpu")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")  # a process that was started so does the work itself
    start_processes(3, "cpu")
    assert started == [3]


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("pass", 0, ""),
        ("raise SystemExit(75 if rank == '0' else 0)", 75, ""),  # paused
        ("time.sleep(0 if rank == '1' else 60); raise SystemExit(1)", 1, ""),  # it has said why itself
        (
            "time.sleep(0 if rank == '2' else 60); os.kill(os.getpid(), signal.SIGKILL)",
            137,
            "error: rank 2 of 3 was ended by SIGKILL; the same command goes on from the last checkpoint\n",
        ),
    ],
)
def test_the_first_process_that_fails_ends_all(
    text: str, code: int, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert supervise(python(text), 3) == code
    assert time.monotonic() - began < 30
    assert capfd.readouterr().err == line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_process_as_sigterm(number: signal.Signals, tmp_path: Path) -> None:
    """They pause, and so does the stage."""
    text = (
        f"def stop(*_):\n    open(r'{tmp_path}/stopped' + rank, 'w').close()\n    raise SystemExit(75)\n"
        f"signal.signal(signal.SIGTERM, stop)\nopen(r'{tmp_path}/ready' + rank, 'w').close()\ntime.sleep(60)"
    )

    def send() -> None:
        while len(list(tmp_path.glob("ready*"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's is ignored
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    threading.Thread(target=send, daemon=True).start()
    assert supervise(python(text), 2) == 75
    assert len(list(tmp_path.glob("stopped*"))) == 2
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    signal.signal(signal.SIGINT, inherited)


def test_one_slice_is_the_plain_loop_with_its_key() -> None:
    params = load_params()
    sliced, plain = (params.changed("pixelcnn", "cpu", {"training": {"num_slices": number}}) for number in (2, 1))
    key = training_key(params, "pixelcnn", "cpu")
    assert training_key(plain, "pixelcnn", "cpu") == key != training_key(sliced, "pixelcnn", "cpu")
    assert "num_slices" not in acting_values(plain, "pixelcnn", "cpu")["training"]
    assert acting_values(sliced, "pixelcnn", "cpu")["training"]["num_slices"] == 2


def test_the_key_of_sliced_runs_alone_has_the_code_of_slices(tmp_path: Path) -> None:
    for folder in ("dgm", "stages"):
        for file in (ROOT / folder).rglob("*.py"):
            copy = tmp_path / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    params = load_params()
    sliced = params.changed("nice", "cpu", {"training": {"num_slices": 2}})
    before = [training_key(each, "nice", "cpu", tmp_path) for each in (params, sliced)]
    assert before == [training_key(each, "nice", "cpu") for each in (params, sliced)]
    edited = tmp_path / "again"
    for file in list(tmp_path.rglob("*.py")):  # another root: code is read once per process
        copy = edited / file.relative_to(tmp_path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = file.read_text(encoding="utf-8")
        copy.write_text(text.replace("total / num_slices", "total * num_slices"), encoding="utf-8")
    after = [training_key(each, "nice", "cpu", edited) for each in (params, sliced)]
    assert after[0] == before[0] and after[1] != before[1]

    def files(each: Params) -> list[str]:
        """What DVC's train stage depends on, in both trees."""
        for root in (tmp_path, edited):
            write_fingerprints(each, ["nice"], root)
        return [(root / "fingerprints/nice/cpu/train.json").read_text() for root in (tmp_path, edited)]

    (plain, same), (old, new) = files(params), files(sliced)
    assert plain == same and old != new and old.startswith(plain.strip()[:-1])


def test_a_graph_has_a_key_of_its_own_and_leaves_the_plain_loops_alone() -> None:
    params = load_params()
    graphed, plain = (params.changed("pixelcnn", "cpu", {"training": {"cuda_graph": value}}) for value in (True, False))
    keys = [training_key(each, "pixelcnn", "cpu") for each in (params, plain, graphed)]
    assert keys[0] == keys[1] != keys[2]
    assert "cuda_graph" not in acting_values(plain, "pixelcnn", "cpu")["training"]
    assert acting_values(graphed, "pixelcnn", "cpu")["training"]["cuda_graph"] is True


@pytest.mark.parametrize(
    ("model", "changes", "reason"),
    [
        ("char_rnn", {"training": {"cuda_graph": True}}, "draws the rows of a step on the host"),
        ("made", {"training": {"cuda_graph": True}, "model": {"num_masks": 2}}, "draws the mask of a step on the host"),
        ("vae", {"training": {"cuda_graph": True}, "model": {"kl_warmup_fraction": 0.1}}, "follows the progress"),
        ("nice", {"training": {"cuda_graph": True, "num_slices": 2}}, "cannot capture slices"),
    ],
)
def test_what_a_graph_would_freeze_is_refused(model: str, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=f"cuda_graph: .*{reason}.*false"):
        training_config(load_params().changed(model, "cpu", changes), model, "cpu")


@pytest.mark.parametrize("number", [3, 0, 64])
def test_slices_are_equal_parts_of_a_batch(number: int) -> None:
    params = load_params().changed("pixelcnn", "cpu", {"training": {"batch_size": 32, "num_slices": number}})
    with pytest.raises(ConfigError, match=r"^models.pixelcnn.cpu.training.num_slices: "):
        training_config(params, "pixelcnn", "cpu")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml and random images of CIFAR-10's shape, where stages can run."""
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for name, count in (("train", 50000), ("test", 10000)):
        images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        np.save(tmp_path / "data" / f"{name}.npy", images)
        monkeypatch.setattr(verify, f"{name.upper()}_SHA256", verify.sha256_of_array(images))
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["models"][MODEL]["smoke"]["training"] |= {"max_steps": 40, "validate_every": 20, "num_slices": 2}
    values["common"]["smoke"]["run"]["threads"] = 1
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.chdir(tmp_path)
    for name, value in {"DVC_ROOT": str(tmp_path), "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "none"}.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def rank_of(process: Path) -> str:
    variables = (process / "environ").read_bytes().split(b"\0")
    return next((each.decode() for each in variables if each.startswith(b"RANK=")), "")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes in /proc")
def test_a_killed_rank_is_one_line_and_one_process_goes_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGM_PROCESSES", "2")
    command = [
        sys.executable,
        "-m",
        "tests.data.on_images_that_are_there",
        *STAGE,
        "--checkpoint-every-seconds",
        "0.01",
    ]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    scratch, until = project / ".scratch" / "smoke" / MODEL, time.monotonic() + 120
    while not list(scratch.rglob("*.previous.pt")) and launcher.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    (killed,) = [int(child) for child in children if rank_of(Path("/proc") / child) == "RANK=1"]
    os.kill(killed, signal.SIGKILL)
    _, errors = launcher.communicate()
    assert launcher.returncode == 137
    lines = [line for line in errors.splitlines() if not line.startswith("train PixelCNN: ")]
    assert lines == ["error: rank 1 of 2 was ended by SIGKILL; the same command goes on from the last checkpoint"]
    files = RunFiles("smoke", MODEL, project)
    assert list(scratch.rglob("*.pt")) and not files.weights.exists()

    monkeypatch.delenv("DGM_PROCESSES")
    assert train(MODEL, "smoke", load_params(), None, Limits(1e9))
    assert files.weights.exists() and not list(scratch.rglob("*.pt"))
    assert files.curve.read_text().splitlines()[-1].startswith("40,160,")
