"""Nothing lost, nothing hung: kills, stops, exceptions, full disks, and what a resumed run makes of them.

In CI a sample; GEOM_ALL_FAULTS=1 runs all of them (50 kills, 32 faults).
"""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

import pytest
from conftest import ENVIRONMENT, MPIEXEC, PROGRAM, datasets, listing, run

h5py = pytest.importorskip("h5py")

ALL = os.environ.get("GEOM_ALL_FAULTS") == "1"
MODEL = "synth:L7-H8-KV4-hd32-D160-F64-V64"
PHASES = ["load", "exchange", "gram", "write"]


def start(folder, ranks, *arguments, fault=None):
    return subprocess.Popen(
        [
            MPIEXEC,
            "-n",
            str(ranks),
            str(PROGRAM),
            "--model",
            MODEL,
            *(arguments if "-o" in arguments else ("-o", "r.h5", *arguments)),
        ],
        cwd=folder,
        env={**ENVIRONMENT, **({"GEOM_MPI_FAULT": fault} if fault else {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finished = run("--model", MODEL, "-o", "r.h5", folder=folder)
    assert finished.returncode == 0, finished.stderr
    return datasets(folder / "r.h5")


def ranks_of(launcher):
    """Process ids of the ranks a launcher has started."""
    children = pathlib.Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return [int(child) for child in children]


def kill_a_rank(launcher, delay):
    """SIGKILL for a random rank `delay` seconds after the ranks are there: the name is absent or valid all along."""
    deadline = time.monotonic() + 20
    while not ranks_of(launcher) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(delay)
    with contextlib.suppress(IndexError, ProcessLookupError, FileNotFoundError):  # it was faster
        os.kill(random.choice(ranks_of(launcher)), signal.SIGKILL)


@pytest.mark.parametrize("seed", range(50 if ALL else 12))
def test_a_killed_run_resumed_on_another_number_of_ranks_gives_the_same_bits(seed, tmp_path, undisturbed):
    random.seed(seed)
    ranks = random.choice([2, 3])
    if seed % 3 == 0:  # at a random moment
        launcher = start(tmp_path, ranks)
        kill_a_rank(launcher, random.uniform(0.0, 0.6))
    else:  # at a random place; two in three of these while writing
        phase = random.choice(PHASES[:3]) if seed % 3 == 1 else "write"
        visits = {"load": 3, "exchange": 3, "gram": 2, "write": 14}[phase]
        launcher = start(tmp_path, ranks, fault=f"kill:{phase}:{random.randrange(ranks)}:{random.randrange(visits)}")
    launcher.communicate(timeout=60)
    if (tmp_path / "r.h5").exists():
        assert datasets(tmp_path / "r.h5") == undisturbed
    else:
        resumed = run("--model", MODEL, "-o", "r.h5", ranks=random.choice([1, 4]), folder=tmp_path)
        assert resumed.returncode == 0, resumed.stderr
    assert datasets(tmp_path / "r.h5") == undisturbed
    assert listing(tmp_path) == ["r.h5"]


@pytest.mark.parametrize("rank", [0, 1] if ALL else [None])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", ["exception", "abort", "kill", "stop"])
def test_a_fault_on_one_rank_ends_all_and_is_named(kind, phase, rank, tmp_path):
    if rank is None:  # in CI first and last rank take turns
        rank = (PHASES.index(phase) + len(kind)) % 2
    begun = time.monotonic()
    launcher = start(tmp_path, 2, "--deadline", "5", fault=f"{kind}:{phase}:{rank}:0")
    _, errors = launcher.communicate(timeout=60)
    assert time.monotonic() - begun < (35 if kind == "stop" else 30)
    assert launcher.returncode != 0
    assert not (tmp_path / "r.h5").exists()
    ours = [line for line in errors.splitlines() if line.startswith("geom-mpi: rank")]
    # A rank that is gone without a word is named by the launcher, the phase by a rank that is left.
    assert f"rank {rank}" in errors
    assert any(f", {phase}: " in line or ", wait: " in line for line in ours), errors
    if kind == "exception":
        assert ours[0].startswith(f"geom-mpi: rank {rank} on ") and "a fault that was asked for" in ours[0]
    if kind == "stop":
        assert f"rank {rank} on" in ours[0] and "does not answer" in ours[0]


def wait_until_stopped(launcher, rank):
    """Until SIGSTOP has reached a rank."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        ranks = ranks_of(launcher)
        if len(ranks) > rank and pathlib.Path(f"/proc/{ranks[rank]}/stat").read_text().split(") ")[1][0] == "T":
            return ranks[rank]
        time.sleep(0.01)
    pytest.fail(f"rank {rank} was not stopped")


@pytest.mark.parametrize("phase", ["load", "heads", "gram", "write"])
def test_waiting_for_a_slow_rank_is_timed_as_waiting(phase, tmp_path):
    launcher = start(tmp_path, 2, "--json", "-", fault=f"stop:{phase}:1:0")
    process = wait_until_stopped(launcher, 1)
    time.sleep(3)
    os.kill(process, signal.SIGCONT)
    output, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 0, errors
    apart = {name: times["max"] - times["min"] for name, times in json.loads(output)["phases"].items()}
    assert apart[phase] >= 2.5 and apart["wait"] >= 2.5, apart
    for name in {"load", "exchange", "gram", "heads", "assemble", "write"} - {phase}:
        assert apart[name] < 2, f"nobody waits in {name}"


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_ends_orderly_with_75_and_the_next_run_goes_on(number, tmp_path, undisturbed):
    launcher = start(tmp_path, 2, fault="stop:load:1:2")
    deadline = time.monotonic() + 20
    while len(list(tmp_path.glob("r.h5.journal/*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    for rank in ranks_of(launcher):
        os.kill(rank, number)
        os.kill(rank, signal.SIGCONT)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 75, errors
    assert "goes on from the journal r.h5.journal" in errors and not (tmp_path / "r.h5").exists()
    resumed = run("--model", MODEL, "-o", "r.h5", ranks=3, folder=tmp_path)
    assert resumed.returncode == 0 and "going on from the journal" in resumed.stderr
    assert datasets(tmp_path / "r.h5") == undisturbed


def stopped_run(folder):
    """A folder with a journal of a run that was killed while it wrote."""
    launcher = start(folder, 2, fault="kill:write:1:0")
    launcher.communicate(timeout=60)
    assert (folder / "r.h5.journal").is_dir()


def test_a_journal_of_other_options_is_refused_by_name_and_fresh_starts_anew(tmp_path, undisturbed):
    stopped_run(tmp_path)
    refused = run("--model", MODEL, "-o", "r.h5", "--top-k", "3", folder=tmp_path)
    assert refused.returncode == 2
    assert "top-k was '8' and is '3'" in refused.stderr and "--fresh" in refused.stderr
    other = run("--model", MODEL + "?seed=7", "-o", "r.h5", folder=tmp_path)
    assert other.returncode == 2 and "model was" in other.stderr
    assert run("--model", MODEL, "-o", "r.h5", "--fresh", folder=tmp_path).returncode == 0
    assert datasets(tmp_path / "r.h5") == undisturbed
    assert listing(tmp_path) == ["r.h5"]


def test_resume_succeeds_at_once_when_the_result_is_there_and_the_same(tmp_path):
    assert run("--model", MODEL, "-o", "r.h5", folder=tmp_path).returncode == 0
    before = (tmp_path / "r.h5").read_bytes()
    again = run("--model", MODEL, "-o", "r.h5", "--resume", folder=tmp_path)
    assert again.returncode == 0 and "complete already" in again.stdout
    assert (tmp_path / "r.h5").read_bytes() == before
    assert run("--model", MODEL, "-o", "r.h5", "--resume", "--top-k", "3", folder=tmp_path).returncode == 5


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of a size of the test's choosing; skipped aloud where it cannot be mounted."""
    mounted = tmp_path / "disk"
    mounted.mkdir()

    def resize(size):
        options = f"remount,size={size}" if mounted.is_mount() else f"size={size}"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mounted)]
        if subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("a tmpfs cannot be mounted here (needs root)")
        return mounted

    yield resize
    subprocess.run(["umount", "-l", str(mounted)], capture_output=True)


@pytest.mark.parametrize("short", ["1 byte", "4 KiB", "half"])
def test_a_full_disk_ends_with_5_and_with_more_room_the_run_goes_on(short, small_disk, tmp_path, undisturbed):
    disk = small_disk("64m")
    stopped_run(disk)
    abandoned = sum(path.stat().st_size for path in disk.glob("r.h5.tmp.*"))
    journal = sum(-(-path.stat().st_size // 4096) * 4096 for path in disk.rglob("rank-*"))
    assert abandoned > 0
    needed = -(-abandoned // 4096) * 4096
    room = {"1 byte": needed - 1, "4 KiB": needed - 4096, "half": needed // 2}[short]
    for file in disk.glob("r.h5.tmp.*"):
        file.unlink()
    # Two new journal files, a page each, belong to the run as well.
    small_disk((journal + 2 * 4096 + room) // 4096 * 4096)
    journal_before = {path.name: path.read_bytes() for path in disk.rglob("rank-*")}
    full = run("--model", MODEL, "-o", "r.h5", ranks=2, folder=disk)
    assert full.returncode == 5, full.stderr
    assert "space" in full.stderr
    assert not list(disk.glob("r.h5")) and not list(disk.glob("r.h5.tmp.*"))
    for name, content in journal_before.items():
        assert (disk / "r.h5.journal" / name).read_bytes() == content
    small_disk("64m")
    resumed = run("--model", MODEL, "-o", "r.h5", ranks=2, folder=disk)
    assert resumed.returncode == 0, resumed.stderr
    assert datasets(disk / "r.h5") == undisturbed


@pytest.mark.parametrize("place", ["write:0:0", "write:1:3"])
def test_an_output_folder_that_vanishes_ends_with_5(place, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    launcher = start(tmp_path, 2, "-o", "results/r.h5", fault=f"stop:{place}")
    rank = int(place.split(":")[1])
    process = wait_until_stopped(launcher, rank)
    shutil.rmtree(folder)
    os.kill(process, signal.SIGCONT)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 5, errors
    assert "results/r.h5" in errors
    assert listing(tmp_path) == []


def test_phase_times_add_up_to_the_whole_run(tmp_path):
    finished = run(
        "--model",
        "synth:L8-H16-KV8-hd64-D512-F64-V64",
        "-m",
        "gram,heads",
        "-o",
        "r.h5",
        "--json",
        "-",
        ranks=2,
        folder=tmp_path,
    )
    assert finished.returncode == 0, finished.stderr
    about = json.loads(finished.stdout)
    phases = {name: times["mean"] for name, times in about["phases"].items()}
    total = phases.pop("total")
    assert 0.95 * total <= sum(phases.values()) <= 1.001 * total
    assert about["peak_memory"] > 0 and about["bytes_read"] == 8 * 24 * 64 * 512 * 2
    assert set(about["versions"]) == {"geom-mpi", "mpi", "hdf5", "products"}
