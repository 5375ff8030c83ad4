"""Measure variation: golden checkpoints, planted layers, the same bits on any number of ranks, its summary."""

import json

import numpy as np
import pytest
from conftest import GOLDEN, Tensor, attention_name, golden, read_checkpoint, read_config, run, write_checkpoint

h5py = pytest.importorskip("h5py")

GAUGES = ["none", "rotation", "none_folded", "function"]
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]


def names(file, scale):
    return (
        [name.decode() for name in file[scale][:].astype("S")]
        if file[scale].ndim == 1
        else [b"".join(row).decode().rstrip("\0 ") for row in file[scale][:]]
    )


def residuals(file):
    """{gauge: {family: residuals of all pairs}}."""
    with h5py.File(file) as opened:
        values = opened["variation/residual"][()]
        gauges, families = names(opened, "variation/gauge"), names(opened, "variation/family")
    assert gauges == GAUGES
    return {g: dict(zip(families, values[i], strict=True)) for i, g in enumerate(gauges)}


def numbers(file):
    with h5py.File(file) as opened:
        return {
            f"{group}/{name}": opened[group][name][()].tobytes()
            for group in ["variation", "legacy/variation"]
            for name in opened[group]
        }


@pytest.mark.parametrize("model", [*GOLDEN, "qwen3-trained"])
def test_golden_residuals_as_they_are_and_as_earlier_scripts_had_them(model, runs):
    result = runs(golden(model), "-m", "variation", "--legacy")
    with h5py.File(golden(model) / "golden.h5") as expected, h5py.File(result.file) as found:
        want, have = expected["variation/residual"][()], found["variation/residual"][()]
        families = names(found, "variation/family")
        assert families == [name.decode() for name in expected["variation/family"][()]]
        assert want.shape == have.shape
        in_golden = ~np.isnan(want)
        assert np.abs(have - want)[in_golden].max() <= 1e-6
        # golden files lack the attention part of function; input_ln and post_attn_ln are in no folded gauge
        missing = {families[f] for _, f, _ in np.argwhere(np.isnan(have))}
        assert missing == {"input_ln", "post_attn_ln"}
        assert np.nanmax(found["variation/not_unique"][()]) == 0

        want, have = expected["legacy/variation/residual"][()], found["legacy/variation/residual"][()]
        assert want.shape == have.shape
        # with 3 hidden < intermediate the scripts' matrix of neurons has no full rank, and their R is open
        config = read_config(golden(model))
        is_open = [family in MLP and 3 * config["hidden_size"] < config["intermediate_size"] for family in families]
        assert np.isnan(have[is_open]).all()
        assert np.abs(have - want)[np.logical_not(is_open)].max() <= 1e-4


@pytest.mark.parametrize("model", GOLDEN)
def test_an_alignment_brings_no_layer_further_away(model, runs):
    found = residuals(runs(golden(model), "-m", "variation", "--legacy").file)
    if "gate_proj" not in found["none"]:
        return
    for gauge, baseline in [("rotation", "none"), ("function", "none_folded")]:
        nearest, before = (sum(found[g][family] ** 2 for family in MLP) for g in (gauge, baseline))
        assert (nearest <= before + 1e-12).all()


@pytest.mark.parametrize("model", ["llama-tiny", "qwen3moe-tiny"])
def test_the_same_bits_on_any_number_of_ranks_and_threads(model, runs):
    one = numbers(runs(golden(model), "-m", "variation", "--legacy").file)
    for ranks in [2, 3, 4]:
        more = runs(golden(model), "-m", "variation", "--legacy", "--threads", "1", ranks=ranks)
        assert numbers(more.file) == one
    assert numbers(runs(golden(model), "-m", "heads,variation", "--legacy", "--threads", "2").file) == one


def orthogonal(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def test_a_layer_that_was_rotated_is_found_by_rotation_alone(tmp_path, runs):
    """Layer 1 is layer 0 with each key head's block turned by a matrix of its own, and all neurons by another."""
    config, tensors = read_config(golden("llama-tiny")), read_checkpoint(golden("llama-tiny"))
    config["num_hidden_layers"] = 2
    heads, groups, size = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    rng = np.random.default_rng(3)
    turns = [orthogonal(rng, size) for _ in range(groups)]
    neurons = orthogonal(rng, config["intermediate_size"])

    def block_diagonal(count):
        whole = np.zeros((count * size, count * size))
        for i in range(count):
            whole[i * size : (i + 1) * size, i * size : (i + 1) * size] = turns[i * groups // count]
        return whole

    def put(name, values):
        tensors[name.replace("layers.0.", "layers.1.")] = Tensor.of(values, "F32")

    for matrix, count in [("q", heads), ("k", groups), ("v", groups)]:
        name = attention_name(0, matrix)
        put(name, block_diagonal(count) @ tensors[name].values())
    put(attention_name(0, "o"), tensors[attention_name(0, "o")].values() @ block_diagonal(heads).T)
    for matrix in ["gate", "up"]:
        name = f"model.layers.0.mlp.{matrix}_proj.weight"
        put(name, neurons @ tensors[name].values())
    down = "model.layers.0.mlp.down_proj.weight"
    put(down, tensors[down].values() @ neurons.T)
    kept = {name: t for name, t in tensors.items() if not any(f"layers.{layer}." in name for layer in (2, 3, 4))}
    found = residuals(runs(write_checkpoint(tmp_path / "planted", config, kept), "-m", "variation").file)
    for family in [*ATTENTION, *MLP]:
        assert found["rotation"][family][0] <= 1e-6, family
        assert found["none"][family][0] > 0.1, family
    assert found["function"]["q_proj"][0] > 0.1
    assert found["function"]["gate_proj"][0] > 0.1


def test_families_are_ranked_over_a_block(tmp_path, runs):
    result = runs(golden("qwen2-tiny"), "-m", "variation", "--block", "2:6")
    assert result.attribute("block") == "2:6"
    found = residuals(result.file)
    tables = run("analyze", result.file, "--format", "json", folder=tmp_path)
    rows = json.loads(tables.stdout)["tables"]["variation"]["rows"]
    assert [gauge for i, gauge in enumerate(row["gauge"] for row in rows) if i % 9 == 0][:3] == GAUGES[:3]
    for gauge in GAUGES:
        ranked = [row for row in rows if row["gauge"] == gauge]
        assert [row["mean"] for row in ranked] == sorted(row["mean"] for row in ranked)
        for row in ranked:
            values = found[gauge][row["family"]][2:5]  # pairs (2, 3), (3, 4), (4, 5)
            assert row["n"] == 3
            statistics = [row["mean"], row["least"], row["most"], row["sd"]]
            np.testing.assert_allclose(
                statistics, [values.mean(), values.min(), values.max(), values.std()], rtol=1e-12
            )
            assert row["least_at"] == 2 + values.argmin()
            assert result.about["summary"]["variation"][gauge][row["family"]] == row["mean"]
    wider = run("analyze", result.file, "--format", "json", "--block", "0:9", folder=tmp_path)
    assert json.loads(wider.stdout)["tables"]["variation"]["rows"][0]["n"] == 8
    assert "layers 2 to 4 from the next one's" in result.stdout


@pytest.mark.parametrize("block", ["3:4", "5:10", "4:2"])
def test_a_block_without_two_layers_of_the_run_is_refused(tmp_path, block):
    refused = run("--model", golden("qwen2-tiny"), "-m", "variation", "--block", block, folder=tmp_path)
    assert refused.returncode == 2
    assert f"--block {block}" in refused.stderr


def test_a_single_layer_has_no_group(runs):
    with h5py.File(runs("synth:tiny?layers=1", "-m", "heads,variation").file) as file:
        assert "variation" not in file
