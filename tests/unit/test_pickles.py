"""Pickles are read and never run: whatever one asks for, it gets a refusal or the weights, and little memory."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from engine.errors import FormatError
from engine.formats.torch.archive import read_torch
from engine.formats.torch.state_dict import find_weights
from engine.formats.torch.vocabulary import _ALLOWED, load
from tests.torch_files import (
    FILE,
    archive,
    call,
    frugal,
    glob,
    op,
    program,
    refusal,
    storage,
    tensor,
    text,
)

torch = pytest.importorskip("torch")

CODE = 0xF1  # an extension code that nobody registers


# What must not run. Each makes a file if it does.


def shell(canary: Path) -> str:
    return f"touch '{canary}'"


def python(canary: Path) -> str:
    return f"open({str(canary)!r}, 'w').close()"


SYSTEM = ("posix", "system")


def stack_global(module: Any, name: Any) -> bytes:
    return op(module) + op(name) + b"\x93"


def inside(*arguments: Any, module: str = "torch._utils", name: str = "_rebuild_parameter") -> bytes:
    return call(module, name, *arguments)


LIVE: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "os.system": ("os.system", lambda c: call("os", "system", shell(c))),
    "posix.system": ("posix.system", lambda c: call(*SYSTEM, shell(c))),
    "nt.system by its old name": ("commands.getstatusoutput", lambda c: call("commands", "getstatusoutput", shell(c))),
    "eval": ("builtins.eval", lambda c: call("builtins", "eval", python(c))),
    "eval by its old name": ("__builtin__.eval", lambda c: call("__builtin__", "eval", python(c))),
    "exec": ("builtins.exec", lambda c: call("builtins", "exec", python(c))),
    "open": ("builtins.open", lambda c: call("builtins", "open", str(c), "w")),
    "getattr": ("builtins.", lambda c: call("builtins", "getattr", call("builtins", "__import__", "os"), "system")
                + op((shell(c),)) + b"R"),
    "import_module": ("operator.methodcaller", lambda c: call("operator", "methodcaller", "system", shell(c))
                      + op((call("importlib", "import_module", "os"),)) + b"R"),
    "subprocess": ("subprocess.check_output", lambda c: call("subprocess", "check_output", ["touch", str(c)])),
    "partial": ("functools.partial", lambda c: call("functools", "partial", glob(*SYSTEM), shell(c)) + b")R"),
    "pathlib": ("pathlib.Path", lambda c: stack_global("pathlib", "Path.touch")
                + op((call("pathlib", "Path", str(c)),)) + b"R"),
    "pickle in a pickle": ("_pickle.loads", lambda c: call(
        "_pickle", "loads", b"B" + struct.pack("<I", len(inner := program(call(*SYSTEM, shell(c))))) + inner)),
    "STACK_GLOBAL": ("posix.system", lambda c: stack_global(*SYSTEM) + op((shell(c),)) + b"R"),
    "INST": ("posix.system", lambda c: b"(" + text(shell(c)) + b"iposix\nsystem\n"),
    "OBJ": ("posix.system", lambda c: b"(" + glob(*SYSTEM) + text(shell(c)) + b"o"),
    "NEWOBJ": ("builtins.", lambda c: glob("builtins", "tuple") + op((
        glob("builtins", "map") + op((glob(*SYSTEM), [shell(c)])) + b"\x81",)) + b"\x81"),
    "NEWOBJ_EX": ("builtins.", lambda c: glob("builtins", "tuple") + op((
        glob("builtins", "map") + op((glob(*SYSTEM), [shell(c)])) + b"}\x92",)) + b"}\x92"),
    "EXT1": ("EXT1", lambda c: bytes([0x82, CODE]) + op((shell(c),)) + b"R"),
    "EXT2": ("EXT2", lambda c: b"\x83" + struct.pack("<H", CODE) + op((shell(c),)) + b"R"),
    "EXT4": ("EXT4", lambda c: b"\x84" + struct.pack("<i", CODE) + op((shell(c),)) + b"R"),
    "BUILD": ("posix.system", lambda c: call("collections", "OrderedDict") + op({"__setstate__": glob(*SYSTEM)})
              + b"b" + text(shell(c)) + b"b"),
    "in a persistent id": ("posix.system", lambda c: op(("storage", call(*SYSTEM, shell(c)), "0", "cpu", 4)) + b"Q"),
    "as the kind of a storage": ("posix.system", lambda c: op((
        "storage", glob("torch", "FloatStorage"), "0", call(*SYSTEM, shell(c)), 4)) + b"Q"),
    "in a subclass": ("posix.system", lambda c: call(
        "torch._tensor", "_rebuild_from_type_v2", glob(*SYSTEM), glob("torch", "Tensor"), (shell(c),), {})),
    "in a parameter": ("posix.system", lambda c: inside(call(*SYSTEM, shell(c)), False, None)),
    "in the hooks of a parameter": ("posix.system", lambda c: inside(None, False, call(*SYSTEM, shell(c)))),
    "as a key": ("posix.system", lambda c: op({call(*SYSTEM, shell(c)): 1})),
    "popped": ("posix.system", lambda c: call(*SYSTEM, shell(c)) + b"0N"),
}  # fmt: skip


class Reducing:
    """An object that pickles as a call, as every tutorial of this attack has it."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (shell(self.canary),)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def registered() -> Iterator[None]:
    """An extension code for a function that runs, as some library might have it."""
    copyreg.add_extension(*SYSTEM, CODE)
    yield
    copyreg.remove_extension(*SYSTEM, CODE)


@pytest.mark.parametrize("name", LIVE)
def test_what_would_run_is_refused_by_name(name, canary, registered):
    asked, build = LIVE[name]
    message = refusal(program(build(canary), 4))
    assert asked in message
    assert "was not run" in message
    assert not canary.exists()


@pytest.mark.parametrize("name", [n for n in LIVE if n not in ("BUILD", "in the hooks of a parameter")])
def test_and_it_would_run(name, canary, registered):
    with suppress(Exception):  # what comes after the call may fail
        pickle.Unpickler(io.BytesIO(program(LIVE[name][1](canary), 4 if name == "pathlib" else 2))).load()
    assert canary.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_reduce_in_every_protocol(protocol, canary):
    data = pickle.dumps({"weight": [Reducing(canary)]}, protocol)
    assert "system" in refusal(data)
    assert not canary.exists()
    pickle.loads(data)
    assert canary.exists()


FORBIDDEN = [
    ("subprocess", "Popen"), ("torch", "load"), ("torch.serialization", "load"), ("torch.storage", "_load_from_bytes"),
    ("torch.hub", "load"), ("torch.jit", "load"), ("torch._utils", "_import_dotted_name"),
    ("torch._utils", "_rebuild_wrapper_subclass"), ("torch.nn.modules.linear", "Linear"), ("torch.fx.graph_module", "reduce_graph_module"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"), ("numpy", "load"), ("numpy", "ndarray"),
    ("builtins", "type"), ("builtins", "object"), ("builtins", "setattr"), ("builtins", "globals"), ("builtins", "compile"),
    ("types", "FunctionType"), ("types", "CodeType"), ("copyreg", "_reconstructor"), ("marshal", "loads"), ("ctypes", "CDLL"),
    ("operator", "attrgetter"), ("runpy", "run_path"), ("webbrowser", "open"), ("shutil", "rmtree"), ("socket", "socket"),
    ("engine.formats.torch.vocabulary", "load"), ("__main__", "Model"), ("argparse", "Namespace"), ("", ""), ("builtins", ""),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), FORBIDDEN)
@pytest.mark.parametrize("spelling", ["c", "stack", "i", "o", "new"])
def test_whatever_is_not_needed_is_refused_by_name(module, name, spelling):
    spelt = {
        "c": call(module, name, "x"),
        "stack": stack_global(module, name),
        "i": b"(" + f"i{module}\n{name}\n".encode(),
        "o": b"(" + glob(module, name) + b"o",
        "new": glob(module, name) + b")\x81",
    }
    assert f"'{module}.{name}'" in refusal(program(spelt[spelling], 4))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch", "os.system"), ("torch", "FloatStorage.name"), ("torch", "Tensor.__init__"), ("torch", "_ops.os"),
        ("collections", "_sys.modules"), ("collections", "OrderedDict.__init_subclass__"), ("torch._utils", "torch.load"),
        ("torch os", "system"), ("torch", "FloatStorage "), ("torch ", "FloatStorage"),
    ],
)  # fmt: skip
def test_what_is_allowed_leads_nowhere_else(module, name):
    for spelt in (glob(module, name), stack_global(module, name)):
        assert f"{module}.{name}".split()[0] in refusal(program(spelt, 4))


@pytest.mark.parametrize("names", [(1, 2), (None, "x"), ("torch", b"N"), (["torch"], "load")])
def test_a_global_without_a_name(names):
    refusal(program(stack_global(*names), 4))


@pytest.mark.parametrize(("module", "name"), [n for n in FORBIDDEN if all(n)])
def test_torch_refuses_the_same(module, name, tmp_path):
    path = tmp_path / FILE
    path.write_bytes(archive(program({"weight": tensor(), "x": call(module, name)})))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    with pytest.raises(FormatError, match=rf"{module}\.{name}"):
        read_torch(str(path))


def test_a_long_name_is_cut():
    assert len(refusal(program(glob("os." + "a" * 100_000, "system")))) < 300


# Stand-ins keep nothing of a load

STATES = [
    ("I8",),
    ["I8"],
    {"name": "I8"},
    (None, {"name": "I8"}),
    ({"func": 1}, {"func": 2}),
    (1, (), {}, None),
]


def described(module: str, name: str) -> tuple[str, str]:
    found = load(program({"found": glob(module, name), "w": tensor()}), FILE)
    return repr(found["found"]).partition(" at 0x")[0], repr(found["w"])


@pytest.mark.parametrize("state", STATES, ids=repr)
def test_build_does_not_outlive_its_load(state):
    before = {key: described(*key) for key in _ALLOWED}
    for key in before:
        for target in (glob(*key), glob(*key) + b")R", glob(*key) + b")\x81"):
            with suppress(FormatError):
                load(program(target + op(state) + b"b"), FILE)
    assert {key: described(*key) for key in _ALLOWED} == before


def test_build_on_a_storage_cannot_make_it_nonsense():
    refusal(program({"w": storage() + op(("0", "NOPE", -5)) + b"b"}))


@pytest.mark.parametrize("method", ["items", "get", "keys", "__class__"])
def test_build_on_a_dict_changes_nothing(method):
    body = call("collections", "OrderedDict") + b"(" + text("w") + tensor() + b"u" + op({method: 5}) + b"b"
    assert [n.name for n in find_weights(load(program(body), FILE))] == ["w"]


# Nonsense


@pytest.mark.parametrize(
    "arguments",
    [
        (), (1,), ("0", 0, (2,), (1,)), (storage(),), (storage(), 0, (2,)), (storage(), -1, (2,), (1,)),
        (storage(), 0, (-2,), (1,)), (storage(), 0, (2,), (-1,)), (storage(), 0, (2, 2), (1,)), (storage(), 0, 2, 1),
        (storage(), None, (2,), (1,)), (storage(), True, (2,), (1,)), (storage(), 0, "22", (1, 1)),
        (storage(), 0, (True,), (1,)), (storage(), 0, (b"G" + bytes(8),), (1,)), (storage(), 0, ((2,),), (1,)),
        (glob("torch", "FloatStorage"), 0, (2,), (1,)), (tensor(), 0, (2,), (1,)), (storage(), 0, {}, {}),
    ],
)  # fmt: skip
def test_a_tensor_made_of_nonsense(arguments):
    refusal(program({"w": call("torch._utils", "_rebuild_tensor_v2", *arguments)}))


@pytest.mark.parametrize(
    "pid",
    [
        "0", 7, None, (), ("storage",), ("module", glob("torch", "FloatStorage"), "0", "cpu", 4), [1, 2, 3, 4, 5],
        ("storage", "FloatStorage", "0", "cpu", 4), ("storage", glob("torch", "FloatStorage"), 0, "cpu", 4),
        ("storage", glob("torch", "Tensor"), "0", "cpu", 4), ("storage", glob("torch", "FloatStorage"), "0", "cpu", -4),
        ("storage", glob("torch", "FloatStorage"), "0", "cpu", "4"),
    ],
)  # fmt: skip
def test_a_storage_that_is_none(pid):
    assert "refers to" in (m := refusal(program(op(pid) + b"Q"))) or "is no size" in m


def test_a_storage_by_a_line_of_text():
    assert refusal(b"\x80\x02P../../x\n.")


@pytest.mark.parametrize(
    "builder",
    [
        glob("_codecs", "encode"), glob("builtins", "set"), glob("torch._tensor", "_rebuild_from_type_v2"),
        call("torch", "device", "cpu"), glob("collections", "OrderedDict"), None, "print",
    ],
)  # fmt: skip
def test_a_subclass_is_built_by_nothing_but_a_builder_of_tensors(builder):
    typed = call("torch._tensor", "_rebuild_from_type_v2", builder, glob("torch", "Tensor"), ("x",), {})
    assert "builds none" in refusal(program(typed))


@pytest.mark.parametrize("encoding", ["rot13", "unicode_escape", "idna", "zlib_codec", 5, None])
def test_only_plain_encodings(encoding):
    assert "plain" in refusal(program(call("_codecs", "encode", "x", encoding)))


def test_a_length_is_no_bytes():
    with frugal():
        refusal(program(call("builtins", "bytearray", 1 << 40)))
