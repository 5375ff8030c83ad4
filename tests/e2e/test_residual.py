"""Measure residual: golden streams and steps, texts of every kind, the same bits in any order and on any ranks."""

import json
import shutil

import numpy as np
import pytest
from conftest import GOLDEN, golden, listing, run

h5py = pytest.importorskip("h5py")

MODELS = [*GOLDEN, "qwen3-trained"]
NOT_FIGURES = ["phase", "layer_phase", "token_ids", "hidden_states", "cross_entropy", "logits_last"]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """The golden streams and token ids of a model, as files for --hidden-states and --token-ids."""
    folder, made = tmp_path_factory.mktemp("inputs"), {}

    def of(model):
        if model not in made:
            streams, ids = folder / f"{model}.h5", folder / f"{model}.ids"
            with h5py.File(golden(model) / "golden.h5") as source, h5py.File(streams, "w") as file:
                file["hidden_states"] = source["residual/hidden_states"][()]
                ids.write_text("\n".join(map(str, source["residual/token_ids"][()])))
            made[model] = streams, ids
        return made[model]

    return of


def expect_golden_figures(model, result, tolerance):
    with h5py.File(golden(model) / "golden.h5") as file:
        group = {name: item[()] for name, item in file["residual"].items()}
    phases = [name.decode() for name in group["phase"]]
    with h5py.File(result.file) as file:
        assert [b"".join(name).decode().rstrip("\0") for name in file["residual/phase"][()]] == phases
        np.testing.assert_array_equal(file["residual/layer_phase"][()], group["layer_phase"])
    for name in set(group) - set(NOT_FIGURES):
        found, wanted = result[f"residual/{name}"], group[name]
        scale = max(1.0, np.abs(wanted[~np.isnan(wanted)]).max(initial=0))
        np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted), err_msg=name)
        atol = max(tolerance, 3e-8) if name == "top_dirs" else tolerance  # which are f32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=atol * scale, err_msg=name)
    with h5py.File(golden(model) / "golden.h5") as file:
        for name, item in file["legacy/residual"].items():
            wanted = item[()]
            found = result[f"legacy/residual/{name}"]
            assert found.dtype == wanted.dtype
            np.testing.assert_allclose(found, wanted, rtol=0, atol=max(2e-6, tolerance) * np.abs(wanted).max())


@pytest.mark.parametrize("model", MODELS)
def test_steps_of_golden_streams_are_the_golden_ones(model, runs, inputs):
    result = runs(golden(model), "-m", "residual", "--hidden-states", inputs(model)[0], "--legacy")
    expect_golden_figures(model, result, 1e-8)
    assert np.isnan(result["residual/cross_entropy"])
    assert "token_ids" not in h5py.File(result.file)["residual"]


@pytest.mark.parametrize("model", MODELS)
def test_a_forward_pass_gives_the_golden_streams(model, runs, inputs):
    ids = inputs(model)[1]
    result = runs(
        golden(model),
        *("-m", "residual", "--token-ids", ids, "--save-hidden", "--legacy", "--forward-dtype", "f32"),
    )
    with h5py.File(golden(model) / "golden.h5") as file:
        wanted, loss = file["residual/hidden_states"][()], file["residual/cross_entropy"][()]
    found = result["residual/hidden_states"]
    assert found.dtype == np.float32
    largest = np.abs(wanted).max(axis=(1, 2), keepdims=True)
    assert (np.abs(found - wanted) <= 2e-5 * largest).all()
    np.testing.assert_array_equal(result["residual/token_ids"], np.loadtxt(ids, dtype=int))
    assert result["residual/cross_entropy"] == pytest.approx(loss, abs=1e-4)
    expect_golden_figures(model, result, 1e-4)


def test_a_trained_model_predicts_its_text_as_well_as_it_did(runs):
    folder = golden("qwen3-trained")
    about = json.loads((folder / "trained.json").read_text())
    result = runs(folder, "-m", "residual", "--calibration", folder / "trained.txt")
    assert len(result["residual/token_ids"]) == about["tokens"]
    assert result["residual/cross_entropy"] == pytest.approx(about["cross_entropy"], abs=1e-3)
    assert f"{result['residual/cross_entropy']:.4f} nats" in result.stdout
    assert result.about["summary"]["cross_entropy"] == result["residual/cross_entropy"]


@pytest.mark.parametrize("model", ["qwen3-tiny", "qwen3moe-tiny"])
def test_any_number_of_ranks_and_threads_gives_the_same_bits(model, runs):
    arguments = ["-m", "residual", "--max-tokens", 700, "--save-hidden", "--legacy"]
    expected = runs(golden(model), *arguments, "--threads", 1)
    for ranks, threads in [(1, 3), (2, 1), (3, 2), (4, 1)]:
        result = runs(golden(model), *arguments, "--threads", threads, ranks=ranks)
        assert result.datasets() == expected.datasets()
        assert result.attribute("weights_digest") == expected.attribute("weights_digest")


def test_where_layers_do_not_fit_they_see_all_chunks_in_turn_to_the_same_bits(runs, tmp_path):
    model, arguments = "synth:L12-H8-KV4-hd64-D512-F2048-V512", ["-m", "residual", "--max-tokens", 600, "--threads", 1]
    refusal = run("--model", model, *arguments, "--memory-budget", 1, folder=tmp_path).stderr
    least = int(refusal.split(" bytes are needed")[0].split()[-1])
    whole = runs(model, *arguments)
    for ranks in (1, 3):
        cut = runs(model, *arguments, "--memory-budget", least + (1 << 20), ranks=ranks)
        assert cut.about["bytes_read"] == whole.about["bytes_read"], "once, either way"
        assert cut.datasets() == whole.datasets()
        assert cut.about["planned_memory"] < whole.about["planned_memory"]
        assert cut.attribute("weights_digest") == whole.attribute("weights_digest")


def test_what_spectra_have_loaded_is_not_read_again(runs):
    folder = golden("llama-tiny")
    spectra, both = runs(folder, "-m", "spectra"), runs(folder, "-m", "spectra,residual")
    alone = runs(folder, "-m", "residual")
    with h5py.File(both.file) as file:
        layers, hidden = file["residual/frob"].shape[0], int(file.attrs["hidden"])
    norms = layers * 2 * hidden * 4
    more = both.about["bytes_read"] - spectra.about["bytes_read"] - norms
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    ids = len(np.unique(both["residual/token_ids"]))
    assert more == (vocabulary + ids + 1) * hidden * 4, "what predicts, the text's embeddings, the final norm"
    assert {n: v for n, v in both.datasets().items() if n.startswith("residual/")} == {
        n: v for n, v in alone.datasets().items() if n.startswith("residual/")
    }


def test_streams_that_were_saved_give_the_same_steps(runs, tmp_path):
    saved = runs(golden("qwen2-tiny"), "-m", "residual", "--max-tokens", 100, "--save-hidden")
    again = runs(golden("qwen2-tiny"), "-m", "residual", "--hidden-states", saved.file)
    for name in ["frob", "spectrum", "top_dirs", "block_capture_others", "cos_delta_h_mean"]:
        np.testing.assert_array_equal(again[f"residual/{name}"], saved[f"residual/{name}"])


def test_the_first_token_counts_when_it_is_kept(runs, inputs):
    kept = runs(golden("llama-tiny"), "-m", "residual", "--hidden-states", inputs("llama-tiny")[0], "--keep-first")
    with h5py.File(inputs("llama-tiny")[0]) as file:
        streams = file["hidden_states"][()].astype(float)
    steps = streams[1:] - streams[:-1]
    np.testing.assert_allclose(kept["residual/frob"], np.sqrt((steps**2).sum(axis=(1, 2))), rtol=1e-12)


def test_without_directions_of_heads_a_step_keeps_its_first_one(runs, inputs):
    arguments = ["-m", "heads,residual", "--hidden-states", inputs("llama-tiny")[0]]
    few, all_of_them = runs(golden("llama-tiny"), *arguments, "--top-k", 0), runs(golden("llama-tiny"), *arguments)
    assert few["residual/top_dirs"].shape[1] == 1 and "heads/right_dirs" not in few.datasets()
    np.testing.assert_allclose(few["residual/top1_cos"], all_of_them["residual/top1_cos"], rtol=1e-12)


def test_phases_of_a_file_take_the_place_of_the_default_ones(runs, inputs, tmp_path):
    file = tmp_path / "phases"
    file.write_text("# mine\nearly 0:2\n\nlate 2:5  # all others\n")
    arguments = ["-m", "residual", "--hidden-states", inputs("llama-tiny")[0], "--phases", file]
    result = runs(golden("llama-tiny"), *arguments)
    assert list(result["residual/layer_phase"]) == [0, 0, 1, 1, 1]
    cosines = result["residual/top1_cos"]
    assert result["residual/phase_intra_cos"][0] == pytest.approx(cosines[0, 1])
    assert result["residual/phase_cross_cos"][1] == pytest.approx(cosines[:2, 2:].mean())
    for text, reason in [("a 0:2", "layer 2 is in no phase"), ("a 0:3\nb 2:5", "layer 2 is in phase a and in b"),
                         ("a 0:9", "the model has 5"), ("a 0", "no range"), ("a", "write NAME A:B")]:  # fmt: skip
        file.write_text(text)
        refused = run("--model", golden("llama-tiny"), *arguments, "-o", "x.h5", folder=tmp_path)
        assert refused.returncode == 3 and reason in refused.stderr, refused.stderr


@pytest.mark.parametrize(
    "text, reason",
    [(b"", "holds no text"), (b" \n\n\t", "holds no text"), (b"good \xff bad", "byte"), (None, "")],
    ids=["empty", "blank", "invalid", "missing"],
)
def test_texts_that_cannot_be_used_are_refused(text, reason, tmp_path):
    file = tmp_path / "text.txt"
    if text is not None:
        file.write_bytes(text)
    refused = run("--model", golden("qwen3-tiny"), "--calibration", file, "-o", "x.h5", folder=tmp_path)
    assert refused.returncode == 3, refused.stderr
    assert reason in refused.stderr and "text.txt" in refused.stderr
    assert "x.h5" not in listing(tmp_path)


def test_one_token_is_too_few_unless_it_is_kept(runs, tmp_path):
    ids = tmp_path / "ids"
    ids.write_text("7\n")
    refused = run("--model", golden("qwen3-tiny"), "-m", "residual", "--token-ids", ids, folder=tmp_path)
    assert refused.returncode == 3 and "--keep-first" in refused.stderr
    result = runs(golden("qwen3-tiny"), "-m", "residual", "--token-ids", ids, "--keep-first")
    assert np.isnan(result["residual/cross_entropy"])
    assert result["residual/spectrum"].shape == (6, 1)


def test_a_long_text_is_cut_and_that_is_said(runs):
    result = runs(golden("qwen3-tiny"), "-m", "residual", "--max-tokens", 20)
    assert len(result["residual/token_ids"]) == 20
    assert "the first 20 tokens are used" in result.stderr


def test_a_model_without_a_tokenizer_is_measured_without_residual(runs, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(golden("llama-tiny"), folder)
    (folder / "tokenizer.json").unlink()
    result = runs(folder)
    assert "residual" not in result.about["measures"]
    assert "left out  residual: " in result.stdout and "left out: residual" in result.stderr
    assert "--token-ids" in result.about["left_out"][0]
    refused = run("--model", folder, "-m", "residual", "-o", "x.h5", folder=tmp_path)
    assert refused.returncode == 3 and "--token-ids" in refused.stderr
    layers = run("--model", golden("llama-tiny"), "-m", "residual", "--layers", "1:3", "-o", "x.h5", folder=tmp_path)
    assert layers.returncode == 2 and "begins at layer 0" in layers.stderr


def test_streams_that_do_not_fit_the_model_are_refused(inputs, tmp_path):
    for file, reason in [(inputs("qwen3-tiny")[0], "160, 96"), (golden("llama-tiny") / "config.json", "config.json")]:
        refused = run(*("--model", golden("llama-tiny"), "-m", "residual", "--hidden-states", file), folder=tmp_path)
        assert refused.returncode == 3 and reason in refused.stderr, refused.stderr


@pytest.mark.parametrize("place", ["residual:0:3", "residual:1:9", "residual:1:12", "write:0:4"])
def test_a_killed_run_goes_on_to_the_same_bits(place, runs, tmp_path):
    arguments = ["-m", "residual", "--max-tokens", 600]
    expected = runs(golden("qwen3-tiny"), *arguments)
    whole = ["--model", golden("qwen3-tiny"), *arguments, "-o", "r.h5"]
    killed = run(*whole, ranks=2, folder=tmp_path, environment={"GEOM_MPI_FAULT": f"kill:{place}"})
    assert killed.returncode != 0
    other = run(*whole, "--keep-first", folder=tmp_path)
    finished = run(*whole, ranks=1, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    with h5py.File(tmp_path / "r.h5") as file:
        for path, (_, _, values) in expected.datasets().items():
            assert file[path][()].tobytes() == values, path
        assert file.attrs["weights_digest"] == expected.attribute("weights_digest")
    if "going on" in finished.stderr:
        assert other.returncode == 2, "first tokens left out are another run's units"


def test_residual_is_added_to_a_result(runs, tmp_path):
    shutil.copy(runs(golden("llama-tiny"), "-m", "heads").file, tmp_path / "r.h5")
    arguments = ["--model", golden("llama-tiny"), "-o", "r.h5", "--add", "--max-tokens", 100]
    added = run(*arguments, "-m", "residual", folder=tmp_path)
    assert added.returncode == 0, added.stderr
    expected = runs(golden("llama-tiny"), "-m", "residual", "--max-tokens", 100).datasets()
    with h5py.File(tmp_path / "r.h5") as file:
        for path, (_, _, values) in expected.items():
            if path.startswith("residual/"):
                assert file[path][()].tobytes() == values, path
        assert "heads/eff_rank" in file
    other = run(*arguments[:-1], 90, "-m", "gram", folder=tmp_path)
    assert other.returncode == 2 and "residual" in other.stderr
    assert run(*arguments, "-m", "gram", folder=tmp_path).returncode == 0


def test_analyze_has_a_row_a_layer_and_a_row_a_phase(runs, tmp_path):
    result = runs(golden("qwen3-trained"), "-m", "residual", "--max-tokens", 300)
    shown = run("analyze", result.file, "--format", "json", folder=tmp_path)
    tables = json.loads(shown.stdout)["tables"]
    layers, phases = tables["residual_by_layer"]["rows"], tables["residual_by_phase"]["rows"]
    assert [row["layer"] for row in layers] == list(range(8))
    assert [row["phase"] for row in layers] == ["A", "B", "C", "C", "D", "D", "E", "E"]
    np.testing.assert_array_equal([row["eff_rank"] for row in layers], result["residual/eff_rank"])
    assert [row["phase"] for row in phases] == ["A", "B", "C", "D", "E"]
    assert phases[2]["intra_cos"] == result["residual/phase_intra_cos"][2]
