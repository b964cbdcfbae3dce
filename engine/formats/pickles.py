"""Pickles of torch, read without running anything: `weights_only` semantics, and stand-ins for every class.

A pickle is a program. What it may ask for is in `_ALLOWED`, and everything there is a harmless function or
class of this file; whatever else it names is refused, by name, before anything is built. Lengths and memo
indexes are checked before the unpickler sees them, because they could make it claim all memory.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from engine.errors import FormatError

MAX_PICKLE_BYTES = 512 << 20
_DAMAGE = (
    pickle.UnpicklingError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError,
    OverflowError, RecursionError, MemoryError, AssertionError,
)  # fmt: skip
"""Everything that a malformed pickle makes the unpickler raise."""

_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "ComplexDoubleStorage": "C128",
    "QInt8Storage": "I8", "QUInt8Storage": "U8", "QInt32Storage": "I32",
    "UntypedStorage": "U8",
}  # fmt: skip

_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "double": "F64", "float": "F32",
    "half": "F16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8",
    "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL", "complex64": "C64",
    "complex128": "C128", "complex32": "C32",
    "float8_e4m3fn": "F8_E4M3", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0", "float4_e2m1fn_x2": "F4",
    "qint8": "I8", "quint8": "U8", "qint32": "I32", "quint4x2": "U8", "quint2x4": "U8",
}  # fmt: skip


class Inert:
    """Stands for an object that nothing is done with."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class DtypeName:
    """Stands for a torch.dtype, or a storage class: the dtype by safetensors' spelling."""

    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """Stands for a storage.

    Attributes:
        key: its name in the archive.
        dtype: of its elements.
        elements: how many it has.
    """

    key: str
    dtype: str
    elements: int


@dataclass(slots=True, eq=False)
class Tensor:
    """Stands for a tensor.

    Attributes:
        storage: what holds its elements; None for one that has none, with a reason.
        start: index of its first element.
        shape: its dimensions.
        strides: elements from one to the next along each.
        dtype: of its elements.
        reason: why it cannot be counted.
    """

    storage: Storage | None
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    reason: str | None = None

    def __setstate__(self, _: Any) -> None: ...


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no size")
    return value


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)):
        raise ValueError(f"{type(value).__name__} is no shape")
    return tuple(map(_whole, value))


def _tensor(storage: Any, start: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    """`torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`."""
    if not isinstance(storage, Storage):
        raise ValueError(f"a tensor is built from {type(storage).__name__}, not a storage")
    shape, strides = _sizes(shape), _sizes(strides)
    if len(shape) != len(strides):
        raise ValueError(f"{len(shape)} dimensions have {len(strides)} strides")
    return Tensor(storage, _whole(start), shape, strides, storage.dtype)


def _tensor_of_dtype(
    storage: Any, start: Any, shape: Any, strides: Any, _: Any, __: Any, dtype: Any, *___: Any
) -> Tensor:
    """`torch._utils._rebuild_tensor_v3`: the storage is one of bytes."""
    tensor = _tensor(storage, start, shape, strides)
    if not isinstance(dtype, DtypeName):
        raise ValueError(f"{dtype!r} is no dtype")
    tensor.dtype = dtype.name
    return tensor


def _parameter(data: Any, *_: Any) -> Any:
    """`torch._utils._rebuild_parameter` and `torch.nn.Parameter`."""
    return data


def _typed(function: Any, _: Any, arguments: Any, __: Any) -> Any:
    """`torch._tensor._rebuild_from_type_v2`: a subclass is read as the tensor that it is."""
    if getattr(function, "func", None) not in _BUILDERS:
        raise ValueError("a tensor is built by something that builds none")
    return function(*arguments)


def _uncountable(reason: str) -> Callable[..., Tensor]:
    def build(*arguments: Any, **_: Any) -> Tensor:
        shape = next(
            (a for a in arguments if isinstance(a, tuple) and all(isinstance(x, int) for x in a)), ()
        )
        return Tensor(None, 0, tuple(x for x in shape if x >= 0), (), "F32", reason)

    return build


def _encode(text: Any, encoding: Any = "utf-8") -> bytes:
    """`_codecs.encode`, which protocol 2 spells bytes with."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8"):
        raise ValueError(f"{encoding!r} is no plain encoding")
    return text.encode(encoding)


def _bytes(value: Any = b"", *_: Any) -> bytes:
    """`bytearray`, of given bytes alone: a length would claim memory."""
    if not isinstance(value, (bytes, bytearray)):
        raise ValueError("bytes of a given length")
    return bytes(value)


def _set(values: Any = ()) -> Any:
    return set(values) if isinstance(values, (list, tuple)) else set()


_BUILDERS = [_tensor, _tensor_of_dtype, _parameter]

_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "Counter"): Counter,
    ("collections", "defaultdict"): lambda *_: {},
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("builtins", "frozenset"): _set,
    ("builtins", "bytearray"): _bytes,
    ("__builtin__", "bytearray"): _bytes,
    ("builtins", "complex"): complex,
    ("_codecs", "encode"): _encode,
    ("torch", "Size"): _sizes,
    ("torch", "device"): Inert,
    ("torch", "Tensor"): Inert,
    ("torch", "Generator"): Inert,
    ("torch.serialization", "_get_layout"): Inert,
    ("torch.nn.parameter", "Parameter"): _parameter,
    ("torch.nn.parameter", "Buffer"): _parameter,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_of_dtype,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _uncountable("stored as an array of numpy"),
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _parameter,
    ("torch._utils", "_rebuild_sparse_tensor"): _uncountable("sparse"),
    ("torch._utils", "_rebuild_qtensor"): _uncountable("quantised by torch"),
    ("torch._utils", "_rebuild_nested_tensor"): _uncountable("nested"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _uncountable("without data"),
    ("torch._tensor", "_rebuild_from_type_v2"): _typed,
    **{("torch", name): DtypeName(dtype) for name, dtype in _STORAGES.items()},
    ("torch.storage", "UntypedStorage"): DtypeName("U8"),
    **{("torch", name): DtypeName(dtype) for name, dtype in _DTYPES.items()},
    **{("torch", name): Inert() for name in (
        "strided", "sparse_coo", "per_tensor_affine", "per_channel_affine",
    )},
}  # fmt: skip

Allowed = Mapping[tuple[str, str], Any]


def _copy(found: Any) -> Any:
    """Make something of its own for one pickle, so that nothing in it can change the original."""
    if found is OrderedDict or not callable(found):
        return found
    if isinstance(found, type):
        return type(found.__name__, (found,), {})
    return partial(found)


class _Unpickler(pickle.Unpickler):
    """Builds nothing but what is allowed."""

    def __init__(self, data: bytes, uri: str, also: Allowed) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._uri, self._also = uri, also
        self._copies: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        found = self._also.get((module, name), _ALLOWED.get((module, name)))
        if found is None:
            refuse(f"{module}.{name}", self._uri)
        return self._copies.setdefault((module, name), _copy(found))

    def persistent_load(self, pid: Any) -> Storage:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise ValueError("refers to something that is no storage")
        _, kind, key, _, elements = pid[:5]
        if not isinstance(kind, DtypeName) or not isinstance(key, str):
            raise ValueError("refers to a storage of no known kind")
        return Storage(key, kind.name, _whole(elements))


def refuse(wanted: str, uri: str) -> NoReturn:
    """Say that a pickle asked for something that is not weights."""
    raise FormatError(
        f"its pickle asks for {wanted[:120]!r}, which is not needed for weights and was not run", file=uri
    )


def load(data: bytes, uri: str, also: Allowed | None = None) -> Any:
    """Unpickle what describes weights.

    Args:
        data: the pickle.
        uri: of the file, for messages.
        also: stand-ins beside those of torch, by module and name.

    Raises:
        FormatError: it asks for anything else, or is damaged.
    """
    also = also or {}
    try:
        _check_program(data, uri, also)
        return _Unpickler(data, uri, also).load()
    except _DAMAGE as error:
        detail = str(error)[:200] or type(error).__name__
        raise FormatError(f"its pickle cannot be read: {detail}", file=uri) from error


def _check_program(data: bytes, uri: str, also: Allowed) -> None:
    """Look at every instruction before any is carried out."""
    instructions = 0
    highest = 0
    for opcode, argument, _ in pickletools.genops(data):
        instructions += 1
        if opcode.name in ("GLOBAL", "INST"):
            module, _, name = str(argument).partition(" ")
            if (module, name) not in _ALLOWED and (module, name) not in also:
                refuse(f"{module}.{name}", uri)
        elif opcode.name in ("EXT1", "EXT2", "EXT4"):
            refuse(f"extension {argument}", uri)
        elif opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            highest = max(highest, int(str(argument)))
    if highest > 4 * instructions + 256:
        raise ValueError(f"its memo counts to {highest:,} in {instructions:,} instructions")
