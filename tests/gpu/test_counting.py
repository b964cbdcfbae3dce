"""The same integers as on the CPU, bit for bit, whatever the device, the blocks and the address."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import pairwise
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from engine.device import choosing
from engine.device.choosing import choose
from engine.device.counter import make_counter
from engine.device.live import observe, observe_there
from engine.errors import ConfigError
from engine.kernels.cuda import feed, tallies, tensors
from engine.kernels.cuda.tensors import NAMES
from engine.nouns.dtypes import DTYPES
from engine.sketch import Counter, as_f32_patterns
from engine.sketch import observe as observe_on_cpu
from tests.builders import (
    COUNTED,
    assert_same,
    every_code,
    nasty_patterns,
    patterns_of,
    raw,
    reference_sketch,
)

SIZES = (0, 1, 2, 3, 5, 7, 63, 64, 65, 255, 4095, 4097)
TORCH = {name: dtype for dtype, name in NAMES.items()}

each_dtype = pytest.mark.parametrize("dtype", COUNTED)


def noise(dtype, n, seed=1):
    """Gaussian elements, some zeros and some nasty ones."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n) * 0.02 * (rng.random(n) < 0.7)
    patterns = patterns_of(dtype, x)
    odd = rng.random(n) < 0.05
    patterns[odd] = rng.choice(nasty_patterns(dtype), int(odd.sum()))
    return patterns


def tensor(dtype, patterns, device):
    data = torch.empty(patterns.nbytes, dtype=torch.uint8)
    data.numpy()[:] = raw(patterns)
    return data.view(TORCH[dtype]).to(device)


def resident(dtype, patterns, device, skip=0):
    """The sketch of patterns that lie on the device, `skip` elements behind an address that fits well."""
    filler = np.zeros(skip, patterns.dtype)
    return observe_there(tensor(dtype, np.concatenate([filler, patterns]), device)[skip:])


@each_dtype
def test_sizes_odd_and_even(device, dtype):
    counter = make_counter(DTYPES[dtype], device, block=1 << 12)
    for size in SIZES:
        patterns = np.resize(nasty_patterns(dtype), size)
        counter.add(raw(patterns))
        assert_same(counter.sketch(), reference_sketch(dtype, patterns))


@each_dtype
def test_every_code(device, dtype):
    patterns = np.random.default_rng(2).permutation(np.resize(every_code(dtype), 70_001))
    counter = make_counter(DTYPES[dtype], device, block=1 << 17)
    counter.add(raw(patterns))
    assert_same(counter.sketch(), reference_sketch(dtype, patterns))


@each_dtype
def test_blocks_of_any_size_give_the_same_sketch(device, dtype):
    patterns = noise(dtype, 20_011)
    counter = make_counter(DTYPES[dtype], device, block=1 << 13)
    for a, b in pairwise([0, 1, 8, 5000, 5001, 17_777, 20_011]):
        counter.add(raw(patterns[a:b]))
    assert_same(counter.sketch(), reference_sketch(dtype, patterns))
    assert counter.sketch().count == 0


@each_dtype
@pytest.mark.parametrize("skip", [0, 1, 2, 3, 5, 9])
def test_resident_tensors_at_any_address(device, dtype, skip):
    for size in (0, 1, 6, 4099):
        patterns = noise(dtype, size)
        assert_same(resident(dtype, patterns, device, skip), reference_sketch(dtype, patterns))


@each_dtype
def test_live_tensors_of_any_layout(dtype):
    x = tensor(dtype, noise(dtype, 24 * 35), "cuda" if torch.cuda.is_available() else "cpu")
    expected = reference_sketch(dtype, noise(dtype, 24 * 35))
    assert_same(observe(x.view(24, 35).t()), expected)
    assert_same(observe(x.view(2, 12, 5, 7).permute(2, 0, 3, 1)), expected)
    every_other = noise(dtype, 24 * 35).reshape(24, 35)[:, ::2].ravel()
    assert_same(observe(x.view(24, 35)[:, ::2]), reference_sketch(dtype, every_other))
    assert observe(x[:0]).count == 0
    assert observe(x[3]).count == 1


@pytest.mark.parametrize("value", [0.0, -0.0, 0.0199, 1e-30, 1e30, float("nan"), 1e-42])
def test_one_float_very_often(device, value):
    # more than fit between two looks at the tables in shared memory
    patterns = np.full(150_001, patterns_of("F32", [value])[0])
    assert_same(resident("F32", patterns, device), reference_sketch("F32", patterns))


def test_floats_of_every_exponent(device):
    rng = np.random.default_rng(3)
    patterns = (np.arange(65536, dtype=np.uint32) << 16) + rng.integers(0, 65536, 65536, dtype=np.uint32)
    assert_same(resident("F32", patterns, device), reference_sketch("F32", patterns))


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F8_E4M3", "F8_E5M2"])
def test_any_patterns(device, dtype):
    rng = np.random.default_rng(4)
    patterns = rng.integers(0, 256, 200_002, dtype=np.uint8).view(noise(dtype, 1).dtype)
    assert_same(resident(dtype, patterns, device), reference_sketch(dtype, patterns))


def test_what_was_read_into_the_room_is_not_copied(device):
    patterns = noise("BF16", 10_000)
    data, counter = raw(patterns), make_counter(DTYPES["BF16"], device, block=1 << 12)
    done = direct = 0
    while done < data.size:
        room = counter.room()
        if room is None:  # behind an odd number of elements
            part = data[done : done + 1002].copy()
        else:
            assert room.ctypes.data % 8 == room.size % 8 == 0
            part = room[: min(1000 if direct % 3 else 1002, data.size - done)]
            part[:] = data[done : done + part.size]
            direct += 1
        counter.add(part)
        done += part.size
    assert direct > 5
    assert_same(counter.sketch(), reference_sketch("BF16", patterns))
    assert make_counter(DTYPES["F64"], device).room() is None
    assert make_counter(DTYPES["BF16"], "cpu").room() is None


@pytest.mark.parametrize("dtype", ["BF16", "F32", "F8_E5M2"])
def test_zeros_may_be_counted_without_being_there(device, dtype):
    patterns = patterns_of(dtype, [1.0, 2.0, 0.0])
    counter = make_counter(DTYPES[dtype], device, block=1 << 12)
    counter.add(raw(patterns))
    counter.add_zeros(7)
    zeros = np.zeros(7, patterns.dtype)
    assert_same(counter.sketch(), reference_sketch(dtype, np.concatenate([patterns, zeros])))
    counter.add_zeros(3)
    assert_same(counter.sketch(), reference_sketch(dtype, zeros[:3]))


def test_little_memory_makes_blocks_smaller_and_says_so(device, monkeypatch):
    real = feed.Slot

    def slot(where, nbytes):
        if nbytes > 4 << 20:
            raise torch.OutOfMemoryError("as if")
        return real(where, nbytes)

    monkeypatch.setattr(feed, "Slot", slot)
    said = []
    counter = make_counter(DTYPES["BF16"], device, report=said.append)
    patterns = noise("BF16", 3000)
    counter.add(raw(patterns))
    assert_same(counter.sketch(), reference_sketch("BF16", patterns))
    assert "4,194,304" in said[0]


@pytest.mark.parametrize("dtype", ["BF16", "F64"])
@pytest.mark.parametrize("what", ["Slot", "CodeTally", "FloatTally"])
def test_no_memory_leaves_the_counting_to_the_cpu_and_says_so(device, monkeypatch, dtype, what):
    from engine.kernels.cuda import claims

    def refuse(*_):
        kind = torch.OutOfMemoryError if dtype == "BF16" else RuntimeError  # so pinned memory fails
        raise kind("CUDA error: out of memory")

    monkeypatch.setattr(feed if what == "Slot" else claims, what, refuse)
    if what == ("FloatTally" if dtype == "BF16" else "CodeTally"):
        return
    patterns = noise(dtype, 3000)
    with pytest.warns(RuntimeWarning, match="on the CPU"):
        counter = make_counter(DTYPES[dtype], device)
    assert isinstance(counter, Counter)
    counter.add(raw(patterns))
    assert_same(counter.sketch(), reference_sketch(dtype, patterns))


@pytest.mark.parametrize("most", [0, 100, 5000])
@pytest.mark.parametrize("dtype", ["F16", "F64"])
def test_a_live_tensor_on_a_full_gpu_is_counted_on_the_cpu(device, monkeypatch, dtype, most):
    """A GPU that has room for counts, or not even for those, and to put so many elements in order."""
    x = tensor(dtype, noise(dtype, 24 * 35), device).view(1, 24, 35)[..., ::2]
    expected = reference_sketch(dtype, noise(dtype, 24 * 35).reshape(24, 35)[:, ::2].ravel())
    lying, said = tensors.bytes_in_any_order, []

    def refuse(given):
        if given.numel() > most:
            raise torch.OutOfMemoryError("as if")
        return lying(given)

    def full(*_):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(tensors, "is_on_gpu", lambda tensor: True)
    monkeypatch.setattr(tensors, "bytes_in_any_order", refuse)
    if most == 5000:
        monkeypatch.setattr(tallies.FloatTally if dtype == "F64" else tallies.CodeTally, "add", full)
    if most == 0:
        with pytest.raises(torch.OutOfMemoryError, match="for a single element"):
            observe(x, report=said.append)
        return
    assert_same(observe(x, report=said.append), expected)
    assert said == [f"no memory left on {x.device}: {dtype} is counted on the CPU"]


@pytest.mark.parametrize("made", [0x7FFFFFFF, 0xFFC00000])
def test_nan_of_f64_keep_what_the_cpu_keeps_whatever_a_device_makes_of_them(monkeypatch, made):
    convert = torch.Tensor.float

    def hardware(given):
        found = convert(given)
        found.view(torch.int32)[given.isnan()] = made if made < 1 << 31 else made - (1 << 32)
        return found

    patterns = np.array(
        [0x7FF0000000000001, 0xFFF8000000000000, 0xFFFFFFFFFFFFFFFF, 0x7FF4ABCDEF012345], "<u8"
    )
    patterns = np.concatenate([patterns, noise("F64", 50)])
    monkeypatch.setattr(torch.Tensor, "float", hardware)
    found = tensors.narrow(torch.from_numpy(raw(patterns).copy())).numpy().view("<u4")
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(found, as_f32_patterns(raw(patterns), DTYPES["F64"]))


class Kept:
    """Stands for memory of a GPU."""

    is_cuda, device = True, torch.device("cuda", 1)

    def __init__(self) -> None:
        self.streams: list[str] = []

    def record_stream(self, stream):
        self.streams.append(stream)


def test_counts_are_kept_for_every_stream_that_adds_to_them(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"of {device}")
    one, two = Kept(), Kept()
    tallies._keep(one, two)
    assert one.streams == two.streams == ["of cuda:1"]
    tallies._keep(torch.zeros(3))
    calls = []
    monkeypatch.setattr(tallies, "_keep", lambda *memory: calls.append(len(memory)))
    code, floats = (kind.__new__(kind) for kind in (tallies.CodeTally, tallies.FloatTally))
    code._bits, code._last, code._state, code._room, code._loops = 16, None, 1, 2, Mock()
    floats._state, floats._loops = 1, Mock()
    code.add(torch.zeros(2, dtype=torch.uint8))
    floats.add(None)
    floats.add_difference(None, "f32", None, "f32", (None, None))
    floats.add_product(None, None, 1.0)
    assert calls == [2, 1, 1, 1]


def test_a_task_that_fails_with_blocks_under_way_spoils_no_other(device):
    patterns = noise("BF16", 40_000)
    for _ in range(3):
        given_up = make_counter(DTYPES["BF16"], device, block=1 << 12)
        given_up.add(raw(noise("BF16", 100_000, 2)))
        del given_up
        counter = make_counter(DTYPES["BF16"], device, block=1 << 12)
        counter.add(raw(patterns))
        assert_same(counter.sketch(), reference_sketch("BF16", patterns))


def test_loops_of_triton_run_where_their_tensors_lie(monkeypatch):
    from engine.kernels.cuda import merging, portable, rows

    where = []

    @contextmanager
    def guard(given):
        where.append(given)
        yield
        where.append("left")

    class Loop:
        def __getitem__(self, grid):
            return lambda *_, **__: where.append("run")

    monkeypatch.setattr(torch.cuda, "device_of", guard)
    monkeypatch.setattr(merging, "is_available", lambda device: True)
    for module, name in (
        (portable, "_count16"), (portable, "_form32"), (portable, "_product32"), (rows, "_measure"), (merging, "_merge"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, Loop())
    data, state, square = torch.zeros(64, dtype=torch.uint8), torch.zeros(9), torch.zeros(2, 2)
    portable.count16(data, state, state)
    portable.form32(data, "f32", None, None, (None, None), state)
    portable.product32(square, square, 1.0, state)
    rows.measure_rows(data, "bf16", None, 8, 8)
    merging.merge(square, [square], [1.0], outliers=False)
    assert where[1::3] == ["run"] * 5
    assert where[2::3] == ["left"] * 5
    assert all(
        found is given for found, given in zip(where[::3], (data, data, square, data, square), strict=True)
    )


def test_what_has_no_coding_is_not_counted(device):
    with pytest.raises(ValueError, match="I32"):
        make_counter(DTYPES["I32"], device)
    with pytest.raises(ValueError, match="int32"):
        observe(torch.zeros(3, dtype=torch.int32))
    with pytest.raises(ValueError, match="int8"):
        observe_there(torch.zeros(3, dtype=torch.int8))


def test_the_device_is_chosen_once_and_in_one_place(monkeypatch):
    assert choose("cpu") == "cpu"
    assert choose("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="gpu"):
        choose("gpu")
    monkeypatch.setattr(choosing, "_what_a_gpu_lacks", lambda: "there is no NVIDIA driver")
    with pytest.raises(ConfigError, match="driver"):
        choose("cuda")
    assert choose("auto") == "cpu"
    assert isinstance(make_counter(DTYPES["F16"], "cpu"), Counter)


def test_the_key_of_a_float_keeps_its_order():
    values = np.array([-np.finfo("<f4").max, -1.0, -1e-42, 0.0, 1e-42, 1.5, np.finfo("<f4").max], "<f4")
    patterns = values.view("<i4").astype(np.int64)
    keys = np.where(patterns < 0, patterns ^ 0x7FFFFFFF, patterns).tolist()
    assert keys == sorted(keys)
    assert [tallies._value(k, np.inf) for k in keys] == values.tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="half a gigabyte is for a GPU")
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F8_E5M2", "F32"])
def test_many_elements_on_a_gpu(dtype):
    x = (torch.randn(1 << 27, device="cuda") * 0.02).to(TORCH[dtype])
    x[::3] = 0
    data = x.view(torch.uint8).cpu().numpy()
    assert_same(observe(x), observe_on_cpu(data, DTYPES[dtype]))
    counter = make_counter(DTYPES[dtype], "cuda")
    counter.add(data)
    assert_same(counter.sketch(), observe_on_cpu(data, DTYPES[dtype]))
