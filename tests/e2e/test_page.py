"""The page that ends a run: what it says stands in the file, and is what the file means."""

import re

import numpy as np
import pytest
from conftest import Tensor, attention_name, golden, read_checkpoint, read_config, write_checkpoint

TRAINED = golden("qwen3-trained")


def numbers(pattern, text):
    found = re.search(pattern, text)
    assert found, f"{pattern!r} in\n{text}"
    return [float(group) for group in found.groups()]


@pytest.mark.parametrize("anchor", [-1, 2])
def test_verdict_null_and_extremes_are_those_of_the_file(runs, anchor):
    result = runs(TRAINED, "-m", "gram,heads", "--anchor", anchor)
    page, cos = result.stdout, result["analysis/cos"]
    layers, _, heads = cos.shape
    row = anchor % layers
    others = [layer for layer in range(layers) if layer != row]
    to_anchor = cos[row].mean(axis=-1)

    verdict, mean, layer = re.search(
        r"^gram +([A-Z]+): .*: mean cosine ([+-][\d.]+) with layer (\d+)$", page, re.M
    ).groups()
    assert int(layer) == row
    assert float(mean) == pytest.approx(to_anchor[others].mean(), abs=5e-5)
    limits = {"STRONG": 0.9, "MEDIUM": 0.5, "WEAK": 0.1}
    assert verdict == next((name for name, least in limits.items() if float(mean) > least), "REJECTED")

    assert numbers(r"by chance 0 \+- ([\d.e-]+) a head \(1/D\)", page)[0] == pytest.approx(1 / 128, rel=0.05)
    most, most_value, least, least_value = numbers(
        r"layer (\d+) most \(([+-][\d.]+)\), layer (\d+) least \(([+-][\d.]+)\)", page
    )
    assert (most, least) == (others[np.argmax(to_anchor[others])], others[np.argmin(to_anchor[others])])
    assert most_value == pytest.approx(to_anchor[others].max(), abs=5e-4)
    assert least_value == pytest.approx(to_anchor[others].min(), abs=5e-4)
    by_head = cos[row, others].mean(axis=0)
    head, head_value = numbers(r"; head (\d+) most \(([+-][\d.]+)\)", page)
    assert head == np.argmax(by_head) and head_value == pytest.approx(by_head.max(), abs=5e-4)
    np.testing.assert_allclose(result["analysis/anchor_cos_head"], by_head, atol=1e-14)

    share, pairs = numbers(r"([\d.]+)% of the (\d+) pairs", page)
    assert pairs == layers * (layers - 1) / 2 * heads
    assert share == pytest.approx(100 * result["analysis/share_beyond_two_sided"], abs=0.05)


def test_the_object_has_the_numbers_of_the_file(runs):
    result = runs(TRAINED, "-m", "gram,heads", "--anchor", -1)
    summary = result.about["summary"]
    for name in ("mean_cos_to_anchor_others", "mean_cos_adjacent", "cos_first_last", "share_beyond_shared_basis"):
        assert summary[name] == result[f"analysis/{name}"], name
    assert summary["verdict"] == "WEAK" and summary["chance_sd"] == 1 / 128


def test_the_most_and_least_alike_layers_are_named_on_the_page_and_in_the_object(runs):
    result = runs(TRAINED, "-m", "gram,heads", "--anchor", -1)
    cos = result["analysis/cos"].mean(axis=-1)
    pairs = {(a, b): cos[a, b] for a in range(len(cos)) for b in range(a + 1, len(cos))}
    most, least = max(pairs, key=pairs.get), min(pairs, key=pairs.get)
    a, b, value, c, d, other = numbers(
        r"most alike layers (\d+) and (\d+) \(([+-][\d.]+)\), least (\d+) and (\d+) \(([+-][\d.]+)\)", result.stdout
    )
    assert (a, b) == most and (c, d) == least
    assert value == pytest.approx(pairs[most], abs=5e-5) and other == pytest.approx(pairs[least], abs=5e-5)
    summary = result.about["summary"]
    assert summary["most_alike"] == {"layers": list(most), "cos": pytest.approx(pairs[most], abs=1e-14)}
    assert summary["least_alike"] == {"layers": list(least), "cos": pytest.approx(pairs[least], abs=1e-14)}
    row = len(cos) - 1
    assert summary["anchor_most"]["layer"]["number"] == np.argmax(cos[row, :row])
    assert summary["anchor_least"]["head"]["number"] == np.argmin(result["analysis/anchor_cos_head"])


def test_heads_and_spectra_alone_have_findings_and_their_numbers_are_in_the_object(runs):
    result = runs(TRAINED, "-m", "heads,spectra")
    ranks, summary = result["heads/eff_rank"], result.about["summary"]
    mean, most = numbers(
        r"^heads +effective rank ([\d.]+) of at most (\d+) on average", "\n".join(result.stdout.splitlines()[3:])
    )
    assert mean == pytest.approx(ranks.mean(), abs=0.05) and most == result["heads/singular_values"].shape[-1]
    lowest = np.unravel_index(np.argmin(ranks), ranks.shape)
    assert numbers(r"lowest layer (\d+) head (\d+) ", result.stdout) == list(lowest)
    assert (summary["heads"]["lowest"]["layer"], summary["heads"]["lowest"]["head"]) == lowest
    lower, upper = np.quantile(ranks, [0.25, 0.75])
    assert summary["heads"]["eff_rank_lower_quartile"] == pytest.approx(lower, rel=1e-12)
    assert summary["heads"]["standing_out_below"] == (ranks < lower - 1.5 * (upper - lower)).sum()
    assert summary["heads"]["standing_out_above"] == (ranks > upper + 1.5 * (upper - lower)).sum()
    shares = (result["spectra/eff_rank"] / result["spectra/mp_eff_rank"]).mean(axis=1)
    assert list(summary["spectra"]["eff_rank_over_independent"].values()) == pytest.approx(list(shares), rel=1e-12)
    assert f" q_proj {shares[0]:.3f} " in result.stdout


def test_layers_of_zeros_are_said_to_be_zero_and_nothing_is_nan(runs, tmp_path):
    config, tensors = read_config("llama-tiny"), read_checkpoint(golden("llama-tiny"))
    for layer in (0, 2):
        name = attention_name(layer, "q")
        tensors[name] = Tensor.of(np.zeros_like(tensors[name].values()), "F32")
    result = runs(write_checkpoint(tmp_path / "model", config, tensors))
    assert "nan" not in result.stdout.lower()
    heads = result["heads/eff_rank"].shape[1]
    assert f"{2 * heads} operators are zero" in result.stdout
    assert result.about["summary"]["heads"]["zero_operators"] == 2 * heads
    last = len(result["analysis/cos"]) - 1
    assert f"layers 0 and {last} none (zero)" in result.stdout


def test_the_summary_of_some_layers_speaks_of_them(runs):
    result = runs(TRAINED, "-m", "gram", "--layers", "2:5")
    assert "8 layers (2 to 4 of them looked at)" in result.stdout
    assert re.search(r"layers 2 and 4 [+-]0\.", result.stdout)
    assert result.attribute("layers") == "2:5" and result.attribute("model_layers") == 8
    assert all(2 <= layer <= 4 for layer in result.about["summary"]["most_alike"]["layers"])


def test_a_single_layer_has_no_pairs(runs):
    assert "a single layer: no pairs" in runs("synth:tiny", "-m", "gram", "--layers", "1:2").stdout
