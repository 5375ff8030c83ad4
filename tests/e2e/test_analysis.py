"""analysis on golden checkpoints and on synthetic ones whose answers are known, through the whole program."""

import numpy as np
import pytest
from conftest import GOLDEN, golden, read_config, run

h5py = pytest.importorskip("h5py")

MODELS = [*GOLDEN, "qwen3-trained"]
# as facts of the golden files: verdicts by same-index heads
VERDICTS = dict(zip(MODELS, ["WEAK", "MEDIUM", "MEDIUM", "REJECTED", "WEAK"], strict=True))


def golden_analysis(model):
    with h5py.File(golden(model) / "golden.h5") as file:
        return {name: dataset[()] for name, dataset in file["analysis"].items()}


def attributes(result, group="analysis"):
    with h5py.File(result.file) as file:
        return dict(file[group].attrs)


# --- right numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("model", MODELS)
def test_analysis_of_a_golden_checkpoint_is_right_at_any_number_of_ranks(runs, model, ranks):
    result, expected = runs(golden(model), ranks=ranks), golden_analysis(model)
    hidden = read_config(model)["hidden_size"]
    np.testing.assert_array_equal(result["top_k_signs"], expected.pop("top_k_signs"))
    assert len(expected) == 15
    for name, wanted in expected.items():
        found = result[f"analysis/{name}"]
        np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted), err_msg=name)
        # z is the cosine times hidden, or nearly so
        tolerance = 1e-5 * hidden if name.startswith("z_") else 1e-5
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance, err_msg=name)
    assert attributes(result)["verdict"] == VERDICTS[model]


@pytest.mark.parametrize("model", MODELS)
def test_analysis_has_the_same_bits_on_any_number_of_ranks(runs, model):
    expected = runs(golden(model)).datasets()
    assert sum(name.startswith("analysis/") for name in expected) > 30
    for ranks in (2, 3, 4):
        assert runs(golden(model), ranks=ranks).datasets() == expected


@pytest.mark.parametrize("model", ["qwen3-tiny", "qwen3-trained"])
def test_p_values_are_those_of_simulated_operators(runs, model):
    result = runs(golden(model))
    singular = result["heads/singular_values"]
    shares = singular**2 / (singular**2).sum(-1, keepdims=True)
    z, p = result["analysis/z_two_sided"], result["analysis/p_two_sided"]
    random = np.random.default_rng(0)
    rank = singular.shape[-1]
    for l, m, h in [(0, 1, 0), (2, 5, 1), (3, 4, 2), (1, 2, 3)]:
        products = np.sqrt(np.outer(shares[l, h], shares[m, h]))
        variance = np.array([(products**2 * random.standard_normal((rank, rank)) ** 2).sum() for _ in range(4000)])
        sample = np.abs(random.standard_normal((100, variance.size)) * np.sqrt(variance))
        expected = (sample >= abs(z[l, m, h])).mean()
        assert abs(p[l, m, h] - expected) <= 0.02 + 0.1 * expected
        assert p[l, m, h] == p[m, l, h]


def test_another_anchor_is_that_layers_row(runs):
    last, second = runs(golden("qwen2-tiny")), runs(golden("qwen2-tiny"), "--anchor", 2)
    assert (last["analysis/anchor"], second["analysis/anchor"]) == (8, 2)
    np.testing.assert_array_equal(second["analysis/anchor_cos"], last["analysis/cos_mean"][2])
    np.testing.assert_array_equal(second["analysis/cos"], last["analysis/cos"])
    assert second["analysis/mean_cos_to_anchor_others"] == pytest.approx(last["analysis/mean_cos_with_others"][2])
    assert second["analysis/angle_mean_cos"][2] == pytest.approx(1)
    some = runs(golden("qwen2-tiny"), "--layers", "4:8", "--anchor", 5)
    assert some["analysis/anchor"] == 5
    assert some["analysis/anchor_cos"][1] == pytest.approx(1)


def test_an_anchor_that_is_not_there_is_said_before_anything_is_measured(tmp_path):
    finished = run("--model", golden("qwen2-tiny"), "--layers", "4:8", "--anchor", 2, folder=tmp_path)
    assert finished.returncode == 2
    assert "--anchor 2" in finished.stderr and "from 4 to 7" in finished.stderr
    assert not list(tmp_path.iterdir())


def test_resume_with_another_anchor_is_another_result(tmp_path):
    arguments = ("--model", golden("llama-tiny"), "-o", "out.h5")
    assert run(*arguments, folder=tmp_path).returncode == 0
    assert run(*arguments, "--resume", folder=tmp_path).returncode == 0
    assert run(*arguments, "--resume", "--anchor", 0, folder=tmp_path).returncode == 5, "the file is in the way"
    finished = run(*arguments, "--resume", "--anchor", 0, "--overwrite", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["analysis/anchor"][()] == 0


# --- what is there without the rest -----------------------------------------------------------------------------------


def test_gram_alone_and_heads_alone_give_their_part(runs):
    whole = runs(golden("qwen3-tiny")).datasets()
    gram = runs(golden("qwen3-tiny"), "-m", "gram").datasets()
    heads = runs(golden("qwen3-tiny"), "-m", "heads").datasets()
    for some in (gram, heads):
        assert {name: whole[name] for name in some} == some
    assert "analysis/cos" in gram and "analysis/cos" not in heads
    assert "analysis/sign_agreement" in heads and "analysis/sign_agreement" not in gram
    assert "analysis/z_shared" in set(whole) - set(gram) - set(heads)


# --- answers known at any size ----------------------------------------------------------------------------------------

# drift d: cosine with the last layer (1 - d l/(L-1))(1 - d), so that its mean over the others is (1 - d)(1 - d/2.4)
# at L = 7
DRIFTS = {"STRONG": 0.03, "MEDIUM": 0.2, "WEAK": 0.5, "REJECTED": 0.95}


@pytest.mark.parametrize("verdict", DRIFTS)
def test_a_planted_drift_gets_its_verdict(runs, verdict):
    drift = DRIFTS[verdict]
    result = runs(f"synth:L7-H8-KV4-hd32-D256-F64?drift={drift}", "-m", "gram")
    assert attributes(result)["verdict"] == verdict
    assert result["analysis/mean_cos_to_anchor_others"] == pytest.approx((1 - drift) * (1 - drift / 2.4), abs=0.01)


def test_independent_layers_are_beyond_a_bound_as_often_as_chance_has_it(runs):
    result = runs("synth:L40-H16-KV16-hd64-D512-F64?iid=1")
    z = result["analysis/z_two_sided"]
    above = np.triu_indices(z.shape[0], 1)
    assert z[above].size == 12480
    assert abs((np.abs(z[above]) > 2.58).mean() - 0.01) <= 0.003
    assert abs((np.abs(result["analysis/z_shared"][above]) > 2.58).mean() - 0.01) <= 0.003
    for null in ("two_sided", "shared_basis"):
        assert result[f"analysis/share_beyond_{null}"] <= 1e-3, "no discoveries where there is nothing"
    chance = result["analysis/subspace_overlap_chance"][:-1]
    assert result["analysis/subspace_overlap"][:-1].mean() == pytest.approx(chance.mean(), rel=0.05)
    agreement, sd = result["analysis/sign_agreement"][:, :-1], result["analysis/sign_agreement_chance_sd"]
    assert np.abs((agreement.mean(-1) - 0.5) / sd * np.sqrt(39)).max() < 4
    np.testing.assert_allclose(agreement.std(-1), sd, rtol=0.35)


def test_layers_that_have_something_in_common_are_all_beyond_chance(runs):
    result = runs("synth:L7-H8-KV4-hd32-D256-F64?drift=0.5")
    for null in ("two_sided", "shared_basis"):
        assert result[f"analysis/share_beyond_{null}"] == 1
