"""heads on the golden checkpoints, through the whole program at 1 to 4 ranks."""

import numpy as np
import pytest
from conftest import GOLDEN, golden

h5py = pytest.importorskip("h5py")

VALUES = ["singular_values", "eigvals_re", "eigvals_im", "sym_eigs"]
SCALARS = ["eff_rank", "eff_rank_energy", "stable_rank", "asymmetry", "positivity", "sym_positive_energy", "fro_sq"]
DIRECTIONS = ["right_dirs", "left_dirs"]


def golden_group(model, group="heads"):
    with h5py.File(golden(model) / "golden.h5") as file:
        return {name: dataset[()] for name, dataset in file[group].items()}


def blocks_of_close_values(values, gap):
    """Ranges of neighbouring singular values whose directions are determined together only."""
    begin = 0
    for i in range(1, len(values) + 1):
        if i == len(values) or values[i - 1] - values[i] > gap:
            yield begin, i
            begin = i


def check_directions(found, expected, singular_values):
    """Rows within 1e-6; where singular values are close, the projectors on the rows that belong together."""
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    count = found.shape[-2]
    for layer, head in np.ndindex(found.shape[:2]):
        s = singular_values[layer, head]
        for begin, end in blocks_of_close_values(s, 1e-4 * s[0]):
            a, b = found[layer, head, begin:end].astype(np.float64), expected[layer, head, begin:end]
            if begin >= count or end > count and end - begin > 1 or np.isnan(b).any():
                continue
            difference = a - b if end - begin == 1 else a.T @ a - b.T @ b
            assert np.abs(difference).max() <= 1e-6


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("model", GOLDEN)
def test_heads_match_golden(model, ranks, runs):
    expected, result = golden_group(model), runs(golden(model), "-m", "heads", ranks=ranks)
    largest = np.maximum(expected["singular_values"][..., :1], 1e-300)
    for name in VALUES:
        assert np.abs((result[f"heads/{name}"] - expected[name]) / largest).max() <= 1e-9, name
    for name in SCALARS:
        found = result[f"heads/{name}"]
        assert np.array_equal(np.isnan(found), np.isnan(expected[name])), name
        assert np.nanmax(np.abs(found / expected[name] - 1)) <= 1e-9, name
    for name in DIRECTIONS:
        check_directions(result[f"heads/{name}"], expected[name], expected["singular_values"])


@pytest.mark.parametrize("model", GOLDEN)
def test_heads_have_the_same_bits_on_any_number_of_ranks_and_threads(model, runs):
    expected = runs(golden(model), "-m", "heads", ranks=1).datasets()
    assert expected
    for ranks, threads in [(2, 1), (3, 2), (4, 1), (1, 1), (1, 3)]:
        assert runs(golden(model), "-m", "heads", "--threads", threads, ranks=ranks).datasets() == expected


def test_directions_beyond_the_rank_are_nan_at_top_k_16(runs):
    expected = golden_group("qwen3-tiny", "heads_top16")
    result = runs(golden("qwen3-tiny"), "-m", "heads", "--top-k", 16, ranks=2)
    assert np.isnan(expected["right_dirs"]).any()
    for name in DIRECTIONS:
        check_directions(result[f"heads/{name}"], expected[name], result["heads/singular_values"])


@pytest.mark.parametrize("model", GOLDEN)
def test_full_rank_heads_have_as_many_positive_as_negative_symmetric_eigenvalues(model, runs):
    result = runs(golden(model), "-m", "heads")
    singular_values, symmetric = result["heads/singular_values"], result["heads/sym_eigs"]
    head_dim = singular_values.shape[-1]
    full = (singular_values > 0).all(axis=-1)
    assert full.any()
    assert ((symmetric > 0).sum(axis=-1)[full] == head_dim).all()
    assert ((symmetric < 0).sum(axis=-1)[full] == head_dim).all()


def test_the_diagonal_of_gram_is_fro_sq(runs):
    result = runs(golden("qwen3-tiny"))
    diagonal = np.einsum("llh->lh", result["gram/gram"])
    assert np.abs(diagonal / result["heads/fro_sq"] - 1).max() < 1e-6
