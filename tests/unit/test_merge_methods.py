"""Every merge method against plain numpy in float64 on whole tensors, and against its definition bit for bit."""

from __future__ import annotations

import math
from hashlib import blake2b

import ml_dtypes
import numpy as np
import pytest

from engine.kernels import floats
from engine.merge_methods.apply import widen
from engine.merge_methods.registry import METHODS, SCHEMAS
from engine.nouns.merging import Stretch
from tests.builders import nasty_patterns, patterns_of, values_of
from tests.merging import FUSED, PARAMETERS, TENSOR, arguments, defined, merged, models_of, noisy, stored

MIXES = [
    ["F32"] * 4, ["BF16"] * 4, ["F16"] * 4, ["F32", "BF16", "BF16", "BF16"], ["BF16", "F16", "F32", "F8_E4M3"],
    ["F16", "F64", "F64", "BF16"],
]  # fmt: skip
OUTPUTS = ["F32", "BF16", "F16"]
ROWS, COLUMNS = 37, 53


# References: whole tensors, float64, as the papers put it


def draw(seed, model, tensor, index):
    """SplitMix64 with whole numbers of Python."""
    name = f"{seed} {model} ".encode() + tensor.encode()
    z = int.from_bytes(blake2b(name, digest_size=8).digest(), "little") + (index + 1) * 0x9E3779B97F4A7C15
    z %= 1 << 64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % (1 << 64)
    z = (z ^ z >> 27) * 0x94D049BB133111EB % (1 << 64)
    return ((z ^ z >> 31) >> 11) / 2**53


def all_draws(seed, model, size):
    return np.array([draw(seed, model, TENSOR, i) for i in range(size)])


def disjoint(parts, weights, normalize):
    elected = np.where(sum(parts) >= 0, 1, -1)
    agree = [np.sign(p) == elected for p in parts]
    total = sum(np.where(a, p, 0) for a, p in zip(agree, parts, strict=True))
    weight = sum(a * w for a, w in zip(agree, weights, strict=True))
    return total / np.where(np.abs(weight) < 1e-8, 1, weight) if normalize else total


def outlier(base, tasks, t):
    limit = t * min(d.std() for d in tasks)
    return base + sum(np.where(np.abs(d) <= limit, d / len(tasks), d) for d in tasks)


def linear(base, tasks, weight):
    return sum(w * (base + d) for w, d in zip(weight, tasks, strict=True)) / sum(weight)


def task_arithmetic(base, tasks, weight, lambda_):
    return base + lambda_ * sum(w * d for w, d in zip(weight, tasks, strict=True))


def ties(base, tasks, weight, density, lambda_):
    parts = []
    for d, w, share in zip(tasks, weight, density, strict=True):
        kept = int(share * d.size)
        least = np.sort(np.abs(d))[d.size - kept]
        parts.append(np.where(np.abs(d) >= least, w * d, 0))
    return base + lambda_ * disjoint(parts, weight, True)


def dared(tasks, weight, density, seed):
    for k, (d, w, share) in enumerate(zip(tasks, weight, density, strict=True)):
        yield np.where(all_draws(seed, k, d.size) < share, w * d / share, 0)


def dare_linear(base, tasks, weight, density, seed):
    return base + sum(dared(tasks, weight, density, seed))


def dare_ties(base, tasks, weight, density, normalize):
    return base + disjoint(list(dared(tasks, weight, density, 0)), weight, normalize)


def breadcrumbs(base, tasks, weight, density, gamma):
    total = 0
    for d, w, share, top in zip(tasks, weight, density, gamma, strict=True):
        kept, largest = int(share * d.size), int(top * d.size)
        smallest = d.size - kept - largest
        if smallest < 0:
            largest, smallest = largest + smallest, 0
        order = np.sort(np.abs(d))
        low, high = order[smallest], order[d.size - largest - 1]
        total = total + np.where((np.abs(d) >= low) & (np.abs(d) <= high), w * d, 0)
    return base + total


def della(base, tasks, weight, density, epsilon):
    parts = []
    for k, (d, w, share, width) in enumerate(zip(tasks, weight, density, epsilon, strict=True)):
        likely = np.empty(d.size)
        for row in range(ROWS):
            part = range(row * COLUMNS, (row + 1) * COLUMNS)
            for rank, i in enumerate(sorted(part, key=lambda i: (abs(d[i]), i))):
                likely[i] = share - width + 2 * width * rank / (COLUMNS - 1)
        parts.append(np.where(all_draws(0, k, d.size) < likely, w * d / likely, 0))
    return base + disjoint(parts, weight, True)


def slerp(base, tasks, t):
    other = base + tasks[0]
    angle = math.acos(base @ other / np.sqrt(base @ base) / np.sqrt(other @ other))
    if abs(math.cos(angle)) > 0.9995:
        return (1 - t) * base + t * other
    return (math.sin((1 - t) * angle) * base + math.sin(t * angle) * other) / math.sin(angle)


def model_stock(base, tasks):
    n = len(tasks)
    pairs = [(a, b) for i, a in enumerate(tasks) for b in tasks[:i]]
    c = np.mean([a @ b / np.sqrt(a @ a) / np.sqrt(b @ b) for a, b in pairs])
    return base + n * c / (1 + (n - 1) * c) * sum(tasks) / n


def half_ulp(dtype, x):
    """Half of the last digit of a dtype at x."""
    digits, least = {"F32": (24, -149), "BF16": (8, -133), "F16": (11, -24)}[dtype]
    exponent = np.frexp(np.abs(x))[1]
    return np.ldexp(0.5, np.maximum(exponent - digits, least))


@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("out", OUTPUTS)
@pytest.mark.parametrize("mix", MIXES, ids="-".join)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_what_its_paper_says_to_one_rounding(method, mix, out, wide):
    inputs = noisy(mix[: models_of(method) + 1], ROWS * COLUMNS, seed=3)
    given = arguments(method, inputs, wide=wide)
    found = values_of(out, merged(method, inputs, out, given, stretch=Stretch(TENSOR, 0, COLUMNS), wide=wide))
    base, *models = (widen(i, wide) for i in inputs)
    tasks = [(m - base).astype(np.float64) for m in models]
    base = base.astype(np.float64)
    expected = globals()[method](base, tasks, **PARAMETERS[method])
    steps = 2.0 ** (-50 if wide else -21) * (np.abs(base) + 4 * sum(np.abs(d) for d in tasks))
    wrong = np.abs(found - expected) > half_ulp(out, expected) + steps
    assert not wrong.any()
    if out != "F32" or wide:
        assert (found == values_of(out, patterns_of(out, expected))).mean() > 0.99


# Fused loops


@pytest.mark.parametrize(
    ("base", "model", "out", "count"),
    [
        ("BF16", "BF16", "BF16", 1), ("BF16", "BF16", "BF16", 2), ("BF16", "BF16", "BF16", 3),
        ("F16", "F16", "F16", 3), ("F32", "F32", "F32", 3), ("F32", "BF16", "F16", 3),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", FUSED)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_a_fused_loop_gives_the_bits_of_the_definition(method, base, model, out, count):
    count = max(count, SCHEMAS[method].least)
    size = 2 * 2048 + 77
    inputs = noisy([base] + [model] * count, size, seed=count)
    r = np.random.default_rng(count)
    for block in inputs:  # whatever a pattern can be, too
        elements = block.data.view(f"<u{block.dtype.bits // 8}")
        elements[r.integers(0, size, 300)] = r.choice(nasty_patterns(block.dtype.name), 300)
    parameters = {
        k: v if not isinstance(v, tuple) else tuple(np.resize(v, count))
        for k, v in PARAMETERS[method].items()
    }
    given = arguments(method, inputs, parameters)
    stretch = Stretch(TENSOR, 1234, 1)
    expected = rounded(out, defined(method, inputs, given, stretch=stretch))
    found = merged(method, inputs, out, given, stretch=stretch)
    np.testing.assert_array_equal(found, expected)


def rounded(out, x):
    """float32 to patterns by numpy and ml_dtypes, NaN to the quiet one."""
    numpy = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}[out]
    quiet = {"F32": 0x7FC00000, "F16": 0x7E00, "BF16": 0x7FC0}[out]
    patterns = x.astype(numpy).view(f"<u{np.dtype(numpy).itemsize}")
    return np.where(np.isnan(x), quiet, patterns)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_every_16_bit_pattern_is_read(dtype):
    patterns = np.arange(65536, dtype=np.uint16)
    found = widen(stored(dtype, patterns))
    with np.errstate(invalid="ignore"):  # signalling NaNs
        expected = values_of(dtype, patterns).astype(np.float32)
    np.testing.assert_array_equal(found, expected)
    signs = np.signbit(found) == (patterns >> 15 == 1)
    assert signs[~np.isnan(found)].all()


@pytest.mark.parametrize("dtype", OUTPUTS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_float32_is_rounded_as_numpy_rounds(dtype):
    """Random patterns, every tie of 16-bit floats and its neighbours, and the nasty ones."""
    r = np.random.default_rng(1)
    patterns = np.arange(65536, dtype=np.uint32) << 16
    ties = [patterns + low for low in (0, 0x7FFF, 0x8000, 0x8001, 0x1000, 0x0FFF, 0x1001, 0x3000, 0x2FFF)]
    x = np.concatenate([r.integers(0, 2**32, 300_000, dtype=np.uint32), *ties, nasty_patterns("F32")]).view(
        np.float32
    )
    view = {"F32": np.float32, "F16": np.int16, "BF16": np.uint16}[dtype]
    found = np.empty(x.size, view)
    floats.convert(x, found)
    np.testing.assert_array_equal(found.view(f"<u{found.itemsize}"), rounded(dtype, x))


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_float64_is_rounded_once(dtype):
    """Just above a tie of the output, so near that float32 would make it one."""
    one = patterns_of(dtype, [1.0])[0]
    values = values_of(dtype, np.arange(one, one + 4, dtype=np.uint16))
    tie = (values[0] + values[1]) / 2
    base = stored("F64", np.array([tie * (1 + 2.0**-40), tie, tie * (1 - 2.0**-40), 1e300, -1e300, 1e-300]))
    found = values_of(dtype, merged("linear", [base, base], dtype, {"weight": 1.0}, wide=True))
    assert found.tolist() == [values[1], values[0], values[0], math.inf, -math.inf, 0.0]


def test_what_is_too_large_becomes_infinite():
    big = stored("BF16", patterns_of("BF16", [3.3e38, -3.3e38, 1.0]))
    base = stored("BF16", patterns_of("BF16", [0.0, 0.0, 0.0]))
    found = values_of("BF16", merged("task_arithmetic", [base, big, big], "BF16", {"weight": 1.0}))
    assert found.tolist() == [math.inf, -math.inf, 2.0]
    assert values_of("F16", merged("task_arithmetic", [base, big], "F16", {"weight": 1.0})).tolist() == [
        math.inf,
        -math.inf,
        1.0,
    ]
