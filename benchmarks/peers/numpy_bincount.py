"""Our counting with numpy alone, F32 by its top halves: python numpy_bincount.py DIR.

Prints how many patterns each tensor has and the paper's numbers from the counts.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np

BLOCK = 1 << 20
PATTERNS = np.arange(65536, dtype=np.uint16)
with np.errstate(invalid="ignore"):  # among the patterns are NaNs
    TOPS = (PATTERNS.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    VALUES = {"BF16": TOPS, "F32": TOPS, "F16": PATTERNS.view(np.float16).astype(np.float64)}


def count(data: np.ndarray, dtype: str) -> np.ndarray:
    """How often each 16-bit pattern occurs in raw bytes, block by block, which is faster than all at once."""
    codes = data.view("<u2")
    if dtype == "F32":
        codes = codes[1::2]
    total = np.zeros(65536, np.int64)
    for start in range(0, codes.size, BLOCK):
        total += np.bincount(codes[start : start + BLOCK], minlength=65536)
    return total


def describe(n: np.ndarray, value: np.ndarray) -> tuple[float, float, float]:
    """Share kept by the 3-sigma filter, and skewness and kurtosis of what is kept."""
    live = (n > 0) & np.isfinite(value)
    n, x = n[live], value[live]
    mu = np.average(x, weights=n)
    kept = np.abs(x - mu) <= 3 * np.sqrt(np.average((x - mu) ** 2, weights=n))
    ratio, n, x = n[kept].sum() / n.sum(), n[kept], x[kept]
    d = x - np.average(x, weights=n)
    m2, m3, m4 = (np.average(d**k, weights=n) for k in (2, 3, 4))
    return ratio, m3 / m2**1.5, m4 / m2**2


matrices = []
for path in sorted(Path(sys.argv[1]).glob("*.safetensors")):
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    data = np.memmap(path, np.uint8, "r", offset=8 + length)
    for name, tensor in header.items():
        if tensor.get("dtype") not in VALUES:
            continue
        first, last = tensor["data_offsets"]
        counts = count(data[first:last], tensor["dtype"])
        with np.errstate(invalid="ignore", divide="ignore"):
            numbers = describe(counts, VALUES[tensor["dtype"]])
        print(name, np.count_nonzero(counts), *numbers)
        if len(tensor["shape"]) > 1:
            matrices.append(numbers)
print("average of", len(matrices), "matrices:", *np.mean(matrices, axis=0))
