"""Real tensor names of many architectures, and what `place` must read in each."""

import itertools
import re
import time
import tomllib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.nouns.names import LONGEST_NAME, ROLES, RULES_FILE, Place, place

# Each row: name | part | layer | module | role.
TABLES = {
    "Llama, Qwen2, Mistral, Gemma": """
        model.embed_tokens.weight | | - | embed_tokens | embedding
        model.layers.0.self_attn.q_proj.weight | | 0 | self_attn.q_proj | query
        model.layers.0.self_attn.q_proj.bias | | 0 | self_attn.q_proj | bias
        model.layers.31.self_attn.k_proj.weight | | 31 | self_attn.k_proj | key
        model.layers.31.self_attn.v_proj.weight | | 31 | self_attn.v_proj | value
        model.layers.31.self_attn.o_proj.weight | | 31 | self_attn.o_proj | attention output
        model.layers.31.mlp.gate_proj.weight | | 31 | mlp.gate_proj | gate
        model.layers.31.mlp.up_proj.weight | | 31 | mlp.up_proj | intermediate
        model.layers.31.mlp.down_proj.weight | | 31 | mlp.down_proj | output
        model.layers.31.input_layernorm.weight | | 31 | input_layernorm | norm
        model.layers.31.pre_feedforward_layernorm.weight | | 31 | pre_feedforward_layernorm | norm
        model.layers.31.self_attn.q_norm.weight | | 31 | self_attn.q_norm | norm
        model.layers.0.self_attn.rotary_emb.inv_freq | | 0 | self_attn.rotary_emb.inv_freq | other
        model.norm.weight | | - | norm | norm
        lm_head.weight | | - | lm_head | head
        score.weight | | - | score | head
    """,
    "Llama, original": """
        tok_embeddings.weight | | - | tok_embeddings | embedding
        layers.0.attention.wq.weight | | 0 | attention.wq | query
        layers.0.attention.wk.weight | | 0 | attention.wk | key
        layers.0.attention.wv.weight | | 0 | attention.wv | value
        layers.0.attention.wo.weight | | 0 | attention.wo | attention output
        layers.0.feed_forward.w1.weight | | 0 | feed_forward.w1 | gate
        layers.0.feed_forward.w2.weight | | 0 | feed_forward.w2 | output
        layers.0.feed_forward.w3.weight | | 0 | feed_forward.w3 | intermediate
        layers.0.attention_norm.weight | | 0 | attention_norm | norm
        output.weight | | - | output | head
        rope.freqs | | - | rope.freqs | other
    """,
    "Mixtral, Qwen-MoE, DeepSeek-V3, gpt-oss": """
        model.layers.1.block_sparse_moe.gate.weight | | 1 | block_sparse_moe.gate | router
        model.layers.1.block_sparse_moe.experts.7.w1.weight | | 1 | block_sparse_moe.experts.7.w1 | gate
        model.layers.1.block_sparse_moe.experts.7.w2.weight | | 1 | block_sparse_moe.experts.7.w2 | output
        model.layers.1.block_sparse_moe.experts.7.w3.weight \
            | | 1 | block_sparse_moe.experts.7.w3 | intermediate
        model.layers.1.mlp.gate.weight | | 1 | mlp.gate | router
        model.layers.1.mlp.experts.59.gate_proj.weight | | 1 | mlp.experts.59.gate_proj | gate
        model.layers.1.mlp.shared_expert.up_proj.weight | | 1 | mlp.shared_expert.up_proj | intermediate
        model.layers.1.mlp.shared_expert_gate.weight | | 1 | mlp.shared_expert_gate | router
        # DeepSeek-V3
        model.layers.3.self_attn.q_a_proj.weight | | 3 | self_attn.q_a_proj | query
        model.layers.3.self_attn.q_a_layernorm.weight | | 3 | self_attn.q_a_layernorm | norm
        model.layers.3.self_attn.q_b_proj.weight | | 3 | self_attn.q_b_proj | query
        model.layers.3.self_attn.kv_a_proj_with_mqa.weight | | 3 | self_attn.kv_a_proj_with_mqa | key value
        model.layers.3.self_attn.kv_a_layernorm.weight | | 3 | self_attn.kv_a_layernorm | norm
        model.layers.3.self_attn.kv_b_proj.weight | | 3 | self_attn.kv_b_proj | key value
        model.layers.3.self_attn.kv_b_proj.weight_scale_inv | | 3 | self_attn.kv_b_proj | scale
        model.layers.3.mlp.gate.e_score_correction_bias | | 3 | mlp.gate.e_score_correction_bias | bias
        model.layers.3.mlp.experts.255.down_proj.weight | | 3 | mlp.experts.255.down_proj | output
        model.layers.3.mlp.shared_experts.gate_proj.weight | | 3 | mlp.shared_experts.gate_proj | gate
        model.layers.61.shared_head.head.weight | | 61 | shared_head.head | head
        # gpt-oss
        model.layers.0.mlp.router.weight | | 0 | mlp.router | router
        model.layers.0.mlp.experts.gate_up_proj_blocks | | 0 | mlp.experts.gate_up_proj | gate intermediate
        model.layers.0.mlp.experts.gate_up_proj_scales | | 0 | mlp.experts.gate_up_proj | scale
        model.layers.0.mlp.experts.down_proj_bias | | 0 | mlp.experts.down_proj | bias
    """,
    "Phi-3, Falcon, NeoX, Bloom": """
        model.layers.0.self_attn.qkv_proj.weight | | 0 | self_attn.qkv_proj | query key value
        model.layers.0.mlp.gate_up_proj.weight | | 0 | mlp.gate_up_proj | gate intermediate
        model.layers.0.self_attn.dense.weight | | 0 | self_attn.dense | attention output
        transformer.word_embeddings.weight | | - | word_embeddings | embedding
        transformer.h.0.self_attention.query_key_value.weight \
            | | 0 | self_attention.query_key_value | query key value
        transformer.h.0.self_attention.dense.weight | | 0 | self_attention.dense | attention output
        transformer.h.0.mlp.dense_h_to_4h.weight | | 0 | mlp.dense_h_to_4h | intermediate
        transformer.h.0.mlp.dense_4h_to_h.weight | | 0 | mlp.dense_4h_to_h | output
        transformer.h.0.ln_attn.weight | | 0 | ln_attn | norm
        gpt_neox.embed_in.weight | | - | embed_in | embedding
        gpt_neox.layers.5.attention.query_key_value.bias | | 5 | attention.query_key_value | bias
        gpt_neox.layers.5.attention.dense.weight | | 5 | attention.dense | attention output
        gpt_neox.layers.5.attention.bias | | 5 | attention | other
        gpt_neox.layers.5.attention.masked_bias | | 5 | attention.masked_bias | other
        gpt_neox.final_layer_norm.weight | | - | final_layer_norm | norm
        embed_out.weight | | - | embed_out | head
        word_embeddings_layernorm.weight | | - | word_embeddings_layernorm | norm
        h.0.self_attention.query_key_value.bias | | 0 | self_attention.query_key_value | bias
    """,
    "GPT-2": """
        wte.weight | | - | wte | embedding
        transformer.wpe.weight | | - | wpe | position embedding
        h.0.attn.c_attn.weight | | 0 | attn.c_attn | query key value
        transformer.h.0.attn.c_attn.weight | | 0 | attn.c_attn | query key value
        h.0.attn.c_attn.bias | | 0 | attn.c_attn | bias
        h.0.attn.bias | | 0 | attn | other
        transformer.h.0.attn.masked_bias | | 0 | attn.masked_bias | other
        h.0.attn.c_proj.weight | | 0 | attn.c_proj | attention output
        h.0.mlp.c_fc.weight | | 0 | mlp.c_fc | intermediate
        h.0.mlp.c_proj.weight | | 0 | mlp.c_proj | output
        h.0.ln_1.weight | | 0 | ln_1 | norm
        ln_f.bias | | - | ln_f | norm
    """,
    "BERT, MiniLM, RoBERTa, DistilBERT": """
        bert.embeddings.word_embeddings.weight | | - | embeddings.word_embeddings | embedding
        embeddings.word_embeddings.weight | | - | embeddings.word_embeddings | embedding
        embeddings.position_embeddings.weight | | - | embeddings.position_embeddings | position embedding
        embeddings.token_type_embeddings.weight | | - | embeddings.token_type_embeddings | type embedding
        embeddings.LayerNorm.weight | | - | embeddings.LayerNorm | norm
        embeddings.position_ids | | - | embeddings.position_ids | other
        bert.encoder.layer.0.attention.self.query.weight | | 0 | attention.self.query | query
        encoder.layer.5.attention.self.key.weight | | 5 | attention.self.key | key
        encoder.layer.5.output.LayerNorm.bias | | 5 | output.LayerNorm | norm
        bert.encoder.layer.0.output.LayerNorm.gamma | | 0 | output.LayerNorm | norm
        pooler.dense.weight | | - | pooler.dense | pooler
        bert.pooler.dense.bias | | - | pooler.dense | bias
        cls.predictions.bias | | - | cls.predictions | bias
        cls.predictions.transform.dense.weight | | - | cls.predictions.transform.dense | head
        cls.predictions.transform.LayerNorm.weight | | - | cls.predictions.transform.LayerNorm | norm
        cls.seq_relationship.weight | | - | cls.seq_relationship | head
        roberta.encoder.layer.0.intermediate.dense.weight | | 0 | intermediate.dense | intermediate
        classifier.out_proj.weight | | - | classifier.out_proj | head
        lm_head.layer_norm.weight | | - | lm_head.layer_norm | norm
        distilbert.transformer.layer.0.attention.q_lin.weight | | 0 | attention.q_lin | query
        distilbert.transformer.layer.0.attention.out_lin.weight | | 0 | attention.out_lin | attention output
        distilbert.transformer.layer.0.ffn.lin2.weight | | 0 | ffn.lin2 | output
    """,
    "DeBERTa v1, v3": """
        deberta.encoder.layer.0.attention.self.in_proj.weight | | 0 | attention.self.in_proj | query key value
        deberta.encoder.layer.0.attention.self.q_bias | | 0 | attention.self.q_bias | bias
        deberta.encoder.layer.0.attention.self.pos_proj.weight | | 0 | attention.self.pos_proj | key
        deberta.encoder.layer.0.attention.self.pos_q_proj.weight | | 0 | attention.self.pos_q_proj | query
        deberta.encoder.layer.0.attention.self.query_proj.weight | | 0 | attention.self.query_proj | query
        deberta.encoder.layer.0.attention.self.key_proj.weight | | 0 | attention.self.key_proj | key
        deberta.encoder.layer.0.attention.self.value_proj.weight | | 0 | attention.self.value_proj | value
        deberta.encoder.layer.0.attention.output.dense.weight \
            | | 0 | attention.output.dense | attention output
        deberta.encoder.layer.0.output.dense.weight | | 0 | output.dense | output
        deberta.encoder.rel_embeddings.weight | | - | encoder.rel_embeddings | position embedding
        deberta.encoder.LayerNorm.weight | | - | encoder.LayerNorm | norm
        mask_predictions.dense.weight | | - | mask_predictions.dense | head
    """,
    "T5, Whisper, OPT": """
        shared.weight | | - | shared | embedding
        encoder.block.0.layer.0.SelfAttention.q.weight | encoder | 0 | layer.0.SelfAttention.q | query
        encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight \
            | encoder | 0 | layer.0.SelfAttention.relative_attention_bias | position embedding
        encoder.block.9.layer.0.layer_norm.weight | encoder | 9 | layer.0.layer_norm | norm
        encoder.block.9.layer.1.DenseReluDense.wi.weight \
            | encoder | 9 | layer.1.DenseReluDense.wi | intermediate
        encoder.block.9.layer.1.DenseReluDense.wi_0.weight | encoder | 9 | layer.1.DenseReluDense.wi_0 | gate
        encoder.final_layer_norm.weight | encoder | - | final_layer_norm | norm
        decoder.block.0.layer.1.EncDecAttention.o.weight \
            | decoder | 0 | layer.1.EncDecAttention.o | attention output
        decoder.block.0.layer.2.DenseReluDense.wo.weight | decoder | 0 | layer.2.DenseReluDense.wo | output
        model.encoder.conv1.weight | encoder | - | conv1 | convolution
        model.encoder.embed_positions.weight | encoder | - | embed_positions | position embedding
        model.encoder.layers.3.self_attn.k_proj.weight | encoder | 3 | self_attn.k_proj | key
        model.encoder.layer_norm.bias | encoder | - | layer_norm | norm
        model.decoder.layers.3.encoder_attn.q_proj.weight | decoder | 3 | encoder_attn.q_proj | query
        model.decoder.layers.3.encoder_attn.out_proj.weight \
            | decoder | 3 | encoder_attn.out_proj | attention output
        model.decoder.layers.3.fc1.weight | decoder | 3 | fc1 | intermediate
        proj_out.weight | | - | proj_out | head
        # OPT has no encoder, yet its names are those of BART's decoder
        model.decoder.embed_tokens.weight | decoder | - | embed_tokens | embedding
        model.decoder.layers.0.self_attn_layer_norm.weight | decoder | 0 | self_attn_layer_norm | norm
        model.decoder.layers.0.fc2.weight | decoder | 0 | fc2 | output
    """,
    "ViT of HF, of timm": """
        vit.embeddings.cls_token | | - | embeddings.cls_token | embedding
        vit.embeddings.position_embeddings | | - | embeddings.position_embeddings | position embedding
        vit.embeddings.patch_embeddings.projection.weight \
            | | - | embeddings.patch_embeddings.projection | patch embedding
        vit.encoder.layer.0.attention.attention.query.weight | | 0 | attention.attention.query | query
        vit.encoder.layer.0.attention.output.dense.weight | | 0 | attention.output.dense | attention output
        vit.encoder.layer.0.layernorm_before.weight | | 0 | layernorm_before | norm
        vit.layernorm.weight | | - | layernorm | norm
        patch_embed.proj.weight | | - | patch_embed.proj | patch embedding
        blocks.11.attn.qkv.weight | | 11 | attn.qkv | query key value
        blocks.11.attn.proj.weight | | 11 | attn.proj | attention output
        blocks.11.mlp.fc1.weight | | 11 | mlp.fc1 | intermediate
        blocks.11.ls1.gamma | | 11 | ls1.gamma | scale
        head.weight | | - | head | head
    """,
    "CLIP, SigLIP": """
        logit_scale | | - | logit_scale | scale
        logit_bias | | - | logit_bias | bias
        visual_projection.weight | vision | - | visual_projection | connector
        text_projection.weight | text | - | text_projection | connector
        text_model.embeddings.token_embedding.weight | text | - | embeddings.token_embedding | embedding
        text_model.encoder.layers.0.self_attn.q_proj.weight | text | 0 | self_attn.q_proj | query
        text_model.head.weight | text | - | head | head
        vision_model.embeddings.class_embedding | vision | - | embeddings.class_embedding | embedding
        vision_model.embeddings.patch_embedding.weight \
            | vision | - | embeddings.patch_embedding | patch embedding
        vision_model.embeddings.position_embedding.weight \
            | vision | - | embeddings.position_embedding | position embedding
        vision_model.pre_layrnorm.weight | vision | - | pre_layrnorm | norm
        vision_model.encoder.layers.26.mlp.fc2.weight | vision | 26 | mlp.fc2 | output
        vision_model.encoder.layers.26.layer_norm1.bias | vision | 26 | layer_norm1 | norm
        vision_model.head.probe | vision | - | head.probe | pooler
        vision_model.head.attention.in_proj_weight | vision | - | head.attention.in_proj | query key value
        vision_model.head.attention.in_proj_bias | vision | - | head.attention.in_proj | bias
        vision_model.head.attention.out_proj.weight | vision | - | head.attention.out_proj | attention output
        vision_model.head.mlp.fc1.weight | vision | - | head.mlp.fc1 | intermediate
        visual.transformer.resblocks.3.attn.in_proj_weight | vision | 3 | attn.in_proj | query key value
        transformer.resblocks.3.mlp.c_fc.weight | | 3 | mlp.c_fc | intermediate
    """,
    "SAM, original, HF": """
        image_encoder.pos_embed | vision | - | pos_embed | position embedding
        image_encoder.patch_embed.proj.weight | vision | - | patch_embed.proj | patch embedding
        image_encoder.blocks.0.attn.qkv.weight | vision | 0 | attn.qkv | query key value
        image_encoder.blocks.0.attn.rel_pos_h | vision | 0 | attn.rel_pos_h | position embedding
        image_encoder.blocks.0.attn.proj.weight | vision | 0 | attn.proj | attention output
        image_encoder.blocks.31.mlp.lin1.weight | vision | 31 | mlp.lin1 | intermediate
        image_encoder.blocks.31.mlp.lin2.weight | vision | 31 | mlp.lin2 | output
        image_encoder.neck.0.weight | vision | - | neck.0 | convolution
        image_encoder.neck.1.bias | vision | - | neck.1 | norm
        prompt_encoder.point_embeddings.0.weight | prompt | - | point_embeddings.0 | embedding
        prompt_encoder.mask_downscaling.4.weight | prompt | - | mask_downscaling.4 | norm
        mask_decoder.iou_token.weight | decoder | - | iou_token | embedding
        mask_decoder.transformer.layers.0.cross_attn_token_to_image.q_proj.weight \
            | decoder | 0 | cross_attn_token_to_image.q_proj | query
        mask_decoder.transformer.layers.1.norm4.weight | decoder | 1 | norm4 | norm
        mask_decoder.transformer.final_attn_token_to_image.out_proj.weight \
            | decoder | - | final_attn_token_to_image.out_proj | attention output
        mask_decoder.output_hypernetworks_mlps.3.layers.1.weight \
            | decoder | - | output_hypernetworks_mlps.3.layers.1 | head
        mask_decoder.iou_prediction_head.layers.2.bias | decoder | - | iou_prediction_head.layers.2 | bias
        vision_encoder.layers.7.attn.qkv.weight | vision | 7 | attn.qkv | query key value
        vision_encoder.patch_embed.projection.weight | vision | - | patch_embed.projection | patch embedding
        vision_encoder.neck.conv1.weight | vision | - | neck.conv1 | convolution
    """,
    "ConvNeXt, ResNet, Swin": """
        convnext.embeddings.patch_embeddings.weight | | - | embeddings.patch_embeddings | patch embedding
        convnext.encoder.stages.2.layers.10.pwconv1.weight | stage 2 | 10 | pwconv1 | intermediate
        convnext.encoder.stages.2.layers.10.pwconv2.weight | stage 2 | 10 | pwconv2 | output
        convnext.encoder.stages.2.layers.10.dwconv.weight | stage 2 | 10 | dwconv | convolution
        convnext.encoder.stages.2.layers.10.layer_scale_parameter \
            | stage 2 | 10 | layer_scale_parameter | scale
        convnext.encoder.stages.1.downsampling_layer.0.weight | stage 1 | - | downsampling_layer.0 | norm
        convnext.encoder.stages.1.downsampling_layer.1.weight \
            | stage 1 | - | downsampling_layer.1 | convolution
        convnext.layernorm.weight | | - | layernorm | norm
        classifier.weight | | - | classifier | head
        stages.2.10.pwconv1.weight | stage 2 | 10 | pwconv1 | intermediate
        stages.2.10.gamma | stage 2 | 10 | gamma | scale
        downsample_layers.0.0.weight | | - | downsample_layers.0.0 | patch embedding
        downsample_layers.0.1.weight | | - | downsample_layers.0.1 | norm
        downsample_layers.1.0.weight | stage 1 | - | downsample_layers.0 | norm
        downsample_layers.1.1.weight | stage 1 | - | downsample_layers.1 | convolution
        stages.2.blocks.10.mlp.fc1.weight | stage 2 | 10 | mlp.fc1 | intermediate
        stages.1.downsample.0.weight | stage 1 | - | downsample.0 | norm
        layer1.0.downsample.0.weight | stage 1 | 0 | downsample.0 | convolution
        layer1.0.downsample.1.weight | stage 1 | 0 | downsample.1 | norm
        swin.encoder.layers.2.blocks.5.attention.self.query.weight \
            | stage 2 | 5 | attention.self.query | query
    """,
    "Idefics3, LLaVA-NeXT, Ovis, Qwen2-VL": """
        # Idefics3
        model.text_model.layers.31.self_attn.q_proj.weight | text | 31 | self_attn.q_proj | query
        model.text_model.embed_tokens.weight | text | - | embed_tokens | embedding
        model.vision_model.encoder.layers.26.self_attn.k_proj.weight | vision | 26 | self_attn.k_proj | key
        model.vision_model.post_layernorm.weight | vision | - | post_layernorm | norm
        model.connector.modality_projection.proj.weight | connector | - | modality_projection.proj | connector
        # LLaVA-NeXT, the original and HF
        model.layers.0.self_attn.q_proj.weight | | 0 | self_attn.q_proj | query
        model.vision_tower.vision_tower.vision_model.encoder.layers.3.mlp.fc1.weight \
            | vision | 3 | mlp.fc1 | intermediate
        model.mm_projector.0.weight | connector | - | mm_projector.0 | connector
        model.mm_projector.2.bias | connector | - | mm_projector.2 | bias
        model.image_newline | | - | image_newline | embedding
        language_model.model.layers.0.mlp.down_proj.weight | text | 0 | mlp.down_proj | output
        language_model.lm_head.weight | text | - | lm_head | head
        multi_modal_projector.linear_1.weight | connector | - | multi_modal_projector.linear_1 | connector
        vision_tower.vision_model.encoder.layers.3.self_attn.v_proj.weight \
            | vision | 3 | self_attn.v_proj | value
        # Ovis
        llm.model.layers.0.mlp.up_proj.weight | text | 0 | mlp.up_proj | intermediate
        llm.lm_head.weight | text | - | lm_head | head
        visual_tokenizer.backbone.vision_model.encoder.layers.0.self_attn.q_proj.weight \
            | vision | 0 | self_attn.q_proj | query
        visual_tokenizer.backbone.trunk.blocks.0.attn.qkv.weight | vision | 0 | attn.qkv | query key value
        visual_tokenizer.head.0.weight | connector | - | visual_tokenizer.head.0 | connector
        visual_tokenizer.head.1.weight | connector | - | visual_tokenizer.head.1 | norm
        vte.weight | connector | - | vte | embedding
        # Qwen2-VL
        visual.blocks.0.attn.qkv.weight | vision | 0 | attn.qkv | query key value
        visual.merger.mlp.0.weight | connector | - | merger.mlp.0 | connector
        visual.merger.ln_q.weight | connector | - | merger.ln_q | norm
    """,
    "Mamba": """
        backbone.embeddings.weight | | - | embeddings | embedding
        backbone.layers.0.mixer.in_proj.weight | | 0 | mixer.in_proj | gate intermediate
        backbone.layers.0.mixer.out_proj.weight | | 0 | mixer.out_proj | output
        backbone.layers.0.mixer.conv1d.weight | | 0 | mixer.conv1d | convolution
        backbone.layers.0.mixer.dt_proj.bias | | 0 | mixer.dt_proj | bias
        backbone.layers.0.mixer.A_log | | 0 | mixer.A_log | other
        backbone.layers.0.norm.weight | | 0 | norm | norm
        backbone.norm_f.weight | | - | norm_f | norm
    """,
    "DDP, FSDP, torch.compile, zarr, PEFT": """
        module.model.layers.0.mlp.up_proj.weight | | 0 | mlp.up_proj | intermediate
        module._orig_mod.h.0.mlp.c_fc.weight | | 0 | mlp.c_fc | intermediate
        model.layers.0._fsdp_wrapped_module.mlp.up_proj.weight | | 0 | mlp.up_proj | intermediate
        model/layers/0/mlp/up_proj/weight | | 0 | mlp.up_proj | intermediate
        base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight | | 0 | self_attn.q_proj | adapter
        base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight \
            | | 0 | self_attn.q_proj | adapter
        base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector \
            | | 0 | self_attn.q_proj | adapter
        base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight | | 0 | self_attn.q_proj | query
        base_model.model.transformer.h.0.attn.c_attn.lora_A.weight | | 0 | attn.c_attn | adapter
        base_model.model.score.weight | | - | score | head
    """,
    "GPTQ, AWQ, compressed-tensors, bitsandbytes": """
        model.layers.0.self_attn.q_proj.qweight | | 0 | self_attn.q_proj | query
        model.layers.0.self_attn.q_proj.scales | | 0 | self_attn.q_proj | scale
        model.layers.0.self_attn.q_proj.qzeros | | 0 | self_attn.q_proj | scale
        model.layers.0.self_attn.q_proj.g_idx | | 0 | self_attn.q_proj | other
        model.layers.0.mlp.up_proj.weight_packed | | 0 | mlp.up_proj | intermediate
        model.layers.0.mlp.up_proj.weight_scale | | 0 | mlp.up_proj | scale
        model.layers.0.mlp.up_proj.weight_shape | | 0 | mlp.up_proj | other
        model.layers.0.mlp.up_proj.weight.absmax | | 0 | mlp.up_proj | scale
        model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4 | | 0 | mlp.up_proj | other
        model.layers.0.self_attn.k_scale | | 0 | self_attn.k_scale | scale
    """,
    "unknown": """
        newnet.blocks.3.mixer.query_projection.weight | | 3 | newnet.mixer.query_projection | query
        newnet.blocks.3.token_up.weight | | 3 | newnet.token_up | intermediate
        newnet.blocks.3.strange.weight | | 3 | newnet.strange | other
        single_blocks.3.img_attn.out.weight | | 3 | single_blocks.img_attn.out | attention output
        strange | | - | strange | other
        weight | | - | weight | other
         | | - | | other
        layers.99999999999.x | | - | layers.99999999999.x | other
    """,
}


def rows_of(table):
    """The rows of one of the tables, with comments left out."""
    rows = [line.split("|") for line in table.splitlines() if line.strip() and line.split()[0] != "#"]
    for name, part, layer, module, role in rows:
        number = None if layer.strip() == "-" else int(layer)
        yield name.strip(), part.strip(), number, module.strip(), role.strip()


ROWS = [pytest.param(*row, id=row[0]) for table in TABLES.values() for row in rows_of(table)]


@pytest.mark.parametrize(("name", "part", "layer", "module", "role"), ROWS)
def test_real_names(name, part, layer, module, role):
    assert place(name) == Place(part, layer, module, role)


def test_the_tables_are_all_collected():
    assert len(TABLES) == 17
    assert len(ROWS) > 200


@pytest.mark.parametrize("prefix", ["", "bert.", "module.bert.", "0.auto_model."])
def test_bert_has_the_six_matrices_in_each_layer(prefix):
    modules = {
        "attention.self.query": "query",
        "attention.self.key": "key",
        "attention.self.value": "value",
        "attention.output.dense": "attention output",
        "intermediate.dense": "intermediate",
        "output.dense": "output",
    }
    for layer in range(6):
        for module, role in modules.items():
            name = f"{prefix}encoder.layer.{layer}.{module}.weight"
            assert place(name) == Place("", layer, module, role)


# Whole layouts of two layers: "w" is a matrix or a convolution, "n" a norm, "b" says that it has a bias too.
# '{a,b}' is either, '#' the number of a layer. Not here: Mamba, whose x_proj, dt_proj and A_log no role fits.
LAYOUTS = {
    "llama": {
        "model.embed_tokens": "w",
        "model.layers.#.self_attn.{q,k,v,o}_proj": "w",
        "model.layers.#.mlp.{gate,up,down}_proj": "w",
        "model.layers.#.{input,post_attention}_layernorm": "n",
        "model.norm": "n",
        "lm_head": "w",
    },
    "llama, original": {
        "tok_embeddings": "w",
        "layers.#.attention.{wq,wk,wv,wo}": "w",
        "layers.#.feed_forward.{w1,w2,w3}": "w",
        "layers.#.{attention,ffn}_norm": "n",
        "norm": "n",
        "output": "w",
    },
    "mixtral": {
        "model.embed_tokens": "w",
        "model.layers.#.self_attn.{q,k,v,o}_proj": "w",
        "model.layers.#.block_sparse_moe.gate": "w",
        "model.layers.#.block_sparse_moe.experts.{0,1,2}.{w1,w2,w3}": "w",
        "model.layers.#.{input,post_attention}_layernorm": "n",
        "model.norm": "n",
        "lm_head": "w",
    },
    "bert": {
        "bert.embeddings.{word,position,token_type}_embeddings": "w",
        "bert.embeddings.LayerNorm": "nb",
        "bert.encoder.layer.#.attention.self.{query,key,value}": "wb",
        "bert.encoder.layer.#.{attention.output,intermediate,output}.dense": "wb",
        "bert.encoder.layer.#.{attention.output,output}.LayerNorm": "nb",
        "bert.pooler.dense": "wb",
        "cls.predictions.{transform.dense,decoder}": "wb",
        "cls.predictions.transform.LayerNorm": "nb",
        "cls.seq_relationship": "wb",
    },
    "deberta v3": {
        "deberta.embeddings.word_embeddings": "w",
        "deberta.embeddings.LayerNorm": "nb",
        "deberta.encoder.layer.#.attention.self.{query,key,value}_proj": "wb",
        "deberta.encoder.layer.#.{attention.output,intermediate,output}.dense": "wb",
        "deberta.encoder.layer.#.{attention.output,output}.LayerNorm": "nb",
        "deberta.encoder.rel_embeddings": "w",
        "deberta.encoder.LayerNorm": "nb",
        "pooler.dense": "wb",
        "classifier": "wb",
    },
    "gpt2": {
        "{wte,wpe}": "w",
        "h.#.attn.{c_attn,c_proj}": "wb",
        "h.#.mlp.{c_fc,c_proj}": "wb",
        "h.#.{ln_1,ln_2}": "nb",
        "ln_f": "nb",
    },
    "phi 3": {
        "model.embed_tokens": "w",
        "model.layers.#.self_attn.{qkv,o}_proj": "w",
        "model.layers.#.mlp.{gate_up,down}_proj": "w",
        "model.layers.#.{input,post_attention}_layernorm": "n",
        "model.norm": "n",
        "lm_head": "w",
    },
    "bloom": {
        "word_embeddings": "w",
        "word_embeddings_layernorm": "nb",
        "h.#.self_attention.{query_key_value,dense}": "wb",
        "h.#.mlp.{dense_h_to_4h,dense_4h_to_h}": "wb",
        "h.#.{input,post_attention}_layernorm": "nb",
        "ln_f": "nb",
    },
    "neox": {
        "gpt_neox.embed_in": "w",
        "gpt_neox.layers.#.attention.{query_key_value,dense}": "wb",
        "gpt_neox.layers.#.mlp.{dense_h_to_4h,dense_4h_to_h}": "wb",
        "gpt_neox.layers.#.{input,post_attention}_layernorm": "nb",
        "gpt_neox.final_layer_norm": "nb",
        "embed_out": "w",
    },
    "opt": {
        "model.decoder.{embed_tokens,embed_positions}": "w",
        "model.decoder.layers.#.self_attn.{q,k,v,out}_proj": "wb",
        "model.decoder.layers.#.{fc1,fc2}": "wb",
        "model.decoder.layers.#.{self_attn,final}_layer_norm": "nb",
        "model.decoder.final_layer_norm": "nb",
    },
    "deepseek v3": {
        "model.embed_tokens": "w",
        "model.layers.#.self_attn.{q_a_proj,q_b_proj,kv_a_proj_with_mqa,kv_b_proj,o_proj}": "w",
        "model.layers.#.self_attn.{q_a,kv_a}_layernorm": "n",
        "model.layers.#.mlp.gate": "w",
        "model.layers.#.mlp.{experts.0,experts.1,shared_experts}.{gate,up,down}_proj": "w",
        "model.layers.#.{input,post_attention}_layernorm": "n",
        "model.norm": "n",
        "lm_head": "w",
    },
    "t5": {
        "shared": "w",
        "{encoder,decoder}.block.#.layer.0.SelfAttention.{q,k,v,o}": "w",
        "{encoder,decoder}.block.0.layer.0.SelfAttention.relative_attention_bias": "w",
        "decoder.block.#.layer.1.EncDecAttention.{q,k,v,o}": "w",
        "encoder.block.#.layer.1.DenseReluDense.{wi_0,wi_1,wo}": "w",
        "decoder.block.#.layer.2.DenseReluDense.{wi_0,wi_1,wo}": "w",
        "{encoder,decoder}.block.#.layer.{0,1}.layer_norm": "n",
        "decoder.block.#.layer.2.layer_norm": "n",
        "{encoder,decoder}.final_layer_norm": "n",
        "lm_head": "w",
    },
    "whisper": {
        "model.encoder.{conv1,conv2}": "wb",
        "model.{encoder,decoder}.layers.#.self_attn.{q,k,v,out}_proj": "wb",
        "model.{encoder,decoder}.layers.#.{fc1,fc2}": "wb",
        "model.encoder.layers.#.{self_attn,final}_layer_norm": "nb",
        "model.decoder.embed_tokens": "w",
        "model.{encoder,decoder}.embed_positions": "w",
        "model.decoder.layers.#.encoder_attn.{q,k,v,out}_proj": "wb",
        "model.decoder.layers.#.{self_attn,encoder_attn,final}_layer_norm": "nb",
        "model.{encoder,decoder}.layer_norm": "nb",
        "proj_out": "w",
    },
    "sam": {
        "image_encoder.patch_embed.proj": "wb",
        "image_encoder.blocks.#.attn.{qkv,proj}": "wb",
        "image_encoder.blocks.#.mlp.{lin1,lin2}": "wb",
        "image_encoder.blocks.#.{norm1,norm2}": "nb",
        "image_encoder.neck.{0,2}": "w",
        "image_encoder.neck.{1,3}": "nb",
        "prompt_encoder.point_embeddings.{0,1,2,3}": "w",
        "prompt_encoder.{not_a_point_embed,no_mask_embed}": "w",
        "prompt_encoder.mask_downscaling.{0,3,6}": "wb",
        "prompt_encoder.mask_downscaling.{1,4}": "nb",
        "mask_decoder.transformer.layers.#.self_attn.{q,k,v,out}_proj": "wb",
        "mask_decoder.transformer.layers.#.cross_attn_{token_to_image,image_to_token}.{q,k,v,out}_proj": "wb",
        "mask_decoder.transformer.layers.#.mlp.{lin1,lin2}": "wb",
        "mask_decoder.transformer.layers.#.{norm1,norm2,norm3,norm4}": "nb",
        "mask_decoder.transformer.final_attn_token_to_image.{q,k,v,out}_proj": "wb",
        "mask_decoder.transformer.norm_final_attn": "nb",
        "mask_decoder.{iou_token,mask_tokens}": "w",
        "mask_decoder.output_upscaling.{0,3}": "wb",
        "mask_decoder.output_upscaling.1": "nb",
        "mask_decoder.output_hypernetworks_mlps.#.layers.{0,1,2}": "wb",
        "mask_decoder.iou_prediction_head.layers.{0,1,2}": "wb",
    },
    "convnext": {
        "convnext.embeddings.patch_embeddings": "wb",
        "convnext.embeddings.layernorm": "nb",
        "convnext.encoder.stages.{0,1}.layers.#.{dwconv,pwconv1,pwconv2}": "wb",
        "convnext.encoder.stages.{0,1}.layers.#.layernorm": "nb",
        "convnext.encoder.stages.1.downsampling_layer.0": "nb",
        "convnext.encoder.stages.1.downsampling_layer.1": "wb",
        "convnext.layernorm": "nb",
        "classifier": "wb",
    },
    "convnext, original": {
        "downsample_layers.0.0": "wb",
        "downsample_layers.0.1": "nb",
        "downsample_layers.{1,2,3}.0": "nb",
        "downsample_layers.{1,2,3}.1": "wb",
        "stages.{0,1,2,3}.#.{dwconv,pwconv1,pwconv2}": "wb",
        "stages.{0,1,2,3}.#.norm": "nb",
        "norm": "nb",
        "head": "wb",
    },
    "vit": {
        "vit.embeddings.patch_embeddings.projection": "wb",
        "vit.encoder.layer.#.attention.attention.{query,key,value}": "wb",
        "vit.encoder.layer.#.{attention.output,intermediate,output}.dense": "wb",
        "vit.encoder.layer.#.layernorm_{before,after}": "nb",
        "vit.layernorm": "nb",
        "vit.pooler.dense": "wb",
        "classifier": "wb",
    },
    "vit, timm": {
        "patch_embed.proj": "wb",
        "blocks.#.attn.{qkv,proj}": "wb",
        "blocks.#.mlp.{fc1,fc2}": "wb",
        "blocks.#.{norm1,norm2}": "nb",
        "norm": "nb",
        "head": "wb",
    },
    "siglip": {
        "text_model.embeddings.{token,position}_embedding": "w",
        "{text,vision}_model.encoder.layers.#.self_attn.{q,k,v,out}_proj": "wb",
        "{text,vision}_model.encoder.layers.#.mlp.{fc1,fc2}": "wb",
        "{text,vision}_model.encoder.layers.#.{layer_norm1,layer_norm2}": "nb",
        "text_model.final_layer_norm": "nb",
        "text_model.head": "wb",
        "vision_model.embeddings.patch_embedding": "wb",
        "vision_model.embeddings.position_embedding": "w",
        "vision_model.post_layernorm": "nb",
        "vision_model.head.{attention.out_proj,mlp.fc1,mlp.fc2}": "wb",
        "vision_model.head.layernorm": "nb",
    },
    "ovis": {
        "llm.model.embed_tokens": "w",
        "llm.model.layers.#.self_attn.{q,k,v,o}_proj": "w",
        "llm.model.layers.#.mlp.{gate,up,down}_proj": "w",
        "llm.model.layers.#.{input,post_attention}_layernorm": "n",
        "llm.model.norm": "n",
        "llm.lm_head": "w",
        "visual_tokenizer.backbone.vision_model.embeddings.{patch,position}_embedding": "w",
        "visual_tokenizer.backbone.vision_model.encoder.layers.#.self_attn.{q,k,v,out}_proj": "wb",
        "visual_tokenizer.backbone.vision_model.encoder.layers.#.mlp.{fc1,fc2}": "wb",
        "visual_tokenizer.backbone.vision_model.encoder.layers.#.{layer_norm1,layer_norm2}": "nb",
        "visual_tokenizer.backbone.vision_model.post_layernorm": "nb",
        "visual_tokenizer.head.0": "w",
        "visual_tokenizer.head.1": "nb",
        "vte": "w",
    },
}


def expand(pattern):
    """Every choice of a member from each '{a,b}', a '#' being '{0,1}'."""
    pieces = re.split(r"[{}]", pattern.replace("#", "{0,1}"))
    return ["".join(choice) for choice in itertools.product(*(piece.split(",") for piece in pieces))]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_layout(layout):
    seen = {}
    for pattern, kind in LAYOUTS[layout].items():
        for module in expand(pattern):
            for suffix in ["weight", "bias"] if kind.endswith("b") else ["weight"]:
                name = f"{module}.{suffix}"
                it = place(name)
                key = (it.part, it.layer, it.module, suffix)
                assert key not in seen, f"{name} and {seen[key]} have the same place"
                seen[key] = name
                if kind.startswith("n"):
                    assert it.role == "norm", name
                elif suffix == "bias":
                    assert it.role == "bias", name
                else:
                    assert it.role not in ("norm", "bias", "other"), name


def test_every_role_of_the_rules_is_documented():
    rules = tomllib.loads(RULES_FILE.read_text(encoding="utf-8"))
    roles = {table["role"] for kind in ("suffix", "role") for table in rules[kind] if "role" in table}
    assert roles == set(ROLES)
    assert len(ROLES) == len(set(ROLES))


def test_every_rule_has_only_known_keys():
    rules = tomllib.loads(RULES_FILE.read_text(encoding="utf-8"))
    known = {
        "prefix": {"where", "words"},
        "suffix": {"role", "ends"},
        "part": {"part", "starts", "keep"},
        "stack": {"use", "words"},
        "role": {"role", "module", "path", "stacked"},
    }
    assert rules.keys() == known.keys()
    for kind, tables in rules.items():
        for table in tables:
            assert table.keys() <= known[kind], table
            assert kind != "role" or len(table.keys() & {"module", "path"}) == 1, table


WORDS = sorted({word for table in TABLES.values() for word in re.split(r"([./])|\s+", table) if word})


@given(st.text() | st.lists(st.sampled_from(WORDS) | st.text(max_size=3)).map("".join))
@example("layers." + "9" * 5000)  # int() refuses it
@example("layers.\u0663.x")  # a digit, but not an ASCII one
@example("\ud800.weight\n")
def test_any_text_has_a_place(name):
    it = place(name)
    assert it.role in ROLES
    assert it.layer is None or 0 <= it.layer < 2**31
    assert place(name) == it


@pytest.mark.parametrize("unit", [".", "a.", "att.", "pos", ".lora_a", "model.", "layers.0.", "stages.0."])
def test_a_hostile_name_takes_no_time(unit):
    began = time.perf_counter()
    place((unit * LONGEST_NAME)[:LONGEST_NAME])
    place(unit * 1_000_000)
    assert time.perf_counter() - began < 1


def test_a_large_model_takes_no_time():
    llama = [name for pattern in LAYOUTS["llama"] for name in expand(pattern)]
    names = [name.replace("layers.", f"layers.{tens}") + ".weight" for name in llama for tens in range(40)]
    place(names[0])
    began = time.perf_counter()
    for name in names:
        place(name)
    assert time.perf_counter() - began < 0.5  # measured 0.01 s; the rest is for a busy machine
