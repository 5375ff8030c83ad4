"""gram and its cosines: against golden files, against NumPy, and the same bits however the work is divided."""

import hashlib
import os

import numpy as np
import pytest
from conftest import (
    GOLDEN,
    Tensor,
    allowed_error,
    attention_name,
    f8_e4m3_values,
    golden,
    gram_of,
    operator_norms,
    read_checkpoint,
    read_config,
    run,
    write_checkpoint,
)

h5py = pytest.importorskip("h5py")


def golden_number(model, path):
    with h5py.File(golden(model) / "golden.h5") as file:
        return file[path][()]


def worst(error, allowed):
    return float(np.max(np.abs(error) / np.where(allowed > 0, allowed, 1.0)))


# --- right numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("model", GOLDEN)
def test_gram_and_cosines_of_a_golden_checkpoint_are_right_at_any_number_of_ranks(runs, model, ranks):
    result = runs(golden(model), ranks=ranks)
    expected = golden_number(model, "gram/gram")
    assert result["gram/gram"].shape == expected.shape
    assert worst(result["gram/gram"] - expected, operator_norms(expected)) <= 1e-5
    cosines = golden_number(model, "analysis/cos")
    np.testing.assert_array_equal(np.isnan(result["analysis/cos"]), np.isnan(cosines))
    np.testing.assert_allclose(result["analysis/cos"], cosines, rtol=0, atol=3e-5)
    means = golden_number(model, "analysis/cos_mean")
    np.testing.assert_allclose(result["analysis/cos_mean"], means, rtol=0, atol=3e-5)


@pytest.mark.parametrize("model", GOLDEN)
def test_gram_is_the_inner_product_of_the_operators_as_numpy_forms_them(runs, model):
    config, tensors = read_config(model), read_checkpoint(golden(model))
    gram = runs(golden(model))["gram/gram"]
    assert worst(gram - gram_of(config, tensors), allowed_error(config, tensors)) <= 1
    np.testing.assert_array_equal(gram, np.swapaxes(gram, 0, 1))


def test_cosines_are_gram_divided_by_its_diagonal(runs):
    result = runs(golden("qwen3-tiny"), ranks=3)
    gram, cosines = result["gram/gram"], result["analysis/cos"]
    np.testing.assert_allclose(cosines, gram / operator_norms(gram), rtol=1e-14)
    np.testing.assert_allclose(result["analysis/cos_mean"], cosines.mean(-1), rtol=1e-13)


def test_a_zero_operator_has_no_cosine_and_the_mean_leaves_it_out(runs, tmp_path):
    config, tensors = read_config("qwen3-tiny"), read_checkpoint(golden("qwen3-tiny"))
    hd = config["head_dim"]
    tensors[attention_name(2, "q")].bits = tensors[attention_name(2, "q")].bits.copy()
    tensors[attention_name(2, "q")].bits[5 * hd : 6 * hd] = 0
    result = runs(write_checkpoint(tmp_path / "model", config, tensors), ranks=2)
    cosines = result["analysis/cos"]
    expected = np.zeros(cosines.shape, bool)
    expected[2, :, 5] = expected[:, 2, 5] = True
    np.testing.assert_array_equal(np.isnan(cosines), expected)
    np.testing.assert_allclose(result["analysis/cos_mean"], np.nanmean(cosines, -1), rtol=1e-13)


# --- the same bits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", GOLDEN)
def test_every_number_of_ranks_and_threads_gives_the_same_bits(runs, model):
    expected = runs(golden(model))
    others = [runs(golden(model), ranks=ranks) for ranks in (2, 3, 4, 7)]
    others += [runs(golden(model), "--threads", threads) for threads in (1, 2, 3)]
    others += [runs(golden(model), "--threads", 2, ranks=3)]
    for other in others:
        assert other.datasets() == expected.datasets(), other.about["command"]
        assert other.attribute("weights_digest") == expected.attribute("weights_digest")


# Blocks large enough that passes differ by more than what a process takes by itself from run to run; three groups, so
# that passes cut groups unevenly.
LARGE_BLOCKS = "synth:L8-H12-KV3-hd32-D2048-F64"


@pytest.mark.parametrize(("ranks", "measures"), [(1, "gram"), (2, "gram"), (1, "gram,heads")])
def test_a_small_budget_takes_more_passes_to_the_same_bits(runs, ranks, measures, tmp_path):
    whole = runs(LARGE_BLOCKS, "-m", measures, ranks=ranks)
    assert whole.about["passes"] == 1
    refusal = run("--model", LARGE_BLOCKS, "-m", measures, "--memory-budget", 1, ranks=ranks, folder=tmp_path).stderr
    least = int(refusal.split(" bytes are needed")[0].split()[-1])
    seen = set()
    most = max(whole.about["planned_memory"], whole.about.get("planned_device_memory", 0))
    if whole.about["backend"] == "cuda" and most < least + (4 << 20):
        pytest.skip("on a GPU passes do not lessen the host's memory, here the larger of both: see test_cuda.py")
    for budget in np.linspace(least + (1 << 20), most, 5, dtype=int):
        cut = runs(LARGE_BLOCKS, "-m", measures, "--memory-budget", budget, ranks=ranks)
        seen.add(cut.about["passes"])
        assert cut.datasets() == whole.datasets(), cut.about["passes"]
        assert cut.attribute("weights_digest") == whole.attribute("weights_digest"), cut.about["passes"]
    assert len(seen - {1}) >= 2, f"passes seen: {seen}"


def test_some_layers_give_the_slice_of_all(runs):
    every = runs(golden("qwen2-tiny"))
    for begin, end in [(2, 7), (8, 9)]:
        some = runs(golden("qwen2-tiny"), "--layers", f"{begin}:{end}", ranks=2)
        # cuBLAS chooses by a product's shape, which follows from the number of layers: other last bits
        tolerance = 1e-6 if every.about["backend"] == "cuda" else 0
        for name in ("gram/gram", "analysis/cos"):
            np.testing.assert_allclose(some[name], every[name][begin:end, begin:end], rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(some["layer"], np.arange(begin, end))
        np.testing.assert_array_equal(some["layer_b"], np.arange(begin, end))


# --- twins: other names, files and types ------------------------------------------------------------------------------


def renamed(tensors, *replacements):
    new = {}
    for name, tensor in tensors.items():
        for old, other in replacements:
            name = name.replace(old, other)
        new[name] = tensor
    return new


def fused(tensors, layers):
    """As phi3 keeps them: q, k and v in one tensor, gate and up in another."""
    tensors = dict(tensors)
    for l in range(layers):
        for parent, names, whole in [
            ("self_attn", ["q_proj", "k_proj", "v_proj"], "qkv_proj"),
            ("mlp", ["gate_proj", "up_proj"], "gate_up_proj"),
        ]:
            prefix = f"model.layers.{l}.{parent}."
            parts = [tensors.pop(f"{prefix}{name}.weight") for name in names]
            tensors[f"{prefix}{whole}.weight"] = Tensor(parts[0].dtype, np.concatenate([p.bits for p in parts]))
    return tensors


def mistral_twin():
    config = {**read_config("llama-tiny"), "model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    config["rope_scaling"] = None
    return "llama-tiny", config, read_checkpoint(golden("llama-tiny")), 3


def phi3_twin():
    config = {**read_config("llama-tiny"), "model_type": "phi3", "architectures": ["Phi3ForCausalLM"]}
    config["rope_scaling"] = None
    return "llama-tiny", config, fused(read_checkpoint(golden("llama-tiny")), config["num_hidden_layers"]), 2


def mixtral_twin():
    config = {**read_config("qwen3moe-tiny"), "model_type": "mixtral", "architectures": ["MixtralForCausalLM"]}
    config["num_local_experts"] = config.pop("num_experts")
    config["intermediate_size"] = config.pop("moe_intermediate_size")
    tensors = read_checkpoint(golden("qwen3moe-tiny"))
    tensors = {name: tensor for name, tensor in tensors.items() if "q_norm" not in name and "k_norm" not in name}
    experts = [("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2")]
    tensors = renamed(tensors, (".mlp.", ".block_sparse_moe."), *experts)
    return "qwen3moe-tiny", config, tensors, 2


@pytest.mark.parametrize("twin", [mistral_twin, phi3_twin, mixtral_twin])
def test_a_twin_of_another_family_with_the_same_weights_gives_the_same_bits(runs, tmp_path, twin):
    original, config, tensors, shards = twin()
    result = runs(write_checkpoint(tmp_path / "twin", config, tensors, shards), ranks=3)
    np.testing.assert_array_equal(result["gram/gram"], runs(golden(original))["gram/gram"])
    np.testing.assert_array_equal(result["analysis/cos"], runs(golden(original))["analysis/cos"])


@pytest.mark.parametrize("model", ["qwen3-tiny", "qwen2-tiny", "llama-tiny"])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
def test_a_checkpoint_in_another_type_gives_the_gram_of_what_it_stores(runs, tmp_path, model, dtype):
    config = read_config(model)
    original = read_checkpoint(golden(model))
    tensors = {name: Tensor.of(tensor.values(), dtype) for name, tensor in original.items()}
    result = runs(write_checkpoint(tmp_path / "twin", config, tensors))
    gram = result["gram/gram"]
    precision = 1e-8 if dtype == "F64" else 1.0
    assert worst(gram - gram_of(config, tensors), allowed_error(config, tensors)) <= precision
    lossless = {"BF16": {"F32", "F64"}, "F16": {"F32", "F64"}, "F32": {"F64"}}
    if dtype in lossless[next(iter(original.values())).dtype]:
        assert worst(gram - golden_number(model, "gram/gram"), allowed_error(config, original)) <= 1
    assert result.attribute("dtype") == dtype


def quantised(tensors, block_rows, block_cols):
    """q and k in f8 with a scale a block, and the same numbers in f32."""
    narrow, wide = dict(tensors), dict(tensors)
    for name, tensor in tensors.items():
        if "q_proj.weight" not in name and "k_proj.weight" not in name:
            continue
        values = tensor.values()
        rows, cols = values.shape
        row, col = np.arange(rows) // block_rows, np.arange(cols) // block_cols
        scales = np.zeros((row[-1] + 1, col[-1] + 1), np.float32)
        np.maximum.at(scales, (row[:, None], col[None, :]), np.abs(values).astype(np.float32) / np.float32(448))
        spread = scales[row][:, col]
        narrow[name] = Tensor.of(values / spread, "F8_E4M3")
        narrow[name + "_scale_inv"] = Tensor.of(scales, "F32")
        wide[name] = Tensor.of(f8_e4m3_values()[narrow[name].bits].astype(np.float32) * spread, "F32")
    return narrow, wide


@pytest.mark.parametrize("block", [(16, 16), (24, 40), (128, 128)])
def test_f8_with_block_scales_gives_the_bits_of_its_dequantised_twin(runs, tmp_path, block):
    config = read_config("qwen3-tiny")
    narrow, wide = quantised(read_checkpoint(golden("qwen3-tiny")), *block)
    quantisation = {"quant_method": "fp8", "weight_block_size": list(block)}
    f8 = runs(write_checkpoint(tmp_path / "f8", {**config, "quantization_config": quantisation}, narrow), ranks=3)
    f32 = runs(write_checkpoint(tmp_path / "f32", config, wide))
    np.testing.assert_array_equal(f8["gram/gram"], f32["gram/gram"])
    original = golden_number("qwen3-tiny", "gram/gram")
    assert worst(f8["gram/gram"] - original, operator_norms(original)) <= 0.02, "f8 keeps four bits of each number"


def test_key_and_query_weights_of_different_types_work_together(runs, tmp_path):
    config, tensors = read_config("llama-tiny"), read_checkpoint(golden("llama-tiny"))
    for layer, matrix, dtype in [(0, "q", "BF16"), (1, "k", "F16"), (3, "q", "F16"), (3, "k", "BF16")]:
        name = attention_name(layer, matrix)
        tensors[name] = Tensor.of(tensors[name].values(), dtype)
    result = runs(write_checkpoint(tmp_path / "mixed", config, tensors), ranks=2)
    assert worst(result["gram/gram"] - gram_of(config, tensors), allowed_error(config, tensors)) <= 1


# --- where a model comes from -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """A hub cache with one model in two revisions: main, and the tag v1, of which layer 0 has other weights."""
    cache = tmp_path_factory.mktemp("hub")
    model = cache / "models--tests--qwen3-tiny"
    (model / "blobs").mkdir(parents=True)
    (model / "refs").mkdir()
    other = read_checkpoint(golden("qwen3-tiny"))
    other[attention_name(0, "q")] = Tensor.of(-other[attention_name(0, "q")].values(), "BF16")
    other_folder = write_checkpoint(tmp_path_factory.mktemp("other"), read_config("qwen3-tiny"), other, shards=2)
    for reference, commit, source in [("main", "a" * 40, golden("qwen3-tiny")), ("v1", "b" * 40, other_folder)]:
        (model / "refs" / reference).write_text(commit)
        snapshot = model / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for file in [*source.glob("*.safetensors"), *source.glob("*.json")]:
            blob = hashlib.sha256(file.read_bytes()).hexdigest()
            (model / "blobs" / blob).write_bytes(file.read_bytes())
            os.symlink(f"../../blobs/{blob}", snapshot / file.name)
    return cache


def places(hub):
    home = hub.parent / "home"
    home.mkdir(exist_ok=True)
    if not (home / "hub").exists():
        os.symlink(hub, home / "hub")
    return [{"HF_HUB_CACHE": str(hub)}, {"HF_HUB_CACHE": "", "HUGGINGFACE_HUB_CACHE": "", "HF_HOME": str(home)}]


@pytest.mark.parametrize("place", [0, 1])
def test_a_hub_id_is_found_in_the_local_cache(runs, hub, place):
    result = runs("tests/qwen3-tiny", ranks=2, environment=places(hub)[place])
    assert result.datasets() == runs(golden("qwen3-tiny")).datasets()
    assert result.attribute("model") == "tests/qwen3-tiny"
    assert (result.attribute("revision"), result.attribute("commit")) == ("main", "a" * 40)


@pytest.mark.parametrize("revision", ["v1", "b" * 40])
def test_a_revision_is_another_model(runs, hub, revision):
    result = runs("tests/qwen3-tiny", "--revision", revision, environment=places(hub)[0])
    main = runs(golden("qwen3-tiny"))["gram/gram"]
    expected = main.copy()
    expected[0, 1:] *= -1
    expected[1:, 0] *= -1
    np.testing.assert_array_equal(result["gram/gram"], expected)
    assert result.attribute("commit") == "b" * 40


def test_a_relative_folder_is_a_model(runs, tmp_path):
    (tmp_path / "models").mkdir()
    os.symlink(golden("llama-tiny"), tmp_path / "models" / "llama")
    finished = run("--model", "models/llama", "-o", "out.h5", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["gram/gram"][()], runs(golden("llama-tiny"))["gram/gram"])


# --- synthetic models: answers known at any size ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32", "f64"])
def test_a_synthetic_model_and_its_written_checkpoint_give_the_same_bits(runs, tmp_path, dtype):
    shape = f"tiny?dtype={dtype}&seed=7"
    written = run("synth", shape, tmp_path / "model", folder=tmp_path)
    assert written.returncode == 0, written.stderr
    generated, ids = runs(f"synth:{shape}", ranks=2), tmp_path / "ids"  # the checkpoint has no tokenizer
    ids.write_text("\n".join(map(str, generated["residual/token_ids"])))
    read = runs(tmp_path / "model", "--token-ids", ids, ranks=3)
    assert generated.datasets() == read.datasets()
    assert generated.attribute("weights_digest") == read.attribute("weights_digest")


@pytest.mark.parametrize("options", ["drift=0.5", "drift=1&seed=3", "iid=1", "drift=0.1&dtype=f32"])
def test_cosines_of_synthetic_layers_are_within_six_deviations_of_what_is_expected(runs, options):
    layers, hd, hidden = 7, 32, 256
    result = runs(f"synth:L{layers}-H8-KV4-hd{hd}-D{hidden}-F64?{options}", ranks=2)
    drift = 1.0 if "iid" in options else float(options.split("drift=")[1].split("&")[0])
    t = np.full(layers, 1.0) if "iid" in options else drift * np.arange(layers) / (layers - 1)
    rho2 = np.outer(1 - t, 1 - t)
    sd = np.sqrt(1 / hidden**2 + 2 * rho2 * (1 - rho2) ** 2 / (hd * hidden))
    off_diagonal = ~np.eye(layers, dtype=bool)
    z = (result["analysis/cos"] - rho2[:, :, None]) / sd[:, :, None]
    assert np.abs(z[off_diagonal]).max() < 6
    if options == "iid=1":
        assert 0.8 < z[off_diagonal].std() < 1.2, "and without anything in common their deviation is 1/D itself"


def test_layers_without_drift_are_all_alike(runs):
    result = runs("synth:tiny?drift=0")
    np.testing.assert_allclose(result["analysis/cos"], 1.0, atol=1e-6)


def test_a_single_layer_is_a_model_too(runs):
    result = runs("synth:tiny?layers=1", ranks=3)
    assert result["gram/gram"].shape[:2] == (1, 1)
    np.testing.assert_allclose(result["analysis/cos"], 1.0)


# --- the file in other hands ------------------------------------------------------------------------------------------

AXES = {
    "gram": {"gram": ("layer", "layer_b", "head")},
    "analysis": {"cos": ("layer", "layer_b", "head"), "cos_mean": ("layer", "layer_b")},
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_xarray_opens_every_group_and_every_axis_has_its_name(runs, engine):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("netCDF4" if engine == "netcdf4" else engine)
    file = runs(golden("qwen3-tiny"), ranks=2).file
    groups = []
    with h5py.File(file) as opened:
        opened.visititems(lambda name, item: groups.append(name) if isinstance(item, h5py.Group) else None)
    assert set(AXES) | {"run"} <= set(groups)
    for group in [None, *groups]:
        with xarray.open_dataset(file, engine=engine, group=group) as dataset:
            dataset.load()
        for name, dims in AXES.get(group, {}).items():
            assert dataset[name].dims == dims
            assert dataset[name].attrs["units"] == "1" and dataset[name].attrs["long_name"]
        for name, variable in dataset.variables.items():
            assert not any(dim.startswith("phony") for dim in variable.dims), f"{group}/{name}: {variable.dims}"


def test_the_file_says_what_it_is(runs):
    result = runs(golden("qwen3-tiny"), ranks=2)
    with h5py.File(result.file) as file:
        attributes = set(file.attrs)
        complete = int(file.attrs["complete"])
    expected = "title geom_mpi_version created command model revision commit config weights_digest dtype measures ranks"
    expected += " backend devices hostnames seed complete"
    assert set(expected.split()) <= attributes
    assert complete == 1
    assert int(result.attribute("ranks")) == 2
    assert result.attribute("config") == (golden("qwen3-tiny") / "config.json").read_text()
