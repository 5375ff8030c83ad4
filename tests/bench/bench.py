#!/usr/bin/env python3
"""The README's table: whole runs, their parts, the machine's own rates and the original scripts, taking turns.

    python tests/bench/bench.py [--program build/geom-mpi] [--shape qwen3-0.6b] [--backend auto] [--repeat 5] [--large]
                                [--checkpoint FOLDER] [--python PYTHON_WITH_TORCH]

Prints Markdown. Every figure is a median with least and most; ratios are taken within a turn, so that a machine that
slows down slows both sides. --program may be the folder of an unpacked bundle (tests/gpu/bundle.sh). --large adds
synth:qwen3-32b once (minutes and 8 GiB on two cores); --checkpoint adds loading from storage (a model's folder, or what
geom-mpi synth wrote). What cannot be had is left out, said aloud: the original scripts without torch or at a shape that
they do not know, WeightWatcher (PyPI weightwatcher) where it is not installed, 1 -> 2 ranks on CUDA where there are
fewer than two GPUs. WeightWatcher is timed on 4 layers and its time multiplied.
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
SCRIPTS = ("qwen3-0.6b", "qwen3-4b", "qwen3-32b")  # shapes that torch_baseline.py knows
WATCHED_LAYERS = 4


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, default=HERE.parents[1] / "build" / "geom-mpi")
    parser.add_argument("--shape", default="qwen3-0.6b", help="as after synth:")
    parser.add_argument("--backend", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--checkpoint", type=pathlib.Path)
    parser.add_argument("--python", default=sys.executable, help="has torch, for the original scripts")
    return parser.parse_args()


def say(text):
    print(text, file=sys.stderr, flush=True)


def call(command, folder, check=True):
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"} if os.geteuid() == 0 else {}
    environment = {**os.environ, **allowed}
    finished = subprocess.run(
        [str(part) for part in command], cwd=folder, env=environment, capture_output=True, text=True
    )
    if not check:
        return finished
    if finished.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: code {finished.returncode}\n{finished.stderr}")
    return finished.stdout


class Bench:
    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.shape, self.program = arguments.shape, arguments.program.resolve()
        self.scripts = self.shape in SCRIPTS
        if not self.scripts:
            say(f"the original scripts know {', '.join(SCRIPTS)}, not {self.shape}: nothing to compare with")
        elif call([arguments.python, "-c", "import torch"], folder, check=False).returncode != 0:
            say(f"{arguments.python} has no torch: nothing to compare with")
            self.scripts = False
        self.watched = self.checkpoint_to_watch()
        self.ranks = (1, 2) if self.two_ranks_may_run() else (1,)
        self.values = {}
        self.machine = self.backend = self.gemm = ""

    def command(self, *arguments, ranks=1):
        """A subcommand starts alone, a run by the launcher."""
        if self.program.is_dir():
            return [self.program / "run", "-n", ranks, "geom-mpi", *arguments]
        launcher = [] if arguments[0] in ("bench", "synth") else ["mpirun", "-n", ranks]
        return [*launcher, self.program, *arguments]

    def checkpoint_to_watch(self):
        """The first layers of the made-up model, for WeightWatcher; None without it."""
        if call([self.arguments.python, "-c", "import weightwatcher"], self.folder, check=False).returncode != 0:
            say(f"{self.arguments.python} has no weightwatcher: its analyze() is not compared with")
            return None
        watched = self.folder / "watched"
        call(self.command("synth", f"{self.shape}?layers={WATCHED_LAYERS}", watched), self.folder)
        return watched

    def two_ranks_may_run(self):
        plan = self.command("--model", "synth:tiny", "--backend", self.arguments.backend, "--dry-run", ranks=2)
        finished = call(plan, self.folder, check=False)
        if finished.returncode == 0:
            return True
        if "would share a GPU" not in finished.stderr:
            sys.exit(f"{' '.join(map(str, plan))}: code {finished.returncode}\n{finished.stderr}")
        say("two ranks would share a GPU: 1 -> 2 ranks is left out")
        return False

    def note(self, name, value):
        self.values.setdefault(name, []).append(value)

    def rates(self):
        """The machine's own rates, and gram, heads and loading inside one process on all cores."""
        checkpoint = self.arguments.checkpoint
        loading = ["--model", checkpoint.resolve()] if checkpoint else []
        arguments = [
            "--shape",
            self.shape,
            "--backend",
            self.arguments.backend,
            "--repeat",
            "1",
            "--json",
            self.folder / "bench.json",
        ]
        call(self.command("bench", *arguments, *loading), self.folder)
        about = json.loads((self.folder / "bench.json").read_text())
        self.machine, self.backend = about["machine"], about["backend"]
        self.gemm = next(row["name"].split(", ")[1] for row in about["rows"] if row["name"].startswith("gemm, "))
        for row in about["rows"]:
            self.note(row["name"], row["median"])

    def whole(self, ranks, shape, measures="gram,heads"):
        """A run as a user starts it; its JSON object."""
        files = ["-o", self.folder / "r.h5", "--overwrite", "--json", self.folder / "run.json"]
        arguments = [
            "--model",
            f"synth:{shape}",
            "-m",
            measures,
            "--backend",
            self.arguments.backend,
            *files,
            "--quiet",
        ]
        call(self.command(*arguments, ranks=ranks), self.folder)
        return json.loads((self.folder / "run.json").read_text())

    def baseline(self, *parts):
        """Seconds of the original scripts' parts, by the name they print; of the MLP's alignment, of one pair."""
        text = call([self.arguments.python, HERE / "torch_baseline.py", self.shape, *parts], self.folder)
        seconds = {name: float(value) for name, value in re.findall(r"^\S+ \S+ ([^:]+): ([\d.]+) s", text, re.M)}
        pair = re.search(r"MLP alignment .* from ([\d.]+) s\)", text)
        return {**seconds, **({"MLP alignment of a pair": float(pair[1])} if pair else {})}

    def weightwatcher(self, layers):
        """Seconds of its analyze() on so many layers, from those of a few."""
        text = call([self.arguments.python, HERE / "weightwatcher_baseline.py", self.watched], self.folder)
        return float(re.search(r"matrices: ([\d.]+) s", text)[1]) * layers / WATCHED_LAYERS

    def turn(self):
        self.rates()
        for ranks in self.ranks:
            about = self.whole(ranks, self.shape)
            self.note(f"run, {ranks}", about["phases"]["total"]["max"])
            self.note(f"gram, {ranks}", about["phases"]["gram"]["max"])
            self.note(f"heads, {ranks}", about["phases"]["heads"]["max"])
            self.note(f"memory, {ranks}", about["peak_memory"] / about["planned_memory"])
            if "peak_device_memory" in about:
                self.note(f"GPU memory, {ranks}", about["peak_device_memory"] / about["planned_device_memory"])
        spectra = self.whole(max(self.ranks), self.shape, "spectra")
        self.note("spectra", spectra["phases"]["spectra"]["max"])
        if self.watched:
            self.note("weightwatcher", self.weightwatcher(spectra["layers"][1] - spectra["layers"][0]))
            self.note("weightwatcher ratio", self.values["weightwatcher"][-1] / self.values["spectra"][-1])
        two_pairs = self.whole(max(self.ranks), f"{self.shape}?layers=3", "variation")
        self.note("variation", two_pairs["phases"]["variation"]["max"] / 2)
        if self.scripts:
            seconds = self.baseline("gram", "eig", "kernel", "spectra", "variation")
            scripts_heads = seconds["eig (all heads)"] + seconds["kernel eff rank (all heads)"]
            self.note("scripts gram", seconds["gram"])
            self.note("scripts heads", scripts_heads)
            self.note("scripts spectra", seconds["spectra of 7 families (all layers)"])
            self.note("spectra ratio", self.values["scripts spectra"][-1] / self.values["spectra"][-1])
            self.note("scripts variation", seconds["MLP alignment of a pair"])
            self.note("variation ratio", self.values["scripts variation"][-1] / self.values["variation"][-1])
            self.note("gram ratio", seconds["gram"] / self.values["gram"][-1])
            self.note("heads ratio", scripts_heads / self.values["heads"][-1])

    def shown(self, name, unit, digits=2):
        values = self.values.get(name)
        if not values:
            return ""
        return (
            f"{statistics.median(values):.{digits}f} {unit}".rstrip()
            + f" ({min(values):.{digits}f}–{max(values):.{digits}f})"
        )

    def row(self, *cells):
        print("| " + " | ".join(cells) + " |")

    def table(self):
        on = "one GPU" if self.backend == "cuda" else f"{os.cpu_count()} cores"
        print(f"{self.machine}; {self.arguments.repeat} turns; medians (least–most)\n")
        self.row("what", "geom-mpi", "compared with", "ratio")
        self.row("---", "---", "---", "---")
        self.row(
            f"gram, synth:{self.shape}, {on}",
            self.shown("gram", "s", 3),
            self.of_scripts("the original scripts' loops", "gram"),
            self.shown("gram ratio", "×", 1),
        )
        self.row(
            "the same, as a rate",
            "",
            f"the machine's large product ({self.gemm}): {self.shown('gemm', 'TFLOP/s')}",
            self.shown("gram / gemm", "of it"),
        )
        self.row(
            f"heads with effective ranks, {on}",
            self.shown("heads", "s"),
            self.of_scripts("the scripts' eigenvalues and kernel ranks", "heads"),
            self.shown("heads ratio", "×", 1),
        )
        self.row(
            f"spectra, the embedding's too, {max(self.ranks)} ranks",
            self.shown("spectra", "s"),
            self.of_scripts("the scripts' singular values, without it", "spectra"),
            self.shown("spectra ratio", "×", 1),
        )
        if self.watched:
            self.row(
                "the same",
                "",
                f"WeightWatcher's analyze(), without it: {self.shown('weightwatcher', 's', 1)}",
                self.shown("weightwatcher ratio", "×", 1),
            )
        self.row(
            f"variation of a pair of layers, all gauges, {max(self.ranks)} ranks",
            self.shown("variation", "s"),
            self.of_scripts("the scripts' rotation of the MLP alone", "variation"),
            self.shown("variation ratio", "×", 1),
        )
        if self.arguments.checkpoint:
            self.row(
                "loading alone, cold",
                self.shown("load, layer stream", "GB/s"),
                "a plain `pread` loop: " + self.shown("load, plain pread loop", "GB/s"),
                self.shown("load, stream / loop", "of it"),
            )
        memory = "the GPU's memory, copied" if self.backend == "cuda" else "the machine's memory, copied by all threads"
        self.row(memory, "", self.shown("copy, bytes read + written", "GB/s", 1), "")
        self.row("whole run, gram + heads" + self.of_ranks(), self.over_ranks("run", 2), "", self.scaling("run"))
        for part in ("gram", "heads"):
            self.row(part + " of a whole run" + self.of_ranks(), self.over_ranks(part, 3), "", self.scaling(part))
        for memory in ("memory", "GPU memory"):
            if f"{memory}, 1" in self.values:
                ranks = f"{' and '.join(map(str, self.ranks))} rank{'s' * (len(self.ranks) > 1)}"
                self.row(
                    f"peak {memory} of a rank against the plan, {ranks}",
                    "",
                    "",
                    ", ".join(self.shown(f"{memory}, {ranks}", "") for ranks in self.ranks),
                )

    def of_scripts(self, what, part):
        return f"{what}: {self.shown(f'scripts {part}', 's', 1)}" if self.scripts else ""

    def of_ranks(self):
        return ", 1 → 2 ranks" if len(self.ranks) > 1 else ", 1 rank"

    def over_ranks(self, part, digits):
        return " → ".join(self.shown(f"{part}, {ranks}", "s", digits) for ranks in self.ranks)

    def scaling(self, part):
        if len(self.ranks) == 1:
            return ""
        return f"{statistics.median(self.values[part + ', 1']) / statistics.median(self.values[part + ', 2']):.2f} ×"

    def large(self):
        ranks = self.ranks[-1]
        for measures in ("gram", "gram,heads"):
            say(f"synth:qwen3-32b, {measures}")
            about = self.whole(ranks, "qwen3-32b", measures)
            phases = {name: round(times["max"], 1) for name, times in about["phases"].items()}
            memory = "; ".join(
                f"{about['peak_' + which] / 2**30:.2f} GiB{kind}, planned {about['planned_' + which] / 2**30:.2f}"
                for which, kind in (("memory", ""), ("device_memory", " of GPU memory"))
                if "peak_" + which in about
            )
            self.row(
                f"synth:qwen3-32b, {measures}, {ranks} rank{'s' * (ranks > 1)}",
                f"{phases['total']} s",
                f"{phases}",
                f"a rank {memory}",
            )


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
