"""The value that each code stands for, against other people's definitions."""

from __future__ import annotations

import numpy as np
import pytest

from engine.nouns.dtypes import CODINGS, DTYPES, LOW, code_table

F8 = ["f8_e4m3", "f8_e4m3fnuz", "f8_e5m2", "f8_e5m2fnuz"]


def assert_same_values(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(found, expected)  # NaN equals NaN here
    solid = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[solid]), np.signbit(expected[solid]))


def test_f16_values_are_numpys():
    with np.errstate(invalid="ignore"):
        expected = np.arange(65536, dtype="<u2").view("<f2").astype(np.float64)
    assert_same_values(code_table("f16").value, expected)


@pytest.mark.parametrize("coding", ["bf16", "f32"])
def test_bf16_and_f32_codes_are_top_halves_of_float32(coding):
    with np.errstate(invalid="ignore"):
        expected = (np.arange(65536, dtype="<u4") << 16).view("<f4").astype(np.float64)
    assert_same_values(code_table(coding).value, expected)


@pytest.mark.parametrize("coding", F8)
def test_8_bit_values_are_those_of_ml_dtypes(coding):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    spelling = coding.replace("f8", "float8") + ("fn" if coding == "f8_e4m3" else "")
    dtype = getattr(ml_dtypes, spelling.replace("float8_e4m3fnfn", "float8_e4m3fn"))
    assert_same_values(
        code_table(coding).value, np.arange(256, dtype=np.uint8).view(dtype).astype(np.float64)
    )


@pytest.mark.parametrize(
    ("coding", "pattern", "value"),
    [
        ("f8_e4m3", 0x7E, 448.0), ("f8_e4m3", 0x08, 2**-6), ("f8_e4m3", 0x01, 2**-9),
        ("f8_e4m3", 0xFF, np.nan),
        ("f8_e4m3fnuz", 0x7F, 240.0), ("f8_e4m3fnuz", 0x01, 2**-10), ("f8_e4m3fnuz", 0x80, np.nan),
        ("f8_e5m2", 0x7B, 57344.0), ("f8_e5m2", 0x01, 2**-16),
        ("f8_e5m2", 0xFC, -np.inf), ("f8_e5m2", 0x7D, np.nan),
        ("f8_e5m2fnuz", 0x7F, 57344.0), ("f8_e5m2fnuz", 0x01, 2**-17), ("f8_e5m2fnuz", 0x80, np.nan),
    ],
)  # fmt: skip
def test_8_bit_values_of_the_specifications(coding, pattern, value):
    np.testing.assert_equal(code_table(coding).value[pattern], value)


def test_an_f32_element_is_its_code_and_its_low_half_in_steps():
    table = code_table("f32")
    finite = table.order
    for low in (0, 1, 0x8000, LOW - 1):
        patterns = ((finite << 16) + low).astype("<u4")
        expected = patterns.view("<f4").astype(np.float64)
        np.testing.assert_array_equal(table.value[finite] + low * table.step[finite], expected)


@pytest.mark.parametrize("coding", CODINGS)
def test_codes_in_order_of_value(coding):
    table = code_table(coding)
    values = table.value[table.order]
    assert (np.diff(values) >= 0).all()
    assert sorted(table.order) == np.flatnonzero(np.isfinite(table.value)).tolist()
    same = np.flatnonzero(np.diff(values) == 0)
    assert np.signbit(values[same]).all()
    assert not np.signbit(values[same + 1]).any()


def test_dtypes_without_a_coding_say_why():
    assert all((d.coding is None) == (d.reason is not None) for d in DTYPES.values())


@pytest.mark.parametrize(
    ("dtype", "elements", "nbytes"),
    [("F4", 2, 1), ("F4", 3, None), ("F6_E2M3", 4, 3), ("F6_E3M2", 3, None), ("F64", 3, 24), ("F4", 0, 0)],
)
def test_bytes_of_packed_elements(dtype, elements, nbytes):
    assert DTYPES[dtype].nbytes(elements) == nbytes
