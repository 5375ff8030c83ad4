"""`geom-mpi info` on a checkpoint of a large model's shape: headers alone are read."""

import json
import os
import struct
import time

from conftest import run

LAYERS, HEADS, KV_HEADS, HEAD_DIM, HIDDEN, INTERMEDIATE, VOCABULARY = 64, 64, 8, 128, 5120, 25600, 151936
SHARDS = 64


def tensors():
    yield "model.embed_tokens.weight", [VOCABULARY, HIDDEN]
    yield "lm_head.weight", [VOCABULARY, HIDDEN]
    yield "model.norm.weight", [HIDDEN]
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        yield prefix + "self_attn.q_proj.weight", [HEADS * HEAD_DIM, HIDDEN]
        yield prefix + "self_attn.k_proj.weight", [KV_HEADS * HEAD_DIM, HIDDEN]
        yield prefix + "self_attn.v_proj.weight", [KV_HEADS * HEAD_DIM, HIDDEN]
        yield prefix + "self_attn.o_proj.weight", [HIDDEN, HEADS * HEAD_DIM]
        yield prefix + "mlp.gate_proj.weight", [INTERMEDIATE, HIDDEN]
        yield prefix + "mlp.up_proj.weight", [INTERMEDIATE, HIDDEN]
        yield prefix + "mlp.down_proj.weight", [HIDDEN, INTERMEDIATE]
        yield prefix + "input_layernorm.weight", [HIDDEN]
        yield prefix + "post_attention_layernorm.weight", [HIDDEN]
        yield prefix + "self_attn.q_norm.weight", [HEAD_DIM]
        yield prefix + "self_attn.k_norm.weight", [HEAD_DIM]


def write_sparse_checkpoint(folder):
    """Qwen3-32B's tensors in 64 shards with real headers and holes for data. Returns the bytes it claims to hold."""
    shards = [[] for _ in range(SHARDS)]
    for i, tensor in enumerate(tensors()):
        shards[i % SHARDS].append(tensor)
    weight_map, claimed = {}, 0
    for number, shard in enumerate(shards, 1):
        name, header, end = f"model-{number:05d}-of-{SHARDS:05d}.safetensors", {}, 0
        for tensor, shape in shard:
            size = 2
            for length in shape:
                size *= length
            header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
            end += size
            weight_map[tensor] = name
        text = json.dumps(header).encode()
        with open(folder / name, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + end)
        claimed += end
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config = {
        "model_type": "qwen3",
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "vocab_size": VOCABULARY,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "rope_theta": 1e6,
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return claimed


def test_info_on_64_shards_reads_headers_alone_in_half_a_second(tmp_path):
    claimed = write_sparse_checkpoint(tmp_path)
    assert claimed > 65e9
    seconds = []
    for _ in range(5):
        begun = time.monotonic()
        finished = run("info", "--model", tmp_path, folder=tmp_path)
        seconds.append(time.monotonic() - begun)
        assert finished.returncode == 0, finished.stderr
    print(f"info: {sorted(seconds)} s")
    assert "64 layers, 64 query heads, 8 key/value heads" in finished.stdout
    assert f"{claimed / 2**30:.1f} GiB in {SHARDS} files" in finished.stdout
    assert "32.76 G parameters" in finished.stdout
    assert min(seconds) <= 0.5
    assert sum(os.stat(file).st_blocks * 512 for file in tmp_path.iterdir()) < 2**20  # nothing was filled in
