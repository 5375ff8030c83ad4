"""The page that ends a run: what it says stands in the file, and is what the file means."""

import re

import numpy as np
import pytest
from conftest import golden

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


def test_a_single_layer_has_no_pairs(runs):
    assert "a single layer: no pairs" in runs("synth:tiny", "-m", "gram", "--layers", "1:2").stdout
