"""What a person sees while a run is at work: on a terminal, through mpirun, on a narrow one, on none."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

import pytest
from conftest import ENVIRONMENT, MPIEXEC, PROGRAM, run

MODEL = "synth:L4-H4-KV2-hd64-D512-F512-V64"
DRAWN = "\033[K"  # what comes before it, \r, is a line's end to some readers


def seen_on_a_terminal(folder, *arguments, ranks=1, columns=80, term="xterm"):
    """What the standard error shows that is a terminal so wide."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    launcher = [MPIEXEC, "-n", str(ranks)] if ranks > 1 else []
    command = [*launcher, str(PROGRAM), "--model", MODEL, "-o", "r.h5", "--overwrite", *arguments]
    process = subprocess.Popen(
        command, cwd=folder, env={**ENVIRONMENT, "TERM": term}, stdout=subprocess.DEVNULL, stderr=slave
    )
    os.close(slave)
    seen = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # nobody has the other end any more
            break
        if not part:
            break
        seen += part
    os.close(master)
    assert process.wait(timeout=60) == 0, seen
    return seen.decode()


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("columns", [40, 80])
def test_a_bar_is_drawn_on_a_terminal_and_through_mpirun_and_does_not_wrap(tmp_path, ranks, columns):
    seen = seen_on_a_terminal(tmp_path, ranks=ranks, columns=columns)
    bars = [part for part in seen.replace("\r", "").split(DRAWN)[1:] if "%" in part]
    assert bars, seen
    assert all(len(bar) < columns for bar in bars), bars
    assert any(re.search(r"\[[#.]+\]", bar) for bar in bars)
    assert not any(re.match(r"load .*(FLOP|heads)", bar) for bar in bars)


def test_model_and_plan_are_said_at_once(tmp_path):
    for ranks in (1, 2):
        seen = run(
            "--model", MODEL, "-o", "r.h5", "--overwrite", "--layers", "1:3", ranks=ranks, folder=tmp_path
        ).stderr
        assert re.search(r"^model     synth:\S+, layers 1 to 2 of 4 layers, 4 heads, hidden 512$", seen, re.M)
        assert re.search(
            rf"^plan      gram.* on {ranks} rank.* to read, .* of products; result r.h5, .*iB$", seen, re.M
        )


@pytest.mark.parametrize(
    ("arguments", "term"), [([], "dumb"), (["--progress", "lines"], "xterm"), (["--progress", "none"], "xterm")]
)
def test_a_terminal_without_escapes_and_whoever_wants_none_gets_none(tmp_path, arguments, term):
    seen = seen_on_a_terminal(tmp_path, *arguments, term=term)
    assert "\033" not in seen and "plan      " in seen


def test_a_bar_is_drawn_where_there_is_no_terminal_when_it_is_asked_for(tmp_path):
    asked = run("--model", MODEL, "-o", "r.h5", "--progress", "bar", folder=tmp_path)
    assert DRAWN in asked.stderr
    unasked = run("--model", MODEL, "-o", "r.h5", "--overwrite", folder=tmp_path, environment={"TERM": "xterm"})
    assert "\033" not in unasked.stderr
