"""The vocabulary of torch's pickles: what `weights_only` allows, as stand-ins that describe and do nothing.

Everything a pickle may name is in `_ALLOWED`; whatever else it names is refused, by name. `pickle_machine`
follows the program.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from engine.errors import FormatError
from engine.formats.torch.pickle_machine import Atom, Buildable, ForbiddenError, Known, Machine, Vocabulary

MAX_PICKLE_BYTES = 128 << 20
_DAMAGE = (ValueError, TypeError, KeyError, IndexError, OverflowError, UnicodeError, AttributeError)
"""Everything that a malformed pickle makes the machine raise."""
_MOST_DIMENSIONS = 64

_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "ComplexDoubleStorage": "C128",
    "QInt8Storage": "I8", "QUInt8Storage": "U8", "QInt32Storage": "I32", "QUInt4x2Storage": "U8",
    "QUInt2x4Storage": "U8",
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
    **{f"{kind}{bits}": "OTHER" for kind in ("int", "uint") for bits in range(1, 8)},
    **{f"bits{name}": "OTHER" for name in ("1x8", "2x4", "4x2", "8", "16")},
}  # fmt: skip


class Inert(Buildable):
    """Stands for an object that nothing is done with."""

    def __init__(self, *_: Any, **__: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class DtypeName(Atom):
    """Stands for a torch.dtype, or a storage class: the dtype by safetensors' spelling."""

    name: str


@dataclass(frozen=True, slots=True)
class Storage(Atom):
    """Stands for a storage.

    Attributes:
        key: its name in the archive.
        dtype: of its elements.
        elements: how many it has.
    """

    key: str
    dtype: str
    elements: int


@dataclass(eq=False)
class Tensor(Buildable):
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


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"a {type(value).__name__} is no size")
    if not 0 <= value < 1 << 63:
        raise ValueError(f"{value if abs(value) < 1 << 63 else 'a number of many digits'} is no size")
    return value


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)) or len(value) > _MOST_DIMENSIONS:
        raise ValueError(f"a {type(value).__name__} that is no shape")
    return tuple(map(_whole, value))


def _tensor(storage: Any, start: Any, shape: Any, strides: Any, *rest: Any) -> Tensor:
    """`torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`, whose last argument may be marks."""
    if not isinstance(storage, Storage):
        raise ValueError(f"a tensor is built from {type(storage).__name__}, not a storage")
    shape, strides = _sizes(shape), _sizes(strides)
    if len(shape) != len(strides):
        raise ValueError(f"{len(shape)} dimensions have {len(strides)} strides")
    negated = len(rest) > 2 and isinstance(rest[2], dict) and bool(rest[2].get("neg"))
    reason = "stored with its signs reversed" if negated else None
    return Tensor(storage, _whole(start), shape, strides, storage.dtype, reason)


def _tensor_of_dtype(
    storage: Any, start: Any, shape: Any, strides: Any, _: Any, __: Any, dtype: Any, *___: Any
) -> Tensor:
    """`torch._utils._rebuild_tensor_v3`: the storage is one of bytes."""
    tensor = _tensor(storage, start, shape, strides)
    if not isinstance(dtype, DtypeName):
        raise ValueError(f"a {type(dtype).__name__} that is no dtype")
    tensor.dtype = dtype.name
    return tensor


def _parameter(data: Any, *_: Any) -> Any:
    """`torch._utils._rebuild_parameter` and `torch.nn.Parameter`."""
    return data


def _typed(function: Any, _: Any, arguments: Any, __: Any) -> Any:
    """`torch._tensor._rebuild_from_type_v2`: a subclass is read as the tensor that it is."""
    if not isinstance(function, Known) or function.call not in _BUILDERS or not isinstance(arguments, tuple):
        raise ValueError("a tensor is built by something that builds none")
    return function.call(*arguments)


def _uncountable(reason: str) -> Known:
    def build(*arguments: Any) -> Tensor:
        inner = [a for outer in arguments if isinstance(outer, tuple) for a in outer[:100]]
        shape = next((a for a in (*arguments, *inner) if _is_shape(a)), ())
        dtype = next((a.dtype for a in (*arguments, *inner) if isinstance(a, (Storage, Tensor))), "F32")
        return Tensor(None, 0, _sizes(shape), (), dtype, reason)

    return Known(build)


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(type(x) is int for x in value)


def _encode(text: Any, encoding: Any = "utf-8") -> bytes:
    """`_codecs.encode`, which protocol 2 spells bytes with."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8"):
        raise ValueError("text in no plain encoding")
    return text.encode(encoding)


def _bytes(value: Any = b"", *_: Any) -> bytes:
    """`bytearray`, of given bytes alone: a length would claim memory."""
    if not isinstance(value, bytes):
        raise ValueError("bytes of a given length")
    return value


def _dict(pairs: Any = (), *_: Any) -> dict[Any, Any]:
    """`OrderedDict` and its like; protocols before 2 give it a list of pairs."""
    if not isinstance(pairs, (list, tuple)):
        return {}
    return {key: value for key, value in pairs if isinstance(key, (str, int))}


def _set(values: Any = (), *_: Any) -> list[Any]:
    return values if isinstance(values, list) else []


def _complex(real: Any = 0.0, imaginary: Any = 0.0) -> complex:
    return complex(float(real), float(imaginary))


_BUILDERS = (_tensor, _tensor_of_dtype, _parameter)

_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Known(_dict),
    ("collections", "Counter"): Known(_dict),
    ("collections", "defaultdict"): Known(lambda *_: {}),
    **{(module, name): Known(stand_in) for module in ("builtins", "__builtin__") for name, stand_in in (
        ("set", _set), ("frozenset", _set), ("bytearray", _bytes), ("complex", _complex),
    )},
    ("_codecs", "encode"): Known(_encode),
    ("torch", "Size"): Known(_sizes),
    ("torch", "device"): Known(Inert),
    ("torch", "Tensor"): Known(Inert),
    ("torch", "Generator"): Known(Inert),
    ("torch.serialization", "_get_layout"): Known(Inert),
    ("torch.nn.parameter", "Parameter"): Known(_parameter),
    ("torch.nn.parameter", "Buffer"): Known(_parameter),
    ("torch._utils", "_rebuild_tensor"): Known(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Known(_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): Known(_tensor_of_dtype),
    ("torch._utils", "_rebuild_parameter"): Known(_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Known(_parameter),
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _uncountable("stored as an array of numpy"),
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): Known(_parameter),
    ("torch._utils", "_rebuild_sparse_tensor"): _uncountable("sparse"),
    ("torch._utils", "_rebuild_qtensor"): _uncountable("quantised by torch"),
    ("torch._utils", "_rebuild_nested_tensor"): _uncountable("nested"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _uncountable("without data"),
    ("torch._tensor", "_rebuild_from_type_v2"): Known(_typed),
    **{("torch", name): DtypeName(dtype) for name, dtype in _STORAGES.items()},
    ("torch.storage", "UntypedStorage"): DtypeName("U8"),
    **{("torch", name): DtypeName(dtype) for name, dtype in _DTYPES.items()},
    **{("torch", name): Known(Inert) for name in (
        "strided", "sparse_coo", "per_tensor_affine", "per_channel_affine",
        "per_channel_affine_float_qparams",
    )},
}  # fmt: skip


def _storage(pid: Any) -> Storage:
    """The storage that a persistent id names."""
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


def load(data: bytes, uri: str, also: Vocabulary | None = None) -> Any:
    """Read what a pickle describes.

    Args:
        data: the pickle.
        uri: of the file, for messages.
        also: stand-ins beside those of torch, by module and name.

    Raises:
        FormatError: it asks for anything else, or is damaged.
    """
    try:
        return Machine({**_ALLOWED, **(also or {})}, _storage).run(data)
    except ForbiddenError as error:
        refuse(error.wanted, uri)
    except _DAMAGE as error:
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise FormatError(f"its pickle cannot be read: {detail}", file=uri) from error
