"""What a person and a script see of the program: help, summary, JSON, plans, a file of options."""

import json
import os
import pathlib
import re
import subprocess

import numpy as np
import pytest
from conftest import ENVIRONMENT, GOLDEN, PROGRAM, datasets, golden, listing, run

h5py = pytest.importorskip("h5py")

MODEL = golden("qwen3-tiny")
RANKS = pytest.mark.parametrize("ranks", [1, 3])
EVERY_MEASURE = {"gram", "heads", "match", "spectra", "variation", "residual"}

OPTIONS = """--model --revision --family -m --measures --layers --backend --memory-budget --threads -o --output
--overwrite --resume --fresh --add --anchor --json --deadline --dry-run --progress --quiet --config --version --help"""


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
    said = run("--version", folder=tmp_path).stdout
    assert re.fullmatch(r"geom-mpi \d+\.\d+\.\d+( \(commit [0-9a-f]{7,40}\+?\))?\n", said)
    here = pathlib.Path(__file__).resolve().parent
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True)
    if head.returncode == 0 and "GEOM_BUILD" in os.environ:  # built from this very repository, as ctest does it
        assert said.split("commit ")[1].rstrip("+)\n") == head.stdout[:12]


def test_the_file_says_which_program_made_it_and_how_tensors_and_key_heads_are_called(tmp_path):
    assert run("--model", golden("qwen3moe-tiny"), "-o", "r.h5", folder=tmp_path).returncode == 0
    with h5py.File(tmp_path / "r.h5") as file:
        assert file.attrs["program_commit"] in run("--version", folder=tmp_path).stdout
        names = dict(line.split(" ") for line in file.attrs["tensors"])
        assert names["q_proj"] == "model.layers.{layer}.self_attn.q_proj.weight"
        assert names["gate_proj"] == "model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight"
        assert names["embed_tokens"] == "model.embed_tokens.weight"
        config = json.loads(file.attrs["config"])
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        assert file["kv_head"][()].tolist() == [head // (heads // kv_heads) for head in range(heads)]
        coordinates = []
        file.visititems(
            lambda path, item: coordinates.append(item) if item.attrs.get("CLASS") == b"DIMENSION_SCALE" else None
        )
        named = [scale for scale in coordinates if not scale.attrs["NAME"].startswith(b"This is a netCDF dimension")]
        assert named and all(scale.attrs["units"] == "1" and scale.attrs["long_name"] for scale in named)


def test_no_directions_are_kept_when_none_are_asked_for(tmp_path):
    of_heads = ["--model", MODEL, "-m", "gram,heads,match"]  # residual keeps one direction at least
    assert run(*of_heads, "-o", "without.h5", "--top-k", 0, folder=tmp_path).returncode == 0
    assert run(*of_heads, "-o", "with.h5", folder=tmp_path).returncode == 0
    without, whole = datasets(tmp_path / "without.h5"), datasets(tmp_path / "with.h5")
    gone = set(whole) - set(without)
    assert {"heads/right_dirs", "heads/left_dirs", "direction", "hidden", "analysis/angle_mean_cos"} <= gone
    assert all("dirs" in name or "angle" in name or "overlap" in name for name in gone - {"direction", "hidden"})
    assert without.items() <= whole.items(), "the rest is the same to the bit"
    assert run("analyze", "without.h5", folder=tmp_path).returncode == 0


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


@pytest.mark.parametrize("command", [["info", "--ranks", "3"], ["--dry-run"]])
def test_a_plan_is_an_object_too(tmp_path, command):
    ranks = 1 if command[0] == "info" else 3
    finished = run(*command, "--model", MODEL, "--json", "-", ranks=ranks, folder=tmp_path)
    plan = json.loads(finished.stdout)
    assert "imbalance" in finished.stderr and listing(tmp_path) == []
    assert plan["ranks"] == 3 == len(plan["by_rank"]) and plan["layers"] == [0, 6]
    assert plan["bytes_read"] == sum(rank["bytes_read"] for rank in plan["by_rank"])
    assert set(plan["predicted_seconds"]) == EVERY_MEASURE
    assert run("--model", MODEL, "-o", "r.h5", folder=tmp_path).returncode == 0
    assert 0 < (tmp_path / "r.h5").stat().st_size - plan["result_bytes"] < 1 << 18, "names and texts come on top"


def test_a_plan_for_more_than_this_machine_has_is_printed_and_says_so(tmp_path):
    model = ["info", "--model", "synth:llama-3.1-405b"]
    alone = run(*model, folder=tmp_path)
    assert alone.returncode == 0, alone.stderr
    assert "126 layers" in alone.stdout and "the result has" in alone.stdout
    if "more than this machine has" in alone.stdout:
        assert "budget none" in alone.stdout
    many = json.loads(run(*model, "--ranks", 64, "--json", "-", folder=tmp_path).stdout)
    assert len(many["by_rank"]) == 64 and max(rank["memory"] for rank in many["by_rank"]) < 2**37
    assert run(*model, "--memory-budget", "64MiB", folder=tmp_path).returncode == 2, "a budget that was given counts"


def test_a_plan_that_cannot_be_written_is_an_error(tmp_path):
    with open("/dev/full", "w") as full:
        command = [PROGRAM, "info", "--model", MODEL, "--json", "-"]
        for arguments in (command, command[:4]):
            finished = subprocess.run(
                arguments, cwd=tmp_path, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True
            )
            assert finished.returncode == 5, finished.stderr


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
    assert set(predicted(small.stdout)) == EVERY_MEASURE
    large = run("info", "--model", "synth:qwen3-32b", "--memory-budget", "128GiB", ranks=ranks, folder=tmp_path)
    for measure, seconds in predicted(large.stdout).items():
        assert seconds > 10 * predicted(small.stdout)[measure], measure
    # lm_head twice, for its spectrum and for the cross entropy; of variation a rank reads the layer before its first
    read = {1: "62.5 GiB", 3: "64.3 GiB"}[ranks]
    assert f"reading {read}, exchange and writing come on top" in large.stdout
    alone = run("info", "--model", MODEL, "-m", "heads", ranks=ranks, folder=tmp_path)
    assert set(predicted(alone.stdout)) == {"heads"}


def test_a_prediction_is_of_the_right_order(tmp_path):
    model = ["--model", "synth:L12-H8-KV4-hd128-D1024-F64", "--threads", 1, "-m", "gram,heads"]
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
        said = next((line for line in running.stderr if "this will take" in line), "")
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


def test_arrays_and_the_home_folder_are_understood_in_a_toml_file_and_info_reads_one(tmp_path):
    (tmp_path / "home").mkdir()
    text = 'model = "synth:tiny"\noutput = "~/r.h5"\nlayers = [1, 3]\nmeasures = ["gram", "heads"]\n'
    (tmp_path / "run.toml").write_text(text + 'memory-budget = "4G"\n')
    environment = {"HOME": str(tmp_path / "home")}
    for arguments in (["info", "--config", "run.toml"], ["--config", "run.toml", "info"]):
        plan = run(*arguments, folder=tmp_path, environment=environment)
        assert plan.returncode == 0 and "budget 4.0 GiB a rank" in plan.stdout, plan.stderr
        assert set(predicted(plan.stdout)) == {"gram", "heads"}
    assert run("--config", "run.toml", folder=tmp_path, environment=environment).returncode == 0
    with h5py.File(tmp_path / "home" / "r.h5") as file:
        assert file["gram/gram"].shape == (2, 2, 4)


def test_commands_are_found_after_options_and_help_is_one(tmp_path):
    assert run("--model", "synth:tiny", "info", folder=tmp_path).returncode == 0
    help_text = run("--help", folder=tmp_path).stdout
    asked = run("help", folder=tmp_path)
    assert asked.returncode == 0 and asked.stdout == help_text
    for word in ["qwen3_moe", "mixtral", "llama-3.1-405b", "qwen2.5-72b"]:
        assert word in help_text


def test_an_unknown_key_in_the_toml_file_is_an_error(tmp_path):
    (tmp_path / "run.toml").write_text(f'model = "{MODEL}"\nlayer = "0:3"\n')
    finished = run("--config", "run.toml", folder=tmp_path)
    assert finished.returncode == 2
    assert "TOML file" in finished.stderr and "key layer," in finished.stderr and "is layers meant?" in finished.stderr
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


def test_memory_stays_within_what_was_planned_with_many_directions(tmp_path):
    """32 MiB of directions a layer, which go through the journal while the next ones are computed."""
    line = ["--model", "synth:L6-H16-KV8-hd64-D4096-F64-V64", "-m", "heads", "--top-k", 64, "-o", "out.h5"]
    about = json.loads(run(*line, "--json", "-", "--threads", 2, folder=tmp_path).stdout)
    assert about["peak_memory"] <= 1.02 * about["planned_memory"]


def test_memory_stays_within_what_was_planned(tmp_path):
    """Blocks of 200 MB, against which what libraries take on their own is small."""
    line = ["--model", "synth:L12-H16-KV8-hd128-D2048-F64", "-m", "gram", "-o", "out.h5", "--json", "-"]
    about = json.loads(run(*line, ranks=2, folder=tmp_path).stdout)
    assert about["peak_memory"] <= 1.1 * about["planned_memory"]
