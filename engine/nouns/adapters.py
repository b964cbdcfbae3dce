"""Frozen values that say how an adapter changes the weights of its base."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from engine.nouns.records import Checkpoint

METHODS = {
    "lora": "LoRA",
    "rslora": "rsLoRA",
    "dora": "DoRA",
    "lora_dash": "LoRA-Dash",
    "noise": "a scalar on noise",
    "full_gaussian": "noise in place of weights",
    "svdiff": "SVDiff",
    "lora_noise": "LoRA with a scalar",
    "head": "a new head",
}
"""Methods that are known, and what people call them."""

NOISES = ("weights", "gaussian", "replaced")
"""What a learnt scalar s is multiplied with: the weights, W' = (1 + s) W; noise, W' = W + s N; or noise in
place of the weights, W' = s N."""


def noise_key(seed: int, tensor: str) -> int:
    """Key of the stream of a tensor's noise N, 64 bits; element i of N in C order is its draw i.

    Args:
        seed: of the run.
        tensor: the weight's name in the model that was trained.
    """
    name = tensor.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(f"noise {seed} ".encode() + name, digest_size=8).digest(), "little")


@dataclass(frozen=True, slots=True)
class Dash:
    """U diag(c) V along directions of the base's weight: what LoRA-Dash adds (arXiv 2409.01035), and SVDiff.

    Attributes:
        left: ordinal of U, out x k.
        weights: ordinal of c, k numbers.
        right: ordinal of V, k x in.
    """

    left: int
    weights: int
    right: int


@dataclass(frozen=True, slots=True)
class Noise:
    """What a learnt scalar adds (arXiv 2501.10661, eq. 3 and 6).

    Attributes:
        scale: ordinal of s, one number.
        form: one of `NOISES`.
        key: of N's stream, see `noise_key`; 0 where N is W.
    """

    scale: int
    form: str
    key: int


@dataclass(frozen=True, slots=True)
class Module:
    """A module that an adapter changes, dW = scale x B A and what its method makes of that.

    Ordinals are those of the tensors of the adapter's own checkpoint.

    Attributes:
        name: of the base's tensor, without the adapter's wrappers.
        shape: of dW, as the base stores it.
        a: ordinal of A, rank x in; None for a module of which DoRA changes nothing but the magnitudes.
        b: ordinal of B, out x rank; likewise.
        rank: columns of B; 0 without factors.
        scale: what the product is multiplied with.
        transposed: whether the base stores (B A)^T, as embeddings do, and linear layers by `fan_in_fan_out`.
        magnitude: ordinal of DoRA's magnitudes, one for each output; None for other methods.
        dash: what LoRA-Dash adds, and SVDiff; None for other methods.
        noise: what a learnt scalar adds; None without one.
    """

    name: str
    shape: tuple[int, ...]
    a: int | None
    b: int | None
    rank: int
    scale: float
    transposed: bool = False
    magnitude: int | None = None
    dash: Dash | None = None
    noise: Noise | None = None

    @property
    def is_whole(self) -> bool:
        """Whether its shape is known without the base."""
        return bool(self.rank or self.dash or self.noise)

    @property
    def tensors(self) -> tuple[int, ...]:
        """Ordinals of what it is made of."""
        parts = (self.a, self.b, self.magnitude)
        dash = (self.dash.left, self.dash.weights, self.dash.right) if self.dash else ()
        noise = (self.noise.scale,) if self.noise else ()
        return tuple(i for i in (*parts, *dash, *noise) if i is not None)

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows and columns of dW as the base stores it; of a convolution, its kernels are rows."""
        rows, columns = self.shape[0], 1
        for size in self.shape[1:]:
            columns *= size
        return rows, columns


@dataclass(frozen=True, slots=True)
class Saved:
    """A tensor that the adapter replaces as a whole: `modules_to_save`, biases, embeddings that have grown.

    Attributes:
        name: of the base's tensor, without the adapter's wrappers.
        tensor: ordinal in the adapter's own checkpoint.
    """

    name: str
    tensor: int


@dataclass(frozen=True, slots=True)
class Other:
    """A tensor of the adapter of which no dW is made.

    Attributes:
        tensor: ordinal in the adapter's own checkpoint.
        reason: why not.
    """

    tensor: int
    reason: str


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter says of itself, before any weight is read.

    Attributes:
        uri: the directory, absolute.
        name: a short name taken from the place.
        fingerprint: hexadecimal digest that changes when the settings or the weights' file change.
        revision: the commit of a versioned store, "" elsewhere.
        method: a key of `METHODS`.
        r: the rank that the settings give for modules without a rule of their own.
        base: name of the base that it was made for, "" if it does not say.
        checkpoint: the file of its weights.
        modules: what it changes, in the file's order.
        saved: what it replaces, likewise.
        others: what is left, likewise.
        note: what a reader should know about every dW, None if nothing.
    """

    uri: str
    name: str
    fingerprint: str
    revision: str
    method: str
    r: int
    base: str
    checkpoint: Checkpoint
    modules: tuple[Module, ...]
    saved: tuple[Saved, ...] = ()
    others: tuple[Other, ...] = ()
    note: str | None = None
