"""The same integers as on the CPU, bit for bit, whatever the device, the blocks and the address."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from engine.device import choosing
from engine.device.choosing import choose
from engine.device.counter import make_counter
from engine.device.live import observe
from engine.errors import ConfigError
from engine.kernels.cuda import feed, tallies
from engine.kernels.cuda.tensors import NAMES
from engine.nouns.dtypes import DTYPES
from engine.sketch import Counter
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
    counter = make_counter(DTYPES[dtype], device, block=1 << 12)
    filler = np.zeros(skip, patterns.dtype)
    counter.add_resident(tensor(dtype, np.concatenate([filler, patterns]), device)[skip:])
    return counter.sketch()


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a tensor must lie on a GPU")
def test_a_live_tensor_on_a_full_gpu_is_counted_on_the_cpu(monkeypatch):
    from engine.kernels.cuda import claims

    monkeypatch.setattr(claims, "tally", lambda bits, device: None)
    patterns = noise("F16", 1000)
    with pytest.warns(RuntimeWarning, match="on the CPU"):
        assert_same(observe(tensor("F16", patterns, "cuda")), reference_sketch("F16", patterns))


def test_what_has_no_coding_is_not_counted(device):
    with pytest.raises(ValueError, match="I32"):
        make_counter(DTYPES["I32"], device)
    with pytest.raises(ValueError, match="int32"):
        observe(torch.zeros(3, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"BF16.*F16"):
        make_counter(DTYPES["BF16"], device).add_resident(torch.zeros(3, dtype=torch.float16))


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
