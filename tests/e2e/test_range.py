"""The range of the stored type never shows: weights times powers of two give the numbers of ordinary weights."""

import os

import numpy as np
import pytest
from conftest import (
    GOLDEN,
    Tensor,
    attention_name,
    golden,
    gram_of,
    operator_norms,
    read_checkpoint,
    read_config,
    run,
    write_checkpoint,
)

MEASURES = ("-m", "gram,heads,match,spectra", "--legacy", "--top-k", "3")


def twin(folder, model, dtype, power):
    """The checkpoint in `dtype`; matrix X of layer l times 2^power(X, l)."""
    config, tensors = read_config(model), read_checkpoint(golden(model))
    for name, tensor in tensors.items():
        tensors[name] = Tensor.of(tensor.values(), dtype)
    for layer in range(config["num_hidden_layers"]):
        for matrix in "qk":
            values = tensors[attention_name(layer, matrix)].values() * 2.0 ** power(matrix, layer)
            tensors[attention_name(layer, matrix)] = Tensor.of(values, dtype)
    return write_checkpoint(folder, config, tensors)


OF_OPERATORS = {"singular_values": 1, "eigvals_re": 1, "eigvals_im": 1, "sym_eigs": 1, "fro_sq": 2}
# LAPACK's eigenvalues of matrices that are not symmetric have other last bits when all is twice as large.
NOT_TO_THE_BIT = ["heads/eigvals_re", "heads/eigvals_im", "heads/positivity", "analysis/z_shared"]


def scaled_back(path, result, powers):
    """A dataset as of the weights before W_X of layer l was multiplied by 2^powers[X][l]; None: not comparable."""
    group, _, name = path.rpartition("/")
    found, of = result[path], powers["q"] + powers["k"]
    if path == "gram/gram":
        return np.ldexp(found, -of[:, None, None] - of[None, :, None])
    if path == "match/cross_gram":
        left_out = result["match/exponent"] - of[:, None]
        return np.ldexp(found.astype(np.float64), left_out[:, :, None, None] + left_out[None, None])
    if group in ("heads", "legacy/heads") and name in OF_OPERATORS:
        return np.ldexp(found, -OF_OPERATORS[name] * of.reshape(-1, *[1] * (found.ndim - 1)))
    if name.startswith("singular_values_") and name[16] in powers:
        return np.ldexp(found, -powers[name[16]][:, None])
    if group == "spectra" and name not in ("eff_rank", "eff_rank_energy", "stable_rank", "n90"):
        return None
    return None if path == "match/exponent" or name == "anchor_scale" else found


def check_same(result, plain, powers):
    for path in plain.datasets():
        found, expected = scaled_back(path, result, powers), plain[path]
        if found is None:
            continue
        if path in NOT_TO_THE_BIT:
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * np.nanmax(np.abs(expected)), err_msg=path)
        else:
            np.testing.assert_array_equal(found, expected, path)


@pytest.mark.parametrize(("dtype", "most", "ranks"), [("F32", 110, 1), ("F32", -110, 2), ("F64", 190, 3)])
def test_weights_times_powers_of_two_by_layer_and_matrix_give_the_same_bits(runs, tmp_path, dtype, most, ranks):
    powers = {"q": np.array([most, -most, 70, 37, 0, most]), "k": np.array([most, -most, -70, -100, 0, -most])}
    plain = runs(twin(tmp_path / "plain", "qwen3-tiny", dtype, lambda *_: 0), *MEASURES)
    result = runs(twin(tmp_path / "scaled", "qwen3-tiny", dtype, lambda x, l: powers[x][l]), *MEASURES, ranks=ranks)
    check_same(result, plain, powers)


@pytest.mark.skipif("GEOM_TEST_SWEEP" not in os.environ, reason="minutes: asked for with GEOM_TEST_SWEEP=1")
@pytest.mark.parametrize("model", GOLDEN)
def test_golden_weights_times_any_power_of_two_give_the_same_bits(runs, tmp_path, model):
    dtype = "F64" if model == "llama-tiny" else "F32"  # in which the smallest weights times 2^-110 lose no digits
    layers = read_config(model)["num_hidden_layers"]
    plain = runs(twin(tmp_path / "plain", model, dtype, lambda *_: 0), *MEASURES)
    for q in range(-110, 111, 20):
        for k in (q, -q):
            powers = {"q": np.full(layers, q), "k": np.full(layers, k)}
            scaled = twin(tmp_path / f"{q} {k}", model, dtype, lambda x, l, powers=powers: powers[x][l])
            check_same(runs(scaled, *MEASURES), plain, powers)


def test_subnormal_bf16_and_f16_weights_have_the_cosines_of_what_they_are(runs, tmp_path):
    # Layer 0 is subnormal as a whole: few digits, which NumPy has in f64.
    for model, dtype, power in (("qwen3-tiny", "BF16", -125), ("qwen2-tiny", "F16", -13)):
        small = twin(tmp_path / dtype, model, dtype, lambda _, layer, power=power: power if layer == 0 else 0)
        config, tensors = read_config(model), read_checkpoint(small)
        expected = gram_of(config, {name: Tensor("F64", tensor.values()) for name, tensor in tensors.items()})
        gram = runs(small, "-m", "gram")["gram/gram"]
        assert np.all(np.abs(gram - expected) <= 1e-5 * operator_norms(expected))


def test_f64_weights_beyond_what_products_of_four_may_have_are_named_with_their_row(tmp_path):
    for power, says, ranks in ((230, "2^2", 1), (-220, "2^-2", 2)):
        powers = {("k", 3): power}
        folder = twin(tmp_path / str(power), "qwen3-tiny", "F64", lambda x, l, powers=powers: powers.get((x, l), 0))
        refused = run("--model", folder, "-m", "gram", "-o", f"{power}.h5", ranks=ranks, folder=tmp_path)
        assert refused.returncode == 4, refused.stderr
        for words in (attention_name(3, "k"), "in row", says):
            assert words in refused.stderr
