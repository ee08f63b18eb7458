"""A fingerprint changes with code that can change a result, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgm.runs.fingerprints import STAGES_OF_ONE, fingerprint, write_fingerprints


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    files = {
        "stages/train.py": "from dgm.engine.loop import run\nfrom dgm.tracking.bar import bar\n",
        "dgm/engine/loop.py": "import dgm.units\nrun = 1\n",
        "dgm/units.py": "x = 1\n",
        "dgm/tracking/bar.py": "bar = 1\n",
        "dgm/models/one.py": "from dgm.nets import conv\n",
        "dgm/models/two.py": "a = 1\n",
        "dgm/nets/conv.py": "def conv(x: int) -> int:\n    return x + 1\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_it_covers_what_the_stage_and_the_model_import(tree: Path) -> None:
    found = set(fingerprint("train", "one", tree))
    assert found == {"stages/train.py", "dgm/engine/loop.py", "dgm/units.py", "dgm/models/one.py", "dgm/nets/conv.py"}


def test_only_the_models_that_use_a_net_change_with_it(tree: Path) -> None:
    before = {model: fingerprint("train", model, tree) for model in ("one", "two")}
    (tree / "dgm/nets/conv.py").write_text("def conv(x: int) -> int:\n    return x + 2\n")
    assert fingerprint("train", "one", tree) != before["one"]
    assert fingerprint("train", "two", tree) == before["two"]


def test_comments_docstrings_and_tracking_change_nothing(tree: Path) -> None:
    before = fingerprint("train", "one", tree)
    text = '"""Module."""\n\n\ndef conv(x: int) -> int:\n    """x + 1."""\n    # why\n    return (x + 1)\n'
    (tree / "dgm/nets/conv.py").write_text(text)
    (tree / "dgm/tracking/bar.py").write_text("bar = 2\n")
    assert fingerprint("train", "one", tree) == before


def test_the_hash_is_the_same_in_every_python(tree: Path) -> None:
    assert fingerprint("train", "two", tree)["dgm/models/two.py"] == "dec84d437343cf31"
    assert fingerprint("train", "one", tree)["dgm/nets/conv.py"] == "e704a1bd9bdeff88"


def test_the_real_tree_reaches_the_engine_but_not_other_models() -> None:
    found = fingerprint("train", "uniform")
    assert "dgm/engine/loop.py" in found
    assert "dgm/seeds.py" in found
    assert [file for file in found if file.startswith("dgm/models/")] == ["dgm/models/uniform.py"]
    assert not [file for file in found if file.startswith(("dgm/tracking", "dgm/reporting"))]


def test_a_stage_of_one_model_gets_a_fingerprint_of_that_model_only(tmp_path: Path) -> None:
    write_fingerprints(["ppca", "uniform"], tmp_path)
    for model, stages in STAGES_OF_ONE.items():
        for stage in stages:
            assert (tmp_path / "fingerprints" / model / f"{stage}.json").exists()
            assert {"stages/ppca_ladder.py", "dgm/models/ppca.py"} <= set(fingerprint(stage, model))
    assert not (tmp_path / "fingerprints" / "uniform" / "ppca_ladder.json").exists()
