"""Measure spectra: golden checkpoints, answers known at any size, the same bits on any number of ranks and threads."""

import subprocess

import numpy as np
import pytest
from conftest import (
    ENVIRONMENT,
    GOLDEN,
    MPIEXEC,
    PROGRAM,
    Tensor,
    golden,
    listing,
    read_checkpoint,
    read_config,
    run,
    write_checkpoint,
)

h5py = pytest.importorskip("h5py")

GROUPS = ["spectra", "spectra_global", "experts"]
FAMILIES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def numbers(file):
    """Every dataset of the measure's groups, as bytes."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and name.split("/")[0] in GROUPS:
            found[name] = item[()].tobytes()

    with h5py.File(file) as opened:
        opened.visititems(visit)
    assert found
    return found


@pytest.mark.parametrize("model", GOLDEN)
def test_golden_values_ranks_and_figures(model, runs):
    result = runs(golden(model), "-m", "spectra")
    with h5py.File(golden(model) / "golden.h5") as expected, h5py.File(result.file) as found:
        for group in GROUPS:
            assert (group in expected) == (group in found)
            if group not in expected:
                continue
            for name in expected[group]:
                if name == "family":
                    continue
                want, have = expected[group][name][()], found[group][name][()]
                assert want.shape == have.shape, (group, name)
                if name.startswith("singular_values"):
                    assert (np.abs(have - want) <= 1e-9 * want.max(-1, keepdims=True)).all(), (group, name)
                elif name == "condition":
                    doubt = found[group]["least_error"][()]
                    assert (np.abs(have - want) <= (1e-8 + doubt) * want).all(), (group, name)
                else:
                    np.testing.assert_allclose(have, want, rtol=1e-8, err_msg=f"{group}/{name}")
            for name in ["eff_rank_error", "eff_rank_energy_error"]:
                assert (found[group][name][()] < 1e-7).all()


@pytest.mark.parametrize("model", ["qwen3-tiny", "qwen3moe-tiny"])
def test_the_same_bits_on_any_number_of_ranks_and_threads(model, runs):
    one = numbers(runs(golden(model), "-m", "spectra").file)
    for ranks in [2, 3, 4]:
        assert numbers(runs(golden(model), "-m", "spectra", "--threads", "1", ranks=ranks).file) == one
    assert numbers(runs(golden(model), "-m", "spectra", "--threads", "2").file) == one
    assert numbers(runs(golden(model), ranks=2).file) == one  # beside the other measures


def test_more_ranks_than_layers_share_the_matrices_of_a_layer(runs):
    model = "synth:L2-H4-KV2-hd16-D64-F160-V96"
    one = numbers(runs(model, "-m", "spectra").file)
    assert numbers(runs(model, "-m", "spectra", ranks=4).file) == one


def test_made_up_weights_have_the_spectra_of_independent_entries(runs):
    result = runs("synth:L3-H8-KV4-hd64-D512-F1536-V2048", "-m", "spectra")
    with h5py.File(result.file) as file:
        for group in ["spectra", "spectra_global"]:
            figures = file[group]
            np.testing.assert_allclose(figures["eff_rank"][()], figures["mp_eff_rank"][()], rtol=0.01)
            assert (figures["mp_outliers"][()] <= 1).all()
            assert (figures["fro_norm"][()] >= figures["spectral_norm"][()]).all()


def test_a_global_in_strips_agrees_with_numpy(runs, tmp_path):
    config = read_config("llama-tiny")
    tensors = read_checkpoint(golden("llama-tiny"))
    hidden = config["hidden_size"]
    embed = np.random.default_rng(1).standard_normal((400000, hidden), dtype=np.float32)
    assert embed.nbytes > 64 << 20
    config["vocab_size"], config["tie_word_embeddings"] = len(embed), True
    del tensors["lm_head.weight"]
    tensors["model.embed_tokens.weight"] = Tensor("F32", embed)
    model = write_checkpoint(tmp_path / "model", config, tensors)
    result = runs(model, "-m", "spectra")
    expected = np.sqrt(np.linalg.eigvalsh(embed.astype(np.float64).T @ embed.astype(np.float64))[::-1])
    found = result["spectra_global/singular_values_embed_tokens"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert numbers(runs(model, "-m", "spectra", ranks=2).file) == numbers(result.file)


def layer_names(layer, expert=None):
    where = "mlp" if expert is None else f"mlp.experts.{expert}"
    return {name: f"model.layers.{layer}.{where}.{name}.weight" for name in FAMILIES[4:]}


def test_layers_without_a_matrix_say_so_by_NaN(runs, tmp_path):
    """A mixture whose layer 1 has a dense MLP instead of experts."""
    config, tensors = read_config("qwen3moe-tiny"), read_checkpoint(golden("qwen3moe-tiny"))
    config["mlp_only_layers"] = [1]
    dense = layer_names(1)
    for name, tensor in layer_names(1, expert=0).items():
        tensors[dense[name]] = tensors[tensor]
    tensors = {
        name: tensor
        for name, tensor in tensors.items()
        if ".1.mlp.experts" not in name and ".1.mlp.gate.weight" not in name
    }
    config["intermediate_size"] = len(tensors[dense["gate_proj"]].bits)
    model = write_checkpoint(tmp_path / "model", config, tensors)
    result = runs(model, "-m", "spectra")
    ranks = result["spectra/eff_rank"]
    assert ranks.shape == (7, 3)
    assert np.isnan(ranks[4:, [0, 2]]).all() and not np.isnan(ranks[4:, 1]).any() and not np.isnan(ranks[:4]).any()
    values = result["spectra/singular_values_up_proj"]
    assert np.isnan(values[[0, 2]]).all() and not np.isnan(values[1]).any()
    whole = runs(golden("qwen3moe-tiny"), "-m", "spectra")
    np.testing.assert_array_equal(result["experts/layer"], [0, 2])
    np.testing.assert_array_equal(result["experts/eff_rank"], whole["experts/eff_rank"][:, [0, 2]])
    np.testing.assert_array_equal(ranks[4:, 1], whole["experts/eff_rank"][:, 1, 0])


def test_a_rank_deficient_matrix_is_done_directly_and_its_condition_is_infinite(runs, tmp_path):
    config, tensors = read_config("llama-tiny"), read_checkpoint(golden("llama-tiny"))
    name = "model.layers.1.self_attn.o_proj.weight"
    rows, cols = tensors[name].bits.shape
    integers = (np.arange(rows)[:, None] % 3 + 1) * (np.arange(cols)[None, :] % 5)
    tensors[name] = Tensor("F32", integers.astype(np.float32))
    result = runs(write_checkpoint(tmp_path / "model", config, tensors), "-m", "spectra")
    o = FAMILIES.index("o_proj")
    assert result["spectra/direct"][o, 1] == 1 and result["spectra/direct"][o, 0] == 0
    assert np.isinf(result["spectra/condition"][o, 1])
    assert np.count_nonzero(result["spectra/singular_values_o_proj"][1]) == 1
    assert abs(result["spectra/eff_rank"][o, 1] - 1) < 1e-12


@pytest.mark.parametrize("model", [golden("qwen3-tiny"), golden("qwen3moe-tiny")], ids=["dense", "mixture"])
@pytest.mark.parametrize("place", ["load:1:1", "write:0:2"])
def test_a_killed_run_resumed_on_another_number_of_ranks_gives_the_same_bits(place, model, runs, tmp_path):
    killed = subprocess.run(
        [MPIEXEC, "-n", "2", str(PROGRAM), "--model", str(model), "-m", "spectra", "-o", "r.h5"],
        cwd=tmp_path,
        env={**ENVIRONMENT, "GEOM_MPI_FAULT": f"kill:{place}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert killed.returncode != 0 and not (tmp_path / "r.h5").exists()
    resumed = run("--model", model, "-m", "spectra", "-o", "r.h5", ranks=3, folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert numbers(tmp_path / "r.h5") == numbers(runs(model, "-m", "spectra").file)
    assert listing(tmp_path) == ["r.h5"]


@pytest.mark.parametrize("shape", ["qwen2.5-72b", "llama-3.1-405b"])
def test_the_largest_models_are_planned_within_80_GB_a_rank(shape, tmp_path):
    planned = run("--model", f"synth:{shape}", "-m", "spectra", "--memory-budget", "80GB", "--dry-run", folder=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert "memory" in planned.stdout
