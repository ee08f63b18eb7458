"""The lecture companion is what its sources and the committed reports say, and its links lead somewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import stages.companion as companion
from dgm.errors import StageError
from dgm.registry import MODELS
from dgm.reporting.companion import read_report, settings_of
from tests.test_repository import ROOT

PAGES = ROOT / "docs" / "companion"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return companion.pages_now()


def test_the_companion_is_current(pages: dict[str, str]) -> None:
    assert companion.stale_pages(pages, PAGES) == [], "run `python -m stages.companion`"
    assert {f"{model}.md" for model in MODELS} | {"README.md", "questions.md"} == set(pages)


def test_links_and_pictures_are_there(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        for link in re.findall(r"\]\(([^)]+)\)", page):
            if not link.startswith("https://"):
                target, _, anchor = link.partition("#")
                assert (PAGES / target).exists(), (name, link)
                assert not anchor or f'<a id="{anchor}"></a>' in pages[target], (name, link)


def test_a_page_has_what_a_lecture_needs(pages: dict[str, str]) -> None:
    page = pages["pixelcnn_pp.md"]
    for part in ("# PixelCNN++", "$$\n", "arxiv.org/abs/1701.05517", "| Published | 2.92 |", "decoded (",
                 "xychart-beta", "samples/pixelcnn_pp.png", "lower half drawn"):  # fmt: skip
        assert part in page, part
    assert "lower half drawn" not in pages["nice.md"], "a density completes nothing"
    assert pages["README.md"].index("(vae.md)") < pages["README.md"].index("(vae_iaf.md)"), "best last"


def test_check_names_what_is_not_current_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: dict[str, str]
) -> None:
    monkeypatch.setattr(companion, "pages_now", lambda: pages)
    monkeypatch.setattr(companion, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["companion"])
    companion.main()
    assert companion.stale_pages(pages, tmp_path) == []
    (tmp_path / "made.md").write_text("edited", encoding="utf-8")
    (tmp_path / "old_model.md").write_text("of a model that is gone", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["companion", "--check"])
    with pytest.raises(StageError, match=r"not current: made\.md, old_model\.md; run"):
        companion.main()
    assert (tmp_path / "made.md").read_text(encoding="utf-8") == "edited"
    monkeypatch.setattr(sys, "argv", ["companion"])
    companion.main()
    assert companion.stale_pages(pages, tmp_path) == [] and not (tmp_path / "old_model.md").exists()


def test_without_a_report_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"results\.csv: absent; run `dvc repro` in the cpu profile"):
        read_report("cpu", settings_of({}), tmp_path)
