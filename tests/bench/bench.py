#!/usr/bin/env python3
"""The README's table: whole runs, their parts, the machine's own rates and the original scripts, taking turns in one run.

    python tests/bench/bench.py [--program build/geom-mpi] [--repeat 5] [--large] [--checkpoint FOLDER]
                                [--python PYTHON_WITH_TORCH]

Prints Markdown. Every figure is a median with least and most; ratios are taken within a turn, so that a machine that
slows down slows both sides. --large adds synth:qwen3-32b once (minutes, 8 GiB); --checkpoint adds loading from storage (a
model's folder, or what geom-mpi synth wrote). Without torch the original scripts are left out, said aloud.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SHAPE = "qwen3-0.6b"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, default=HERE.parents[1] / "build" / "geom-mpi")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--checkpoint", type=pathlib.Path)
    parser.add_argument("--python", default=sys.executable, help="has torch, for the original scripts")
    return parser.parse_args()


def say(text):
    print(text, file=sys.stderr, flush=True)


def call(command, folder):
    finished = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True)
    if finished.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: code {finished.returncode}\n{finished.stderr}")
    return finished.stdout


class Bench:
    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.program = arguments.program.resolve()
        self.torch = subprocess.run([arguments.python, "-c", "import torch"], capture_output=True).returncode == 0
        if not self.torch:
            say(f"{arguments.python} has no torch: nothing to compare with")
        self.values = {}
        self.machine = ""

    def note(self, name, value):
        self.values.setdefault(name, []).append(value)

    def rates(self):
        """The machine's own rates, and gram, heads and loading inside one process on all cores."""
        checkpoint = self.arguments.checkpoint
        loading = ["--model", checkpoint.resolve()] if checkpoint else []
        call([self.program, "bench", "--shape", SHAPE, "--repeat", "1", "--json", "bench.json", *loading], self.folder)
        about = json.loads((self.folder / "bench.json").read_text())
        self.machine = about["machine"]
        for row in about["rows"]:
            self.note(row["name"], row["median"])

    def whole(self, ranks, shape=SHAPE, measures="gram,heads"):
        """A run as a user starts it; its JSON object."""
        launcher = ["mpirun", "-n", ranks]
        arguments = ["--model", f"synth:{shape}", "-m", measures, "-o", "r.h5", "--overwrite", "--json", "run.json", "--quiet"]
        call([*launcher, self.program, *arguments], self.folder)
        return json.loads((self.folder / "run.json").read_text())

    def baseline(self, *parts):
        """Seconds of the original scripts' parts, by the name they print."""
        text = call([self.arguments.python, HERE / "torch_baseline.py", SHAPE, *parts], self.folder)
        return {name: float(seconds) for name, seconds in re.findall(r"^\S+ \S+ ([^:]+): ([\d.]+) s", text, re.M)}

    def turn(self):
        self.rates()
        for ranks in (1, 2):
            about = self.whole(ranks)
            self.note(f"run, {ranks}", about["phases"]["total"]["max"])
            self.note(f"gram, {ranks}", about["phases"]["gram"]["max"])
            self.note(f"heads, {ranks}", about["phases"]["heads"]["max"])
            self.note(f"memory, {ranks}", about["peak_memory"] / about["planned_memory"])
        if self.torch:
            seconds = self.baseline("gram", "eig", "kernel")
            scripts_heads = seconds["eig (all heads)"] + seconds["kernel eff rank (all heads)"]
            self.note("scripts gram", seconds["gram"])
            self.note("scripts heads", scripts_heads)
            self.note("gram ratio", seconds["gram"] / self.values["gram"][-1])
            self.note("heads ratio", scripts_heads / self.values["heads"][-1])

    def shown(self, name, unit, digits=2):
        values = self.values.get(name)
        if not values:
            return ""
        return f"{statistics.median(values):.{digits}f} {unit}".rstrip() + f" ({min(values):.{digits}f}–{max(values):.{digits}f})"

    def row(self, *cells):
        print("| " + " | ".join(cells) + " |")

    def table(self):
        cores = os.cpu_count()
        print(f"{self.machine}; {self.arguments.repeat} turns; medians (least–most)\n")
        self.row("what", "geom-mpi", "compared with", "ratio")
        self.row("---", "---", "---", "---")
        self.row(f"gram, synth:{SHAPE}, {cores} cores", self.shown("gram", "s", 3), "original loops: " + self.shown("scripts gram", "s"), self.shown("gram ratio", "×", 1))
        self.row("the same against the machine's large bf16/f32 product", "", self.shown("gemm", "TFLOP/s"), self.shown("gram / gemm", "of its rate"))
        self.row(f"heads with effective ranks, {cores} cores", self.shown("heads", "s"), "original eig + kernel: " + self.shown("scripts heads", "s", 1), self.shown("heads ratio", "×", 1))
        if self.arguments.checkpoint:
            self.row("loading alone, cold", self.shown("load, layer stream", "GB/s"), "plain pread loop: " + self.shown("load, plain pread loop", "GB/s"), self.shown("load, stream / loop", "of its rate"))
        self.row("memory of the machine, copied by all threads", "", self.shown("copy, bytes read + written", "GB/s", 1), "")
        self.row("whole run, gram + heads, 1 → 2 ranks", f"{self.shown('run, 1', 's')} → {self.shown('run, 2', 's')}", "", self.scaling("run"))
        for part in ("gram", "heads"):
            self.row(f"{part}, 1 → 2 ranks", f"{self.shown(part + ', 1', 's', 3)} → {self.shown(part + ', 2', 's', 3)}", "", self.scaling(part))
        self.row("peak memory of a rank against the plan, 1 and 2 ranks", "", "", f"{self.shown('memory, 1', '')}, {self.shown('memory, 2', '')}")

    def scaling(self, part):
        return f"{statistics.median(self.values[part + ', 1']) / statistics.median(self.values[part + ', 2']):.2f} ×"

    def large(self):
        for measures in ("gram", "gram,heads"):
            say(f"synth:qwen3-32b, {measures}")
            about = self.whole(2, "qwen3-32b", measures)
            phases = {name: round(times["max"], 1) for name, times in about["phases"].items()}
            self.row(f"synth:qwen3-32b, {measures}, 2 ranks", f"{phases['total']} s", f"{phases}", f"{about['peak_memory'] / 2**30:.2f} GiB a rank, planned {about['planned_memory'] / 2**30:.2f}")


def main():
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments, pathlib.Path(folder))
        for turn in range(arguments.repeat):
            say(f"turn {turn + 1} of {arguments.repeat}")
            bench.turn()
        bench.table()
        if arguments.large:
            bench.large()


if __name__ == "__main__":
    main()
