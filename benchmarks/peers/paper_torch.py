"""The paper's statistics as one would write them with torch: python paper_torch.py DIR."""

import sys
from pathlib import Path

import torch
from safetensors import safe_open


def describe(x: torch.Tensor) -> tuple[float, float, float]:
    """Share kept by the 3-sigma filter, and skewness and kurtosis of what is kept."""
    sigma, mu = torch.std_mean(x, correction=0)
    kept = x[(x - mu).abs() <= 3 * sigma]
    d = kept - kept.mean()
    square = d * d
    variance = square.mean()
    skewness = (square * d).mean() / variance**1.5
    kurtosis = (square * square).mean() / variance**2
    return kept.numel() / x.numel(), skewness.item(), kurtosis.item()


matrices = []
for path in sorted(Path(sys.argv[1]).glob("*.safetensors")):
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a dictionary
            tensor = file.get_tensor(name)
            if not tensor.is_floating_point():
                continue
            numbers = describe(tensor.flatten().float())
            print(name, *numbers)
            if tensor.dim() > 1:
                matrices.append(numbers)
print("average of", len(matrices), "matrices:", *(torch.tensor(matrices).double().mean(0).tolist()))
