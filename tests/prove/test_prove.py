"""`dgm prove` on good models and on models with one fault each: the right line fails, and it says where."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch

from dgm.cli import main
from dgm.errors import StageError
from dgm.prove import file_proof, target
from dgm.prove.checks import made_up_images
from dgm.runs.certificates import Certificate, read_certificate
from tests.prove import models

FAST = ["--images", "0", "--leak-seconds", "1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with FILE.py, its weights and images, which is the working one."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(models.__file__, tmp_path / "model.py")
    torch.manual_seed(0)
    torch.save(models.Causal().state_dict(), tmp_path / "weights.pt")
    np.save(tmp_path / "images.npy", made_up_images(models.SPEC, 20).numpy())
    monkeypatch.setenv("IMAGES_OF_THE_TEST", str(tmp_path / "images.npy"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def prove(name: str, *options: str) -> int:
    options = options or tuple(FAST)
    return main(["prove", f"model.py:{name}", "--weights", "weights.pt", "--data", "images.npy", *options])


def certificate(name: str) -> Certificate:
    return read_certificate(Path(f"{name}.certificate.json"))


def marks(name: str) -> dict[str, str]:
    return {line.check: line.mark for line in certificate(name).checks}


def test_a_good_model_is_decoded_by_another_process_and_its_small_file_is_no_fault(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prove("good", "--leak-seconds", "2") == 0
    found = certificate("good")
    assert {line.mark for line in found.checks} == {"✓"} and len(found.checks) == 10
    assert found.tier == "decoded (1 image)" and found.images == "other images" and found.num_scored == 20
    assert set(found.code) == {"model.py"} and found.target == "model.py:good" and found.weights_file == "weights.pt"
    assert found.header_bytes == 32 and found.payload_bytes < 40  # with its header this file is twice as long
    out = capsys.readouterr().out
    assert "good.certificate.json: decoded (1 image)" in out and str(folder) not in json.dumps(vars(found), default=str)


def test_a_decoder_that_reads_the_images_is_stopped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prove("reads_the_images", "--leak-seconds", "0.1") == 1
    assert marks("reads_the_images")["file decoded"] == "✗"
    assert "the decoder may not read the images" in capsys.readouterr().out
    assert certificate("reads_the_images").num_decoded == 0


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("does_without", ""),
        ("reads_another_copy", "the decoder opened {}"),
    ],
)
def test_the_decoder_opens_code_and_its_folder_only(folder: Path, name: str, problem: str) -> None:
    copied = folder.with_name("copy_of_the_test.npy")
    shutil.copy("images.npy", copied)
    found = target.find_target(f"model.py:{name}", Path("weights.pt"))
    proof = file_proof.prove_by_file(found, found.load(), made_up_images(models.SPEC, 1), [])  # type: ignore[arg-type]
    assert proof.holds == (not problem) and problem.format(copied) in proof.detail, proof.detail


def test_damaged_weights_of_an_adapter_that_is_there_are_one_line(folder: Path) -> None:
    """Every kind of file that is no state_dict of it, and a good one cut off or with a flipped byte."""
    good, state = Path("weights.pt").read_bytes(), models.Causal().state_dict()
    others = [None, 3, [1], torch.zeros(2), {"a": 1}, dict.fromkeys(state, "x"), dict.fromkeys(state, torch.zeros(9))]
    damaged = [b"", b"\x93NUMPY", *(pickle.dumps(other) for other in others)]
    damaged += [good[: len(good) * part // 9] for part in range(9)]
    for other in others:
        torch.save(other, "other.pt")
        damaged.append(Path("other.pt").read_bytes())
    ready = models.Logits(models.Causal(), spec=models.SPEC)
    for data in damaged:
        Path("damaged.pt").write_bytes(data)
        with pytest.raises(StageError, match=r"^damaged\.pt: weights of x: [^\n]+$"):
            target.Target("x", Path("damaged.pt"), ready, folder / "model.py").load()


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("dropout_left_on", "determinism"),
        ("remembers", "determinism"),
        ("train_mode", "eval mode"),
        ("learns_while_it_is_scored", "eval mode"),
        ("statistics_of_the_batch", "batch independence"),
        ("writes_into_the_images", "targets round-trip"),
        ("levels_run_together", "targets round-trip"),
        ("not_a_number", "probabilities sum to one"),
        ("another_log_prob", "log_prob is the sum of log_pmf"),
        ("leaks", "causality"),
        ("sees_itself", "causality"),
        ("flow_without_its_log_determinant", "probabilities sum to one"),
        ("flow_in_other_units", "probabilities sum to one"),
        ("bound_that_is_none", "probabilities sum to one"),
        ("log_prob_of_more_than_one", "probabilities sum to one"),
        ("not_a_number", "determinism"),
        ("not_a_number", "test images scored"),
        ("too_much", "test images scored"),
        ("too_little", "test images scored"),
    ],
)
def test_a_fault_fails_its_check(folder: Path, capsys: pytest.CaptureFixture[str], name: str, check: str) -> None:
    assert prove(name) == 1
    assert marks(name)[check] == "✗"
    captured = capsys.readouterr()
    assert f"✗ {check}: " in captured.out and check in captured.err
    assert certificate(name).tier.startswith("refuted")


@pytest.mark.parametrize("name", ["good", "good_flow", "good_bound", "good_log_prob"])
def test_a_good_model_of_every_form_passes(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert prove(name) == 0
    assert set(marks(name).values()) == {"✓", "–"}
    assert certificate(name).tier == "contract-tested"
    assert "✗" not in capsys.readouterr().out


def test_a_leak_shows_in_the_file_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_proof, "_decode_elsewhere", lambda *given: "")
    images = made_up_images(models.SPEC, 6)
    for name, is_causal in (("good", True), ("leaks", False), ("sees_itself", False)):
        found = target.find_target(f"model.py:{name}", Path("weights.pt"))
        model = found.load()
        proof = file_proof.prove_by_file(found, model, images, [])  # type: ignore[arg-type]
        assert proof.is_causal == is_causal, name
        assert is_causal or "off by" in proof.causality
        assert proof.holds or not is_causal


def test_a_file_that_is_longer_than_the_claim_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_proof, "_decode_elsewhere", lambda *given: "")
    found = target.find_target("model.py:good", Path("weights.pt"))
    model = found.load()
    images = made_up_images(models.SPEC, 6)
    plain = model.log_prob
    model.own_log_prob = lambda images: plain_of(images)  # type: ignore[assignment]

    def plain_of(images: torch.Tensor) -> torch.Tensor:
        model.own_log_prob = None  # type: ignore[assignment]
        return 0.5 * plain(images)  # type: ignore[operator]

    proof = file_proof.prove_by_file(found, model, images, [])  # type: ignore[arg-type]
    assert not proof.holds and "less than it says" in proof.detail


def test_a_certificate_is_confirmed_until_something_changes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prove("good", *FAST, "--limit", "10") == 0
    check = ["prove", "--check", "good.certificate.json", "--data", "images.npy", "--leak-seconds", "1"]
    assert main(check) == 0
    assert "confirmed; the nats of 10 images are the same bit for bit" in capsys.readouterr().out
    assert main([*check, "--limit", "3"]) == 1
    assert "--limit: the certificate says it" in capsys.readouterr().err
    with Path("model.py").open("a") as file:
        file.write("\n# changed\n")
    torch.manual_seed(1)
    torch.save(models.Causal().state_dict(), "weights.pt")
    assert main(check) == 1
    err = capsys.readouterr().err
    assert "not confirmed" in err and "the code: model.py is changed" in err
    assert "the weights: " in err and "bits per sub-pixel: " in err


def test_without_images_the_model_is_checked_and_not_scored(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("images.npy").unlink()
    assert prove("good") == 0
    assert (
        "– test images scored: no images at images.npy: `dvc repro download` fetches CIFAR-10"
        in capsys.readouterr().out
    )
    found = certificate("good")
    assert (found.bits_per_subpixel, found.num_scored, found.images) == (None, 0, "made-up images")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.py:good"], "give FILE.py:NAME and --weights FILE"),
        (["model.py:good", "--weights", "none.pt"], "none.pt: no such file of weights"),
        (["none.py:good", "--weights", "weights.pt"], "none.py: no such file"),
        (["model.py:absent", "--weights", "weights.pt"], "has no 'absent'; it has "),
        (["model.py:SPEC", "--weights", "weights.pt"], "is ImageSpec; it must be a function"),
        (["model.py:not_an_adapter", "--weights", "weights.pt"], "returned Causal; it must be a function"),
        (["model.py:fails", "--weights", "weights.pt"], "failed: KeyError: 'state' (line "),
        (["model.py:good", "--weights", "model.py"], "loading model.py failed: "),
        (["model.py:another_shape", "--weights", "weights.pt"], "the network puts out (2, 25, 4, 4)"),
        (["broken.py:good", "--weights", "weights.pt"], "cannot be imported: ZeroDivisionError"),
        (["ends.py:good", "--weights", "weights.pt"], "cannot be imported: SystemExit: 0 (line 3 of ends.py)"),
        (["model.py:ends_the_program", "--weights", "weights.pt"], "does not score images: SystemExit: 0"),
        (["model.py:says_nothing", "--weights", "weights.pt"], "does not score images: RuntimeError"),
        (["model.py:complex_numbers", "--weights", "weights.pt"], "log_prob must give real numbers"),
        (["nothing", "--weights", "weights.pt"], "neither FILE.py:NAME nor an entry point"),
        (["model.py:good", "--weights", "weights.pt", "--images", "-1"], "--images: must be at least 0"),
        (["model.py:good", "--weights", "weights.pt", "--leak-seconds", "nan"], "--leak-seconds: must be a positive"),
        (["model.py:good", "--weights", "weights.pt", "--output", "."], "is a folder; name a file"),
        (["--check", "weights.pt"], "weights.pt: "),
        (["--check", "none.json"], "none.json: cannot be read"),
    ],
)
def test_what_goes_wrong_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    Path("broken.py").write_text("1 / 0\n")
    Path("ends.py").write_text("import sys\n\nsys.exit(0)\n")
    assert main(["prove", "--data", "images.npy", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line, line
    assert not list(folder.glob("*.json"))


def test_an_adapter_that_is_there_is_given_the_weights(folder: Path) -> None:
    with Path("model.py").open("a") as file:
        file.write("\nready = Logits(Causal(), spec=SPEC)\n")
    assert prove("ready") == 0
    torch.save({"other": torch.zeros(1)}, "weights.pt")
    assert prove("ready") == 1


def test_an_installed_package_is_an_entry_point(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "their_package").mkdir()
    (folder / "their_package" / "__init__.py").write_text("")
    shutil.copy("model.py", folder / "their_package" / "nets.py")
    monkeypatch.syspath_prepend(str(folder))
    point = EntryPoint("theirs", "their_package.nets:good", target.ENTRY_POINTS)
    monkeypatch.setattr(target, "entry_points", lambda group: [point] if group == "dgm.prove" else [])
    assert main(["prove", "theirs", "--weights", "weights.pt", "--data", "images.npy", *FAST]) == 0
    assert set(certificate("theirs").code) == {"__init__.py", "nets.py"}


def test_what_no_certificate_can_hold_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prove("of_its_own_kind", "--limit", "0", *FAST) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: model.py:of_its_own_kind: no certificate can be written: likelihood")
    assert not list(folder.glob("*.json"))
