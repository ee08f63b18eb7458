"""What DVC cannot read is refused first, in one line with the remedy."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from dgm.config.document import read_document
from dgm.config.documents import PIPELINES, check_documents
from dgm.config.parse import ConfigError

ROOT = Path(__file__).parents[2]
LOCK = "schema: '2.0'\nstages:\n  check:\n    cmd: python\n    deps:\n    - path: dgm\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for path in PIPELINES:
        (tmp_path / path).parent.mkdir(exist_ok=True)
    for path in ("params.yaml", *PIPELINES):
        shutil.copyfile(ROOT / path, tmp_path / path)
    (tmp_path / "dvc.lock").write_text(LOCK, encoding="utf-8")
    return tmp_path


def test_the_files_of_the_repository_and_a_project_without_a_lock_are_fine(project: Path) -> None:
    check_documents(ROOT)
    check_documents(project)
    (project / "dvc.lock").unlink()
    check_documents(project)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("dvc.lock", LOCK + "  chec", r"line 7: .*; `git checkout dvc\.lock` takes the last committed one back"),
        ("dvc.lock", LOCK[: LOCK.index("    cmd")], "stage check has no cmd: the file is cut; `git"),
        ("dvc.lock", "stages:\n  check: {deps: []}\n", "stage check has no cmd: the file is cut; `git"),
        ("dvc.lock", LOCK[: LOCK.index("  check")], r"has no stages, it holds \{.*; `git checkout"),
        ("dvc.lock", "", "has no stages, it holds None; `git checkout"),
        ("dvc.lock", LOCK + "<<<<<<< HEAD\n", "line 7: '<<<<<<< HEAD': a merge left its conflict here; keep one"),
        ("dvc.lock", LOCK + "  check: {cmd: x}\n", 'line 7: found duplicate key "check".*; `git checkout'),
        ("dvc.lock", b"\xff", "byte 1 is not UTF-8"),
        ("dvc.lock", LOCK + "  a: \0", "unacceptable character"),
        ("proof/dvc.lock", "stages: [", r"line 1: .*`git checkout proof/dvc\.lock`"),
        ("scaling/dvc.lock", "stages: [", r"line 1: .*`git checkout scaling/dvc\.lock`"),
        ("dvc.yaml", "stages:\n  check: {cmd: x", r"line .*; mend that line, or `git checkout dvc\.yaml`"),
        ("dvc.yaml", "stages:\n  check: {cmd: x}\n", "lacks the stages download, evaluate, report, train; mend"),
        ("dvc.yaml", "", "has no stages"),
        ("dvc.yaml", "stages:\n\tcheck: 1\n", "line 2: "),
        ("dvc.yaml", "stages: !!python/name:os.system x\n", "YAML|constructor"),
        ("dvc.yaml", "a: 2020-13-45\n", "cannot be read as YAML: month must be"),
        *(
            (path, "a:\n  b: " + 10**5 * sign, "line 2: more than 32 levels are nested here; .*`git checkout")
            for path in ("dvc.yaml", "dvc.lock", "proof/dvc.yaml")
            for sign in ("[", "{a: ", "[? ")
        ),
        *(("dvc.yaml", 10**5 * sign, "line 1: more than 32 levels are nested here; mend") for sign in ("- ", "? ")),
        ("params.yaml", "profile: cpu\nprofile: smoke\n", "line 2: 'profile': given twice, first in line 1; remove"),
        ("params.yaml", "a: 1\n=======\n", "line 2: '=======': a merge left its conflict"),
    ],
)
def test_a_damaged_file_has_its_line_and_remedy(project: Path, path: str, text: str | bytes, message: str) -> None:
    (project / path).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=rf"{path}(, |: ).*{message}") as caught:
        check_documents(project)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 + 2 * len(str(project))


def test_every_damaged_file_is_named_at_once(project: Path) -> None:
    for path in ("params.yaml", "dvc.lock", "dvc.yaml"):
        (project / path).write_text("[", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        check_documents(project)
    assert len(str(caught.value).splitlines()) == 3


def test_what_our_reader_takes_dvc_takes_too(project: Path) -> None:
    """Cuts, swaps and insertions: where our reader refuses nothing, DVC's must not either, or the line is refused."""
    source = (project / "params.yaml").read_bytes()[:900]
    (project / "dvc.yaml").unlink()
    (project / "proof" / "dvc.yaml").unlink()
    (project / "scaling" / "dvc.yaml").unlink()
    rng = random.Random(0)
    num_read = 0
    for _ in range(150):
        text = bytearray(source)
        place = rng.randrange(len(text))
        text[place : place + rng.randint(0, 3)] = rng.choice(
            (b"", b"-", b"\t", b"? ", b"!", b"%", b"@", b"2020-1-1", b"|")
        )
        (project / "params.yaml").write_bytes(bytes(text))
        try:
            read_document(project / "params.yaml")
        except ConfigError:
            continue
        num_read += 1
        check_documents(project)
    assert num_read > 20
