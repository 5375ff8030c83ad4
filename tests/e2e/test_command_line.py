"""What a person and a script see of the program: help, summary, JSON, plans, a file of options."""

import json
import re

import numpy as np
import pytest

from conftest import GOLDEN, golden, listing, run

h5py = pytest.importorskip("h5py")

MODEL = golden("qwen3-tiny")
RANKS = pytest.mark.parametrize("ranks", [1, 3])

OPTIONS = """--model --revision --family -m --measures --layers --backend --memory-budget --threads -o --output
--overwrite --json --deadline --dry-run --quiet --config --version --help""".split()


@RANKS
def test_help_mentions_every_option_command_and_exit_code_once_for_all_ranks(tmp_path, ranks):
    finished = run("--help", ranks=ranks, folder=tmp_path)
    assert finished.returncode == 0 and finished.stderr == ""
    for option in OPTIONS:
        assert re.search(rf"(^|[\s,]){re.escape(option)}\b", finished.stdout), option
    for word in ["info", "synth", "gram", "Exit codes", "hub id", "synth:SHAPE"]:
        assert word in finished.stdout
    assert finished.stdout.count("--overwrite") == 1


def test_every_command_has_help(tmp_path):
    for command in ["info", "synth"]:
        finished = run(command, "--help", folder=tmp_path)
        assert finished.returncode == 0 and finished.stdout


def test_version_is_a_number(tmp_path):
    assert re.fullmatch(r"geom-mpi \d+\.\d+\.\d+\n", run("--version", folder=tmp_path).stdout)


@RANKS
def test_json_on_stdout_is_one_object_and_the_summary_goes_to_stderr(tmp_path, ranks):
    finished = run("--model", MODEL, "-o", "out.h5", "--json", "-", ranks=ranks, folder=tmp_path)
    assert finished.returncode == 0
    about = json.loads(finished.stdout)
    assert about["ranks"] == ranks and about["model"] == "qwen3-tiny" and about["layers"] == [0, 6]
    assert about["bytes_read"] > 0 and about["peak_memory"] > 0
    for phase in ["load", "exchange", "gram", "write", "total"]:
        times = about["phases"][phase]
        assert 0 <= times["min"] <= times["mean"] <= times["max"]
    assert about["phases"]["load"]["max"] <= about["phases"]["total"]["max"]
    with h5py.File(tmp_path / "out.h5") as file:
        cosines = file["analysis/cos_mean"][()]
        assert about["weights_digest"] == file.attrs["weights_digest"]
    np.testing.assert_allclose(about["summary"]["cos_first_last"], cosines[0, -1])
    np.testing.assert_allclose(about["summary"]["mean_cos_adjacent"], np.diagonal(cosines, 1).mean())
    assert "out.h5" in finished.stderr and "cosines" in finished.stderr


def test_json_has_no_nan_for_a_single_layer(tmp_path):
    arguments = ["--model", "synth:tiny?layers=1", "-o", "out.h5", "--json", "-"]
    finished = run(*arguments, folder=tmp_path)
    about = json.loads(finished.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert about["summary"]["mean_cos_adjacent"] is None


@RANKS
def test_the_summary_goes_to_stdout_once_and_names_the_file(tmp_path, ranks):
    finished = run("--model", MODEL, "-o", "out.h5", ranks=ranks, folder=tmp_path)
    assert finished.returncode == 0
    assert finished.stdout.count("out.h5") == 1
    assert "qwen3-tiny" in finished.stdout


@RANKS
def test_quiet_says_nothing_on_stderr(tmp_path, ranks):
    finished = run("--model", MODEL, "-o", "out.h5", "--quiet", ranks=ranks, folder=tmp_path)
    assert finished.returncode == 0 and finished.stderr == ""


@pytest.mark.parametrize("model", GOLDEN)
def test_the_result_is_named_after_the_model(tmp_path, model):
    assert run("--model", golden(model), folder=tmp_path).returncode == 0
    assert listing(tmp_path) == [f"{model}.geom.h5"]


@RANKS
def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path, ranks):
    finished = run("--model", MODEL, "--dry-run", ranks=ranks, folder=tmp_path)
    assert finished.returncode == 0 and finished.stderr == ""
    assert "qwen3-tiny" in finished.stdout and "imbalance" in finished.stdout
    assert listing(tmp_path) == []
    info = run("info", "--model", MODEL, ranks=ranks, folder=tmp_path)
    assert info.returncode == 0
    without_memory = lambda text: re.sub(r"\S+ [KMG]?i?B", "", text)
    assert without_memory(info.stdout).split() == without_memory(finished.stdout).split()


def test_a_dry_run_does_not_mind_an_existing_result(tmp_path):
    (tmp_path / "out.h5").write_text("precious")
    assert run("--model", MODEL, "-o", "out.h5", "--dry-run", folder=tmp_path).returncode == 0
    assert (tmp_path / "out.h5").read_text() == "precious"


@RANKS
def test_options_come_from_a_toml_file_and_the_command_line_wins(tmp_path, ranks):
    (tmp_path / "run.toml").write_text(f'model = "{MODEL}"\noutput = "from-file.h5"\nlayers = "0:3"\nquiet = true\n')
    finished = run("--config", "run.toml", "-o", "from-line.h5", ranks=ranks, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert listing(tmp_path) == ["from-line.h5", "run.toml"]
    with h5py.File(tmp_path / "from-line.h5") as file:
        assert file["gram/gram"].shape == (3, 3, 8)


def test_an_unknown_key_in_the_toml_file_is_an_error(tmp_path):
    (tmp_path / "run.toml").write_text(f'model = "{MODEL}"\nlayer = "0:3"\n')
    finished = run("--config", "run.toml", folder=tmp_path)
    assert finished.returncode == 2
    assert "layer" in finished.stderr
    assert listing(tmp_path) == ["run.toml"]


def test_threads_are_as_asked_for_and_else_as_omp_num_threads_says(tmp_path):
    environment = {"OMP_NUM_THREADS": "2"}
    for arguments, threads in [(["--threads", "3"], 3), ([], 2)]:
        line = ["--model", MODEL, "-o", "out.h5", "--overwrite", "--json", "-", *arguments]
        about = json.loads(run(*line, folder=tmp_path, environment=environment).stdout)
        assert about["devices"][0].endswith(f"{threads} threads")


def test_a_synthetic_checkpoint_is_written_once_by_several_ranks(tmp_path):
    finished = run("synth", "tiny", "model", ranks=3, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("written") == 1
    assert {"model/config.json", "model/model.safetensors"} <= set(listing(tmp_path))
    again = run("synth", "tiny", "model", ranks=3, folder=tmp_path)
    assert again.returncode == 5 and again.stderr.count("geom-mpi: error:") == 1


def test_memory_stays_within_what_was_planned(tmp_path):
    """Blocks of 200 MB, against which what libraries take on their own is small."""
    line = ["--model", "synth:L12-H16-KV8-hd128-D2048-F64", "-m", "gram", "-o", "out.h5", "--json", "-"]
    about = json.loads(run(*line, ranks=2, folder=tmp_path).stdout)
    assert about["peak_memory"] <= 1.1 * about["planned_memory"]
