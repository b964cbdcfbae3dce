"""Every failure is one sentence with file, tensor and numbers, and survives a trip between processes."""

from __future__ import annotations

import pickle

import pytest

from engine import errors

KINDS = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.GaussmeterError)]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive_pickling(kind):
    error = pickle.loads(pickle.dumps(kind("has 3 bytes", file="a.safetensors", tensor="w")))
    assert type(error) is kind
    assert (error.message, error.file, error.tensor) == ("has 3 bytes", "a.safetensors", "w")
    assert str(error) == "a.safetensors: tensor 'w': has 3 bytes"


@pytest.mark.parametrize(
    ("file", "tensor", "text"),
    [(None, None, "no"), ("f", None, "f: no"), (None, "t", "tensor 't': no"), ("f", "", "f: tensor '': no")],
)
def test_the_sentence_says_where(file, tensor, text):
    assert str(errors.FormatError("no", file=file, tensor=tensor)) == text


def test_a_tensor_of_any_name_stays_on_one_line():
    assert "\n" not in str(errors.FormatError("no", file="f", tensor="a\nb"))


def test_exit_codes():
    codes = {k.__name__: k.exit_code for k in KINDS}
    assert codes["ConfigError"] == codes["FormatError"] == codes["BudgetError"] == 2
    assert codes["TaskError"] == 3
    assert codes["Interruption"] == 130
    assert codes["AlreadyRunning"] == 0
    assert set(codes.values()) == {0, 2, 3, 130}
