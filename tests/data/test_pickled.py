from __future__ import annotations

import collections
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dgm.data.pickled import MAX_TUPLES, arrays_of_pickle

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 3072), np.uint8)

# What Python 2 wrote with numpy 1: byte strings, old module names, protocol 2; `data` is the 4 x 3072 bytes.
PYTHON_2 = (
    b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5U\x06labels]q\x03(K\x06K\x09eU\x04data"
    b"cnumpy.core.multiarray\n_reconstruct\nq\x04cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x04M\x00\x0c\x86"
    b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
)


def test_the_official_form_of_python_2_is_read() -> None:
    raw = IMAGES.tobytes()
    (found,) = arrays_of_pickle(PYTHON_2 + struct.pack("<I", len(raw)) + raw + b"tbu.")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, IMAGES)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("array", [IMAGES, np.asfortranarray(IMAGES), IMAGES[:, ::-1], IMAGES[:0]])
def test_every_protocol_and_order_gives_the_array_back(protocol: int, array: np.ndarray) -> None:
    labels = [0, np.int64(3), 1.5, None, True, 10**30, b"", "e\N{ACUTE ACCENT}"]
    for value in (array, {"data": array, b"labels": labels, "more": np.arange(3)}, ((array, labels), [labels])):
        (found,) = arrays_of_pickle(pickle.dumps(value, protocol))
        np.testing.assert_array_equal(found, array)


def test_names_of_old_and_of_new_numpy_are_read() -> None:
    data = pickle.dumps(IMAGES, 2)
    other = data.replace(b"numpy._core", b"numpy.core")
    assert other != data
    np.testing.assert_array_equal(arrays_of_pickle(other)[0], IMAGES)


class _Calls:
    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


HOSTILE: dict[str, bytes] = {
    "os.system": b"cos\nsystem\n(S'touch ran'\ntR.",
    "builtins.eval": b"\x80\x02c__builtin__\neval\nX\x14\x00\x00\x00open('ran','w').close\x85R.",
    "getattr": pickle.dumps(_Calls(getattr, _Calls(__import__, "os"), "system")),
    "stack global": pickle.dumps(_Calls(eval, "open('ran', 'w')"), 4),
    "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
    "beside a good array": pickle.dumps({"data": IMAGES, "x": _Calls(exec, "open('ran', 'w')")}),
    "instance": b"(S'touch ran'\nios\nsystem\n.",
    "object": b"(cos\nsystem\nS'touch ran'\no.",
    "new object": pickle.dumps(Path("ran")),
    "ordered dictionary": pickle.dumps(collections.OrderedDict(a=1)),
    "array of objects": pickle.dumps(np.array([_Calls(eval, "open('ran', 'w')")], dtype=object)),
    "load": b"cnumpy\nload\n(S'ran'\ntR.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"Pran\n.",
    "buffer of another process": b"\x80\x05\x97.",
    "state of a name": b"\x80\x02cnumpy\nndarray\n}X\x05\x00\x00\x00_makeK\x01sb.",
    "table of 2^32 entries": b"\x80\x02Nr\xff\xff\xff\xff.",
    "table of 2^60 entries in text": b"Np1152921504606846976\n.",
    "bytes of 2^60": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.",
    "byte array of 2^60": b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b"x.",
    "frame of 2^60": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
    "nested tuples": b"\x80\x02)" + b"\x85" * (MAX_TUPLES + 1) + b".",
    "call of a number": b"\x80\x02K\x01)R.",
    "truncated": pickle.dumps({"data": IMAGES})[:-500],
    "empty": b"",
    "no end": b"\x80\x02N",
    "no value": b"\x80\x02.",
    "bad memo": b"\x80\x02h\x05.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_anything_but_data_is_refused_and_nothing_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"refused|not a pickle|pickle exhausted|expected|not enough") as error:
        arrays_of_pickle(HOSTILE[name])
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["os", "posix", "subprocess", "builtins", "importlib", "numpy.testing", "codecs"])
def test_the_name_that_is_refused_is_told(module: str) -> None:
    with pytest.raises(ValueError, match=rf"asks for {module}\.run, .*nothing of it was run"):
        arrays_of_pickle(b"c" + module.encode() + b"\nrun\n.")


def array_with(**state: object) -> bytes:
    """A pickled array whose state says something else."""
    values = {"version": 1, "shape": (4,), "type": np.dtype(np.uint8), "order": False, "bytes": b"abcd"} | state
    return pickle.dumps(_WithState(tuple(values.values())), 4)


class _WithState:
    def __init__(self, state: object) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        function, arguments, _ = IMAGES.__reduce__()  # type: ignore[misc]
        return function, arguments, self.state


def test_an_array_takes_no_more_memory_than_its_bytes() -> None:
    assert arrays_of_pickle(array_with())[0].tolist() == [97, 98, 99, 100]
    for shape in [(2**40,), (5,), (-2, -2), (2.0, 2), "abcd", (True, 4), None]:
        with pytest.raises(ValueError, match=r"do not fill its shape|without bytes or shape"):
            arrays_of_pickle(array_with(shape=shape))
    for change in ({"bytes": 4}, {"bytes": None}, {"bytes": "abcd"}):
        with pytest.raises(ValueError, match="without bytes or shape"):
            arrays_of_pickle(array_with(**change))


def test_containers_within_each_other_are_walked_once() -> None:
    inner: list[object] = [IMAGES] * 1000
    outer: list[object] = [inner] * 1000
    outer.append(outer)
    assert len(arrays_of_pickle(pickle.dumps([outer] * 1000))) == 1
