"""Every bash and python block of the README runs, in order, in a folder with `model/` and `tuned/`."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from engine.cli.app import app
from tests.integration.documents import Session, blocks_of
from tests.integration.helpers import ROOT

README = ROOT / "README.md"


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


def test_blocks_run(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    make_model(tmp_path / "tuned", noise=1e-3)
    blocks = [block for block in blocks_of(README) if block.language in ("bash", "python")]
    assert len(blocks) >= 11
    session = Session(tmp_path)
    for block in blocks:
        session.do(block, f"README.md, line {block.line}")


def test_every_command_is_in_the_readme() -> None:
    text = README.read_text(encoding="utf-8")
    listed = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert len(listed) >= 6
    missing = [name for name in listed if f"gaussmeter {name}" not in text]
    assert not missing
