"""Torch files made by hand, opcode by opcode, and what torch's own tensors should come out as."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import engine
from engine.errors import FormatError
from engine.formats.torch.vocabulary import load
from engine.nouns.dtypes import DTYPES
from engine.sketch import Sketch, observe
from tests.integration.helpers import made, rows

STOP = b"."
FILE = "weights.pth"
MIB = 1 << 20
DTYPE_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    "complex32": "C32", "complex64": "C64", "complex128": "C128", "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2": "F8_E5M2", "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0", "float4_e2m1fn_x2": "F4",
}  # fmt: skip
"""Safetensors' spelling by torch's."""


def sentence(error: FormatError, file: object) -> str:
    """The one line that a refusal is, without the file that it names."""
    text = str(error)
    assert type(error) is FormatError
    assert error.exit_code == 2
    assert text.startswith(f"{file}: "), text
    assert len(text.splitlines()) == 1, text
    assert text.isprintable(), text
    return text.removeprefix(f"{file}: ")


# Pickles


def refusal(data: bytes) -> str:
    """The sentence with which a pickle is refused."""
    with pytest.raises(FormatError) as caught:
        load(data, FILE)
    return sentence(caught.value, FILE)


@contextmanager
def frugal(mib: int = 48, seconds: float = 5) -> Iterator[None]:
    """No more memory than this, and no more time."""
    tracemalloc.start()
    began = time.process_time()
    try:
        yield
        taken, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < seconds
    assert peak < mib * MIB


def glob(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def whole(number: int) -> bytes:
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8b" + struct.pack("<i", len(data)) + data


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def op(value: Any) -> bytes:
    """The opcodes of a value; bytes are opcodes already."""
    if isinstance(value, bytes):
        return value
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, tuple):
        return b"(" + b"".join(map(op, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(op, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(op(k) + op(v) for k, v in value.items()) + b"u"
    return whole(value) if isinstance(value, int) else text(value)


def call(module: str, name: str, *arguments: Any) -> bytes:
    return glob(module, name) + op(arguments) + b"R"


def storage(key: Any = "0", elements: Any = 4, kind: str = "FloatStorage") -> bytes:
    return op(("storage", glob("torch", kind), key, "cpu", elements)) + b"Q"


def tensor(shape: Any = (2, 2), strides: Any = (2, 1), start: Any = 0, of: bytes | None = None) -> bytes:
    hooks = call("collections", "OrderedDict")
    return call("torch._utils", "_rebuild_tensor_v2", of or storage(), start, shape, strides, False, hooks)


def program(body: Any, protocol: int = 2) -> bytes:
    return bytes([0x80, protocol]) + op(body) + STOP


def archive(pickled: bytes, storages: Mapping[str, bytes] | None = None, **more: bytes) -> bytes:
    """A torch file of a pickle and its storages; without any there is one of four float32 zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        for key, data in ({"0": bytes(16)} if storages is None else storages).items():
            file.writestr(f"archive/data/{key}", data)
        for name, data in ({"version": b"3\n", "byteorder": b"little"} | more).items():
            file.writestr(f"archive/{name}", data)
    return buffer.getvalue()


# What should come out


def data_of(found: Any) -> NDArray[np.uint8]:
    """The bytes of a torch tensor's elements, side by side."""
    import torch

    flat = found.detach().contiguous().reshape(-1)
    if flat.is_conj():
        flat = flat.resolve_conj()
    return flat.view(torch.uint8).numpy()


def sketch_of(found: Any) -> Sketch:
    return observe(data_of(found), DTYPES[DTYPE_NAMES[str(found.dtype).removeprefix("torch.")]])


Bins = list[tuple[Any, ...]]


def bins_of(sketch: Sketch) -> Bins:
    """The rows that the warehouse should have."""
    lows: list[Any] = [
        [None] * len(sketch.codes) if a is None else a.tolist()
        for a in (sketch.low_sum, sketch.low_square_sum)
    ]
    return sorted(zip(sketch.codes.tolist(), sketch.n.tolist(), *lows, strict=True))


def bins_in(warehouse: Path, subject_id: int = 1) -> dict[str, Bins]:
    """The rows that it has, by tensor; those of a tensor that is only listed are missing, not empty."""
    found: dict[str, Bins] = {
        name: []
        for (name,) in rows(
            warehouse, "SELECT name FROM tensors WHERE subject_id = ? AND reason IS NULL", subject_id
        )
    }
    of_subject = """
        SELECT t.name, b.code, b.n, b.low_sum, b.low_square_sum FROM bins b JOIN tensors t USING (tensor_id)
        WHERE t.subject_id = ? ORDER BY ALL"""
    for name, *row in rows(warehouse, of_subject, subject_id):
        found[name].append(tuple(row))
    return found


def noise(*shape: int, dtype: Any = None, seed: int = 0) -> Any:
    """A torch tensor of Gaussian values."""
    import torch

    found = torch.from_numpy(np.random.default_rng(seed).normal(0, 0.05, shape).astype("<f4"))
    return found.to(dtype or torch.float32)


def expected_bins(state: Mapping[str, Any]) -> dict[str, Bins]:
    """What a scan should count of a state dict."""
    return {name: bins_of(sketch_of(t)) for name, t in state.items() if t.is_floating_point()}


def refused_scan(uri: Path, file: Path) -> str:
    """The sentence with which a scan is refused; nothing of it is kept."""
    warehouse = made(uri.parent / "refused.duckdb")
    with pytest.raises(FormatError) as caught:
        engine.scan(uri, warehouse=warehouse, workers=1)
    assert rows(warehouse, "SELECT count(*) FROM subjects") == [(0,)]
    return sentence(caught.value, file)
