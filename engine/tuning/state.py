"""What a checkpoint holds: what learns, the optimiser, and the random numbers; for one worker or many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from engine.tuning.heads import head_tensors

State = dict[str, Any]


def count(model: nn.Module) -> tuple[int, int]:
    """How many numbers learn, and how many of them are the head's."""
    learning = {id(p): p.numel() for p in model.parameters() if p.requires_grad}
    base = getattr(model, "base_model", None)
    bare = getattr(base, "model", model) if type(model).__name__.startswith("Peft") else model
    head = {id(p): p.numel() for p in head_tensors(bare).values() if p.requires_grad}
    return sum(learning.values()), sum(head.values())


def groups(model: nn.Module, decay: float) -> list[State]:
    """The optimiser's parameters: those of matrices decay, others and scalars do not."""
    learning = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in learning if p.ndim >= 2]
    others = [p for p in learning if p.ndim < 2]
    made = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in made if group["params"]]


def number(tensor: Tensor) -> float:
    """The value of a tensor of one, wherever it is."""
    return float(whole(tensor).reshape(()))


def is_shared(model: nn.Module) -> bool:
    """Whether several workers share the weights, so that all must take part in whatever asks for them."""
    return hasattr(model, "reshard")


def whole(tensor: Any) -> Tensor:
    """A tensor with all its numbers; of one that is spread over the workers, all of them ask at once."""
    found: Tensor = tensor.full_tensor() if _is_spread(tensor) else tensor
    return found.detach()


def _is_spread(tensor: Any) -> bool:
    return hasattr(tensor, "full_tensor")


def let_go(model: Any) -> None:
    """Keep no more than a worker's share.

    A pass without gradients leaves what no layer holds whole on each worker, where changes would be lost.
    """
    if is_shared(model):
        model.reshard()


def learnt(model: nn.Module) -> State:
    """Copies of what learns, whole, in the memory of the processor."""
    return {n: whole(p).to("cpu", copy=True) for n, p in model.named_parameters() if p.requires_grad}


def learning(model: nn.Module) -> State:
    """What learns, where it lies: nothing is copied."""
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}


def load(model: nn.Module, values: State) -> None:
    """Put back what `learnt` has copied."""
    there = {n: p for n, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, value in values.items():
            there[name].copy_(_as(there[name], value))


def _as(parameter: Any, value: Tensor) -> Tensor:
    """A whole tensor, spread over the workers as a parameter is."""
    if not _is_spread(parameter):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)


def optimiser(found: torch.optim.Optimizer) -> State:
    """The optimiser's state, whole, in the memory of the processor; all workers take part."""
    made = found.state_dict()
    moments = {
        number: {key: whole(v).cpu() if isinstance(v, Tensor) else v for key, v in values.items()}
        for number, values in made["state"].items()
    }
    return {**made, "state": moments}


def load_optimiser(found: torch.optim.Optimizer, values: State) -> None:
    """Put the optimiser's state back."""
    learning = [p for group in found.param_groups for p in group["params"]]

    def own(number: int, value: Any) -> Any:
        return _as(learning[number], value) if value.shape == learning[number].shape else value

    moments = {n: {k: own(n, v) for k, v in values_.items()} for n, values_ in values["state"].items()}
    found.load_state_dict({**values, "state": moments})


def seed(value: int, rank: int) -> None:
    """Let every worker draw its own random numbers."""
    torch.manual_seed(value * 100_003 + rank)


def random() -> State:
    """The state of the random numbers of this worker."""
    found: State = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state()
    return found


def load_random(values: State) -> None:
    """Put it back."""
    torch.set_rng_state(values["cpu"])
    if "cuda" in values and torch.cuda.is_available():
        torch.cuda.set_rng_state(values["cuda"])


def without_sync(model: Any) -> AbstractContextManager[None]:
    """Let a pass of several add to the gradients without asking the other workers."""
    if hasattr(model, "no_sync"):
        return model.no_sync()  # type: ignore[no-any-return]
    return _unsynchronised(model) if hasattr(model, "set_requires_gradient_sync") else nullcontext()


@contextmanager
def _unsynchronised(model: Any) -> Iterator[None]:
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)
