"""--folded: gram and cosines of W_Q and W_K times the weights of the norm that comes before them."""

import numpy as np
import pytest
from conftest import (
    GOLDEN,
    Tensor,
    attention_name,
    datasets,
    golden,
    gram_of,
    operator_norms,
    read_checkpoint,
    read_config,
    run,
    write_checkpoint,
)

FOLDED = ("-m", "gram,heads", "--folded")


def norm_name(layer):
    return f"model.layers.{layer}.input_layernorm.weight"


def folded_gram(config, tensors):
    """gram of W diag(norm), as NumPy forms the operators."""
    folded = dict(tensors)
    for layer in range(config["num_hidden_layers"]):
        norm = tensors[norm_name(layer)].values()
        for matrix in "qk":
            values = tensors[attention_name(layer, matrix)].values()
            folded[attention_name(layer, matrix)] = Tensor("F64", values * norm)
    return gram_of(config, folded)


@pytest.mark.parametrize(
    ("model", "ranks"), [*((model, 1) for model in GOLDEN), *(("qwen3-tiny", n) for n in (2, 3, 4))]
)
def test_folded_cosines_are_numpys_with_the_same_bits_on_any_ranks(runs, model, ranks):
    config, tensors = read_config(model), read_checkpoint(golden(model))
    assert np.ptp(tensors[norm_name(1)].values()) > 0.1, "a norm of ones folds nothing"
    expected = folded_gram(config, tensors)
    norms = operator_norms(expected)
    result = runs(golden(model), *FOLDED, ranks=ranks)
    assert np.all(np.abs(result["gram/gram_folded"] - expected) <= 1e-5 * norms)
    with np.errstate(invalid="ignore"):
        cosines = expected / norms
    np.testing.assert_allclose(result["analysis/cos_folded"], cosines, rtol=0, atol=2e-5)
    means = np.nanmean(cosines, axis=-1)
    np.testing.assert_allclose(result["analysis/anchor_cos_folded"], means[-1], rtol=0, atol=2e-5)
    np.testing.assert_allclose(result["analysis/mean_cos_to_anchor_others_folded"], means[-1, :-1].mean(), atol=2e-5)
    assert not np.allclose(result["analysis/cos_folded"], result["analysis/cos"], atol=1e-3, equal_nan=True)
    assert result.datasets() == runs(golden(model), *FOLDED).datasets()


def test_the_rest_of_the_file_is_that_of_a_run_without(runs):
    plain, folded = runs(golden("qwen3-tiny"), "-m", "gram,heads"), runs(golden("qwen3-tiny"), *FOLDED)
    both = folded.datasets()
    assert {path: both[path] for path in plain.datasets()} == plain.datasets()
    assert sorted(both.keys() - plain.datasets().keys()) == [
        "analysis/anchor_cos_folded",
        "analysis/cos_folded",
        "analysis/cos_folded_mean",
        "analysis/mean_cos_to_anchor_others_folded",
        "gram/gram_folded",
    ]


def test_folded_alone_is_refused_and_named_beside_gram_it_is_the_option(runs, tmp_path):
    refused = run("--model", golden("qwen3-tiny"), "-m", "heads", "--folded", "-o", "x.h5", folder=tmp_path)
    assert refused.returncode == 2 and "-m gram" in refused.stderr
    named = runs(golden("qwen3-tiny"), "-m", "gram,gram_folded,heads")
    assert named.datasets() == runs(golden("qwen3-tiny"), *FOLDED).datasets()


def test_a_layer_without_input_norm_is_nan_and_the_file_says_why(runs, tmp_path):
    h5py = pytest.importorskip("h5py")
    config, tensors = read_config("llama-tiny"), read_checkpoint(golden("llama-tiny"))
    expected = folded_gram(config, tensors)
    del tensors[norm_name(1)]
    result = runs(write_checkpoint(tmp_path / "model", config, tensors), "-m", "gram", "--folded", ranks=2)
    without = np.zeros(expected.shape, bool)
    without[1] = without[:, 1] = True
    np.testing.assert_array_equal(np.isnan(result["gram/gram_folded"]), without)
    close = np.abs(result["gram/gram_folded"] - expected) <= 1e-5 * operator_norms(expected)
    assert np.all(close | without)
    with h5py.File(result.file) as file:
        assert "input norm" in file["gram/gram_folded"].attrs["missing"]


def test_weights_and_norms_far_from_one_fold_to_the_same_cosines(runs, tmp_path):
    config, tensors = read_config("llama-tiny"), read_checkpoint(golden("llama-tiny"))
    powers = {1: (100, 60), 2: (-110, 20), 3: (40, -120)}
    for layer, (of_weights, of_norm) in powers.items():
        for name, power in ((norm_name(layer), of_norm), *((attention_name(layer, x), of_weights) for x in "qk")):
            tensors[name] = Tensor.of(tensors[name].values() * 2.0**power, "F32")
    result = runs(write_checkpoint(tmp_path / "model", config, tensors), "-m", "gram", "--folded", ranks=2)
    plain = runs(golden("llama-tiny"), "-m", "gram", "--folded")
    np.testing.assert_array_equal(result["analysis/cos_folded"], plain["analysis/cos_folded"])


def test_a_small_budget_takes_more_passes_to_the_same_bits(runs):
    model = "synth:L12-H16-KV4-hd64-D512-F64-V64"
    once = runs(model, "-m", "gram", "--folded")
    budget = once.about["planned_memory"] - (4 << 20)
    forced = runs(model, "-m", "gram", "--folded", "--memory-budget", budget)
    assert forced.about["passes"] > once.about["passes"]
    assert forced.datasets() == once.datasets()
    assert forced.about["peak_memory"] <= budget
    np.testing.assert_allclose(once["gram/gram_folded"], once["gram/gram"], rtol=1e-5)  # norm weights of 1


def test_a_stopped_run_and_one_that_is_added_to_end_as_one_that_was_not(runs, tmp_path):
    whole = runs(golden("qwen3-tiny"), *FOLDED)
    arguments = ("--model", golden("qwen3-tiny"), "-o", "x.h5")
    died = run(*arguments, *FOLDED, folder=tmp_path, ranks=2, environment={"GEOM_MPI_FAULT": "kill:gram_folded:1:0"})
    assert died.returncode != 0 and not (tmp_path / "x.h5").exists()
    again = run(*arguments, *FOLDED, folder=tmp_path, ranks=3)
    assert again.returncode == 0, again.stderr
    added = ("--model", golden("qwen3-tiny"), "-o", "y.h5")
    assert run(*added, "-m", "gram,heads", folder=tmp_path).returncode == 0
    second = run(*added, "-m", "gram", "--folded", "--add", folder=tmp_path, ranks=2)
    assert second.returncode == 0, second.stderr
    assert datasets(tmp_path / "x.h5") == datasets(tmp_path / "y.h5") == whole.datasets()


def test_the_page_and_the_tables_show_them(runs):
    result = runs(golden("qwen3-tiny"), *FOLDED)
    folded = float(result["analysis/mean_cos_to_anchor_others_folded"])
    assert f"folded in {folded:+.4f}" in result.stdout
    assert result.about["summary"]["mean_cos_to_anchor_others_folded"] == folded
    tables = run("analyze", result.file, "--format", "csv", folder=result.file.parent)
    assert tables.returncode == 0 and "cos_folded" in tables.stdout
    other = run("analyze", result.file, "--anchor", "0", "--format", "csv", folder=result.file.parent)
    lines = other.stdout.split("# cosines_to_anchor")[1].splitlines()
    column = lines[1].split(",").index("cos_folded")
    shown = [float(line.split(",")[column]) for line in lines[2 : 2 + len(result["analysis/layer"])]]
    np.testing.assert_allclose(shown, np.nanmean(result["analysis/cos_folded"][0], axis=-1), rtol=1e-12)
