"""What a run takes from an earlier one: units of a journal, whatever measures it was for, and measures of a finished
file (--add), to the bits of a file that was made in one run."""

import json

import numpy as np
import pytest
from conftest import FAKES, datasets, listing, run

h5py = pytest.importorskip("h5py")

MODEL = "synth:L7-H8-KV4-hd32-D160-F64-V64"


def start(folder, measures, *arguments, ranks=1, fault=None, model=MODEL):
    """The program with fake measures: gram and heads are the real ones."""
    return run(
        *("--model", model, "-m", measures, "-o", "r.h5", "--json", "about.json", *arguments),
        ranks=ranks,
        folder=folder,
        environment={"GEOM_MPI_FAULT": fault} if fault else None,
        program=FAKES,
    )


def attributes(file):
    with h5py.File(file) as opened:
        return dict(opened.attrs)


@pytest.fixture(scope="module")
def in_one_run(tmp_path_factory):
    """The datasets of a run of these measures that nothing disturbed."""
    done = {}

    def of(measures):
        if measures not in done:
            folder = tmp_path_factory.mktemp("undisturbed")
            finished = start(folder, measures)
            assert finished.returncode == 0, finished.stderr
            done[measures] = datasets(folder / "r.h5")
        return done[measures]

    return of


def bytes_read(folder):
    return json.loads((folder / "about.json").read_text())["bytes_read"]


# --- journals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ranks", "others"), [(2, 1), (1, 3), (3, 2)])
def test_a_killed_gram_is_taken_up_by_a_run_of_more_measures(ranks, others, tmp_path, in_one_run):
    start(tmp_path, "gram", ranks=ranks, fault="error:write:0:0")
    assert listing(tmp_path / "r.h5.journal")
    # gram is done: were any unit of it computed again, this would strike, and were it emitted again, refuse it.
    finished = start(tmp_path, "gram,heads", ranks=others, fault="exception:gram:0:0")
    assert finished.returncode == 0, finished.stderr
    assert "going on from the journal: 8 units are done" in finished.stderr
    assert datasets(tmp_path / "r.h5") == in_one_run("gram,heads")
    assert listing(tmp_path) == ["about.json", "r.h5"]
    whole = tmp_path / "whole"
    whole.mkdir()
    start(whole, "gram,heads")
    digests = [attributes(folder / "r.h5")["weights_digest"] for folder in (tmp_path, whole)]
    assert digests[0] == digests[1], "of all that was read, before and after"


def test_of_two_measures_the_one_that_is_done_is_not_computed_again(tmp_path, in_one_run):
    start(tmp_path, "heads", ranks=2, fault="error:write:1:0")
    start(tmp_path, "gram,heads,fake_step", ranks=3, fault="kill:gram:2:0")
    finished = start(tmp_path, "gram,heads,fake_step", ranks=1, fault="exception:heads:0:0")
    assert finished.returncode == 0, finished.stderr
    assert datasets(tmp_path / "r.h5") == in_one_run("gram,heads,fake_step")


def test_a_measure_that_is_half_done_computes_the_other_half(tmp_path, in_one_run):
    start(tmp_path, "heads,fake_step", ranks=2, fault="kill:heads:1:2")
    finished = start(tmp_path, "heads,fake_step,fake_walk", ranks=3)
    assert finished.returncode == 0, finished.stderr
    assert "going on from the journal" in finished.stderr
    assert datasets(tmp_path / "r.h5") == in_one_run("heads,fake_step,fake_walk")


def test_a_run_of_what_the_journal_has_reads_no_weights(tmp_path, in_one_run):
    start(tmp_path, "gram,heads,fake_walk,fake_globals", ranks=2, fault="error:write:1:0")
    finished = start(tmp_path, "gram,heads,fake_walk,fake_globals", ranks=3)
    assert finished.returncode == 0, finished.stderr
    assert bytes_read(tmp_path) == 0
    assert datasets(tmp_path / "r.h5") == in_one_run("gram,heads,fake_walk,fake_globals")


def test_units_of_measures_that_were_not_asked_for_stay_in_the_journal(tmp_path, in_one_run):
    start(tmp_path, "gram,heads", ranks=2, fault="error:write:0:0")
    finished = start(tmp_path, "gram")
    assert finished.returncode == 0, finished.stderr
    assert "7 units of measures that were not asked for; it stays" in finished.stderr
    assert datasets(tmp_path / "r.h5") == in_one_run("gram")
    assert (tmp_path / "r.h5.journal").is_dir()
    added = start(tmp_path, "gram,heads", "--add", fault="exception:heads:0:0")
    assert added.returncode == 0, added.stderr
    assert datasets(tmp_path / "r.h5") == in_one_run("gram,heads")
    assert listing(tmp_path) == ["about.json", "r.h5"]


# --- finished files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ranks", "others"), [(1, 1), (2, 3), (3, 1)])
@pytest.mark.parametrize(
    ("first", "second"),
    [("gram", "gram,heads"), ("gram", "heads"), ("heads,fake_pairs", "gram,fake_step,fake_walk"), ("heads", "gram")],
)
def test_a_finished_file_is_completed_to_what_one_run_makes(first, second, ranks, others, tmp_path, in_one_run):
    assert start(tmp_path, first, ranks=ranks).returncode == 0
    done = first.split(",")[0]
    finished = start(tmp_path, second, "--add", ranks=others, fault=f"exception:{done}:0:0")
    assert finished.returncode == 0, finished.stderr
    names = ["gram", "heads", "fake_step", "fake_walk", "fake_pairs"]
    union = ",".join(name for name in names if name in f"{first},{second}".split(","))
    assert datasets(tmp_path / "r.h5") == in_one_run(union)
    about = attributes(tmp_path / "r.h5")
    assert about["measures"] == union and int(about["ranks"]) == others
    assert f"{first.replace(',', ', ')} came from an earlier result" in about["weights_digest_missing"]
    assert listing(tmp_path) == ["about.json", "r.h5"]


def test_adding_what_is_there_succeeds_at_once_and_touches_nothing(tmp_path):
    assert start(tmp_path, "gram,heads").returncode == 0
    before = (tmp_path / "r.h5").read_bytes()
    again = start(tmp_path, "heads", "--add", ranks=2)
    assert again.returncode == 0 and "complete already" in again.stdout
    assert (tmp_path / "r.h5").read_bytes() == before


@pytest.mark.parametrize("fault", ["kill:heads:1:1", "kill:write:0:3", "error:heads:0:1", "exception:write:1:2"])
def test_the_old_file_is_untouched_until_the_new_one_is_whole(fault, tmp_path, in_one_run):
    assert start(tmp_path, "gram", ranks=2).returncode == 0
    before = (tmp_path / "r.h5").read_bytes()
    failed = start(tmp_path, "gram,heads", "--add", ranks=2, fault=fault)
    assert failed.returncode != 0
    assert (tmp_path / "r.h5").read_bytes() == before
    finished = start(tmp_path, "gram,heads", "--add", ranks=3)
    assert finished.returncode == 0, finished.stderr
    assert datasets(tmp_path / "r.h5") == in_one_run("gram,heads")
    assert listing(tmp_path) == ["about.json", "r.h5"]


@pytest.mark.parametrize(
    ("arguments", "model", "said"),
    [
        (["--top-k", "3"], MODEL, "top-k was '8' and is '3'"),
        (["--layers", "0:4"], MODEL, "layers was '0:7' and is '0:4'"),
        ([], MODEL + "?seed=9", "model was"),
    ],
)
def test_adding_to_a_result_of_another_run_is_refused_by_the_name_of_the_difference(arguments, model, said, tmp_path):
    assert start(tmp_path, "gram").returncode == 0
    before = (tmp_path / "r.h5").read_bytes()
    for ranks in (1, 2):
        refused = start(tmp_path, "heads", "--add", *arguments, ranks=ranks, model=model)
        assert refused.returncode == 2
        assert said in refused.stderr and refused.stderr.count("geom-mpi: error:") == 1
    assert (tmp_path / "r.h5").read_bytes() == before
    assert listing(tmp_path) == ["about.json", "r.h5"]


def test_adding_to_nothing_and_to_something_else_is_an_error_of_the_input(tmp_path):
    missing = start(tmp_path, "gram", "--add")
    assert missing.returncode == 3 and "--add: r.h5 is not there" in missing.stderr
    (tmp_path / "r.h5").write_text("precious")
    other = start(tmp_path, "gram", "--add")
    assert other.returncode == 3 and "r.h5" in other.stderr
    assert (tmp_path / "r.h5").read_text() == "precious"


def test_a_dry_run_of_an_addition_counts_what_is_missing_alone(tmp_path):
    assert start(tmp_path, "heads").returncode == 0
    finished = start(tmp_path, "gram,heads", "--add", "--dry-run")
    assert finished.returncode == 0, finished.stderr
    plan = finished.stdout
    predicted = next(line for line in plan.splitlines() if "predicted" in line)
    assert "gram" in predicted and "heads" not in predicted


def test_options_that_do_not_change_numbers_do_not_stand_in_the_way(tmp_path, in_one_run):
    assert start(tmp_path, "gram").returncode == 0
    finished = start(tmp_path, "heads", "--add", "--threads", 2, "--memory-budget", "2GiB", ranks=2)
    assert finished.returncode == 0, finished.stderr
    assert datasets(tmp_path / "r.h5") == in_one_run("gram,heads")
    with h5py.File(tmp_path / "r.h5") as file:
        np.testing.assert_array_equal(
            file["run/phase"][()].astype(str).shape, file["run/seconds_min"].shape[:1] + file["run/phase"].shape[1:]
        )
