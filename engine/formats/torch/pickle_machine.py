"""A pickle read by hand: the instructions that describe data are followed, all others are refused.

Pickle is a language whose programs may call anything. This machine follows the part of it that state dicts
need; what a program names is looked up in a vocabulary of stand-ins, and nothing else can be called. The
standard library's `pickletools` splits the program into instructions; its unpickler is not used, because
pickles can make it change objects, claim memory, or overflow its stack, whatever `find_class` allows.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_INSTRUCTIONS = 8_000_000
MOST_CALL_BYTES = 64 << 20
"""What all calls together may be given in strings and bytes: more would be copies of one."""
MOST_KEY_PARTS = 200_000
"""Of all tuples that are keys together, because they are gone through."""
_KEY_DEPTH = 3


class ForbiddenError(Exception):
    """A program asks for something that is not in the vocabulary.

    Args:
        wanted: what it asks for.
    """

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        super().__init__(wanted)


@dataclass(frozen=True, slots=True)
class Known:
    """A name that may be called: by what it is stood for."""

    call: Callable[..., Any]


class Atom:
    """A stand-in that may be a key."""

    __slots__ = ()


class Buildable(Atom):
    """A stand-in that takes a state, and does with it as it likes."""

    def build(self, state: Any) -> None:
        """Take the state of an object; forget it."""


Vocabulary = Mapping[tuple[str, str], Any]
_MARK = object()
_PUSHED = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE", "BINBYTES",
    "BINBYTES8", "SHORT_BINBYTES",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_ATOMS = (str, int, float, bytes, type(None))


class Machine:
    """Follows one program.

    Args:
        vocabulary: what each module and name stands for: a `Known`, or a plain value.
        persistent: makes a value of a persistent id.
    """

    def __init__(self, vocabulary: Vocabulary, persistent: Callable[[Any], Any]) -> None:
        self._vocabulary, self._persistent = vocabulary, persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._call_bytes = self._key_parts = 0

    def run(self, data: bytes) -> Any:
        """Follow a program to its end.

        Returns:
            what it describes.

        Raises:
            ForbiddenError: it names something that is not in the vocabulary.
            ValueError, TypeError, IndexError, KeyError, OverflowError: it is damaged.
        """
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            name = opcode.name
            if count > MAX_INSTRUCTIONS:
                raise ValueError(f"more than {MAX_INSTRUCTIONS:,} instructions")
            if name in _PUSHED:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name == "STOP":
                return self._pop()
            elif name not in ("PROTO", "FRAME"):
                handler = _HANDLERS.get(name)
                if handler is None:
                    raise ForbiddenError(f"the instruction {name}")
                handler(self, argument)
        raise ValueError("ends without STOP")

    def _since_mark(self) -> list[Any]:
        for i in range(len(self._stack) - 1, -1, -1):
            if self._stack[i] is _MARK:
                items = self._stack[i + 1 :]
                del self._stack[i:]
                return items
        raise ValueError("there is no mark")

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a mark is no value")
        return value

    def _mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _drop(self, _: Any) -> None:
        self._stack.pop()

    def _drop_to_mark(self, _: Any) -> None:
        self._since_mark()

    def _duplicate(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _list(self, _: Any) -> None:
        self._stack.append(self._since_mark())

    def _empty_list(self, _: Any) -> None:
        self._stack.append([])

    def _empty_dict(self, _: Any) -> None:
        self._stack.append({})

    def _dict(self, _: Any) -> None:
        self._stack.append(self._filled({}, self._since_mark()))

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _short_tuple(self, size: int) -> None:
        items = [self._pop() for _ in range(size)]
        self._stack.append(tuple(reversed(items)))

    def _append(self, _: Any) -> None:
        self._extend([self._pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise ValueError(f"appends to a {type(target).__name__}")
        target.extend(items)

    def _set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._filled(self._stack[-1], [key, value])

    def _set_items(self, _: Any) -> None:
        items = self._since_mark()
        self._filled(self._stack[-1], items)

    def _get(self, index: Any) -> None:
        self._stack.append(self._memo[int(index)])

    def _put(self, index: Any) -> None:
        self._memo[int(index)] = self._stack[-1]

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _global(self, argument: Any) -> None:
        module, _, name = str(argument).partition(" ")
        self._stack.append(self._find(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name is no text")
        self._stack.append(self._find(module, name))

    def _find(self, module: str, name: str) -> Any:
        if (module, name) not in self._vocabulary:
            raise ForbiddenError(f"{module}.{name}")
        return self._vocabulary[module, name]

    def _reduce(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        self._stack.append(self._call(function, arguments))

    def _new_with_keywords(self, _: Any) -> None:
        keywords, arguments, function = self._pop(), self._pop(), self._pop()
        if keywords:
            raise ValueError("an object is made with keywords")
        self._stack.append(self._call(function, arguments))

    def _instance(self, argument: Any) -> None:
        arguments = tuple(self._since_mark())
        self._global(argument)
        self._stack.append(self._call(self._pop(), arguments))

    def _object(self, _: Any) -> None:
        function, *arguments = self._since_mark()
        self._stack.append(self._call(function, tuple(arguments)))

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Known):
            raise ValueError(f"calls a {type(function).__name__}")
        if not isinstance(arguments, tuple):
            raise ValueError(f"calls with a {type(arguments).__name__}")
        self._call_bytes += sum(len(a) for a in arguments if isinstance(a, (str, bytes, list, tuple)))
        if self._call_bytes > MOST_CALL_BYTES:
            raise ValueError(f"its calls are given more than {MOST_CALL_BYTES:,} bytes or values")
        return function.call(*arguments)

    def _build(self, _: Any) -> None:
        state, target = self._pop(), self._stack[-1]
        if isinstance(target, Buildable):
            target.build(state)
        elif not isinstance(target, dict):  # the attributes of an OrderedDict are of no use
            raise ValueError(f"sets the state of a {type(target).__name__}")

    def _filled(self, target: Any, items: list[Any]) -> dict[Any, Any]:
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError(f"sets items of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._check_key(key, _KEY_DEPTH)
            target[key] = value
        return target

    def _check_key(self, key: Any, depth: int) -> None:
        """Only what is hashed in one step, for a tuple of tuples of itself takes for ever."""
        if isinstance(key, tuple) and depth and len(key) < 100:
            self._key_parts += len(key)
            if self._key_parts > MOST_KEY_PARTS:
                raise ValueError(f"its keys have more than {MOST_KEY_PARTS:,} parts")
            for part in key:
                self._check_key(part, depth - 1)
        elif not isinstance(key, (*_ATOMS, Atom)):
            raise ValueError(f"has a {type(key).__name__} for a key")

    def _persist(self, _: Any) -> None:
        self._stack.append(self._persistent(self._pop()))


_HANDLERS: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": Machine._mark,
    "POP": Machine._drop,
    "POP_MARK": Machine._drop_to_mark,
    "DUP": Machine._duplicate,
    "LIST": Machine._list,
    "EMPTY_LIST": Machine._empty_list,
    "EMPTY_SET": Machine._empty_list,  # nothing asks whether an element is in it
    "FROZENSET": Machine._list,
    "EMPTY_DICT": Machine._empty_dict,
    "DICT": Machine._dict,
    "TUPLE": Machine._tuple,
    "TUPLE1": lambda machine, _: machine._short_tuple(1),
    "TUPLE2": lambda machine, _: machine._short_tuple(2),
    "TUPLE3": lambda machine, _: machine._short_tuple(3),
    "APPEND": Machine._append,
    "APPENDS": Machine._appends,
    "ADDITEMS": Machine._appends,
    "SETITEM": Machine._set_item,
    "SETITEMS": Machine._set_items,
    "GET": Machine._get,
    "BINGET": Machine._get,
    "LONG_BINGET": Machine._get,
    "PUT": Machine._put,
    "BINPUT": Machine._put,
    "LONG_BINPUT": Machine._put,
    "MEMOIZE": Machine._memoize,
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._reduce,
    "NEWOBJ_EX": Machine._new_with_keywords,
    "INST": Machine._instance,
    "OBJ": Machine._object,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persist,
}
