"""The commonsense tasks in LLM-Adapters' format (arXiv 2304.01933): prompts, and answers in texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

COLUMNS = ("instruction", "output", "answer")

TESTS = {
    "boolq": "BoolQ",
    "piqa": "PIQA",
    "social_i_qa": "SIQA",
    "hellaswag": "HellaS.",
    "winogrande": "WinoG.",
    "ARC-Easy": "ARC-e",
    "ARC-Challenge": "ARC-c",
    "openbookqa": "OBQA",
}
"""The eight tasks by the names of their files, and the paper's words for them."""

_ANSWER = re.compile(r"true|false|(?:answer|solution|option|ending)[1-5]")
_TRUTH = ("true", "false")
_PLAIN = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)


def prompt_of(row: Mapping[str, Any]) -> tuple[str, str, str] | str:
    """Prompt, completion and answer of a row; or what is wrong with it."""
    instruction, output, answer = (row.get(key) for key in COLUMNS)
    if not all(isinstance(text, str) and text for text in (instruction, output, answer)):
        return "instruction, output and answer must be texts that are not empty"
    given = row.get("input") or ""
    if not isinstance(given, str):
        return "input must be a text"
    if not _ANSWER.fullmatch(str(answer)):
        return f"the answer is {str(answer)[:40]!r}, expected true, false, answer1, solution2, option1, ..."
    form = _WITH_INPUT if given else _PLAIN
    return form.format(instruction=instruction, input=given), str(output), str(answer)


def extract(text: str, expected: str) -> str:
    """The first answer in a text that is of the kind of the one expected, "" if there is none.

    "It is true that solution1 ..." says `solution1` where a solution is asked for; LLM-Adapters looks for no
    other kind either.
    """
    kind = "|".join(_TRUTH) if expected in _TRUTH else re.escape(expected.rstrip("12345")) + "[1-5]"
    found = re.search(kind, text)
    return found[0] if found else ""
