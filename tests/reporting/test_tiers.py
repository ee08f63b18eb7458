"""What counts as proven, and which figures are marked: current records only, whatever else lies there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dgm.data.verify import TEST_SHA256
from dgm.errors import StageError
from dgm.reporting.files import make_report
from dgm.reporting.results import RESULT_COLUMNS
from dgm.reporting.rows import ProofCodes, Row, result_rows
from dgm.reporting.tiers import tier, with_alarms
from dgm.runs.checked import write_json
from dgm.runs.files import RunFiles
from dgm.runs.proof_records import Conformance, TestSetProof, read_proof
from dgm.runs.records import write_record
from tests.reporting.made_up import BOUND, COMPRESSION, metrics

NATS, OTHER = "a" * 64, "b" * 64
NOW = ProofCodes("coder", "checks")
CONFORMANCE = Conformance("made up", "cpu", ["sees no later sub-pixel"], 200, 32, 16, NATS, "checks")
PROOF = TestSetProof(
    model="made up",
    profile="cpu",
    num_images=10000,
    num_files=20,
    file_bytes=13_286_400,
    compressed_bits_per_subpixel=3.46,
    claimed_bits_per_subpixel=3.4568,
    encode_core_seconds=100.0,
    decode_core_seconds=110.0,
    device="cpu",
    decoded_sha256=TEST_SHA256,
    weights_sha256=OTHER,
    files_sha256=OTHER,
    test_nats_sha256=NATS,
    code="coder",
)
COMPRESSED = replace(COMPRESSION, test_nats_sha256=NATS, code="coder")


def written(root: Path, model: str, records: Mapping[str, Any], **changes: Any) -> RunFiles:
    files = metrics(root, model, **{"test_nats_sha256": NATS, **changes})
    if "conformance" in records:
        write_json(files.conformance, replace(records["conformance"], model=model))
    if "proof" in records:
        write_json(files.proof, replace(records["proof"], model=model))
    if "compression" in records:
        write_record(files.compression, replace(records["compression"], model=model))
    return files


def rows(root: Path, key: str = "key") -> dict[str, Row]:
    models = ("pixelcnn", "nice", "ride", "made", "uniform")
    found = result_rows("cpu", dict.fromkeys(models, key), root, dict.fromkeys(models, NOW))
    return {row.model: row for row in with_alarms(found)}


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ({}, "untested"),
        ({"conformance": CONFORMANCE}, "contract-tested"),
        ({"conformance": replace(CONFORMANCE, code="older")}, "untested"),
        ({"conformance": replace(CONFORMANCE, test_nats_sha256=OTHER)}, "untested"),
        ({"conformance": CONFORMANCE, "compression": COMPRESSED}, "decoded (100 images)"),
        ({"conformance": CONFORMANCE, "compression": COMPRESSION}, "contract-tested"),  # a record of before
        ({"compression": replace(COMPRESSED, code="older")}, "untested"),
        ({"compression": replace(COMPRESSED, test_nats_sha256=OTHER)}, "untested"),
        ({"compression": COMPRESSED, "proof": PROOF}, "decoded (10,000 images)"),
        ({"compression": COMPRESSED, "proof": replace(PROOF, code="older")}, "decoded (100 images)"),
        ({"compression": COMPRESSED, "proof": replace(PROOF, test_nats_sha256=OTHER)}, "decoded (100 images)"),
        ({"proof": replace(PROOF, decoded_sha256=OTHER)}, "untested"),  # 10,000 images, but not those
    ],
)
def test_only_current_proofs_count(tmp_path: Path, records: Mapping[str, Any], expected: str) -> None:
    written(tmp_path, "pixelcnn", records)
    assert tier(rows(tmp_path)["pixelcnn"]) == expected
    assert tier(rows(tmp_path)["nice"]) == "published only"


def test_no_proof_of_a_stale_figure_counts(tmp_path: Path) -> None:
    written(tmp_path, "pixelcnn", {"conformance": CONFORMANCE, "compression": COMPRESSED, "proof": PROOF})
    row = rows(tmp_path, key="newer")["pixelcnn"]
    assert tier(row) == "untested" and RESULT_COLUMNS["num_changed_subpixels"](row) is None


def test_tiers_and_counts_are_in_every_table(tmp_path: Path) -> None:
    written(tmp_path, "pixelcnn", {"conformance": CONFORMANCE, "proof": PROOF})
    row = rows(tmp_path)["pixelcnn"]
    columns = ("tier", "num_decoded_images", "num_changed_subpixels", "num_replaced_endings", "num_images_in_company")
    assert [RESULT_COLUMNS[name](row) for name in columns] == ["decoded (10,000 images)", 10000, 200, 32, 16]
    files = make_report("cpu", {"pixelcnn": "key"}, tmp_path, proof_codes={"pixelcnn": NOW}).files
    for name in ("cifar10_pixelrnn", "cifar10_pixelcnn_pp", "cifar10_all"):
        for kind in ("md", "csv", "tex"):
            assert "decoded (10,000 images)" in files[f"{name}.{kind}"].decode(), (name, kind)
    page = files["index.html"].decode()
    assert "All test images decoded" in page and "Sub-pixels changed" in page


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"num_images": 9000}, "file_bytes are"),
        ({"compressed_bits_per_subpixel": 3.0}, "file_bytes are"),
        ({"decoded_sha256": "none"}, "decoded_sha256"),
        ({"num_images": 10001}, "num_images"),
        ({"more": 1}, "more"),
    ],
)
def test_a_damaged_proof_is_refused_by_name_and_does_not_count(
    tmp_path: Path, change: Mapping[str, Any], fault: str
) -> None:
    files = written(tmp_path, "pixelcnn", {"conformance": CONFORMANCE, "proof": PROOF})
    files.proof.write_text(json.dumps(json.loads(files.proof.read_text()) | change))
    with pytest.raises(StageError, match=rf"pixelcnn\.json: .*{fault}"):
        read_proof(files.proof, TestSetProof)
    row = rows(tmp_path)["pixelcnn"]
    assert tier(row) == "contract-tested" and fault in row.faults[0]


def test_a_proof_of_another_model_is_refused(tmp_path: Path) -> None:
    files = written(tmp_path, "pixelcnn", {"conformance": CONFORMANCE})
    write_json(files.proof, PROOF)
    assert "says it is of made up (cpu), not of pixelcnn (cpu)" in rows(tmp_path)["pixelcnn"].faults[0]


def test_a_figure_below_the_best_known_of_its_kind_is_marked_even_if_decoded(tmp_path: Path) -> None:
    written(tmp_path, "pixelcnn", {"proof": PROOF}, test_bits_per_subpixel=2.79)
    written(tmp_path, "nice", {}, test_bits_per_subpixel=2.36, **BOUND)  # below all others
    written(tmp_path, "ride", {}, test_bits_per_subpixel=2.34, **BOUND)
    found = rows(tmp_path)
    assert "below 2.80, the best figure known of its kind (Sparse Transformer" in str(found["pixelcnn"].alarm)
    assert "no file" not in str(found["pixelcnn"].alarm)
    assert "below 2.35, the best figure known of its kind (W-PCDM" in str(found["ride"].alarm)
    assert "below all others of the PixelCNN++ paper's table" in str(found["nice"].alarm)


def test_the_best_of_a_table_is_marked_until_it_is_decoded(tmp_path: Path) -> None:
    written(tmp_path, "pixelcnn", {"conformance": CONFORMANCE}, test_bits_per_subpixel=3.4)
    written(tmp_path, "uniform", {"conformance": CONFORMANCE}, test_bits_per_subpixel=8.0)
    written(tmp_path, "made", {"conformance": CONFORMANCE}, test_bits_per_subpixel=3.5)
    alarmed = [row.model for row in rows(tmp_path).values() if row.alarm]
    assert alarmed == ["pixelcnn"]
    report = make_report("cpu", dict.fromkeys(("pixelcnn", "uniform", "made"), "key"), tmp_path)
    (alarm,) = report.alarms
    assert alarm == "PixelCNN, 3.400, is below all others of the PixelRNN paper's table, and no file of it was decoded"
    assert "| PixelCNN § " in report.files["cifar10_pixelrnn.md"].decode()
    assert f"§ alarm: {alarm}." in report.files["cifar10_pixelrnn.md"].decode()
    assert r"PixelCNN \S{}" in report.files["cifar10_pixelrnn.tex"].decode()
    assert alarm in report.files["results.csv"].decode()
    assert "Too good to be believed" in report.files["index.html"].decode()
    written(tmp_path, "pixelcnn", {"compression": COMPRESSED}, test_bits_per_subpixel=3.4)
    assert not [row for row in rows(tmp_path).values() if row.alarm]


def test_a_single_row_is_below_no_other(tmp_path: Path) -> None:
    written(tmp_path, "pixelcnn", {}, test_bits_per_subpixel=3.4)
    assert rows(tmp_path)["pixelcnn"].alarm is None
