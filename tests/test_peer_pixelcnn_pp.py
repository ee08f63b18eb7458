"""The comparison with the port of PixelCNN++: what it takes for a checkout, and what it reports."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.peer_pixelcnn_pp import PEER_MODULES, least_seconds, peer_network, report
from dgm.errors import StageError


def test_a_folder_without_the_port_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no utils\.py there"):
        peer_network(tmp_path)


def test_a_port_that_does_not_run_is_named_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", list(sys.path))
    for name in PEER_MODULES:
        (tmp_path / f"{name}.py").write_text("import no_such_module_of_the_port\n")
    with pytest.raises(StageError, match="ModuleNotFoundError: No module named 'no_such_module_of_the_port'"):
        peer_network(tmp_path)


def test_calls_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    least = least_seconds({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, num_repeats=2)
    assert order == ["a", "b"] * 3
    assert set(least) == {"a", "b"} and all(0 <= seconds < 1 for seconds in least.values())


def test_ratios_are_the_ports_seconds_to_ours() -> None:
    seconds = {"ours, training": 2.0, "port, training": 3.0, "ours, scoring": 0.5, "port, scoring": 0.4}
    text = report(seconds, {"training": 0.75, "scoring": 0.8}, num_repeats=5)
    assert "| training | 2.000     | 3.000     | 1.50          | 75%            | 2.00    |" in text
    assert "| scoring  | 0.500     | 0.400     | 0.80          | 80%            | 1.00    |" in text
