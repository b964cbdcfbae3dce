"""Noise by position: the normal distribution, the same bits for every block, and streams that do not touch."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from engine.kernels.draws import gaussian, normal, uniform
from engine.nouns.adapters import noise_key
from tests.adapters import drawn

KEY = np.uint64(noise_key(3, "encoder.layer.0.attention.self.query.weight"))


def noise(size: int, first: int = 0, key: np.uint64 = KEY) -> np.ndarray:
    out = np.empty(size, np.float32)
    gaussian(key, np.uint64(first), out)
    return out


def test_any_block_has_the_bits_of_the_whole():
    whole = noise(10_000)
    for first, size in ((0, 1), (1, 63), (777, 4096), (9_999, 1), (5_000, 0)):
        np.testing.assert_array_equal(noise(size, first), whole[first : first + size])


def test_it_is_the_quantile_of_the_uniform_draw():
    np.testing.assert_array_equal(noise(200_000), drawn(int(KEY), 200_000))
    u = np.empty(200)
    uniform(KEY, np.uint64(0), u)
    for index, p in enumerate(u):
        assert normal(KEY, np.uint64(index)) == pytest.approx(NormalDist().inv_cdf(p), abs=1e-12)


def test_it_is_gaussian_and_its_streams_do_not_touch():
    x, y = noise(1 << 20), noise(1 << 20, key=np.uint64(noise_key(4, "a.weight")))
    assert stats.kstest(x[: 1 << 17], "norm").pvalue > 1e-3
    assert abs(x.mean(dtype=float)) < 5e-3
    assert x.std(dtype=float) == pytest.approx(1, abs=5e-3)
    assert stats.kurtosis(x, fisher=False) == pytest.approx(3, abs=0.03)
    assert abs(np.corrcoef(x, y)[0, 1]) < 5e-3
    assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 5e-3


def test_keys_tell_seeds_and_tensors_apart():
    keys = {noise_key(seed, name) for seed in (-1, 0, 1, 11) for name in ("a", "b", "1 a", "")}
    assert len(keys) == 16
    assert noise_key(1, "1 a") != noise_key(11, "a")


def test_the_first_numbers_never_change():
    """Whatever was trained on them must come out again."""
    expected = noise(4).view(np.uint32).tolist()
    assert expected == FIRST


FIRST = [1060263876, 1052408258, 3219059713, 1069955681]
