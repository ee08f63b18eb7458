"""Records and tables on disk: each kind of damage is refused in one line that names the file and the field."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from dgm.errors import StageError
from dgm.runs.atomic import write_text
from dgm.runs.records import (
    Compression,
    Metrics,
    Provenance,
    ReferenceCodec,
    Rung,
    read_record,
    read_reference_codecs,
    read_rungs,
    write_record,
    write_reference_codecs,
    write_rungs,
)
from tests.reporting.made_up import BOUND, COMPRESSION, METRICS, PROVENANCE

WEIGHTED = replace(
    METRICS,
    **BOUND | {"likelihood": "importance-weighted (5)"},
    elbo_test_bits_per_subpixel=3.5,
    terms_bits_per_subpixel={"reconstruction": 3.0, "kl": 0.5},
)
NO_COMPRESSION = Compression("vae", "cpu", None, None, 0, None, None, "no exact conditionals")
CODEC = ReferenceCodec("PNG", "", "package 1", "library 2", 5.8, 5.6, 10000)
RUNG = Rung(1, 6145, 6.1, 0.01, 10000, None)
NAN, INF = float("nan"), float("inf")
NUMBERS = [None, "3.4", True, NAN, INF, [3.4], {}, 1e300]  # none of them is a figure
FIGURES = ("test_bits_per_subpixel", "test_standard_error", "train_bits_per_subpixel", "train_standard_error")
COUNTS = ("num_test_images", "num_train_images", "num_draws")


@pytest.mark.parametrize("record", [METRICS, WEIGHTED, PROVENANCE, COMPRESSION, NO_COMPRESSION])
def test_records_read_back_bit_identical(tmp_path: Path, record: Any) -> None:
    write_record(tmp_path / "record.json", record)
    assert read_record(tmp_path / "record.json", type(record)) == record
    assert read_record(tmp_path / "absent.json", type(record)) is None


def refused(path: Path, record: Any, **changes: object) -> str:
    """The message with which the record, changed as said, is refused."""
    write_text(path, json.dumps(asdict(record) | changes))
    with pytest.raises(StageError) as raised:
        read_record(path, type(record))
    message = str(raised.value)
    assert message.startswith(f"{path}: ") and message.endswith("; delete it and run `dvc repro`")
    assert len(message.splitlines()) == 1 and len(message) < len(str(path)) + 400
    return message


@pytest.mark.parametrize("value", [*NUMBERS, -3.0], ids=repr)
@pytest.mark.parametrize("field", FIGURES)
def test_a_figure_that_cannot_be_right_is_refused(tmp_path: Path, field: str, value: object) -> None:
    assert f": {field}: " in refused(tmp_path / "vae.json", METRICS, **{field: value})


@pytest.mark.parametrize("value", [-1, 0, 2.5, "5", None, True, 10**30], ids=repr)
@pytest.mark.parametrize("field", COUNTS)
def test_a_count_that_cannot_be_right_is_refused(tmp_path: Path, field: str, value: object) -> None:
    if (field, value) != ("num_draws", 10**30):  # a number of draws has no upper limit
        assert f": {field}: " in refused(tmp_path / "vae.json", METRICS, **{field: value})


@pytest.mark.parametrize("value", [*NUMBERS, -20000.0], ids=repr)
def test_a_term_that_cannot_be_right_is_refused(tmp_path: Path, value: object) -> None:
    message = refused(tmp_path / "vae.json", WEIGHTED, terms_bits_per_subpixel={"reconstruction": 3.0, "kl": value})
    assert ": terms_bits_per_subpixel.kl: " in message


@pytest.mark.parametrize("value", [None, [], "kl", {"kl": 3.9}], ids=repr)
def test_terms_that_are_no_parts_of_the_bound_are_refused(tmp_path: Path, value: object) -> None:
    assert ": terms_bits_per_subpixel" in refused(tmp_path / "vae.json", WEIGHTED, terms_bits_per_subpixel=value)


@pytest.mark.parametrize(
    ("record", "changes"),
    [
        (WEIGHTED, {"kind": "exact"}),
        (replace(METRICS, **BOUND), {"kind": "exact"}),
        (METRICS, {"kind": "lower_bound"}),
        (METRICS, {"kind": "upper_bound"}),
        (METRICS, {"likelihood": "guessed"}),
        (METRICS, {"likelihood": "exact\n"}),
        (WEIGHTED, {"likelihood": "importance-weighted (0)"}),
        (WEIGHTED, {"likelihood": "elbo"}),
        (WEIGHTED, {"elbo_test_bits_per_subpixel": None}),
        (METRICS, {"test_monte_carlo_error": 0.1}),
        (METRICS, {"model": ""}),
        (METRICS, {"test_nats_sha256": "0" * 63}),
        (METRICS, {"surplus\nfield" * 50: 1}),
        *((PROVENANCE, {"train_seconds": seconds}) for seconds in (0, 0.0, -1.0, NAN, "1", None)),
        *((PROVENANCE, {field: -1}) for field in ("images_seen", "num_steps", "peak_memory_bytes")),
        (PROVENANCE, {"forward_flops_per_image": None}),
        (PROVENANCE, {"training_flops_per_image": 0}),
        (PROVENANCE, {"finished_at": "yesterday"}),
        (PROVENANCE, {"packages": {"torch": None}}),
        (PROVENANCE, {"device": None}),
        *((COMPRESSION, {"claimed_bits_per_subpixel": bits}) for bits in (0.0, -1.0, NAN, "3", None)),
        (COMPRESSION, {"num_images": 0}),
        (COMPRESSION, {"num_images": -1}),
        (COMPRESSION, {"is_lossless": "yes"}),
        (NO_COMPRESSION, {"file_bytes": 3}),
        (COMPRESSION, {"file_bytes": 1000}),
        (COMPRESSION, {"compressed_bits_per_subpixel": 1.0}),
        (PROVENANCE, {"device": "cpu\n| MADE | 0.1 |"}),
        (PROVENANCE, {"device": "\u202e"}),
        (PROVENANCE, {"device": "x" * 501}),
        (PROVENANCE, {"git_commit": "\x1b[31m"}),
        (PROVENANCE, {"images_seen": 10**30}),
        (PROVENANCE, {"train_seconds": 1e-300}),
        (PROVENANCE, {"weights_sha256": "0" * 63}),
        (METRICS, {"weights_sha256": "A" * 64}),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else type(value).__name__,
)
def test_a_field_that_contradicts_itself_or_another_is_refused(
    tmp_path: Path, record: Any, changes: dict[str, object]
) -> None:
    refused(tmp_path / "vae.json", record, **changes)


@pytest.mark.parametrize("kind", [Metrics, Provenance, Compression])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"3", b"\xff\xfe", b"[" * 5000, b"1" * 5000])
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, kind: Any, content: bytes) -> None:
    (tmp_path / "vae.json").write_bytes(content)
    with pytest.raises(StageError, match=r"vae\.json: [^\n]{1,300}; delete it and run `dvc repro`$"):
        read_record(tmp_path / "vae.json", kind)


def test_a_folder_in_place_of_a_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="cannot be read"):
        read_record(tmp_path, Metrics)


def test_codecs_and_rungs_read_back_bit_identical(tmp_path: Path) -> None:
    codecs, rungs = [CODEC, replace(CODEC, codec="a,b", settings='"x"')], [RUNG, replace(RUNG, num_components=2)]
    write_reference_codecs(tmp_path / "codecs.csv", codecs)
    write_rungs(tmp_path / "ladder.csv", rungs)
    assert read_reference_codecs(tmp_path / "codecs.csv") == codecs
    assert read_rungs(tmp_path / "ladder.csv") == rungs
    assert read_reference_codecs(tmp_path / "absent.csv") == [] == read_rungs(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (",10000", ",", "line 2: num_"),
        (",10000", ",-1", "line 2: num_"),
        (",10000", ",1.5", "line 2: num_"),
        ("6.1", "nan", "line 2: (joined|test)_bits_per_subpixel: .*finite"),
        ("6.1", "1e300", "line 2: (joined|test)_bits_per_subpixel"),
        ("6.1", "-6.1", "line 2: (joined|test)_bits_per_subpixel"),
        ("6.1", "6,1", "line 2 has"),
        ("6.1", "", "line 2: (joined|test)_bits_per_subpixel"),
        ("num_", "n_", "begins with"),
    ],
)
@pytest.mark.parametrize("table", ["codecs", "ladder"])
def test_a_damaged_table_is_refused(tmp_path: Path, table: str, old: str, new: str, fault: str) -> None:
    path = tmp_path / "table.csv"
    write_reference_codecs(path, [replace(CODEC, joined_bits_per_subpixel=6.1)]) if table == "codecs" else write_rungs(
        path, [RUNG]
    )
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(StageError, match=rf"table\.csv: {fault}.*; delete it and run `dvc repro`$"):
        read_reference_codecs(path) if table == "codecs" else read_rungs(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9])
def test_half_a_table_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "table.csv"
    for write, read in (
        (lambda: write_reference_codecs(path, [CODEC, replace(CODEC, codec="b")]), read_reference_codecs),
        (lambda: write_rungs(path, [RUNG, replace(RUNG, num_components=2)]), read_rungs),
    ):
        write()
        content = path.read_bytes()
        for damaged in (content[: int(share * len(content))], content.splitlines(keepends=True)[0]):
            path.write_bytes(damaged)
            with pytest.raises(StageError, match=r"table\.csv: "):
                read(path)


def test_tables_whose_lines_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    for lines in ([CODEC, CODEC], [CODEC, replace(CODEC, codec="b", num_images=16)]):
        write_reference_codecs(tmp_path / "codecs.csv", lines)
        with pytest.raises(StageError, match="a line is there twice"):
            read_reference_codecs(tmp_path / "codecs.csv")
