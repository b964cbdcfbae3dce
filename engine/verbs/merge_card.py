"""What lies beside merged weights: files of the first model, a model card, and a record of the merge."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from engine.formats.tokenizer_files import (
    TOKEN_FILES,
    USUAL,
    carried,
    has_own_code,
    is_folder_of_some,
    with_dtype,
    with_vocabulary_size,
)
from engine.plan.fates import Fate, counts
from engine.storage import Place, read_whole
from engine.verbs.merge_inputs import Inputs
from engine.version import __version__

_MOST_BYTES = 1 << 28
_CONFIG = "config.json"
_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def files_of(inputs: Inputs) -> dict[str, bytes]:
    """Configuration, tokenizer and whatever else belongs to a model, from beside the first model's weights.

    Raises:
        FormatError: one of them is damaged.
        TaskError: a store does not answer.
    """
    found, folder = beside(inputs.place), inputs.place.folder
    if _CONFIG in found and inputs.recipe.out_dtype is not None:
        found[_CONFIG] = with_dtype(found[_CONFIG], _NAMES[inputs.recipe.out_dtype])
    if inputs.rows is not None:
        if _CONFIG in found:
            found[_CONFIG] = with_vocabulary_size(found[_CONFIG], inputs.rows.rows)
        if inputs.rows.added:
            for name in TOKEN_FILES.keys() & found.keys():
                found[name] = TOKEN_FILES[name](found[name], inputs.rows.added, folder.address(name))
    return found


def beside(place: Place) -> dict[str, bytes]:
    """What is carried over from beside the weights of a model, by path.

    Args:
        place: where the model is; of one that was named as a file, programs that lie beside it belong to it
            only if its settings say that it has code of its own.

    Raises:
        TaskError: a store does not answer.
    """
    folder = place.folder
    listed = [*folder.names(), *folder.names_below(is_folder_of_some)]
    names = carried(listed) or [name for name in USUAL if folder.has(name)]

    def read(chosen: Iterable[str]) -> dict[str, bytes]:
        return {name: read_whole(folder.address(name), _MOST_BYTES) for name in chosen}

    programs = [name for name in names if name.endswith(".py")]
    found = read(name for name in names if name not in programs)
    return found | (read(programs) if place.file is None or has_own_code(found) else {})


def record_of(inputs: Inputs, fates: Sequence[Fate]) -> dict[str, Any]:
    """What was merged, for whoever finds the result."""
    return {
        "engine_version": __version__,
        "config": inputs.config,
        "inputs": [
            {"uri": c.uri, "revision": c.revision, "fingerprint": c.fingerprint} for c in inputs.operands
        ],
        "tensors": dict(counts(fates)),
        "copied": {f.tensor.name: f.reason for f in fates if f.kind == "copied"},
        "refused": {f.tensor.name: f.reason for f in fates if f.kind == "refused"},
    }


def card(inputs: Inputs, title: str, fates: Sequence[Fate]) -> bytes:
    """A model card of a merge, as the Hub reads it."""
    schema = inputs.recipe.schema
    models = [inputs.operands[n] for n in inputs.roles.models]
    base = [inputs.operands[0]] if schema.base else []
    lines = [
        *(f"- base: `{c.uri}`" for c in base),
        *(f"- model: `{c.uri}`" for c in models),
        "",
        "```yaml",
        inputs.text.rstrip("\n"),
        "```",
    ]
    names = [c.name for c in (*base, *models)]
    return page(title, f"Merged by the method `{schema.name}`", names, fates, lines)


def page(
    title: str,
    says: str,
    names: Sequence[str],
    fates: Sequence[Fate],
    lines: Sequence[str],
    *,
    done: str = "merged",
) -> bytes:
    """A model card.

    Args:
        title: of the model.
        says: how it was made.
        names: of what it was made of.
        fates: of its tensors.
        lines: more of it.
        done: what was done to tensors.
    """
    number, merged = counts(fates), done == "merged"
    front = [
        "---",
        "library_name: transformers",
        f"tags: [{'merge, ' * merged}gaussmeter]",
        "base_model:",
        *(f"- {json.dumps(name)}" for name in dict.fromkeys(names)),
        *(["base_model_relation: merge"] if merged else []),
        "---",
    ]
    sums = f"{number['merged']:,} tensors {done}, {number['copied']:,} copied, {number['refused']:,} left out"
    text = [
        *front,
        "",
        f"# {title}",
        "",
        f"{says}, with gaussmeter {__version__}.",
        "",
        f"- {sums}",
        *lines,
        "",
    ]
    return "\n".join(text).encode("utf-8", "backslashreplace")
