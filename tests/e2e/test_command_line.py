"""What a person and a script see of the program: help, summary, JSON, plans, a file of options."""

import json
import re
import subprocess

import numpy as np
import pytest
from conftest import ENVIRONMENT, GOLDEN, PROGRAM, golden, listing, run

h5py = pytest.importorskip("h5py")

MODEL = golden("qwen3-tiny")
RANKS = pytest.mark.parametrize("ranks", [1, 3])

OPTIONS = """--model --revision --family -m --measures --layers --backend --memory-budget --threads -o --output
--overwrite --resume --fresh --add --anchor --json --deadline --dry-run --quiet --config --version --help"""


@RANKS
def test_help_mentions_every_option_command_and_exit_code_once_for_all_ranks(tmp_path, ranks):
    finished = run("--help", ranks=ranks, folder=tmp_path)
    assert finished.returncode == 0 and finished.stderr == ""
    for option in OPTIONS.split():
        assert re.search(rf"(^|[\s,]){re.escape(option)}\b", finished.stdout), option
    for word in ["info", "analyze", "synth", "gram", "Exit codes", "hub id", "synth:SHAPE"]:
        assert word in finished.stdout
    assert finished.stdout.count("Exit codes") == 1


def test_every_command_has_help(tmp_path):
    for command in ["info", "analyze", "synth"]:
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
    assert "out.h5" in finished.stderr and "mean cosine" in finished.stderr


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
    # memory and speed are those of the moment
    without_machine = lambda text: re.sub(r"predicted.*|\(a rank's rates.*|\S+ [KMG]?i?B", "", text)
    assert without_machine(info.stdout).split() == without_machine(finished.stdout).split()


def predicted(text):
    """Seconds of every measure, as the plan predicts them."""
    line = re.search(r"predicted on this machine: (.*); reading", text)[1]
    found = {}
    for entry in line.split(", "):
        name, figure = entry.split(" ", 1)
        clock = [float(part) for part in figure.removeprefix("under ").removesuffix(" s").split(":")]
        found[name] = sum(part * 60**place for place, part in enumerate(reversed(clock)))
    return found


@RANKS
def test_a_plan_predicts_the_seconds_of_every_measure(tmp_path, ranks):
    small = run("info", "--model", MODEL, ranks=ranks, folder=tmp_path)
    assert set(predicted(small.stdout)) == {"gram", "heads", "match", "spectra", "variation"}
    large = run("info", "--model", "synth:qwen3-32b", "--memory-budget", "64GiB", ranks=ranks, folder=tmp_path)
    for measure, seconds in predicted(large.stdout).items():
        assert seconds > 10 * predicted(small.stdout)[measure], measure
    read = {1: "61.0 GiB", 3: "62.8 GiB"}[ranks]  # variation: a rank reads the layer before its first one too
    assert f"reading {read}, exchange and writing come on top" in large.stdout
    alone = run("info", "--model", MODEL, "-m", "heads", ranks=ranks, folder=tmp_path)
    assert set(predicted(alone.stdout)) == {"heads"}


def test_a_prediction_is_of_the_right_order(tmp_path):
    model = ["--model", "synth:L12-H8-KV4-hd128-D1024-F64", "--threads", 1]
    times = json.loads(run(*model, "-o", "r.h5", "--json", "-", folder=tmp_path).stdout)["phases"]
    plan = predicted(run("info", *model, folder=tmp_path).stdout)
    for measure in ["gram", "heads"]:
        assert times[measure]["max"] / 20 < plan[measure] < 20 * times[measure]["max"], (measure, plan, times)


def test_probing_the_machine_takes_a_moment(tmp_path):
    """The least of several times: others may be at work here."""
    took = []
    for model in ["tiny", "qwen3-32b", "llama-3.1-405b"] * 3:
        arguments = ["--model", f"synth:{model}", "--memory-budget", "8TiB"]
        text = run("info", *arguments, folder=tmp_path).stdout
        took.append(float(re.search(r"probed in (\S+) s", text)[1]))
    assert max(min(took[which::3]) for which in range(3)) < 0.1, took


def test_a_run_of_hours_is_announced_before_it_begins(tmp_path):
    model = ["--model", "synth:L512-H256-KV8-hd256-D2048-F64-V64", "-m", "gram", "-o", "r.h5"]
    plan = run("info", *model[:4], folder=tmp_path)
    if plan.returncode != 0 or predicted(plan.stdout)["gram"] < 3 * 3600:
        pytest.skip(f"this machine is too small or too fast for a run of hours: {plan.stderr}")
    with subprocess.Popen(
        [PROGRAM, *model], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as running:
        said = running.stderr.readline()
        running.kill()
    assert re.match(r"geom-mpi: this will take about \d+:\d\d:\d\d on this machine \(gram \d+:", said), said
    assert "the same command goes on" in said


def test_a_run_of_seconds_is_not_announced(tmp_path):
    finished = run("--model", MODEL, "-o", "out.h5", folder=tmp_path)
    assert "this will take" not in finished.stderr


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
