"""--legacy: the numbers of earlier scripts, within the rounding of their single precision."""

import numpy as np
import pytest
from conftest import GOLDEN, golden, run

h5py = pytest.importorskip("h5py")

MODELS = [*GOLDEN, "qwen3-trained"]
# a head of rank 9: the signs of its zero eigenvalues were rounding in the scripts and are here
RANK_DEFICIENT = ["qwen3-tiny"]


def golden_legacy(model, group):
    with h5py.File(golden(model) / "golden.h5") as file:
        return {name: dataset[()] for name, dataset in file[f"legacy/{group}"].items()}


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("model", MODELS)
def test_legacy_heads_are_those_of_the_scripts(runs, model, ranks):
    result, expected = runs(golden(model), "--legacy", ranks=ranks), golden_legacy(model, "heads")
    np.testing.assert_allclose(result["legacy/heads/fro_sq"], expected["fro_sq"], rtol=1e-5)
    largest = np.abs(expected["sym_eigs"]).max()
    np.testing.assert_allclose(result["legacy/heads/sym_eigs"], expected["sym_eigs"], rtol=0, atol=3e-5 * largest)
    found, wanted = result["legacy/heads/eig_dirs"].astype(np.float64), expected["eig_dirs"].astype(np.float64)
    assert found.shape == wanted.shape
    signs = np.sign((found * wanted).sum(-1, keepdims=True))  # of either sign
    assert np.abs(found - signs * wanted).max() <= 2e-5
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_legacy_analysis_is_that_of_the_scripts(runs, model):
    result, expected = runs(golden(model), "--legacy"), golden_legacy(model, "analysis")
    np.testing.assert_array_equal(result["top_k_signs"], expected.pop("top_k_signs"))
    for name, wanted in expected.items():
        counted = name in ("sign_agreement", "fraction_positive")
        tolerance = 0 if counted else 3e-6
        if counted and model in RANK_DEFICIENT:
            tolerance = 14 / 32 / 8  # 14 eigenvalues of one of 8 heads
        np.testing.assert_allclose(result[f"legacy/analysis/{name}"], wanted, rtol=0, atol=tolerance, err_msg=name)
    thirds = result["legacy/analysis/sign_agreement_early"]
    np.testing.assert_allclose(thirds, result["legacy/analysis/sign_agreement"].mean(-1), atol=1e-15)
    assert np.isnan(result["legacy/analysis/sign_agreement_late"]).all(), "no golden model has 25 layers"


@pytest.mark.parametrize("model", ["qwen3-tiny", "qwen2-tiny"])
def test_legacy_adds_a_group_and_changes_nothing_else_at_any_number_of_ranks(runs, model):
    plain, legacy = runs(golden(model)).datasets(), runs(golden(model), "--legacy").datasets()
    assert {name: values for name, values in legacy.items() if not name.startswith("legacy/")} == plain
    for ranks in (2, 3, 4):
        assert runs(golden(model), "--legacy", ranks=ranks).datasets() == legacy


def test_legacy_goes_with_the_measures_that_run_and_can_be_added(runs, tmp_path):
    assert not any(
        name.startswith("legacy/") for name in runs(golden("llama-tiny"), "-m", "gram", "--legacy").datasets()
    )
    heads = runs(golden("llama-tiny"), "-m", "heads", "--legacy").datasets()
    assert "legacy/analysis/angle_mean_cos" in heads and "legacy/analysis/cos" not in heads
    arguments = ("--model", golden("llama-tiny"), "-o", "out.h5")
    assert run(*arguments, folder=tmp_path).returncode == 0
    finished = run(*arguments, "--add", "--legacy", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    whole = runs(golden("llama-tiny"), "--legacy")
    with h5py.File(tmp_path / "out.h5") as file:
        for name in ("heads/eig_dirs", "analysis/angle_mean_cos", "analysis/cos"):
            np.testing.assert_array_equal(file[f"legacy/{name}"][()], whole[f"legacy/{name}"])


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_xarray_opens_the_groups(runs, engine):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("netCDF4" if engine == "netcdf4" else engine)
    file = runs(golden("qwen3-tiny"), "--legacy").file
    with xarray.open_dataset(file, engine=engine, group="legacy/heads") as heads:
        assert heads["eig_dirs"].dims == ("layer", "head", "direction", "hidden")
    with xarray.open_dataset(file, engine=engine, group="legacy/analysis") as analysis:
        assert analysis["sign_agreement"].dims == ("top_k_signs", "layer")
