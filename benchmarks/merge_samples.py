"""Small models of a real architecture to merge: a base and what might have been tuned from it.

python benchmarks/merge_samples.py OUT [--seed 0] [--tuned 3]

LlamaForCausalLM of 3.9 million parameters with a tokenizer, written by transformers as f32, bf16 and f16:
OUT/base-f32, OUT/tuned1-f32 and so on. A tuned model is the base plus Gaussian noise, half of whose variance
all tuned models share; a tenth of the elements is left alone, one in fifty changes eight times as much, and
the noise doubles from layer to layer. Four tensors of one layer are unlike that, because methods differ
in how they take them; see `ODD`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
LAYERS = 4
ODD_LAYER = 1
ODD = {
    "input_layernorm": "no model has changed it",
    "post_attention_layernorm": "changed by a millionth",
    "self_attn.q_proj": "models changed it in opposite ways",
    "self_attn.o_proj": "0 in the base",
}


def model_of(seed: int) -> Any:
    """The base, with transformers' own initial weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm" in name:
                tensor.add_(torch.randn_like(tensor) * 0.1)
            if _oddity(name) == "self_attn.o_proj":
                tensor.zero_()
    return model


def _oddity(name: str) -> str | None:
    prefix = f"model.layers.{ODD_LAYER}."
    inner = name.removeprefix(prefix).removesuffix(".weight")
    return inner if name.startswith(prefix) and inner in ODD else None


def changes(base: dict[str, torch.Tensor], seed: int, count: int) -> Iterator[dict[str, torch.Tensor]]:
    """What each tuned model differs by, (shape of the tensor,) float32 by name."""
    for k in range(count):
        found = {}
        for number, (name, tensor) in enumerate(base.items()):
            common = _noise(tensor, [seed, number])
            own = _noise(tensor, [seed, number, k + 1])
            layer = int(name.split(".")[2]) if name.startswith("model.layers.") else 0
            change = (common + own) * (0.0005 * 2**layer / 2**0.5)
            match _oddity(name):
                case "input_layernorm":
                    change.zero_()
                case "post_attention_layernorm":
                    change = own * 1e-6
                case "self_attn.q_proj":
                    change = (common * (-1) ** k + own / 4) * 0.002
            found[name] = change
        yield found


def _noise(like: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    random = torch.Generator().manual_seed(hash(tuple(seeds)) % 2**31)
    noise = torch.randn(like.shape, generator=random)
    luck = torch.rand(like.shape, generator=random)
    return noise * (1 + 7 * (luck < 0.02)) * (luck < 0.9)


def tokenizer() -> Any:
    """A tokenizer with a word for each number."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "</s>", "<unk>", *(f"w{i}" for i in range(2045))]
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def write(out: Path, *, seed: int = 0, tuned: int = 3) -> None:
    """Write the base and the tuned models in every dtype.

    Args:
        out: the folder, made when missing.
        seed: of all weights.
        tuned: how many.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model, words = model_of(seed), tokenizer()
    base = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    nothing = {name: torch.zeros_like(tensor) for name, tensor in base.items()}
    for k, change in enumerate([nothing, *changes(base, seed, tuned)]):
        for tag, dtype in DTYPES.items():
            model.float().load_state_dict({name: tensor + change[name] for name, tensor in base.items()})
            folder = out / f"{f'tuned{k}' if k else 'base'}-{tag}"
            model.to(dtype).save_pretrained(folder)
            words.save_pretrained(folder)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tuned", type=int, default=3)
    a = parser.parse_args()
    write(a.out, seed=a.seed, tuned=a.tuned)


if __name__ == "__main__":
    main()
