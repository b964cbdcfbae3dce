"""mergekit, beside: installed into an environment of its own and called as its users call it.

python benchmarks/mergekit_peer.py [--venv DIR]

mergekit 0.1.5 needs transformers 5, pydantic 2 and any torch from 2.0 on, so what constraints.txt pins suits
it as it is: nothing of it is left out, replaced or changed. What it needs beyond constraints.txt (datasets,
sentencepiece, immutables and their kin) is taken as the index has it. Where the index has no build of torch
for the CPU alone, a larger one is installed; that changes none of the arithmetic.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = "0.1.5"
VENV = Path(tempfile.gettempdir()) / f"gaussmeter-mergekit-{VERSION}"
_CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"


@dataclass(frozen=True, slots=True)
class Mergekit:
    """An installed mergekit.

    Attributes:
        venv: its environment.
    """

    venv: Path

    @property
    def python(self) -> str:
        """The environment's Python."""
        return str(self.venv / "bin" / "python")

    def command(self, config: Path, out: Path, *options: str) -> list[str]:
        """What a user types to merge, on the CPU."""
        return [str(self.venv / "bin" / "mergekit-yaml"), str(config), str(out), *options]

    def versions(self) -> dict[str, str]:
        """The releases that the arithmetic depends on."""
        look = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in %r}))"
        words = [self.python, "-c", look % (("mergekit", "torch", "transformers", "safetensors"),)]
        found: dict[str, str] = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
        return found


def add_venv(parser: argparse.ArgumentParser) -> None:
    """Let a benchmark be told where mergekit is."""
    parser.add_argument("--venv", type=Path, default=VENV, help=f"mergekit's environment; default {VENV}")


def install(venv: Path) -> Mergekit:
    """Take mergekit from an environment, after making that where it is missing.

    Args:
        venv: the folder; a first call takes about a minute and 1.6 GB of disk.
    """
    mergekit = Mergekit(venv)
    if not (venv / "bin" / "mergekit-yaml").exists():
        print(f"installing mergekit {VERSION} into {venv}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        pip = [mergekit.python, "-m", "pip", "install", "--quiet", f"mergekit=={VERSION}"]
        environment = {**os.environ, "PIP_CONSTRAINT": str(_CONSTRAINTS)}
        subprocess.run(pip, check=True, env=environment, stdout=sys.stderr)
    found = mergekit.versions()["mergekit"]
    return mergekit if found == VERSION else sys.exit(f"{venv} has mergekit {found}, wanted is {VERSION}")


def write_config(path: Path, config: dict[str, Any]) -> Path:
    """Write a configuration, which is YAML because it is JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config, indent=1) + "\n")
    return path


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_venv(parser)
    mergekit = install(parser.parse_args().venv)
    print(mergekit.command(Path("CONFIG"), Path("OUT"))[0], mergekit.versions())


if __name__ == "__main__":
    main()
