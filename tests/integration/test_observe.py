"""`engine.observe`: a model in memory has the rows that its saved weights have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import engine
from engine.errors import ConfigError
from engine.kernels.cuda import tensors
from engine.nouns.dtypes import DTYPES
from tests.integration.helpers import assert_consistent, made, rows

# of whatever order the tensors come in, and wherever they lie
TENSORS = (
    "SELECT t.* EXCLUDE (tensor_id, subject_id, ordinal) FROM tensors t JOIN subjects s USING (subject_id) "
    "WHERE s.name = ? ORDER BY t.name"
)
BINS = (
    "SELECT t.name, b.* EXCLUDE (tensor_id) FROM bins b JOIN tensors t USING (tensor_id) "
    "JOIN subjects s USING (subject_id) WHERE s.name = ? ORDER BY t.name, code"
)


class Model(nn.Module):
    """Weights of every dtype, in every layout, frozen and not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embed = nn.Embedding(50, 24)
        self.layers = nn.ModuleList(nn.Linear(24, 24) for _ in range(2))
        self.norm = nn.LayerNorm(24)
        self.layers[1].requires_grad_(False)
        self.sixteen = nn.Parameter(torch.randn(7, 9).to(torch.float16))
        self.register_buffer("wide", torch.randn(31).double())
        self.register_buffer("small", torch.randn(33).to(torch.float8_e4m3fn))
        self.register_buffer("ids", torch.arange(5))
        self.register_buffer("flags", torch.ones(3, dtype=torch.bool))
        self.register_buffer("none", torch.zeros(0, 4))
        self.register_buffer("one", torch.tensor(2.5))
        self.register_buffer("hidden", torch.randn(4), persistent=False)
        self.layers.to(torch.bfloat16)


def found(warehouse: Path, name: str) -> str:
    """Everything that was counted; as text, for there may be NaN."""
    return repr((rows(warehouse, TENSORS, name), rows(warehouse, BINS, name)))


def test_a_module_has_the_rows_of_its_saved_weights(tmp_path):
    model, warehouse = Model(), made(tmp_path / "w.duckdb")
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    engine.scan(tmp_path / "m.safetensors", name="saved", warehouse=warehouse, workers=1)
    report = engine.observe(model, name="live", warehouse=warehouse)
    assert (report.status, report.name, report.tensors, report.listed) == ("observed", "live", 14, 2)
    assert report.nbytes == sum(t.nbytes for t in model.state_dict().values())
    assert found(warehouse, "live") == found(warehouse, "saved")
    assert rows(warehouse, "SELECT kind, uri, format FROM subjects WHERE name = 'live'") == [
        ("observation", "observation:live", "torch")
    ]
    assert_consistent(warehouse)
    assert engine.observe(model.state_dict(), name="dict", warehouse=warehouse).tensors == 14
    assert found(warehouse, "dict") == found(warehouse, "saved")


def test_the_same_weights_are_one_subject_and_changed_ones_another(tmp_path):
    model, warehouse = nn.Linear(5, 3), made(tmp_path / "w.duckdb")
    first = engine.observe(model, name="m", warehouse=warehouse)
    again = engine.observe(model, name="m", warehouse=warehouse)
    assert (again.status, again.subject_id) == ("unchanged", first.subject_id)
    with torch.no_grad():
        model.bias += 1
    assert engine.observe(model, name="m", warehouse=warehouse).subject_id > first.subject_id
    ((mean,),) = rows(
        warehouse, "SELECT mean FROM tensor_stats WHERE name = 'bias' ORDER BY subject_id DESC LIMIT 1"
    )
    assert mean == pytest.approx(float(model.bias.detach().mean()))


def test_the_same_elements_count_once_as_in_a_file_of_torch(tmp_path):
    model = nn.ModuleDict(
        {"a": nn.Embedding(9, 5), "b": nn.Linear(5, 9, bias=False), "c": nn.Linear(9, 5, bias=False)}
    )
    model["b"].weight = model["a"].weight
    weights = model.state_dict()
    weights |= {"turned": model["a"].weight.detach().t(), "flat": model["a"].weight.detach().reshape(-1)}
    weights |= {"part": model["a"].weight.detach()[2:], "every": model["c"].weight.detach()[:, ::2]}
    warehouse = made(tmp_path / "w.duckdb")
    torch.save(weights, tmp_path / "m.bin")
    engine.scan(tmp_path / "m.bin", name="saved", warehouse=warehouse, workers=1)
    engine.observe(weights, name="live", warehouse=warehouse)
    assert found(warehouse, "live") == found(warehouse, "saved")
    aliases = "SELECT name, alias_of FROM tensors t JOIN subjects s USING (subject_id) WHERE s.name = 'live' AND alias_of IS NOT NULL"
    assert rows(warehouse, aliases.replace("name,", "t.name,", 1)) == [
        ("b.weight", "a.weight"), ("turned", "a.weight"), ("flat", "a.weight"),
    ]  # fmt: skip


def test_what_a_run_says_twice_is_entered_once(tmp_path):
    """A worker that begins again from a checkpoint counts the same updates again."""
    from engine.device.live import observe_all
    from engine.verbs.observe import keep
    from engine.warehouse.store import Warehouse

    store = Warehouse(made(tmp_path / "w.duckdb"))
    seen = observe_all(nn.Linear(4, 4).state_dict())
    spec = {"run": "sweep/a", "step": 3}
    reports = [keep(seen, "sweep/a@3", store, spec=spec, began=0.0) for _ in range(2)]
    assert [r.status for r in reports] == ["observed", "unchanged"]
    assert keep(seen, "sweep/a@4", store, spec=spec | {"step": 4}, began=0.0).status == "observed"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (torch.empty(3, device="meta"), "tensor 'x': is on the meta device"),
        (torch.eye(3).to_sparse(), "is sparse or quantised"),
        ([1.0], "is no tensor but a list"),
        ({"y": torch.ones(2)}, "is no tensor but a dict"),
    ],
)
def test_what_has_no_values_is_refused_in_a_sentence(tmp_path, value, why):
    with pytest.raises(ConfigError, match=why):
        engine.observe({"x": value}, name="m", warehouse=tmp_path / "w.duckdb")
    assert not (tmp_path / "w.duckdb").exists()


def test_other_refusals(tmp_path):
    for more, why in (({"name": ""}, "needs a name"), ({"device": "tpu"}, "unknown device 'tpu'")):
        with pytest.raises(ConfigError, match=why):
            engine.observe(nn.Linear(2, 2), **{"name": "m", "warehouse": tmp_path / "w.duckdb", **more})


def test_every_dtype_of_torch_has_a_name_in_the_table():
    for name in dir(torch):
        dtype = getattr(torch, name)
        if isinstance(dtype, torch.dtype) and not name.startswith(
            ("q", "uint", "int", "bits", "float4", "complex32", "chalf")
        ):
            assert tensors.spelling_of(torch.empty(1, dtype=dtype)) in DTYPES
    assert tensors.spelling_of(torch.zeros(2, dtype=torch.uint16)) == "U16"


def test_extra_state_is_passed_over(tmp_path):
    class Extra(nn.Linear):
        def get_extra_state(self) -> object:
            return {"recipe": np.ones(2)}

        def set_extra_state(self, state: object) -> None:
            pass

    assert engine.observe(Extra(2, 2), name="m", warehouse=made(tmp_path / "w.duckdb")).tensors == 2
