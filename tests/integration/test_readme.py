"""Every bash and python block of the documents runs, in order, in a folder with `model/` and `tuned/`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from engine.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def make_model(folder: Path, noise: float = 0.0) -> None:
    rng = np.random.default_rng(0)
    shapes = {
        "attention.self.query": (16, 16),
        "attention.output.dense": (16, 16),
        "intermediate.dense": (64, 16),
    }
    tensors = {
        f"encoder.layer.{layer}.{module}.weight": rng.normal(0, 0.05, shape).astype(np.float16)
        for layer in range(2)
        for module, shape in shapes.items()
    }
    tensors = {n: (t + noise * rng.normal(size=t.shape)).astype(np.float16) for n, t in tensors.items()}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_blocks_run(document: Path, tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    make_model(tmp_path / "tuned", noise=1e-3)
    blocks = BLOCK.findall(document.read_text(encoding="utf-8"))
    assert blocks, f"{document.name} has no block to run"
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("GAUSSMETER_WAREHOUSE", None)
    for language, code in blocks:
        command = ["bash", "-eu", "-c", code] if language == "bash" else [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert len(listed) >= 6
    missing = [name for name in listed if f"gaussmeter {name}" not in text]
    assert not missing
