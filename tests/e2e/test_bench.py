"""geom-mpi bench on the smallest shape: every part runs and is printed. What its numbers are is for tests/bench."""

import importlib.util
import json
import subprocess
import sys

import pytest
from conftest import ENVIRONMENT, PROGRAM, ROOT, run

ROWS = {
    "gemm": "TFLOP/s",
    "copy, bytes read + written": "GB/s",
    "gram": "s",
    "gram / gemm": "",
    "heads": "s",
    "forward, 2048 tokens": "s",
    "peak memory": "GiB",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


def bench(*arguments, folder, **options):
    return run("bench", "--shape", "tiny", *arguments, folder=folder, **options)


def test_every_part_has_its_rows(folder):
    finished = bench("--repeat", 2, "--json", "bench.json", folder=folder)
    assert finished.returncode == 0, finished.stderr
    about = json.loads((folder / "bench.json").read_text())
    rows = {row["name"]: row for row in about["rows"]}
    assert ROWS.items() <= {name: row["unit"] for name, row in rows.items()}.items()
    for name, row in rows.items():
        assert 0 < row["min"] <= row["median"] <= row["max"], name
        assert len(row["values"]) == (1 if name == "peak memory" else 2), name
        assert name in finished.stdout
    assert about["machine"] in finished.stdout


def test_only_the_parts_that_are_named(folder):
    finished = bench("heads", "--repeat", 1, "--json", "-", folder=folder)
    assert finished.returncode == 0, finished.stderr
    assert [row["name"] for row in json.loads(finished.stdout)["rows"]] == ["heads", "peak memory"]


def test_loading_is_timed_against_a_plain_loop(folder):
    assert run("synth", "tiny", "model", folder=folder).returncode == 0
    finished = bench("load", "--model", "model", "--repeat", 2, "--json", "-", folder=folder)
    assert finished.returncode == 0, finished.stderr
    names = [row["name"] for row in json.loads(finished.stdout)["rows"]]
    assert names == ["load, layer stream", "load, plain pread loop", "load, stream / loop", "peak memory"]


@pytest.mark.parametrize(
    "arguments, ranks, said",
    [
        (["speed"], 1, "no part of that name"),
        (["load"], 1, "--model"),
        (["load", "--model", "synth:tiny"], 1, "synthetic weights are not read"),
        ([], 2, "one rank"),
    ],
)
def test_mistakes_are_named(arguments, ranks, said, folder):
    finished = bench(*arguments, ranks=ranks, folder=folder)
    assert finished.returncode == 2
    assert said in finished.stderr


def test_the_readmes_table_is_printed_for_any_shape(folder):
    script = ROOT / "tests" / "bench" / "bench.py"
    arguments = ["--program", PROGRAM, "--shape", "tiny", "--backend", "cpu", "--repeat", 1]
    finished = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    assert "the original scripts know" in finished.stderr
    if importlib.util.find_spec("weightwatcher") is None:
        assert "no weightwatcher" in finished.stderr
    rows = [line for line in finished.stdout.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in rows} == {5}
    for what in ("gram, synth:tiny", "large product", "whole run, gram + heads, 1 → 2 ranks", "against the plan"):
        assert any(what in line for line in rows), what
