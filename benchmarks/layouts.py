"""Architectures of published models: the names and shapes of their tensors, and where files begin anew."""

from __future__ import annotations

from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Architecture of a decoder of the LLaMA family.

    Attributes:
        model_type: as in config.json.
        layers: decoder layers.
        hidden: width of the residual stream.
        inner: width of the feed-forward block.
        heads: query heads.
        kv_heads: key and value heads.
        vocabulary: tokens.
        bias: whether queries, keys and values have one.
        shard_bytes: where the published checkpoint begins another file.
    """

    model_type: str
    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int
    bias: bool = False
    shard_bytes: int = 10_000_000_000

    def tensors(self) -> dict[str, Shape]:
        """Shape of every tensor by name, in the order of the file."""
        h, head = self.hidden, self.hidden // self.heads
        widths = {"q": self.heads * head, "k": self.kv_heads * head, "v": self.kv_heads * head}
        shapes: dict[str, Shape] = {"model.embed_tokens.weight": (self.vocabulary, h)}
        for layer in range(self.layers):
            p = f"model.layers.{layer}."
            shapes[p + "input_layernorm.weight"] = (h,)
            for role, width in widths.items():
                shapes[p + f"self_attn.{role}_proj.weight"] = (width, h)
                if self.bias:
                    shapes[p + f"self_attn.{role}_proj.bias"] = (width,)
            shapes[p + "self_attn.o_proj.weight"] = (h, self.heads * head)
            shapes[p + "post_attention_layernorm.weight"] = (h,)
            shapes[p + "mlp.gate_proj.weight"] = (self.inner, h)
            shapes[p + "mlp.up_proj.weight"] = (self.inner, h)
            shapes[p + "mlp.down_proj.weight"] = (h, self.inner)
        return shapes | {"model.norm.weight": (h,), "lm_head.weight": (self.vocabulary, h)}

    def config(self, torch_dtype: str) -> dict[str, object]:
        """Return what config.json says."""
        return {
            "architectures": [{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[self.model_type]],
            "model_type": self.model_type,
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": False,
            "torch_dtype": torch_dtype,
        }


LAYOUTS = {
    "tinyllama-1.1b": Layout("llama", 22, 2048, 5632, 32, 4, 32000),
    "llama-7b": Layout("llama", 32, 4096, 11008, 32, 32, 32000),
    "qwen2.5-32b": Layout("qwen2", 64, 5120, 27648, 40, 8, 152064, bias=True, shard_bytes=3_990_000_000),
    "micro": Layout("llama", 2, 64, 172, 4, 2, 320),
}
