"""Writing: every system call that can fail fails once, file systems fill up, two runs meet, names are taken. A run ends
with an error or with every number right; it never hangs and never crashes.

In CI a sample; GEOM_ALL_FAULTS=1 sweeps over every call of every rank with every error.
"""

import json
import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import subprocess
import time

import pytest
from conftest import ENVIRONMENT, MPIEXEC, PROGRAM, ROOT, datasets, listing, run, run_that_stands_still

h5py = pytest.importorskip("h5py")

ALL = os.environ.get("GEOM_ALL_FAULTS") == "1"
FAILING_CALLS = os.environ.get("GEOM_FAILING_CALLS", str(ROOT / "build" / "tests" / "libfailing_calls.so"))
MODEL = "synth:L5-H4-KV2-hd32-D160-F64-V64"
KINDS = ["EIO", "ENOSPC", "EINTR", "SHORT"]
USAGE, OUTPUT = 2, 5
DEADLINE = 20


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finished = run("--model", MODEL, "-o", "r.h5", folder=folder)
    assert finished.returncode == 0, finished.stderr
    return datasets(folder / "r.h5")


# --- every call -------------------------------------------------------------------------------------------------------


def faulty_run(folder, ranks, at=-1, rank=0, kind="EIO", log=None):
    """A run of which one call that writes below `folder` fails. Preloaded into the ranks alone."""
    if not pathlib.Path(FAILING_CALLS).exists():
        pytest.skip(f"{FAILING_CALLS} is not there: build failing_calls, or name it in GEOM_FAILING_CALLS")
    settings = {"LD_PRELOAD": FAILING_CALLS, "FAULT_FOLDER": folder, "FAULT_AT": at, "FAULT_RANK": rank}
    settings |= {"FAULT_KIND": kind} | ({"FAULT_LOG": log} if log else {})
    launcher = [MPIEXEC, "-n", str(ranks)] if ranks > 1 else []
    command = [*launcher, "env", *(f"{name}={value}" for name, value in settings.items()), str(PROGRAM)]
    command += ["--model", MODEL, "-o", "r.h5", "--json", "r.json", "--deadline", str(DEADLINE)]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=DEADLINE + 40)


def calls_of(folder, ranks):
    """(rank, number) of every call that writes, of a run in which none fails."""
    log = folder.parent / f"{folder.name}.log"
    finished = faulty_run(folder, ranks, log=log)
    assert finished.returncode == 0, finished.stderr
    return [tuple(map(int, line.split()[:2])) for line in log.read_text().splitlines()]


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    return {ranks: calls_of(tmp_path_factory.mktemp(f"calls{ranks}"), ranks) for ranks in (1, 2)}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_which_any_call_that_writes_fails_is_right_or_an_error(calls, undisturbed, ranks, kind, tmp_path):
    chosen = calls[ranks] if ALL else random.Random(kind).sample(calls[ranks], 5)
    outcomes = {}
    for rank, number in chosen:
        folder = tmp_path / f"{rank}-{number}"
        folder.mkdir()
        begun = time.monotonic()
        finished = faulty_run(folder, ranks, number, rank, kind)
        where = f"{kind} at call {number} of rank {rank}: {finished.returncode}\n{finished.stderr}"
        assert time.monotonic() - begun < DEADLINE, where
        assert finished.returncode in (0, OUTPUT), where
        if finished.returncode == 0:
            assert datasets(folder / "r.h5") == undisturbed, where
            assert json.loads((folder / "r.json").read_text())["complete"] == 1, where
        elif (folder / "r.h5").exists():
            assert datasets(folder / "r.h5") == undisturbed, where
        if finished.returncode == OUTPUT:
            assert "geom-mpi: error:" in finished.stderr, where
        outcomes[finished.returncode] = outcomes.get(finished.returncode, 0) + 1
        shutil.rmtree(folder)
    print(f"{kind}, {ranks} ranks: {len(chosen)} calls; by exit code {outcomes}")


# --- file systems that fill up ----------------------------------------------------------------------------------------


@pytest.fixture
def ext2(tmp_path):
    """A file system without fallocate, so that nothing is reserved; skipped aloud where it cannot be mounted."""
    mounted, image = tmp_path / "disk", tmp_path / "image"
    mounted.mkdir()

    def mount(kibibytes):
        image.write_bytes(b"\0" * (kibibytes << 10))
        for command in (
            ["mkfs.ext2", "-q", "-m", "0", "-F", image],
            ["mount", "-o", "loop", "-t", "ext2", image, mounted],
        ):
            try:
                done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
            except FileNotFoundError as missing:
                pytest.skip(f"an ext2 cannot be made here: {missing}")
            if done.returncode != 0:
                pytest.skip(f"an ext2 cannot be mounted here: {done.stderr.strip()}")
        return mounted

    yield mount
    subprocess.run(["umount", "-l", str(mounted)], capture_output=True)


@pytest.mark.parametrize("left", [16, 64, 160, 320])
def test_an_ext2_that_is_nearly_full_ends_with_5_or_a_right_result(ext2, left, undisturbed):
    disk = ext2(8192)
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(b"\0" * (free - ((left + 48) << 10)))  # 48 KiB: of the file system's own
    finished = run("--model", MODEL, "-o", "r.h5", ranks=2, folder=disk)
    assert finished.returncode in (0, OUTPUT), finished.stderr
    if finished.returncode == 0:
        assert datasets(disk / "r.h5") == undisturbed
    else:
        assert not (disk / "r.h5").exists()


def test_a_folder_for_temporary_files_that_fills_up_does_no_harm(tmp_path, undisturbed):
    """Nothing of a run is kept there; Open MPI's shared file pointers used to be, and ended in a SIGBUS."""
    small = tmp_path / "small"
    small.mkdir()
    if (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(small)], capture_output=True).returncode
        != 0
    ):
        pytest.skip("a tmpfs cannot be mounted here (needs root)")
    try:
        process = stopped_run(tmp_path, "write:0:0", environment={"TMPDIR": str(small)})
        free = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
        (small / "filler").write_bytes(b"\0" * free)
        code, errors = go_on(process)
        assert code == 0, errors
        assert datasets(tmp_path / "r.h5") == undisturbed
    finally:
        subprocess.run(["umount", "-l", str(small)], capture_output=True)


# --- the name ---------------------------------------------------------------------------------------------------------


def stopped_run(folder, place, *arguments, environment=None):
    return run_that_stands_still(folder, place, "--model", MODEL, "-o", "r.h5", *arguments, environment=environment)


def go_on(process):
    os.kill(process.pid, signal.SIGCONT)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.parametrize("arguments", [[], ["--overwrite"], ["--fresh"]])
def test_a_second_run_to_the_same_file_is_refused_and_does_the_first_no_harm(tmp_path, undisturbed, arguments):
    first = stopped_run(tmp_path, "write:0:3")
    before = listing(tmp_path)
    second = run("--model", MODEL, "-o", "r.h5", *arguments, folder=tmp_path)
    assert second.returncode == OUTPUT, second.stderr
    for word in ["is writing it", f"process {first.pid}", socket.gethostname()]:
        assert word in second.stderr
    assert listing(tmp_path) == before
    code, errors = go_on(first)
    assert code == 0, errors
    assert datasets(tmp_path / "r.h5") == undisturbed
    assert listing(tmp_path) == ["r.h5"]


def test_the_lock_of_a_killed_run_means_nothing(tmp_path, undisturbed):
    first = stopped_run(tmp_path, "write:0:3")
    first.kill()
    first.communicate()
    assert (tmp_path / "r.h5.lock").exists() and list(tmp_path.glob("r.h5.tmp.*"))
    assert run("--model", MODEL, "-o", "r.h5", folder=tmp_path).returncode == 0
    assert datasets(tmp_path / "r.h5") == undisturbed
    assert listing(tmp_path) == ["r.h5"]


def test_fresh_removes_what_a_killed_run_left(tmp_path):
    first = stopped_run(tmp_path, "write:0:3")
    first.kill()
    first.communicate()
    shutil.rmtree(tmp_path / "r.h5.journal")
    assert run("--model", MODEL, "-o", "r.h5", "--fresh", folder=tmp_path).returncode == 0
    assert listing(tmp_path) == ["r.h5"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_appears_meanwhile_is_replaced_only_with_overwrite(tmp_path, undisturbed, overwrite):
    process = stopped_run(tmp_path, "write:0:3", *(["--overwrite"] if overwrite else []))
    (tmp_path / "r.h5").write_text("somebody's")
    code, errors = go_on(process)
    if overwrite:
        assert code == 0 and datasets(tmp_path / "r.h5") == undisturbed, errors
        return
    assert code == OUTPUT and "r.h5 exists" in errors
    assert (tmp_path / "r.h5").read_text() == "somebody's"
    (tmp_path / "r.h5").unlink()
    assert run("--model", MODEL, "-o", "r.h5", folder=tmp_path).returncode == 0, "the journal was kept"


@pytest.mark.parametrize("kind", ["device", "pipe", "socket", "link to a device"])
def test_what_is_no_file_is_never_replaced(tmp_path, kind):
    place = tmp_path / "r.h5"
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "device":
            place = pathlib.Path("/dev/null")
        elif kind == "pipe":
            os.mkfifo(place)
        elif kind == "socket":
            listener.bind(str(place))
        else:
            place.symlink_to("/dev/null")
        finished = run("--model", MODEL, "-o", place, "--overwrite", folder=tmp_path)
    assert finished.returncode == OUTPUT and "device" in finished.stderr, finished.stderr
    assert not place.is_file() and pathlib.Path("/dev/null").is_char_device()


@pytest.mark.parametrize("name", ["r.h5", "./r.h5", "sub/../r.h5", "link.h5"])
def test_json_that_names_the_result_is_a_mistake(tmp_path, name):
    (tmp_path / "sub").mkdir()
    os.symlink("r.h5", tmp_path / "link.h5")
    finished = run("--model", MODEL, "-o", "r.h5", "--json", name, folder=tmp_path)
    assert finished.returncode == USAGE and "--json" in finished.stderr, finished.stderr
    assert not (tmp_path / "r.h5").exists()


@pytest.mark.parametrize("arguments", [["--json", "-"], ["--json", "/dev/full"], []])
def test_an_output_that_is_full_ends_with_5(tmp_path, arguments):
    with open("/dev/full", "w") as full:
        command = [str(PROGRAM), "--model", MODEL, "-o", "r.h5", *arguments]
        finished = subprocess.run(
            command, cwd=tmp_path, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert finished.returncode == OUTPUT, finished.stderr


# --- the journal ------------------------------------------------------------------------------------------------------


def killed_run(folder):
    process = stopped_run(folder, "write:0:0")
    process.kill()
    process.communicate()


def test_resume_removes_the_journal_that_a_kill_after_the_rename_left(tmp_path):
    killed_run(tmp_path)
    shutil.copytree(tmp_path / "r.h5.journal", tmp_path / "kept")
    assert run("--model", MODEL, "-o", "r.h5", folder=tmp_path).returncode == 0
    shutil.copytree(tmp_path / "kept", tmp_path / "r.h5.journal")
    shutil.rmtree(tmp_path / "kept")
    again = run("--model", MODEL, "-o", "r.h5", "--resume", folder=tmp_path)
    assert again.returncode == 0 and "complete already" in again.stdout
    assert listing(tmp_path) == ["r.h5"]


@pytest.mark.parametrize("damage", ["head", "tail"])
def test_a_damaged_journal_is_mentioned(tmp_path, undisturbed, damage):
    killed_run(tmp_path)
    file = next((tmp_path / "r.h5.journal").iterdir())
    content = bytearray(file.read_bytes())
    content[3 if damage == "head" else -3] ^= 0xFF
    file.write_bytes(content)
    finished = run("--model", MODEL, "-o", "r.h5", folder=tmp_path)
    assert finished.returncode == 0 and "journal is damaged" in finished.stderr, finished.stderr
    assert datasets(tmp_path / "r.h5") == undisturbed


def test_a_pipe_in_the_journals_folder_holds_nothing_up(tmp_path, undisturbed):
    killed_run(tmp_path)
    os.mkfifo(tmp_path / "r.h5.journal" / "rank-00000.7")
    finished = run("--model", MODEL, "-o", "r.h5", folder=tmp_path)
    assert finished.returncode in (0, OUTPUT), finished.stderr
    assert "rank-00000.7" in finished.stderr
    if finished.returncode == 0:
        assert datasets(tmp_path / "r.h5") == undisturbed


# --- what a process is refused, or waits for --------------------------------------------------------------------------


def test_a_rank_that_stands_still_before_mpi_starts_does_not_outlive_the_deadline(tmp_path):
    here = [str(PROGRAM), "--model", MODEL, "-o", "r.h5", "--deadline", "3"]
    command = [MPIEXEC, "-n", "1", *here, ":", "-n", "1", "sh", "-c", 'kill -STOP $$; exec "$@"', "sh", *here]
    begun = time.monotonic()
    finished = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 70, finished.stderr
    assert "--deadline" in finished.stderr and time.monotonic() - begun < 30


@pytest.mark.parametrize("processes", [12, 14, 16])
def test_threads_that_cannot_be_started_are_one_error(tmp_path, processes):
    """As another user: the limit does not hold for root."""
    if os.geteuid() != 0 or not shutil.which("setpriv") or not shutil.which("prlimit"):
        pytest.skip("needs root, setpriv and prlimit")
    os.chmod(tmp_path, 0o777)
    command = ["setpriv", "--reuid=65533", "--clear-groups", "prlimit", f"--nproc={processes}", str(PROGRAM)]
    command += ["--model", MODEL, "--threads", "64", "-o", f"/tmp/geom-mpi-{os.getpid()}.h5"]
    finished = subprocess.run(command, cwd="/", env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert finished.returncode == USAGE, finished.stderr
    assert "--threads" in finished.stderr


def test_an_address_space_that_is_too_small_for_the_threads_is_one_error(tmp_path):
    def started(threads, gibibytes):
        limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (gibibytes << 30, gibibytes << 30))
        arguments = ["--model", MODEL, "--threads", threads, "-o", f"{threads}.h5", "--overwrite"]
        return run(*arguments, folder=tmp_path, preexec_fn=limit)

    # what one thread needs goes by the libraries: CUDA's take gigabytes of it
    enough = next(limit for limit in range(2, 9) if started(1, limit).returncode == 0)
    finished = started(8 * enough, enough)
    assert finished.returncode == USAGE and "ulimit -v" in finished.stderr, finished.stderr


def test_messages_are_short(tmp_path):
    long = "x" * 100_000
    for arguments in (["--model", "synth:" + long], ["--model", "synth:tiny", "-m", long], ["--" + long]):
        finished = run(*arguments, folder=tmp_path)
        assert finished.returncode == USAGE
        assert len(finished.stderr) < 2048
