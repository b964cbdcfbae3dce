"""Compiles CUDA C++ with NVRTC and launches it, through the C interfaces of NVRTC and of the driver.

torch's own wrapper is private and passes integers of 32 bits only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import torch

from engine.errors import DeviceError, TaskError

Argument: TypeAlias = "torch.Tensor | ctypes._SimpleCData[Any] | ctypes.Structure | None"

_MAX_DYNAMIC_SHARED_SIZE = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


class Kernel:
    """One compiled function on one GPU.

    Args:
        function: the driver's handle.
        shared: bytes of shared memory that a block takes.
    """

    def __init__(self, function: ctypes.c_void_p, shared: int) -> None:
        self._function, self._shared = function, shared

    def __call__(self, blocks: int, threads: int, *arguments: Argument) -> None:
        """Launch on the current stream. Tensors stand for their addresses, None for no address.

        Raises:
            DeviceError: the driver refused.
        """
        values = [
            a if isinstance(a, ctypes._SimpleCData | ctypes.Structure) else _address(a) for a in arguments
        ]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        _check(
            _driver().cuLaunchKernel(
                self._function, blocks, 1, 1, threads, 1, 1, self._shared, stream, pointers, None
            )
        )


def _address(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


@cache
def kernel(device: int, name: str, sources: tuple[str, ...], shared: int, **macros: int) -> Kernel:
    """Compile a kernel for a GPU, once a process.

    Args:
        device: index of the GPU, which must be the current one.
        name: of the function.
        sources: files beside this one, one after the other.
        shared: bytes of dynamic shared memory that a block takes.
        macros: definitions for the preprocessor.

    Raises:
        TaskError: it does not compile.
        DeviceError: the driver refuses it.
    """
    text = "\n".join((files(__package__) / source).read_text() for source in sources)
    return load(device, name, text, shared, macros)


def load(device: int, name: str, text: str, shared: int, macros: Mapping[str, int]) -> Kernel:
    """Compile a kernel that is given as text; otherwise as `kernel`."""
    major, minor = torch.cuda.get_device_capability(device)
    binary = compile_source(text, f"sm_{major}{minor}", macros)
    torch.cuda.synchronize(device)  # the driver needs torch's context
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    driver = _driver()
    _check(driver.cuModuleLoadData(ctypes.byref(module), binary))
    _check(driver.cuModuleGetFunction(ctypes.byref(function), module, name.encode()))
    _check(driver.cuFuncSetAttribute(function, _MAX_DYNAMIC_SHARED_SIZE, ctypes.c_int(shared)))
    return Kernel(function, shared)


def compile_source(text: str, architecture: str, macros: Mapping[str, int]) -> bytes:
    """Compile to machine code.

    Args:
        text: CUDA C++.
        architecture: such as `sm_90`.
        macros: definitions for the preprocessor.

    Raises:
        TaskError: it does not compile.
    """
    library = compiler()
    if library is None:
        raise TaskError("NVRTC is not installed")
    options = [
        f"--gpu-architecture={architecture}",
        "--std=c++17",
        *(f"-D{k}={v}" for k, v in macros.items()),
    ]
    encoded = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
    program = ctypes.c_void_p()
    _require(
        library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"gaussmeter.cu", 0, None, None)
    )
    try:
        if library.nvrtcCompileProgram(program, len(options), encoded):
            log = _fetch(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program)
            raise TaskError(f"a GPU kernel does not compile: {log.decode(errors='replace')}")
        return _fetch(library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN, program)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _fetch(size_of: Any, read: Any, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _require(size_of(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _require(read(program, buffer))
    return buffer.raw


def _require(status: int) -> None:
    if status:
        raise TaskError(f"a GPU kernel does not compile: NVRTC gives the error {status}")


@cache
def compiler() -> ctypes.CDLL | None:
    """NVRTC as torch brings it, or as the system has it; None where there is none."""
    if torch.version.cuda is None:
        return None
    name = f"libnvrtc.so.{torch.version.cuda.split('.', maxsplit=1)[0]}"
    for place in (name, *map(str, _wheels(name))):
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    return None


def _wheels(name: str) -> list[Path]:
    spec = find_spec("nvidia")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    return [path for root in roots for path in sorted(Path(root).glob(f"*/lib/{name}"))]


@cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _check(status: int) -> None:
    if status:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(status, ctypes.byref(text))
        raise DeviceError(f"the GPU's driver refused a kernel: {(text.value or b'unknown error').decode()}")
