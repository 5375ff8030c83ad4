"""One checkpoint, whoever reads it and in however many runs: ranks that opened different ones, one that is replaced
between two runs or while it is read, and a digest that covers what a stopped run has read."""

import json
import os
import shutil
import signal
import subprocess

import numpy as np
import pytest
from conftest import (
    ENVIRONMENT,
    MPIEXEC,
    PROGRAM,
    Tensor,
    attention_name,
    datasets,
    golden,
    listing,
    read_checkpoint,
    read_config,
    run,
    run_that_stands_still,
    write_checkpoint,
    write_shard,
)

h5py = pytest.importorskip("h5py")

USAGE, INPUT, OUTPUT = 2, 3, 5


def attribute(file, name):
    with h5py.File(file) as opened:
        return opened.attrs[name]


def other_weights(model, layer=2):
    """A checkpoint of the same names, types and shapes; `layer` has other keys."""
    tensors = read_checkpoint(golden(model))
    name = attention_name(layer, "k")
    tensors[name] = Tensor.of(2 * tensors[name].values(), tensors[name].dtype)
    return read_config(model), tensors


def hub(folder, commit, config, tensors):
    """A hub cache whose refs/main is `commit`."""
    model = folder / "models--tests--model"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    write_checkpoint(model / "snapshots" / commit, config, tensors)
    return folder


def run_in_caches(caches, folder):
    """A rank a cache, as on nodes that have one each."""
    command = [MPIEXEC]
    for cache in caches:
        command += [":"] if len(command) > 1 else []
        command += ["-n", "1", "env", f"HF_HUB_CACHE={cache}", str(PROGRAM), "--model", "tests/model", "-o", "r.h5"]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)


# --- ranks ------------------------------------------------------------------------------------------------------------


def test_ranks_whose_caches_name_different_commits_end_before_anything_is_read(tmp_path):
    one = hub(tmp_path / "one", "a" * 40, read_config("llama-tiny"), read_checkpoint(golden("llama-tiny")))
    two = hub(tmp_path / "two", "b" * 40, *other_weights("llama-tiny"))
    finished = run_in_caches([one, two], tmp_path)
    assert finished.returncode == INPUT, finished.stderr
    for word in ["not the same checkpoint", "a" * 40, "b" * 40, "rank 0 on", "rank 1 on"]:
        assert word in finished.stderr
    assert listing(tmp_path) == sorted(name for name in listing(tmp_path) if name.startswith(("one", "two")))


def test_ranks_whose_caches_hold_other_weights_under_the_same_commit_end(tmp_path):
    one = hub(tmp_path / "one", "a" * 40, read_config("llama-tiny"), read_checkpoint(golden("llama-tiny")))
    two = hub(tmp_path / "two", "a" * 40, *other_weights("llama-tiny"))
    finished = run_in_caches([one, one, two], tmp_path)
    assert finished.returncode == INPUT, finished.stderr
    assert "model.safetensors" in finished.stderr and "rank 2 on" in finished.stderr


def test_ranks_that_count_other_layers_end(tmp_path):
    tensors = read_checkpoint(golden("llama-tiny"))
    config = read_config("llama-tiny")
    one = hub(tmp_path / "one", "a" * 40, config, tensors)
    two = hub(tmp_path / "two", "a" * 40, {**config, "num_hidden_layers": config["num_hidden_layers"] - 1}, tensors)
    finished = run_in_caches([one, two], tmp_path)
    assert finished.returncode == INPUT, finished.stderr
    layers = config["num_hidden_layers"]
    assert f"'{layers} layers'" in finished.stderr and f"'{layers - 1} layers'" in finished.stderr


def test_copies_of_one_checkpoint_are_the_same_checkpoint(tmp_path):
    """A cache a node: times and inodes differ, contents do not."""
    tensors, config = read_checkpoint(golden("llama-tiny")), read_config("llama-tiny")
    caches = [hub(tmp_path / name, "a" * 40, config, tensors) for name in ("one", "two")]
    finished = run_in_caches(caches, tmp_path)
    assert finished.returncode == 0, finished.stderr


# --- one run after the other ------------------------------------------------------------------------------------------


def stop(folder, model, *arguments, fault, ranks=2):
    finished = run(
        *("--model", model, "-o", "r.h5", *arguments), ranks=ranks, folder=folder, environment={"GEOM_MPI_FAULT": fault}
    )
    assert finished.returncode != 0 and (folder / "r.h5.journal").is_dir(), finished.stderr


@pytest.fixture
def model(tmp_path):
    shutil.copytree(golden("llama-tiny"), tmp_path / "model")
    return tmp_path / "model"


def test_a_journal_of_other_weights_of_the_same_shapes_is_refused(tmp_path, model):
    stop(tmp_path, model, fault="kill:write:0:0")
    write_checkpoint(model, *other_weights("llama-tiny"))
    finished = run("--model", model, "-o", "r.h5", folder=tmp_path)
    assert finished.returncode == USAGE, finished.stderr
    assert "fingerprint" in finished.stderr and "--fresh" in finished.stderr
    assert run("--model", model, "-o", "r.h5", "--fresh", folder=tmp_path).returncode == 0


def test_a_shard_that_only_got_another_time_is_another_fingerprint(tmp_path, model):
    """What lies between the samples is not read: the time speaks for it."""
    assert run("--model", model, "-o", "r.h5", folder=tmp_path).returncode == 0
    assert "complete already" in run("--model", model, "-o", "r.h5", "--resume", folder=tmp_path).stdout
    os.utime(model / "model.safetensors", (1, 1))
    assert run("--model", model, "-o", "r.h5", "--resume", folder=tmp_path).returncode == OUTPUT


def test_resume_and_add_refuse_the_result_of_other_weights(tmp_path, model):
    assert run("--model", model, "-m", "gram", "-o", "r.h5", folder=tmp_path).returncode == 0
    before = attribute(tmp_path / "r.h5", "fingerprint")
    write_checkpoint(model, *other_weights("llama-tiny"))
    resumed = run("--model", model, "-m", "gram", "-o", "r.h5", "--resume", folder=tmp_path)
    assert resumed.returncode == OUTPUT and "complete already" not in resumed.stdout
    added = run("--model", model, "-o", "r.h5", "--add", folder=tmp_path)
    assert added.returncode == USAGE and before in added.stderr, added.stderr


def test_a_hub_cache_that_was_copied_keeps_its_fingerprint(tmp_path):
    """Blobs are named by their contents: neither time nor inode matter."""
    blob = "c" * 64
    for name in ("one", "two"):
        model = tmp_path / name / "models--tests--model"
        folder = model / "snapshots" / ("a" * 40)
        folder.mkdir(parents=True)
        (model / "blobs").mkdir()
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text("a" * 40)
        shutil.copy(golden("llama-tiny") / "config.json", folder / "config.json")
        shutil.copy(golden("llama-tiny") / "model.safetensors", model / "blobs" / blob)
        os.utime(model / "blobs" / blob, (len(name), 5 if name == "one" else 7))
        os.symlink(f"../../blobs/{blob}", folder / "model.safetensors")
    prints = []
    for name in ("one", "two"):
        environment = {"HF_HUB_CACHE": str(tmp_path / name)}
        finished = run("--model", "tests/model", "-o", f"{name}.h5", folder=tmp_path, environment=environment)
        assert finished.returncode == 0, finished.stderr
        prints.append(attribute(tmp_path / f"{name}.h5", "fingerprint"))
    assert prints[0] == prints[1]


# --- while it is read -------------------------------------------------------------------------------------------------


def stopped_while_loading(folder, model):
    """A run that stands still when it has the first layer; two loads at most are in memory then."""
    return run_that_stands_still(folder, "load:0:1", "--model", model, "-o", "r.h5", "--threads", 1)


def test_a_shard_that_is_written_to_under_a_run_ends_it(tmp_path, model):
    process = stopped_while_loading(tmp_path, model)
    with open(model / "model.safetensors", "r+b") as shard:
        shard.seek(-1, os.SEEK_END)
        shard.write(b"x")
    os.kill(process.pid, signal.SIGCONT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == INPUT, errors
    assert "written to" in errors and "model.safetensors" in errors and not (tmp_path / "r.h5").exists()


def test_a_shard_that_is_replaced_while_it_is_open_is_read_as_it_was(tmp_path, model):
    process = stopped_while_loading(tmp_path, model)
    write_shard(model / "new", {})
    os.replace(model / "new", model / "model.safetensors")
    os.kill(process.pid, signal.SIGCONT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert run("--model", golden("llama-tiny"), "-o", "golden.h5", folder=tmp_path).returncode == 0
    assert datasets(tmp_path / "r.h5") == datasets(tmp_path / "golden.h5")


def test_a_shard_that_is_replaced_between_its_header_and_its_reading_ends_the_run(tmp_path):
    """The second shard holds the last layer alone, which is read when the first one has been looked at."""
    config, tensors = read_config("llama-tiny"), read_checkpoint(golden("llama-tiny"))
    last = f"layers.{config['num_hidden_layers'] - 1}."
    model = tmp_path / "model"
    write_checkpoint(model, config, tensors)
    (model / "model.safetensors").unlink()
    parts = [{k: v for k, v in tensors.items() if last not in k}, {k: v for k, v in tensors.items() if last in k}]
    where = {}
    for n, part in enumerate(parts):
        write_shard(model / f"part-{n}.safetensors", part)
        where.update(dict.fromkeys(part, f"part-{n}.safetensors"))
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    process = stopped_while_loading(tmp_path, model)
    shifted = {name: parts[1][name] for name in reversed(parts[1])}  # the same size, other offsets
    write_shard(model / "new", shifted)
    os.replace(model / "new", model / "part-1.safetensors")
    os.kill(process.pid, signal.SIGCONT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == INPUT, errors
    assert "part-1.safetensors" in errors and "replaced" in errors


# --- the digest -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["kill:gram:0:0", "kill:exchange:1:1", "kill:load:0:1", "kill:write:0:0"])
@pytest.mark.parametrize("model", ["qwen3-tiny", "qwen3moe-tiny"])
def test_the_digest_of_a_resumed_run_covers_all_its_weights(tmp_path, model, fault):
    assert run("--model", golden(model), "-o", "whole.h5", folder=tmp_path).returncode == 0
    stop(tmp_path, golden(model), fault=fault)
    resumed = run("--model", golden(model), "-o", "r.h5", ranks=3, folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from the journal" in resumed.stderr or "write" not in fault
    for name in ["weights_digest", "fingerprint"]:
        assert attribute(tmp_path / "r.h5", name) == attribute(tmp_path / "whole.h5", name)
    with h5py.File(tmp_path / "r.h5") as file:
        assert "weights_digest_missing" not in file.attrs
    assert datasets(tmp_path / "r.h5") == datasets(tmp_path / "whole.h5")


def test_the_digest_does_not_depend_on_passes_and_measures_of_the_same_weights(tmp_path):
    digests = set()
    for n, arguments in enumerate(
        [["-m", "gram"], ["-m", "heads"], ["-m", "gram,heads", "--layers", "0:5"], ["-m", "gram,heads"]]
    ):
        finished = run("--model", golden("llama-tiny"), "-o", f"{n}.h5", *arguments, ranks=1 + n % 3, folder=tmp_path)
        assert finished.returncode == 0, finished.stderr
        digests.add(attribute(tmp_path / f"{n}.h5", "weights_digest"))
    assert len(digests) == 1


def test_the_digest_sees_a_scale_of_f8(tmp_path):
    config, tensors = read_config("llama-tiny"), read_checkpoint(golden("llama-tiny"))
    name = attention_name(1, "q")
    tensors[name] = Tensor.of(tensors[name].values() / np.abs(tensors[name].values()).max(), "F8_E4M3")
    digests = set()
    for scale in (1.0, 2.0):
        tensors[name + "_scale_inv"] = Tensor.of(np.array([scale]), "F32")
        model = write_checkpoint(tmp_path / f"model{scale}", config, tensors)
        finished = run("--model", model, "-o", f"{scale}.h5", folder=tmp_path)
        assert finished.returncode == 0, finished.stderr
        digests.add(attribute(tmp_path / f"{scale}.h5", "weights_digest"))
    assert len(digests) == 2
