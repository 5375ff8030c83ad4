"""match: every head against every head, and which heads are the same when their order is arbitrary."""

import h5py
import numpy as np
import pytest
from conftest import GOLDEN, Tensor, attention_name, golden, operators, read_checkpoint, read_config, write_checkpoint

MODELS = [*GOLDEN, "qwen3-trained"]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("model", MODELS)
def test_golden_products_and_assignments_with_the_same_bits_on_any_ranks(runs, model, ranks):
    result = runs(golden(model), "-m", "gram,match", ranks=ranks)
    with h5py.File(golden(model) / "golden.h5") as file:
        expected = {name: file["match"][name][()] for name in ("cross_gram", "assignment", "matched_cos")}
    norms = np.sqrt(np.einsum("lhlh->lh", expected["cross_gram"]))
    allowed = 1e-5 * norms[:, :, None, None] * norms[None, None]
    assert np.all(np.abs(result["match/cross_gram"] - expected["cross_gram"]) <= allowed)
    np.testing.assert_array_equal(result["match/assignment"], expected["assignment"])
    np.testing.assert_allclose(result["match/matched_cos"], expected["matched_cos"], atol=1e-5)
    assert result.datasets() == runs(golden(model), "-m", "gram,match").datasets()


def test_products_are_those_of_the_operators_and_gram_is_their_diagonal(runs):
    config, tensors = read_config("llama-tiny"), read_checkpoint(golden("llama-tiny"))
    q, k = operators(config, tensors)
    g = np.einsum("lhid,lhie->lhde", k, q)
    expected = np.einsum("lhde,mgde->lhmg", g, g, optimize=True)
    result = runs(golden("llama-tiny"), "-m", "gram,match")
    size = (np.linalg.norm(q, axis=-1) * np.linalg.norm(k, axis=-1)).sum(-1)
    assert np.all(np.abs(result["match/cross_gram"] - expected) <= 1e-5 * size[:, :, None, None] * size)
    diagonal = np.einsum("lhmh->lmh", result["match/cross_gram"])
    np.testing.assert_array_equal(diagonal, result["gram/gram"].astype(np.float32))
    np.testing.assert_array_equal(result["match/cross_gram"], result["match/cross_gram"].transpose(2, 3, 0, 1))


def permuted(values, heads, order):
    """Rows of the heads in another order: new head h is old head order[h]."""
    return values.reshape(heads, -1, values.shape[-1])[order].reshape(values.shape)


def test_a_planted_order_of_heads_is_recovered_exactly(runs, tmp_path):
    # Layer 3 becomes layer 2 with its key heads permuted and the query heads of each permuted among themselves. A best
    # assignment that splits key heads up would do as well for any pair of heads, not for the layer.
    config, tensors = read_config("qwen3-tiny"), read_checkpoint(golden("qwen3-tiny"))
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    draw = np.random.default_rng(7)
    groups = draw.permutation(kv)
    order = np.concatenate([group * (heads // kv) + draw.permutation(heads // kv) for group in groups])
    for matrix, count, permutation in (("q", heads, order), ("k", kv, groups)):
        stored = tensors[attention_name(2, matrix)]
        tensors[attention_name(3, matrix)] = Tensor(stored.dtype, permuted(stored.bits, count, permutation))
    result = runs(write_checkpoint(tmp_path / "planted", config, tensors), "-m", "gram,heads,match")
    zero = result["heads/fro_sq"][3] == 0
    np.testing.assert_array_equal(result["match/assignment"][3, 2][~zero], order[~zero])
    np.testing.assert_allclose(result["match/matched_cos"][3, 2][~zero], 1, atol=1e-6)
    np.testing.assert_array_equal(result["match/assignment"][2, 3][order[~zero]], np.arange(heads)[~zero])


def test_a_small_budget_takes_more_passes_to_the_same_bits(runs):
    model = "synth:L12-H16-KV4-hd64-D512-F64-V64"
    once = runs(model, "-m", "match")
    budget = once.about["planned_memory"] - (1 << 20)
    forced = runs(model, "-m", "match", "--memory-budget", budget)
    assert forced.about["passes"] > once.about["passes"]
    assert forced.datasets() == once.datasets()
    assert forced.about["peak_memory"] <= budget
