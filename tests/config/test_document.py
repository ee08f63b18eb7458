"""params.yaml is read by the rules of YAML 1.2; what it may not hold is refused in one line, with the place."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from dgm.config.document import read_document
from dgm.config.parse import ConfigError


def read(folder: Path, text: str | bytes) -> dict[str, Any]:
    file = folder / "params.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return read_document(file)


DATES = ("2020-01-01", "2020-13-45", "2020-1-1 10:00:00", "2020-01-01T10:00:00Z")
MARKERS = ("<<<<<<< HEAD", "=======", "||||||| 1234567", ">>>>>>> other branch")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, 1e-5) for text in ("1e-5", "1e-05", "1.0e-5", "1E-5", "0.00001", "+1e-5", ".1e-4", "10.e-6")),
        *((text, 100000.0) for text in ("1E5", "1e5", "1e+5", "100000.0", "100000.")),
        *((text, text) for text in ("yes", "no", "on", "off", "y", "N", "1:30", "1_000", "2020-01", "2020-13-450")),
        *((text, text) for text in ("nan", "inf", "1e", "e5", ".", "0b1", "=", "1.2.3", "0x", "0o8", "tRUE")),
        *((text, True) for text in ("true", "True", "TRUE")),
        *((text, False) for text in ("false", "False", "FALSE")),
        *((text, None) for text in ("null", "Null", "NULL", "~", "")),
        *(("'" + text + "'", text) for text in ("1", "1e-5", "true", "null", "")),
        ("010", 10),
        ("-3", -3),
        ("+3", 3),
        ("0o17", 15),
        ("0x1F", 31),
        ("9" * 18, int("9" * 18)),
        ("[1, 1.0, a]", [1, 1.0, "a"]),
    ],
)
def test_scalars_of_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    found = read(tmp_path, f"key: {text}\n")["key"]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: &x 2\n", "line 2: &x: anchors and aliases are not allowed; every value stands"),
        ("a: &x {b: 1}\n", "line 1: &x: anchors"),
        ("a: *x\n", r"line 1: \*x: anchors"),
        ("a:\n  <<: {b: 1}\n", "line 2: <<: merge keys are not allowed"),
        ("a: !!int '3'\n", "line 1: tag .*int': tags are not allowed; write the plain value"),
        ("a: !!python/object/apply:os.system [ls]\n", "line 1: tag .*: tags are not allowed"),
        ("a: !mine 3\n", "line 1: tag '!mine': tags"),
        ("a: 1\nb: 2\na: 3\n", "line 3: 'a': given twice, first in line 1; remove one"),
        ("a:\n  b: {c: 1, d: 2, c: 1}\n", "line 2: 'c': given twice, first in line 2"),
        ("a: 1\n'a': 2\n", "line 2: 'a': given twice"),
        ("1: 2\n", "line 1: a key must be text, got '1'"),
        ("true: 2\n", "line 1: a key must be text"),
        ("? [1, 2]\n: 3\n", "line 1: a key must be text, got a sequence"),
        *((f"a: {text}\n", "line 1: .*not a finite number") for text in (".nan", ".inf", "-.inf", "1e400", "-1E999")),
        *((f"a: {text}\n", "line 1: .*more than 18 digits") for text in ("9" * 19, "-" + "9" * 5000, "0x" + "f" * 99)),
        ("a: " + "[" * 2000 + "]" * 2000, "line 1: nested more than 16 levels deep"),
        ("a: " + "{b: " * 2000 + "}" * 2000, "line 1: nested more than 16 levels deep"),
        ("".join(f"{' ' * depth}a:\n" for depth in range(2000)), "line .*: nested more than 16 levels deep"),
        *((f"a: {text}\n", "line 1: '2020.*dates are not allowed; put it in quotes") for text in DATES),
        *((f"a: 1\n{mark}\nb: 2\n", "line 2: .*: a merge left its conflict here; keep one") for mark in MARKERS),
        ("\ufeffa: 1\n", "line 1: begins with a byte order mark; save the file as UTF-8 without it"),
        ("a: " + "x" * 100_000 + ": 1\n", "line 1: not valid YAML"),
        ("x" * 100_000 + ": 1\n" + "x" * 100_000 + ": 1\n", "line .*"),
        ("a: &" + "x" * 100_000 + " 1\n", "line 1: &'x.*: anchors"),
        ("a: [1\n", "line 2: not valid YAML: while parsing a flow sequence"),
        ("a: 'x\n", "line 2: not valid YAML: .*quoted scalar.*; mend what begins in line 1$"),
        ("a: 1\n\tb: 2\n", "line 2: not valid YAML"),
        ("a: 1\n--- \nb: 2\n", "line 2: not valid YAML: expected a single document"),
        ("a: 1\nb: \0\n", "line 2: character 0x0 is no text; remove it"),
        ("a: \x1b[0m\n", "line 1: character 0x1b is no text"),
        ("- 1\n", "must be a mapping of keys, got"),
        ("", "is empty; `git checkout .*params.yaml` takes"),
        ("# only words\n", "is empty"),
        (b"a: \xff\xfe\n", "byte 4 is not UTF-8; save the file as UTF-8 text"),
        ("a: 1\n".encode("utf-16"), "byte 1 is not UTF-8; save"),
    ],
)
def test_what_is_refused_has_one_line_with_the_place(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"params\.yaml(, |: ){message}") as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 + 2 * len(str(tmp_path))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read \(No such file or directory\); run from"):
        read_document(tmp_path / "absent.yaml")
    with pytest.raises(
        ConfigError, match=r"cannot be read \(Is a directory\); a file is expected: move the folder away"
    ):
        read_document(tmp_path)


def test_a_file_that_may_not_be_read_has_a_remedy_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "params.yaml").touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match=r"cannot be read \(Permission denied\); let yourself read it: chmod u\+r"):
        read_document(tmp_path / "params.yaml")


PIECES = (b"", b"[", b"}", b": ", b"\t", b"&a ", b"*a", b"!!x ", b"'", b'"\\x', b"|", b"%", b"\xff", b"? ", b"0x")


def test_damaged_text_is_read_or_refused_and_never_a_traceback(tmp_path: Path) -> None:
    """Cuts, swaps and insertions in a piece that has all kinds of syntax."""
    source = b"# c\nprofile: cpu   # d\nsuite:\n- a\n- 'b'\nx: {y: [1, 2.0], z: null}\nm:\n  n:\n    o: 1.0e-3\n"
    rng = random.Random(0)
    refusals: list[str] = []
    for _ in range(400):
        text = bytearray(source)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(text))
            text[place : place + rng.randint(0, 2)] = rng.choice(PIECES)
        try:
            read(tmp_path, bytes(text))
        except ConfigError as error:
            refusals.append(str(error))
    assert len(refusals) > 100
    assert all(re.fullmatch(r".*params\.yaml(, line \d+)?: \S.*", refusal) for refusal in refusals)
