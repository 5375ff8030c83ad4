"""The program on a GPU, or on what emulates one (GEOM_CUDA=EMULATED): against the processor, and what is its own."""

import os
import re
import subprocess

import numpy as np
import pytest
from conftest import ENVIRONMENT, GOLDEN, MPIEXEC, PROGRAM, golden, run

MODEL = "synth:L6-H8-KV2-hd32-D320-F64-V64"
SHARED, NCCL = {"GEOM_MPI_SHARE_GPU": "1"}, {"GEOM_MPI_SHARE_GPU": "nccl"}
ALONE = {"GEOM_MPI_SHARE_GPU": ""}
# What CMake built: where CUDA is emulated there is a GPU; without NCCL ranks exchange over MPI, whatever is asked for.
CUDA, NCCL_PATH = os.environ.get("GEOM_CUDA"), "mpi, staged" if os.environ.get("GEOM_NCCL") == "absent" else "nccl"


FEW = ["--max-tokens", 24]  # an emulated forward pass takes its time


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    """The first GPU's name; where there is none the tests that take it are skipped."""
    finished = run("--model", "synth:tiny", "--backend", "cuda", "--dry-run", folder=tmp_path_factory.mktemp("gpu"))
    if "no GPU: " in finished.stderr and CUDA != "EMULATED":
        pytest.skip(finished.stderr.strip())
    assert finished.returncode == 0, finished.stderr
    return re.search(r"GPU \d+: (.*), NUMA node", finished.stdout)[1]


def emulator_only(gpu, why):
    """Skips where the GPU is a real one."""
    if gpu != "emulated GPU":
        pytest.skip(f"{gpu}: {why}")


def test_without_a_gpu_cuda_is_a_usage_error_that_says_why_and_auto_is_the_processor(tmp_path):
    environment = {"CUDA_VISIBLE_DEVICES": "", "GEOM_EMULATED_DEVICES": "0"}
    finished = run("--model", "synth:tiny", "--backend", "cuda", folder=tmp_path, environment=environment)
    assert finished.returncode == 2, finished.stderr
    assert "rank 0 is on" in finished.stderr and "no GPU: " in finished.stderr and "--backend cpu" in finished.stderr
    assert not list(tmp_path.iterdir())
    finished = run("--model", "synth:tiny", "-m", "gram", "-o", "r.h5", folder=tmp_path, environment=environment)
    assert finished.returncode == 0, finished.stderr
    assert "; cpu (" in finished.stdout


def test_auto_is_cuda_where_there_is_a_gpu(gpu, runs):
    auto = runs("synth:tiny", "-m", "gram")
    assert auto.about["backend"] == "cuda"
    assert auto.attribute("product_path") == "cublas-bf16"
    assert auto.attribute("exchange_path") == "mpi, staged"


@pytest.mark.parametrize("model", GOLDEN)
def test_gpu_and_processor_agree(gpu, runs, model):
    here, there = (runs(golden(model), *FEW, "--backend", backend) for backend in ("cpu", "cuda"))
    gram = here["gram/gram"]
    norms = np.sqrt(np.einsum("llh->lh", gram))
    assert np.all(np.abs(there["gram/gram"] - gram) <= 1e-5 * norms[:, None] * norms[None])
    cross = here["match/cross_gram"]
    norms = np.sqrt(np.einsum("lhlh->lh", cross))
    assert np.all(np.abs(there["match/cross_gram"] - cross) <= 1e-5 * norms[:, :, None, None] * norms)
    np.testing.assert_array_equal(there["match/assignment"], here["match/assignment"])
    sigma = here["heads/singular_values"][..., :1]
    for name in ("singular_values", "sym_eigs"):
        assert np.all(np.abs(there[f"heads/{name}"] - here[f"heads/{name}"]) <= 1e-9 * sigma), name
    for name in ("eff_rank", "eff_rank_energy", "stable_rank", "asymmetry", "fro_sq"):
        np.testing.assert_allclose(there[f"heads/{name}"], here[f"heads/{name}"], rtol=1e-9)
    for name in ("right_dirs", "left_dirs"):
        np.testing.assert_allclose(there[f"heads/{name}"], here[f"heads/{name}"], atol=1e-6)
    np.testing.assert_allclose(there["variation/residual"], here["variation/residual"], atol=1e-9)
    for name in ("frob", "h_norm_mean", "rel_step_mean", "eff_rank", "cross_entropy"):
        np.testing.assert_allclose(there[f"residual/{name}"], here[f"residual/{name}"], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("model", GOLDEN)
def test_golden_spectra_on_one_gpu_and_the_same_bits_on_two_ranks(gpu, runs, model):
    h5py = pytest.importorskip("h5py")
    one = runs(golden(model), "-m", "spectra", "--backend", "cuda")
    with h5py.File(golden(model) / "golden.h5") as expected:
        for group in {"spectra", "spectra_global", "experts"} & set(expected):
            for name in expected[group]:
                want = expected[f"{group}/{name}"][()]
                if name.startswith("singular_values"):
                    assert (np.abs(one[f"{group}/{name}"] - want) <= 1e-9 * want.max(-1, keepdims=True)).all(), name
                elif name.startswith("eff_rank") and not name.endswith("error"):
                    np.testing.assert_allclose(one[f"{group}/{name}"], want, rtol=1e-8, err_msg=name)
    two = runs(golden(model), "-m", "spectra", "--backend", "cuda", ranks=2, environment=SHARED)
    assert two.datasets() == one.datasets()


def test_twice_the_same_bits(gpu, runs):
    once, twice = (runs(MODEL, *FEW, "--backend", "cuda", "--threads", threads) for threads in (1, 2))
    assert once.datasets() == twice.datasets()


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize(("environment", "path"), [(SHARED, "mpi, staged"), (NCCL, NCCL_PATH)])
def test_ranks_that_exchange_by_either_way_give_the_bits_of_one(gpu, runs, ranks, environment, path):
    if environment is NCCL:
        emulator_only(gpu, "whether ranks may share a card over NCCL depends on it; tests/gpu/prove.py tries")
    one = runs(MODEL, *FEW, "--backend", "cuda")
    several = runs(MODEL, *FEW, "--backend", "cuda", ranks=ranks, environment=environment)
    assert several.attribute("exchange_path") == path
    assert ("nccl" in several.about["versions"]) == (path == "nccl")
    assert several.datasets() == one.datasets()


def test_two_ranks_do_not_share_a_gpu_by_mistake(gpu, tmp_path):
    finished = run(
        "--model",
        MODEL,
        "--backend",
        "cuda",
        ranks=2,
        folder=tmp_path,
        environment={**ALONE, "GEOM_EMULATED_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "0"},
    )
    assert finished.returncode == 2, finished.stderr
    assert "ranks 0 and 1 would share a GPU" in finished.stderr and "--gpus-per-node" in finished.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("backend", "code", "said"),
    [("auto", 0, "on processors, though there are GPUs: rank 1 is on"), ("cuda", 2, "rank 1 is on")],
)
def test_where_one_rank_has_no_gpu_none_is_used_and_that_is_said(gpu, tmp_path, backend, code, said):
    program = [str(PROGRAM), "--model", "synth:tiny", "-m", "gram", "-o", "r.h5", "--backend", backend]
    blind = ["-x", "GEOM_EMULATED_DEVICES=0", "-x", "CUDA_VISIBLE_DEVICES="]
    command = [MPIEXEC, "-n", "1", *program, ":", "-n", "1", *blind, *program]
    finished = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert finished.returncode == code, finished.stderr
    assert said in finished.stderr and "no GPU: " in finished.stderr
    assert ("; cpu (" in finished.stdout) == (code == 0)


def test_the_plan_names_the_gpu_and_the_numa_node_of_every_rank(gpu, tmp_path):
    finished = run("--model", MODEL, "--backend", "cuda", "--dry-run", ranks=2, folder=tmp_path, environment=SHARED)
    assert finished.returncode == 0, finished.stderr
    assert len(re.findall(r"^ +[01] .*GPU 0: .*, NUMA node (\d+|unknown)$", finished.stdout, re.M)) == 2
    assert "GPU memory" in finished.stdout and "through the hosts' memory (MPI)" in finished.stdout


@pytest.mark.parametrize(
    ("model", "measures", "ranks"),
    [
        (MODEL, "gram", 1),
        (MODEL, "gram,heads", 1),
        (MODEL, "spectra", 1),
        ("synth:L4-H16-KV2-hd64-D1400-F64-V64", "gram", 2),
    ],
)
def test_gpu_memory_is_what_was_planned(gpu, runs, model, measures, ranks):
    about = runs(model, "-m", measures, "--backend", "cuda", ranks=ranks, environment=SHARED).about
    assert 0.9 <= about["peak_device_memory"] / about["planned_device_memory"] <= 1.0


def test_a_small_gpu_takes_more_passes_to_the_same_bits(gpu, runs):
    emulator_only(gpu, "its memory is as large as it is")
    model = "synth:L8-H12-KV3-hd32-D2048-F64"
    whole = runs(model, "-m", "gram", "--backend", "cuda")
    seen = set()
    for share in (0.9, 0.95):
        free = int(whole.about["planned_device_memory"] * share / 0.8)  # of which a run takes 0.8
        cut = runs(model, "-m", "gram", "--backend", "cuda", environment={"GEOM_EMULATED_MEMORY": str(free)})
        seen.add(cut.about["passes"])
        assert cut.datasets() == whole.datasets()
    assert whole.about["passes"] == 1 and max(seen) > 1, seen


def test_a_gpu_too_small_for_a_head_is_a_usage_error(gpu, tmp_path):
    emulator_only(gpu, "its memory is as large as it is")
    finished = run(
        "--model", MODEL, "--backend", "cuda", folder=tmp_path, environment={"GEOM_EMULATED_MEMORY": str(40 << 20)}
    )
    assert finished.returncode == 2, finished.stderr
    assert "of GPU memory is too small" in finished.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", ["exception:exchange:1:1", "kill:exchange:0:1", "stop:exchange:1:1"])
def test_a_rank_that_is_lost_while_gpus_exchange_ends_the_others(gpu, tmp_path, fault):
    environment = {**(NCCL if gpu == "emulated GPU" else SHARED), "GEOM_MPI_FAULT": fault}
    finished = run(
        "--model",
        MODEL,
        "--backend",
        "cuda",
        "--deadline",
        2,
        "-o",
        "r.h5",
        ranks=2,
        folder=tmp_path,
        environment=environment,
    )
    assert finished.returncode != 0
    assert "exchange" in finished.stderr and re.search(r"rank [01]", finished.stderr)
    assert not (tmp_path / "r.h5").exists()
