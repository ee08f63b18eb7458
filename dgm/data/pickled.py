"""Arrays of a pickle, read without running anything that the pickle names.

Only instructions that build data are allowed, and the few names that a pickled numpy array needs: they stand for the
classes of this file, which copy bytes and call neither numpy nor anything else with what the pickle says.
Source: the Python library's `pickle`, section "Restricting globals"; numpy's `ndarray.__reduce__`.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

MAX_MEMO_INDEX = 2**20  # the unpickler allocates a table of this size
MAX_TUPLES = 1000  # Python hashes nested tuples by recursion, without a limit of its own

_STRUCTURE = {"PROTO", "FRAME", "STOP", "MARK"}
_MEMO = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"}
_NUMBERS = {"NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
_REAL_NUMBERS = {"FLOAT", "BINFLOAT"}
_TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_TUPLES = {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_CONTAINERS = {"EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"}
_NAMED = {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"}  # names are checked one by one
_DATA_OPCODES = _STRUCTURE | _MEMO | _NUMBERS | _REAL_NUMBERS | _TEXTS | _BYTES | _TUPLES | _CONTAINERS | _NAMED


def arrays_of_pickle(data: bytes) -> list[NDArray[np.uint8]]:
    """The uint8 arrays of a pickled array, or dictionary, list or tuple of arrays (two levels deep), of any protocol.

    Raises: ValueError if the pickle is damaged, or asks for anything but arrays, lists, tuples, dictionaries, bytes,
    texts and numbers; nothing that it names has run then.
    """
    try:
        _check_instructions(data)
        value = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
    except RecursionError:
        raise ValueError("a pickle nested too deeply") from None
    except (pickle.UnpicklingError, EOFError, TypeError, AttributeError, LookupError, MemoryError) as error:
        raise ValueError(f"not a pickle of arrays: {error}") from None
    return [array.decoded() for array in _arrays_in(value, levels=3) if array.is_uint8()]


def _check_instructions(data: bytes) -> None:
    """Raises: ValueError if one of the pickle's instructions does more than build data."""
    num_tuples = 0
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _DATA_OPCODES:
            raise ValueError(f"refused, it is no pickle of plain arrays: instruction {opcode.name}")
        if opcode.name == "GLOBAL":
            _check_name(*str(argument).split(" ", 1))
        if opcode.name in ("PUT", "LONG_BINPUT") and cast(int, argument) > MAX_MEMO_INDEX:
            raise ValueError(f"refused, it asks for a table of {argument} entries")
        num_tuples += opcode.name in _TUPLES
        if num_tuples > MAX_TUPLES:
            raise ValueError(f"refused, it has more than {MAX_TUPLES} tuples")


class _Type:
    """Stands for numpy's `dtype`: only its name is kept, only that of uint8 is ever used."""

    __slots__ = ("name",)

    def __init__(self, name: object = None, *_: object) -> None:
        self.name = name.decode("latin-1") if isinstance(name, bytes) else name

    def __setstate__(self, state: object) -> None:
        """Byte order and fields: no matter for bytes."""


class _Array:
    """Stands for numpy's `ndarray`: the state that the pickle gives, checked before it is used."""

    __slots__ = ("_state",)

    def __init__(self, *_: object) -> None:
        self._state: tuple[Any, ...] = ()

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(cast("tuple[Any, ...]", state)) != 5:
            raise pickle.UnpicklingError("an array without version, shape, type, order and bytes")
        self._state = cast("tuple[Any, ...]", state)

    @classmethod
    def of_buffer(cls, data: object, dtype: object, shape: object, order: object, *_: object) -> _Array:
        """What protocol 5 calls."""
        array = cls()
        array._state = (1, shape, dtype, order == "F", data)
        return array

    def is_uint8(self) -> bool:
        return len(self._state) == 5 and isinstance(self._state[2], _Type) and self._state[2].name in ("u1", "uint8")

    def decoded(self) -> NDArray[np.uint8]:
        """Raises: ValueError if the bytes do not fill the shape."""
        _, shape, _, is_fortran, data = self._state
        if not isinstance(data, (bytes, bytearray)) or not isinstance(shape, tuple):
            raise ValueError("a pickled array without bytes or shape")
        sizes = cast("tuple[Any, ...]", shape)
        if not all(type(size) is int and size >= 0 for size in sizes) or math.prod(sizes) != len(data):
            raise ValueError(f"a pickled array has {len(data)} bytes, which do not fill its shape")
        return np.frombuffer(data, np.uint8).reshape(sizes, order="F" if is_fortran else "C")


class _Name:
    """What one allowed name stands for; its call is all that a pickle can do with it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., object]) -> None:
        self._make = make

    def __call__(self, *arguments: object) -> object:
        return self._make(*arguments)

    def __setstate__(self, state: object) -> NoReturn:
        raise pickle.UnpicklingError("refused, it changes what a name stands for")


def _encoded(text: object = "", encoding: object = "latin1") -> bytes:
    """How Python 3 writes bytes in protocols 0 to 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("bytes that are not encoded as latin1")
    return text.encode("latin-1")


def _number(*_: object) -> None:
    """A label as a numpy scalar: not read."""


_CORES = ("numpy.core", "numpy._core")
_NAMES: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encoded,
    ("__builtin__", "bytes"): _encoded,  # b"" in protocol 2
    ("builtins", "bytes"): _encoded,
    **{(f"{core}.multiarray", "_reconstruct"): _Array for core in _CORES},
    **{(f"{core}.multiarray", "scalar"): _number for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): _Array.of_buffer for core in _CORES},
}


def _check_name(module: str, name: str) -> None:
    if (module, name) not in _NAMES:
        raise ValueError(f"refused, it asks for {module}.{name}, which no array needs; nothing of it was run")


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> object:
        _check_name(module_name, global_name)
        return _Name(_NAMES[module_name, global_name])


def _arrays_in(value: object, levels: int) -> list[_Array]:
    """Every array down to `levels` of nesting, once, in their order."""
    seen: set[int] = set()  # a container may hold another one a million times over

    def walk(part: object, levels: int) -> list[_Array]:
        if id(part) in seen:
            return []
        seen.add(id(part))
        if isinstance(part, _Array):
            return [part]
        if not levels or not isinstance(part, (dict, list, tuple)):
            return []
        inner = part.values() if isinstance(part, dict) else part  # pyright: ignore[reportUnknownVariableType]
        return [array for item in cast("list[object]", inner) for array in walk(item, levels - 1)]

    return walk(value, levels)
