"""What goes wrong ends every rank with one error that says what to do, the right exit code, nothing half-written."""

import contextlib
import resource
import shutil
import subprocess
import time

import numpy as np
import pytest
from conftest import (
    FAKES,
    Tensor,
    attention_name,
    golden,
    listing,
    read_checkpoint,
    read_config,
    run,
    write_checkpoint,
)

USAGE, INPUT, NUMERICS, OUTPUT = 2, 3, 4, 5

RANKS = pytest.mark.parametrize("ranks", [1, 3])


def errors_of(finished):
    """Lines on stderr that call themselves an error; what a launcher adds about exit codes is not the program's."""
    return [line for line in finished.stderr.splitlines() if line.startswith("geom-mpi: error:")]


def expect_error(finished, code, *mentions):
    """One error that mentions all of these; its line."""
    assert finished.returncode == code, finished.stderr
    errors = errors_of(finished)
    assert len(errors) == 1, finished.stderr
    notes = sum(line.startswith("geom-mpi: left out: ") for line in finished.stderr.splitlines())
    assert finished.stderr.count("geom-mpi:") == 1 + notes, finished.stderr
    assert "MPI_ABORT" not in finished.stderr, "an error that all ranks know of ends the job in order"
    for mention in mentions:
        assert str(mention) in errors[0]
    return errors[0]


def without_journals(paths):
    """What a run that had begun keeps so that the next one may go on is no half-written result."""
    return [path for path in paths if ".journal" not in path]


def refused(code, *arguments, ranks, folder, mentions, begun=False, **options):
    """An error before anything was computed, or, once the run had `begun`, without a trace of a result."""
    kept = without_journals if begun else list
    before = kept(listing(folder))
    finished = run(*arguments, ranks=ranks, folder=folder, **options)
    line = expect_error(finished, code, *mentions)
    assert finished.stdout == ""
    assert kept(listing(folder)) == before, "nothing is left behind"
    return line


@pytest.fixture
def llama():
    return read_config("llama-tiny"), read_checkpoint(golden("llama-tiny"))


# --- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranks", "arguments", "mentions"),
    [
        (1, ["--model", "synth:tiny", "--frobnicate"], ["--frobnicate"]),
        (3, ["--model", "synth:tiny", "--frobnicate"], ["--frobnicate"]),
        (1, ["--model", "synth:tiny", "-m", "gram,heds"], ["heds", "gram"]),
        (3, ["--model", "synth:tiny", "-m", "gram,heds"], ["heds", "gram"]),
        (1, ["--model", "synth:tiny", "--layers", "1"], ["--layers", "A:B"]),
        (1, ["--model", "synth:tiny", "--layers", "2:2"], ["2:2"]),
        (3, ["--model", "synth:tiny", "--layers", "0:5"], ["0:5", "4 layers"]),
        (1, ["--model", "synth:tiny", "--memory-budget", "lots"], ["lots"]),
        (1, ["--model", "synth:tiny", "--memory-budget", "1MiB"], ["--memory-budget", "1048576"]),
        (3, ["--model", "synth:tiny", "--memory-budget", "1MiB"], ["--memory-budget", "1048576"]),
        (1, ["--model", "synth:tiny", "--threads", "0"], ["--threads"]),
        (1, ["--model", "synth:tiny", "--backend", "abacus"], ["abacus"]),
        (1, ["--model", "synth:enormous"], ["enormous", "tiny"]),
        (3, ["--model", "synth:tiny?colour=red"], ["colour"]),
        (1, ["--config", "missing.toml"], ["missing.toml"]),
        (1, ["--model", "synth:tiny", "--add", "--overwrite"], ["--add", "--overwrite"]),
        (3, ["--model", "synth:tiny", "--add", "--resume"], ["--add", "--resume"]),
        (1, [], ["--model is required"]),
        (1, ["info"], ["--model is required"]),
        (1, ["--modle", "x"], ["no option --modle", "is --model meant?"]),
        (1, ["--model", "synth:tiny", "--memory-buget=8G"], ["no option --memory-buget:", "is --memory-budget meant?"]),
        (1, ["analyze", "r.h5", "--formt", "csv"], ["no option --formt", "is --format meant?"]),
        (1, ["inof", "--model", "synth:tiny"], ["no command inof", "is info meant?"]),
        (1, ["synth:tiny"], ["synth:tiny is not expected", "--model synth:tiny"]),
        (1, ["--model", "synth:tiny", "r.h5"], ["-o r.h5", "analyze r.h5"]),
    ],
)
def test_a_mistake_on_the_command_line_is_one_error(tmp_path, ranks, arguments, mentions):
    refused(USAGE, *arguments, ranks=ranks, folder=tmp_path, mentions=mentions)


def test_a_backend_that_this_build_does_not_have_is_refused(tmp_path):
    finished = run("--model", "synth:tiny", "--backend", "cuda", ranks=1, folder=tmp_path)
    if finished.returncode == 0:
        pytest.skip("this build has a CUDA backend and a device")
    expect_error(finished, USAGE, "cuda")


# --- input ------------------------------------------------------------------------------------------------------------


@RANKS
def test_a_missing_model_names_the_paths_tried_and_the_command_that_gets_it(tmp_path, ranks):
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    mentions = ["org/missing", tmp_path / "hub" / "models--org--missing", "hf download org/missing --revision main"]
    refused(INPUT, "--model", "org/missing", ranks=ranks, folder=tmp_path, mentions=mentions, environment=environment)


@RANKS
def test_a_missing_revision_names_those_that_are_there(tmp_path, ranks):
    model = tmp_path / "hub" / "models--org--model"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("a" * 40)
    shutil.copytree(golden("llama-tiny"), model / "snapshots" / ("a" * 40))
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    mentions = ["v2", "main", "hf download org/model --revision v2"]
    arguments = ["--model", "org/model", "--revision", "v2"]
    refused(INPUT, *arguments, ranks=ranks, folder=tmp_path, mentions=mentions, environment=environment)


@RANKS
def test_a_missing_shard_is_named(tmp_path, ranks):
    shutil.copytree(golden("qwen3-tiny"), tmp_path / "model")
    (tmp_path / "model" / "model-00003-of-00004.safetensors").unlink()
    mentions = ["model-00003-of-00004.safetensors"]
    refused(INPUT, "--model", tmp_path / "model", ranks=ranks, folder=tmp_path, mentions=mentions)


def test_a_truncated_shard_is_named(tmp_path):
    shutil.copytree(golden("llama-tiny"), tmp_path / "model")
    shard = tmp_path / "model" / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1000])
    refused(INPUT, "--model", tmp_path / "model", ranks=1, folder=tmp_path, mentions=["model.safetensors"])


def test_a_missing_tensor_is_named(tmp_path, llama):
    config, tensors = llama
    missing = attention_name(4, "k")
    del tensors[missing]
    write_checkpoint(tmp_path / "model", config, tensors)
    refused(INPUT, "--model", tmp_path / "model", ranks=1, folder=tmp_path, mentions=[missing])


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tmp_path, llama):
    config, tensors = llama
    name = attention_name(2, "q")
    tensors[name] = Tensor("F32", np.ascontiguousarray(tensors[name].bits[:40]))
    write_checkpoint(tmp_path / "model", config, tensors)
    refused(INPUT, "--model", tmp_path / "model", ranks=1, folder=tmp_path, mentions=[name, "40", "48"])


@RANKS
def test_an_unknown_model_type_names_those_known(tmp_path, ranks, llama):
    config, tensors = llama
    write_checkpoint(tmp_path / "model", {**config, "model_type": "gpt_neox"}, tensors)
    mentions = ["gpt_neox", "qwen3", "llama", "phi3", "--family"]
    refused(INPUT, "--model", tmp_path / "model", ranks=ranks, folder=tmp_path, mentions=mentions)


def test_family_reads_an_unknown_model_type_all_the_same(runs, tmp_path, llama):
    config, tensors = llama
    write_checkpoint(tmp_path / "model", {**config, "model_type": "gpt_neox"}, tensors)
    result = runs(tmp_path / "model", "--family", "llama")
    np.testing.assert_array_equal(result["gram/gram"], runs(golden("llama-tiny"))["gram/gram"])


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "llama"}'], ids=["cut", "list", "numbers_missing"])
def test_a_malformed_config_is_named(tmp_path, text):
    shutil.copytree(golden("llama-tiny"), tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(text)
    refused(INPUT, "--model", tmp_path / "model", ranks=1, folder=tmp_path, mentions=["config.json"])


# --- numerics ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "value", "ranks"),
    [(0, np.nan, 1), (0, np.inf, 3), (4, np.nan, 2), (4, np.nan, 3), (4, -np.inf, 3), (4, np.nan, 7)],
)
def test_a_number_that_is_none_is_located_and_its_rank_named(tmp_path, layer, value, ranks, llama):
    config, tensors = llama
    name = attention_name(layer, "k")
    values = tensors[name].values()
    values[17, 31] = value
    tensors[name] = Tensor.of(values, "F32")
    write_checkpoint(tmp_path / "model", config, tensors)
    mentions = ["model.safetensors", name, "row 17", "column 31"]
    line = refused(NUMERICS, "--model", tmp_path / "model", ranks=ranks, folder=tmp_path, mentions=mentions, begun=True)
    if ranks > 1:
        # 5 layers: contiguous runs, the first rank has layer 0, the last has layer 4; of 7 ranks the first four have
        # halves of layers.
        owner = 0 if layer == 0 else ranks - 1
        assert f"[rank {owner} on " in line


@pytest.mark.parametrize(("ranks", "layer", "head"), [(1, 1, 0), (3, 4, 2), (4, 2, 1)])
def test_numerics_that_fail_inside_a_measure_name_rank_layer_tensor_and_row(tmp_path, ranks, layer, head, llama):
    config, tensors = llama
    wide = {name: Tensor.of(tensor.values(), "F64") for name, tensor in tensors.items()}
    hd = config["head_dim"] if "head_dim" in config else config["hidden_size"] // config["num_attention_heads"]
    wide[attention_name(layer, "q")].bits[head * hd] = 1e200  # its square is no number any more
    write_checkpoint(tmp_path / "model", config, wide)
    arguments = ["--model", tmp_path / "model", "-m", "heads"]
    mentions = [attention_name(layer, "q"), f"in row {head * hd}:", f"(heads, layer {layer})"]
    line = refused(NUMERICS, *arguments, ranks=ranks, folder=tmp_path, mentions=mentions, begun=True)
    if ranks > 1:  # 5 layers in contiguous runs
        owner = {3: {4: 2}, 4: {2: 1}}[ranks][layer]
        assert f"[rank {owner} on " in line


@pytest.mark.parametrize(
    ("fault", "place"),
    [
        ("heads:2:0", "(heads, layer "),
        ("fake_step:1:0", "(fake_step, layer "),
        ("fake_walk:1:2", "(fake_walk, layer "),
        ("fake_globals:0:0", "(fake_globals, embed_tokens)"),
        ("fake_experts:2:0", "(fake_experts, layer "),
        ("gram:1:0", "(gram, head "),
        ("fake_pairs:2:0", "(fake_pairs, head"),
    ],
)
def test_a_failure_inside_any_kind_of_measure_ends_all_ranks_in_order(tmp_path, fault, place):
    rank = fault.split(":")[1]
    arguments = ["--model", golden("qwen3moe-tiny"), "-o", "r.h5"]
    environment = {"GEOM_MPI_FAULT": f"error:{fault}"}
    options = {"environment": environment, "program": FAKES, "begun": True}
    line = refused(NUMERICS, *arguments, ranks=3, folder=tmp_path, mentions=[place], **options)
    assert f"[rank {rank} on " in line
    assert listing(tmp_path)[0] == "r.h5.journal", "what is computed stays computed"
    finished = run(*arguments, "--quiet", ranks=2, folder=tmp_path, program=FAKES)
    assert finished.returncode == 0 and listing(tmp_path) == ["r.h5"]


def test_a_number_that_is_none_outside_of_the_chosen_layers_does_no_harm(runs, tmp_path, llama):
    config, tensors = llama
    values = tensors[attention_name(4, "q")].values()
    values[:] = np.nan
    tensors[attention_name(4, "q")] = Tensor.of(values, "F32")
    result = runs(write_checkpoint(tmp_path / "model", config, tensors), "--layers", "0:4", ranks=2)
    np.testing.assert_array_equal(result["gram/gram"], runs(golden("llama-tiny"))["gram/gram"][:4, :4])


def cut_short(tensors):
    name = attention_name(4, "k")
    tensors[name] = Tensor(tensors[name].dtype, tensors[name].bits[:-1])


def of_another_type(tensors):
    name = attention_name(4, "q")
    tensors[name] = Tensor.of(tensors[name].values(), "F8_E4M3")  # whose scales are nowhere


def without_a_key(tensors):
    del tensors[attention_name(4, "k")]


@pytest.mark.parametrize("damage", [cut_short, of_another_type, without_a_key])
def test_a_bad_tensor_outside_of_the_chosen_layers_is_not_looked_at(runs, tmp_path, llama, damage):
    config, tensors = llama
    damage(tensors)
    model = write_checkpoint(tmp_path / "model", config, tensors)
    refused(INPUT, "--model", model, ranks=1, folder=tmp_path, mentions=["layers.4.self_attn"])
    result, whole = runs(model, "--layers", "0:4"), runs(golden("llama-tiny"), "--layers", "0:4")
    for name in ["gram/gram", "heads/singular_values", "spectra/eff_rank"]:
        np.testing.assert_array_equal(result[name], whole[name])


@RANKS
@pytest.mark.parametrize("what", ["a layer that is not there", "a header that is cut off"])
def test_what_a_checkpoint_lacks_outside_of_the_chosen_layers_is_said_before_anything_is_read(
    tmp_path, llama, ranks, what
):
    config, tensors = llama
    if what == "a layer that is not there":
        del tensors[attention_name(4, "q")]
    model = write_checkpoint(tmp_path / "model", config, tensors)
    if what == "a header that is cut off":
        shard = model / "model.safetensors"
        shard.write_bytes(shard.read_bytes()[:-1])
    refused(INPUT, "--model", model, "--layers", "0:4", ranks=ranks, folder=tmp_path, mentions=["model"])


# --- output -----------------------------------------------------------------------------------------------------------


@RANKS
def test_an_existing_result_is_kept_until_overwrite_is_said(tmp_path, ranks):
    (tmp_path / "out.h5").write_text("precious")
    arguments = ["--model", golden("llama-tiny"), "-o", "out.h5"]
    refused(OUTPUT, *arguments, ranks=ranks, folder=tmp_path, mentions=["out.h5", "--overwrite"])
    assert (tmp_path / "out.h5").read_text() == "precious"
    finished = run(*arguments, "--overwrite", ranks=ranks, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "out.h5").read_bytes()[:4] == b"\x89HDF"
    assert listing(tmp_path) == ["out.h5"]


@RANKS
def test_a_result_that_fails_leaves_the_old_one(tmp_path, ranks, llama):
    config, tensors = llama
    tensors[attention_name(3, "q")] = Tensor.of(np.full((48, 48), np.nan), "F32")
    write_checkpoint(tmp_path / "model", config, tensors)
    (tmp_path / "out.h5").write_text("precious")
    arguments = ["--model", tmp_path / "model", "-o", "out.h5", "--overwrite"]
    refused(NUMERICS, *arguments, ranks=ranks, folder=tmp_path, mentions=[attention_name(3, "q")], begun=True)
    assert (tmp_path / "out.h5").read_text() == "precious"


@RANKS
def test_a_folder_that_is_missing_or_a_file_or_the_result_itself_is_refused(tmp_path, ranks):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for output in ["missing/out.h5", "file/out.h5", "folder"]:
        arguments = ["--model", golden("llama-tiny"), "-o", output]
        refused(OUTPUT, *arguments, ranks=ranks, folder=tmp_path, mentions=[output.split("/")[0]])


@RANKS
def test_a_json_file_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path, ranks):
    arguments = ["--model", golden("llama-tiny"), "-o", "out.h5", "--json", "missing/about.json"]
    refused(OUTPUT, *arguments, ranks=ranks, folder=tmp_path, mentions=["missing/about.json"])


@contextlib.contextmanager
def mounted(folder, *options):
    """A small file system of its own on `folder`; skips where it cannot be had."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system is not allowed here: a full disk and a read-only one are not tested")
    try:
        yield folder
    finally:
        gone_by = time.monotonic() + 10
        # mpirun may come back a moment before the last of its ranks is gone, which was at home here
        while subprocess.run(["umount", str(folder)], capture_output=True).returncode != 0:
            time.sleep(0.05)
            assert time.monotonic() < gone_by, f"{folder} is still in use"


# A result of some megabytes: more than the small disk below takes.
LARGE_RESULT = "synth:L64-H64-KV8-hd8-D32-F32"


@RANKS
def test_a_read_only_file_system_is_refused(tmp_path, ranks):
    with mounted(tmp_path / "disk", "size=1m", "ro"):
        arguments = ["--model", golden("llama-tiny"), "-o", "disk/out.h5"]
        refused(OUTPUT, *arguments, ranks=ranks, folder=tmp_path, mentions=["disk"])


def expect_no_result(finished, folder):
    assert finished.returncode == OUTPUT, finished.stderr
    assert "out.h5" in finished.stderr
    assert without_journals(listing(folder)) == []


@RANKS
def test_a_full_disk_is_an_error_of_the_output_and_leaves_no_result(tmp_path, ranks):
    with mounted(tmp_path / "disk", "size=1m") as disk:
        finished = run("--model", LARGE_RESULT, "-o", "out.h5", "--quiet", ranks=ranks, folder=disk)
        expect_no_result(finished, disk)
        assert "No space left" in finished.stderr


def test_a_limit_on_the_size_of_files_is_an_error_of_the_output_and_leaves_no_result(tmp_path):
    def limit():  # MPI itself keeps files of some megabytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 20, 16 << 20))

    arguments = ["--model", "synth:L128-H128-KV8-hd8-D16-F16", "-m", "gram", "-o", "out.h5", "--quiet"]
    expect_no_result(run(*arguments, folder=tmp_path, preexec_fn=limit), tmp_path)
