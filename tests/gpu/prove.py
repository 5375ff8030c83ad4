#!/usr/bin/env python3
"""Proves or refutes, on a machine with a GPU, what the CUDA backend promises: rates, agreement, memory, overlap, ranks that
share the card, sanitizers, profile. One table last; full logs (at most 8 files, a few MB) in a folder.
  tests/gpu/prove.py ROOT LOGS [--only NAME,...] [--minutes M] [--rehearse]
ROOT: an unpacked bundle (tests/gpu/bundle.sh) or a build folder; there it lies in geom/tests/gpu/prove.py.
--minutes: of all steps together (9); what no longer fits is skipped. --rehearse: tiny shapes, on the emulator.
numpy and h5py compare files, torch times the original loops; what is missing is said.
Steps, by worth, with seconds on an H100 as estimated (most allowed):
  about      5 (30)   the card, its tools, their versions
  gram      15 (90)   Qwen3-32B's shape against a plain 8192^3 bf16 product
  agree     30 (120)  CPU against CUDA on the golden checkpoints and qwen3-0.6b; the same bits twice
  heads     25 (120)  4096 heads of Qwen3-32B's shape
  loops     60 (110)  the original loops in torch, on the same card
  whole     40 (150)  gram + heads of synth:qwen3-32b, from start to renamed file; memory of the card; overlap
  ranks     45 (150)  2 and 4 ranks on one card, NCCL and staged, against one
  tests     40 (120)  gpu_tests
  budget    25 (90)   synth:qwen3-8b within 2 GiB: same result
  overlap   25 (90)   files: loading and heads at once against the slower of both
  memcheck  60 (100)  compute-sanitizer
  racecheck 60 (100)  the same, races in shared memory
  profile   45 (120)  ncu: tensor pipes and DRAM of the hot kernels
Exit code: 0 nothing failed, 1 something did, 2 usage.
"""

import argparse
import csv
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

try:
    import h5py
    import numpy
except ImportError:
    h5py = None

TESTS = pathlib.Path(__file__).resolve().parents[1]  # tests/
GOLDEN = ["qwen3-tiny", "qwen2-tiny", "llama-tiny", "qwen3moe-tiny"]
SHAPES = {
    "large": "qwen3-32b",
    "middle": "qwen3-8b",
    "small": "qwen3-0.6b",
    "files": "L24-H64-KV8-hd128-D5120-F128-V128",
    "budget": "2GiB",
}
TINY = {
    "large": "L4-H4-KV2-hd16-D64-F64-V64",
    "middle": "L6-H8-KV2-hd32-D320-F64-V64",
    "small": "tiny",
    "files": "L4-H4-KV2-hd16-D64-F64-V64",
    "budget": "90MiB",
}
TIMED_OUT = r"^timed out|no rank has made progress for \d+ s \(--deadline\)"  # of a failure's words and its output
KEPT = 20_000  # characters of a command's output in the log


class Skip(Exception):
    pass


class Failed(Exception):
    def __init__(self, why, text=""):
        super().__init__(why)
        self.text = text


def which(tool):
    places = [
        "/usr/local/cuda/bin",
        *map(str, sorted(pathlib.Path("/opt/nvidia").glob("nsight-compute/*"), reverse=True)),
    ]
    return shutil.which(tool, path=os.pathsep.join([os.environ.get("PATH", ""), *places]))


class Prover:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.shapes = TINY if options.rehearse else SHAPES
        self.root, self.logs = options.root.resolve(), options.logs.resolve()
        self.bundle = (self.root / "run").is_file()
        self.logs.mkdir(parents=True, exist_ok=True)
        for old in ("sanitizer.log", "ncu-gram.csv", "ncu-heads.csv"):
            (self.logs / old).unlink(missing_ok=True)
        self.log = open(self.logs / "prove.log", "w")  # noqa: SIM115, as long as the program runs
        self.rows, self.figures, self.seconds = [], {}, {}
        self.device_memory = {}  # of every run on the card: allocated / planned
        self.until = time.monotonic() + 60 * options.minutes
        self.step, self.step_until = "", self.until

    # --- commands -----------------------------------------------------------------------------------------------------

    def program(self, name):
        places = [self.root / "bin" / name] if self.bundle else [self.root / name, self.root / "tests" / name]
        for place in places:
            if os.access(place, os.X_OK):
                return place
        raise Skip(f"{name} is not in {self.root}")

    def command(self, name, *arguments, ranks=1, under=()):
        """`under`: what starts the program in each rank, a sanitizer say."""
        path = self.program(name)
        launcher = (
            [self.root / "run", "-n", ranks]
            if self.bundle
            else ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", ranks]
        )
        return [str(part) for part in (*launcher, *under, path, *arguments)]

    def call(self, command, timeout=None, environment=None, check=True):
        """Exit code (None: ran out of time) and output; no longer than the step has."""
        left = self.step_until - time.monotonic()
        timeout = min(timeout or left, left)
        if timeout <= 1:
            raise Skip("no time left")
        settings = " ".join(f"{name}={value}" for name, value in (environment or {}).items())
        self.log.write(f"\n$ {settings} {' '.join(command)}\n")
        self.log.flush()
        begin = time.monotonic()
        everything = {
            **os.environ,
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            **(environment or {}),
        }
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=everything,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                code = None
                for sign in (signal.SIGTERM, signal.SIGKILL):  # mpirun ends its ranks when it is asked to
                    try:
                        os.killpg(process.pid, sign)
                        process.wait(10)
                        break
                    except (subprocess.TimeoutExpired, ProcessLookupError):
                        continue
            output.seek(0)
            text = output.read()
        seconds = time.monotonic() - begin
        shown = text if len(text) <= KEPT else text[: KEPT // 2] + "\n[...]\n" + text[-KEPT // 2 :]
        self.log.write(f"{shown}\n# code {code}, {seconds:.2f} s\n")
        self.log.flush()
        if check and code != 0:
            last = next((line for line in reversed(text.splitlines()) if "error" in line.lower()), text.strip()[-200:])
            raise Failed(f"{'timed out' if code is None else f'code {code}'}: {last.strip()[:160]}", text)
        return code, text, seconds

    def bench(self, *parts, shape, repeat, backend="cuda"):
        file = self.folder / "bench.json"
        self.call(
            self.command(
                "geom-mpi",
                "bench",
                *parts,
                "--shape",
                shape,
                "--backend",
                backend,
                "--repeat",
                1 if self.options.rehearse else repeat,
                "--json",
                file,
            )
        )
        about = json.loads(file.read_text())
        self.figures.setdefault("bench", []).append(about)
        return {row["name"]: row for row in about["rows"]}

    def run(self, model, name, *arguments, ranks=1, environment=None, backend="cuda"):
        """A run's JSON object; its file is NAME.h5."""
        file, about = self.folder / f"{name}.h5", self.folder / f"{name}.json"
        begin = time.monotonic()
        self.call(
            self.command(
                "geom-mpi",
                "--model",
                model,
                "--backend",
                backend,
                "-o",
                file,
                "--overwrite",
                "--json",
                about,
                "--quiet",
                *arguments,
                ranks=ranks,
            ),
            environment=environment,
        )
        result = json.loads(about.read_text())
        result["wall"] = time.monotonic() - begin
        self.figures.setdefault("runs", {})[f"{self.step}: {name}"] = {
            key: result.get(key)
            for key in (
                "command",
                "exchange_path",
                "phases",
                "wall",
                "passes",
                "peak_memory",
                "planned_memory",
                "peak_device_memory",
                "planned_device_memory",
                "versions",
            )
        }
        if backend == "cuda" and result["backend"] != "cuda":
            raise Failed(f"ran on {result['backend']}")
        if result.get("planned_device_memory"):
            self.device_memory[f"{name}, {ranks} ranks"] = (
                result["peak_device_memory"] / result["planned_device_memory"]
            )
        return result

    # --- files --------------------------------------------------------------------------------------------------------

    def datasets(self, name):
        found = {}
        with h5py.File(self.folder / f"{name}.h5") as file:
            file.visititems(
                lambda path, item: (
                    found.__setitem__(path, item[()])
                    if isinstance(item, h5py.Dataset) and not path.startswith("run/")
                    else None
                )
            )
        return found

    def differing(self, one, other):
        """Names of what has other bits in the second file, outside /run."""
        a, b = self.datasets(one), self.datasets(other)
        same = lambda x, y: x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
        return sorted(set(a) ^ set(b)) + [
            name for name in sorted(set(a) & set(b)) if not same(numpy.asarray(a[name]), numpy.asarray(b[name]))
        ]

    def same_bits(self, what, one, others):
        if h5py is None:
            return self.row(what, None, "this Python has no h5py", "same bits")
        wrong = {other: names for other in others if (names := self.differing(one, other))}
        text = (
            f"{len(others)} file{'s' * (len(others) > 1)} equal"
            if not wrong
            else "; ".join(
                f"{other}: {', '.join(names[:3])}{'...' if len(names) > 3 else ''}" for other, names in wrong.items()
            )
        )
        self.row(what, not wrong, text, "same bits")

    # --- the table ----------------------------------------------------------------------------------------------------

    def row(self, what, good, measured, bound="", timed=False):
        """good: True, False, None (skipped) or "shown", a figure without a bound. Timed figures of a rehearsal mean nothing."""
        verdict = {True: "PASS", False: "FAIL", None: "SKIPPED", "shown": "SHOWN"}[good]
        if timed and self.options.rehearse and good is not None:
            verdict = "REHEARSED"
        self.rows.append((verdict, self.step, what, measured, bound))
        print(f"{verdict:9} {what}: {measured}{f' ({bound})' if bound else ''}", flush=True)

    def table(self):
        text = f"\n{self.figures.get('about', '')}\n"
        width = max([len(row[2]) for row in self.rows], default=0)
        for verdict, step, what, measured, bound in self.rows:
            short = measured if len(measured) <= 130 else measured[:127] + "..."
            text += f"{verdict:9} {step:9} {what:{width}}  {short}{f'  [{bound}]' if bound else ''}\n"
        count = lambda verdict: sum(row[0] == verdict for row in self.rows)
        text += f"{count('PASS')} passed, {count('FAIL')} failed, {count('SKIPPED')} skipped, {count('SHOWN')} shown; seconds: "
        return text + ", ".join(f"{name} {seconds:.0f}" for name, seconds in self.seconds.items()) + "\n"

    def do(self, name, most, step):
        self.step, begin = name, time.monotonic()
        if begin > self.until - 5:
            return self.row("all of it", None, "no time left")
        self.step_until = min(self.until, begin + most)
        print(f"--- {name} (at most {self.step_until - begin:.0f} s)", flush=True)
        try:
            step(self)
        except Skip as why:
            self.row("all or the rest of it", None, str(why))
        except Failed as why:
            self.row("a command", False, str(why))
        except Exception as error:  # a mistake of this script must not cost the steps behind it
            self.row("this script", False, f"{type(error).__name__}: {error}")
        self.seconds[name] = time.monotonic() - begin
        for file in self.folder.glob("*.h5"):
            file.unlink()
        self.save()

    def save(self):
        (self.logs / "figures.json").write_text(
            json.dumps(
                {**self.figures, "rows": self.rows, "device memory": self.device_memory, "seconds": self.seconds},
                indent=1,
            )
        )
        (self.logs / "table.txt").write_text(self.table())

    def finish(self):
        if self.device_memory:
            self.step = "memory"
            worst = max(self.device_memory.items(), key=lambda entry: abs(entry[1] - 1))
            self.row(
                "GPU memory allocated / planned, every run",
                abs(worst[1] - 1) <= 0.1,
                f"{min(self.device_memory.values()):.3f} to {max(self.device_memory.values()):.3f} of {len(self.device_memory)} runs; worst: {worst[0]}",
                "within 10 %",
            )
        self.save()
        print(self.table(), flush=True)
        self.log.close()
        return 1 if any(row[0] == "FAIL" for row in self.rows) else 0


# --- steps ------------------------------------------------------------------------------------------------------------


def about(p):
    lines = []
    if smi := which("nvidia-smi"):
        fields = "name,driver_version,memory.total,memory.used,clocks.sm,clocks.mem,temperature.gpu,power.draw"
        lines.append(p.call([smi, f"--query-gpu={fields}", "--format=csv,noheader"], check=False)[1].strip())
    else:
        p.row("nvidia-smi", None, "not found: memory of the whole card is not watched")
    code, text, _ = p.call(
        [
            sys.executable,
            "-c",
            "import torch; print('torch', torch.__version__, 'CUDA', torch.version.cuda, 'NCCL', torch.cuda.nccl.version() if torch.cuda.is_available() else '-')",
        ],
        check=False,
    )
    p.torch = code == 0
    lines.append(text.strip() if p.torch else "no torch: nothing to compare loops with")
    lines.append(
        f"python {sys.version.split()[0]}, "
        + (f"h5py {h5py.__version__}" if h5py else "no numpy or no h5py: files are not compared")
    )
    for tool in ("compute-sanitizer", "ncu"):
        lines.append(f"{tool}: {which(tool) or 'not found'}")
    file = p.folder / "about.json"
    p.call(
        p.command(
            "geom-mpi",
            "--model",
            "synth:tiny",
            "-m",
            "gram",
            "--backend",
            "cuda",
            "-o",
            p.folder / "about.h5",
            "--json",
            file,
        )
    )
    result = json.loads(file.read_text())
    lines.append(
        f"{result['devices'][0]}; {', '.join(f'{name} {version}' for name, version in result['versions'].items())}".replace(
            "\n", " "
        )
    )
    p.nccl = tuple(map(int, re.findall(r"\d+", result["versions"].get("nccl", ""))))
    p.figures["about"] = "\n".join(lines)
    print(p.figures["about"])


def gram(p):
    rows = p.bench("gemm", "copy", "gram", shape=p.shapes["large"], repeat=7)
    plain = next(row for name, row in rows.items() if re.match(r"gemm, .* 8192 x 8192 x 8192", name))["median"]
    rate = next(row for name, row in rows.items() if re.match(r"gram, .* half the matrix", name))["median"]
    p.gram = rows["gram"]["median"]
    spread = f"{1e3 * rows['gram']['min']:.1f} to {1e3 * rows['gram']['max']:.1f} ms"
    p.row(
        f"gram of {p.shapes['large']} / plain 8192^3 bf16 product",
        rate / plain >= 0.75,
        f"{rate / plain:.3g} ({rate:.3g} of {plain:.3g} TFLOP/s)",
        ">= 0.75, aim 0.9",
        timed=True,
    )
    p.row("the same in time", "shown", f"{1e3 * p.gram:.1f} ms ({spread})", "aim 35 ms", timed=True)
    p.row("copy on the card, read + written", "shown", f"{rows['copy, bytes read + written']['median']:.0f} GB/s")


def worst_of_allowed(cpu, gpu):
    """The largest difference in units of what is allowed, and of what."""
    found = {}
    close = lambda name, allowed: found.__setitem__(name, difference(gpu[name], cpu[name], allowed))

    def difference(a, b, allowed):
        if a.shape != b.shape or not numpy.array_equal(numpy.isnan(a), numpy.isnan(b)):
            return float("inf")
        parts = numpy.abs(a - b) / numpy.maximum(allowed, 1e-300)
        return float(numpy.nanmax(parts)) if numpy.isfinite(parts).any() else 0.0

    norms = numpy.sqrt(numpy.einsum("llh->lh", cpu["gram/gram"]))
    close("gram/gram", 1e-5 * norms[:, None] * norms[None])
    sigma = cpu["heads/singular_values"]
    for name in ("singular_values", "sym_eigs", "eigvals_re", "eigvals_im"):
        close(f"heads/{name}", 1e-9 * sigma[..., :1])
    for name in ("eff_rank", "eff_rank_energy", "stable_rank", "asymmetry", "fro_sq"):
        close(f"heads/{name}", 1e-9 * numpy.abs(cpu[f"heads/{name}"]))
    # A direction is determined where its singular value stands alone.
    apart = numpy.full(sigma.shape, numpy.inf)
    gaps = sigma[..., :-1] - sigma[..., 1:]
    apart[..., 1:] = gaps
    apart[..., :-1] = numpy.minimum(apart[..., :-1], gaps)
    for name in ("right_dirs", "left_dirs"):
        count = cpu[f"heads/{name}"].shape[2]
        alone = (apart > 1e-4 * sigma[..., :1])[..., :count, None]
        found[f"heads/{name}"] = difference(
            numpy.where(alone, gpu[f"heads/{name}"], 0), numpy.where(alone, cpu[f"heads/{name}"], 0), 1e-6
        )
    return max(((value, name) for name, value in found.items()), key=lambda entry: entry[0])


def agree(p):
    models = {name: TESTS / "data" / "golden" / name for name in GOLDEN if (TESTS / "data" / "golden" / name).is_dir()}
    if len(models) < len(GOLDEN):
        p.row("golden checkpoints", None, f"{len(models)} of {len(GOLDEN)} are in {TESTS / 'data' / 'golden'}")
    models[p.shapes["small"]] = f"synth:{p.shapes['small']}"
    worst, twice = [], []
    for name, model in models.items():
        p.run(model, f"{name}-cpu", backend="cpu")
        p.run(model, name)
        p.run(model, f"{name}-again", "--threads", 2)
        if h5py is None:
            continue
        worst.append((*worst_of_allowed(p.datasets(f"{name}-cpu"), p.datasets(name)), name))
        twice += [f"{name}: {path}" for path in p.differing(name, f"{name}-again")]
    if h5py is None:
        return p.row(
            "CPU and CUDA agree; twice the same bits",
            None,
            f"{3 * len(models)} runs ended well; this Python has no h5py to compare",
        )
    p.figures["agree"] = worst
    value, path, name = max(worst)
    p.row(
        f"CPU and CUDA, {len(worst)} models",
        value <= 1,
        f"{value:.2g} of what is allowed ({path}, {name})",
        "<= 1: gram 1e-5, heads 1e-9, directions 1e-6",
    )
    p.row(
        f"CUDA twice, {len(worst)} models", not twice, "same bits" if not twice else "; ".join(twice[:3]), "same bits"
    )


def heads(p):
    rows = p.bench("heads", shape=p.shapes["large"], repeat=3)
    p.heads, p.heads_first = rows["heads"]["median"], rows["heads"]["values"][0]
    p.row(
        f"heads of {p.shapes['large']}",
        p.heads <= 3,
        f"{p.heads:.2f} s ({rows['heads']['min']:.2f} to {rows['heads']['max']:.2f})",
        "<= 3 s",
        timed=True,
    )


def loops(p):
    script = TESTS / "bench" / "torch_baseline.py"
    if not getattr(p, "torch", True) or not script.exists():
        raise Skip("no torch, or no tests/bench/torch_baseline.py")
    shape, parts = ("qwen3-0.6b", ["gram"]) if p.options.rehearse else (p.shapes["large"], ["gram", "eig", "kernel"])
    _, text, _ = p.call([sys.executable, "-u", str(script), shape, *parts], check=False)
    seconds = {name: float(value) for name, value in re.findall(r"^\S+ \S+ ([^:]+): ([\d.]+) s", text, re.M)}
    p.figures["loops"] = seconds
    ours = getattr(p, "gram", None), getattr(p, "heads", None)
    if "gram" in seconds and ours[0]:
        p.row(
            "gram against the original loops",
            seconds["gram"] / ours[0] >= 100,
            f"{seconds['gram'] / ours[0]:.0f} x ({seconds['gram']:.2f} s)",
            ">= 100 x",
            timed=True,
        )
    else:
        p.row("gram against the original loops", None, "the loops or step gram did not end")
    parts = [seconds[name] for name in ("eig (all heads)", "kernel eff rank (all heads)") if name in seconds]
    if parts and ours[1]:
        whole = "" if len(parts) == 2 else "; eigenvalues alone, the kernels' ranks took too long"
        p.row(
            "heads against the original loops",
            sum(parts) / ours[1] >= 30,
            f"{sum(parts) / ours[1]:.0f} x ({sum(parts):.0f} s, scaled{whole})",
            ">= 30 x",
            timed=True,
        )
    else:
        p.row("heads against the original loops", None, "the loops or step heads did not end")


def phases(about, *names):
    return sum(about["phases"][name]["max"] for name in names)


def overlap_row(p, what, loading, computing, both):
    slower = max(loading, computing)
    p.row(
        what,
        both <= 1.15 * slower,
        f"{both / slower:.3f} (both {both:.3f} s; loading {loading:.3f}, heads {computing:.3f})",
        "<= 1.15 of the slower",
        timed=True,
    )


def whole(p):
    model = f"synth:{p.shapes['large']}"
    watch, smi = None, which("nvidia-smi")
    if smi:
        watch = subprocess.Popen(
            [smi, "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "100"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        time.sleep(0.5)
    try:
        runs = [p.run(model, "whole", "-m", "gram,heads")]
    finally:
        if watch:
            watch.terminate()
            used = [int(line) for line in watch.communicate()[0].split() if line.isdigit()]
    best = runs[0]
    parts = ", ".join(
        f"{name} {best['phases'][name]['max']:.2f}"
        for name in best["phases"]
        if best["phases"][name]["max"] >= 0.005 and name != "total"
    )
    left = [file.name for file in p.folder.glob("whole*") if file.name not in ("whole.h5", "whole.json")]
    p.row(
        f"gram + heads of {model}, start to renamed file",
        not left,
        f"{best['wall']:.2f} s of wall clock, {best['phases']['total']['max']:.2f} s in the program"
        + (f"; left behind: {left}" if left else ""),
    )
    p.row("its phases", "shown", parts)
    p.row(
        "its GPU memory",
        abs(best["peak_device_memory"] / best["planned_device_memory"] - 1) <= 0.1,
        f"{best['peak_device_memory'] / 2**30:.2f} GiB, planned {best['planned_device_memory'] / 2**30:.2f}",
        "within 10 %",
    )
    if smi and used:
        more = max(used) - used[0] - best["planned_device_memory"] / 2**20
        p.row(
            "the whole card by nvidia-smi, beyond the plan",
            "shown",
            f"{more:+.0f} MiB (context, libraries)",
            timed=True,
        )
    p.row(
        "its host memory",
        "shown",
        f"{best['peak_memory'] / 2**30:.2f} GiB, planned {best['planned_memory'] / 2**30:.2f}",
    )
    runs.append(p.run(model, "whole-again", "-m", "gram,heads"))
    p.same_bits(f"{model} twice", "whole", ["whole-again"])
    loading = p.run(model, "load", "-m", "gram")
    if not hasattr(p, "heads_first"):
        return p.row(f"overlap, {model}", None, "step heads has not told what heads take alone")
    both = min(phases(run, "load", "exchange", "heads") for run in runs)
    overlap_row(p, f"overlap, {model}", phases(loading, "load", "exchange"), p.heads_first, both)


def ranks(p):
    model = f"synth:{p.shapes['small']}"
    p.run(model, "one")
    staged = {"GEOM_MPI_SHARE_GPU": "1"}
    for count in (2, 4):
        result = p.run(model, f"staged-{count}", ranks=count, environment=staged)
        if "staged" not in result["exchange_path"]:
            raise Failed(f"exchanged by {result['exchange_path']}, not staged")
    p.same_bits("2 and 4 ranks on one card, staged, against one", "one", ["staged-2", "staged-4"])
    nccl_ranks(p, model)
    for name, environment in (("staged_on_gpu", staged), ("nccl", getattr(p, "nccl_way", None))):
        if environment is None:
            continue
        script, settings = environment if isinstance(environment, tuple) else ((), environment)
        code, text, _ = p.call(
            p.command("mpi_tests", "--gtest_color=no", f"--gtest_filter=*{name}*", ranks=2, under=script),
            timeout=60,
            environment=settings,
            check=False,
        )
        what = f"mpi_tests, {name}, 2 ranks"
        if name == "nccl" and code != 0 and re.search(TIMED_OUT, "timed out" if code is None else text):
            p.row(what, None, "NCCL timed out")
        else:
            gtest_row(p, what, code, text)


def nccl_ranks(p, model):
    # The ranks are of one machine: no network adapter is to be looked for, which takes long or never ends in a container.
    network = {"NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": "1"}
    common = {"GEOM_MPI_SHARE_GPU": "nccl", "NCCL_NVLS_ENABLE": "0", "NCCL_DEBUG": "WARN", **network}
    ways = {
        "NCCL_MULTI_RANK_GPU_ENABLE=1": ((), {**common, "NCCL_MULTI_RANK_GPU_ENABLE": "1"}),
        "a NCCL_HOSTID each": (("bash", "-c", 'NCCL_HOSTID=rank$OMPI_COMM_WORLD_RANK exec "$@"', "rank"), common),
    }
    why, texts = {}, []
    for way, (script, environment) in sorted(
        ways.items(), key=lambda entry: ("MULTI" in entry[0]) != (getattr(p, "nccl", ()) >= (2, 30, 3))
    ):
        try:
            for count in (2, 4):
                file = p.folder / f"nccl-{count}.json"
                arguments = (
                    "--model",
                    model,
                    "--backend",
                    "cuda",
                    "-o",
                    p.folder / f"nccl-{count}.h5",
                    "--overwrite",
                    "--json",
                    file,
                    "--quiet",
                    "--deadline",
                    30,
                )
                p.call(
                    p.command("geom-mpi", *arguments, ranks=count, under=script), timeout=45, environment=environment
                )
                exchange = json.loads(file.read_text())["exchange_path"]
                if exchange != "nccl":
                    return p.row(
                        "2 and 4 ranks on one card, NCCL", None, f"this build exchanges by {exchange}: it has no NCCL"
                    )
            p.nccl_way = script, environment
            return p.same_bits(f"2 and 4 ranks on one card, NCCL ({way}), against one", "one", ["nccl-2", "nccl-4"])
        except Failed as failure:
            why[way] = str(failure)
            texts.append(f"{failure}\n{failure.text}")
    # Neither proves anything of this program: NCCL does not promise that ranks may share a card.
    unproved = {"NCCL refuses": "Duplicate GPU|using the same GPU", "NCCL timed out": TIMED_OUT}
    said = [next((word for word, pattern in unproved.items() if re.search(pattern, text)), None) for text in texts]
    verdict = False if None in said else None
    p.row(
        "2 and 4 ranks on one card, NCCL",
        verdict,
        "; ".join([*dict.fromkeys(filter(None, said)), *(f"{way}: {text}" for way, text in why.items())]),
        "same bits",
    )


def gtest_row(p, what, code, text, note=""):
    passed = re.search(r"\[  PASSED  \] (\d+) test", text)
    failed = [name for name in re.findall(r"^\[  FAILED  \] ([\w/.]+)", text, re.M) if not name.isdigit()]
    skipped = len(set(re.findall(r"^\[  SKIPPED \] (\S+?),? ", text, re.M)))
    if code == 0 and passed and int(passed[1]) == 0:
        return p.row(what, None, f"no test ran, {skipped} skipped{note}")
    good = code == 0 and passed is not None
    ended = "" if code is not None else "timed out; "
    p.row(
        what,
        good,
        f"{ended}{passed[1] if passed else len(re.findall(r'^.       OK .', text, re.M))} passed, {len(set(failed))} failed{f': {sorted(set(failed))[:3]}' if failed else ''}{f', {skipped} skipped' if skipped else ''}{note}",
        "all",
    )


def test_filter(p):
    """What gpu_tests need not or cannot run here, as a gtest filter; and what to say of it."""
    if not p.bundle or b"GEOM_TEST_DATA" in p.program("gpu_tests").read_bytes():
        return "-Emulator*", ""
    return "-Emulator*:*hard_heads*:*beside_an_outlier*", "; without the hard heads: their file's path is the build's"


def tests(p):
    left_out, note = test_filter(p)
    if p.options.rehearse:
        left_out = "HeadsOnGpu.*:Cuda/TileDots.of_*"
    environment = {"GEOM_TEST_DATA": str(TESTS / "data")}
    code, text, _ = p.call(
        p.command("gpu_tests", "--gtest_color=no", f"--gtest_filter={left_out}"), environment=environment, check=False
    )
    gtest_row(p, "gpu_tests", code, text, note)


def halved(amount):
    number, unit = re.fullmatch(r"([\d.]+)(\D+)", amount).groups()
    return f"{float(number) / 2:g}{unit}"


def budget(p):
    model, budget = f"synth:{p.shapes['middle']}", p.shapes["budget"]
    p.run(model, "free")
    for name, amount in (("bound", budget), ("halved", halved(budget))):
        result = p.run(model, name, "--memory-budget", amount)
        used, planned = result["peak_device_memory"], result["planned_device_memory"]
        p.row(
            f"{model} within {amount}",
            used <= 1.1 * planned,
            f"{used / 2**30:.3f} GiB of the card, planned {planned / 2**30:.3f}; passes: {result['passes']}",
            "within 10 % of the plan",
        )
        p.same_bits("the same result as without", "free", [name])
        if result["passes"] > 1:
            return


def overlap(p):
    shape, files = p.shapes["files"], p.folder / "model"
    p.call(p.command("geom-mpi", "synth", shape, files))
    try:
        loads = [p.run(files, "load", "-m", "gram") for _ in range(2)]
        both = [p.run(files, "both", "-m", "gram,heads") for _ in range(2)]
        computing = p.bench("heads", shape=shape, repeat=2)["heads"]["values"][0]
        loading = min(phases(run, "load", "exchange") for run in loads)
        overlap_row(
            p,
            "overlap, from files in the page cache",
            loading,
            computing,
            min(phases(run, "load", "exchange", "heads") for run in both),
        )
        p.row("loading alone", "shown", f"{1e-9 * loads[0]['bytes_read'] / loading:.1f} GB/s to the card", timed=True)
    finally:
        shutil.rmtree(files, ignore_errors=True)


SANITIZED_TESTS = "Cuda/TileDots.of_*:DenseBatchOnGpu.*:SingularValuesOnGpu.*:HeadsOnGpu.*"
NOT_SANITIZED = (
    "SingularValuesOnGpu.are_found_for_a_head_of_128:*more_heads_than*:*hard_heads*:*beside_an_outlier*:*foretold*"
)


def sanitize(p, tool, options, summary):
    sanitizer = which("compute-sanitizer")
    if not sanitizer:
        raise Skip("compute-sanitizer is not found")
    under = [
        sanitizer,
        "--tool",
        tool,
        *options,
        "--target-processes",
        "all",
        "--error-exitcode",
        "99",
        "--print-limit",
        "20",
    ]
    runs = [
        f"synth:{shape}"
        for shape in (
            ["tiny"] if p.options.rehearse else ["L4-H4-KV2-hd32-D1400-F64-V64", "L2-H2-KV1-hd128-D256-F64-V64"]
        )
    ]
    commands = {
        model: p.command(
            "geom-mpi",
            "--model",
            model,
            "--backend",
            "cuda",
            "-o",
            p.folder / "sanitized.h5",
            "--overwrite",
            "--fresh",
            "--quiet",
            under=under,
        )
        for model in runs
    }
    commands["gpu_tests"] = p.command(
        "gpu_tests",
        "--gtest_color=no",
        f"--gtest_filter={'HeadsOnGpu.name*' if p.options.rehearse else SANITIZED_TESTS}-{NOT_SANITIZED}",
        under=under,
    )
    for name, command in commands.items():
        code, text, seconds = p.call(command, check=False)
        with open(p.logs / "sanitizer.log", "a") as log:
            log.write(f"$ {' '.join(command)}\n{text[-400_000:]}\n# code {code}, {seconds:.1f} s\n")
        found = re.findall(summary, text)
        not_ready = len(re.findall(r"Program hit (?:cudaErrorNotReady|CUDA_ERROR_NOT_READY)", text))
        errors = (
            sum(sum(map(int, numbers if isinstance(numbers, tuple) else (numbers,))) for numbers in found) - not_ready
        )
        first = re.search(
            r"^=+ ((?:Invalid|Program hit|Error|Warning|Race|Misaligned|Potential)(?!.*NotReady).*)$", text, re.M
        )
        done = len(re.findall(r"^\[       OK \]", text, re.M))
        ran_out = f"ran out of time after {seconds:.0f} s, {done} tests in" if code is None else ""
        if (found and errors) or (first and not found):
            p.row(
                f"{tool}, {name}",
                False,
                f"{errors if found else 'some'} errors: {first[1][:120] if first else ''} {ran_out}".strip(),
                "clean",
            )
        elif code is None:
            p.row(f"{tool}, {name}", None, f"{ran_out}; nothing found until then", "clean")
        elif not found:
            p.row(f"{tool}, {name}", None, f"code {code}, no summary: {text.strip()[-120:]}", "clean")
        else:
            failed = " but the program or a test failed" if code not in (0, 99) else ""
            p.row(
                f"{tool}, {name}",
                not failed,
                f"0 errors{f', {done} tests' if done else ''}{f' ({not_ready} polls that were not ready)' if not_ready else ''}{failed}",
                "clean",
            )


def memcheck(p):
    sanitize(p, "memcheck", ["--report-api-errors", "explicit"], r"ERROR SUMMARY: (\d+) error")


def racecheck(p):
    sanitize(
        p,
        "racecheck",
        ["--racecheck-report", "analysis"],
        r"RACECHECK SUMMARY: \d+ hazards? displayed \((\d+) errors?, (\d+) warnings?\)",
    )


SUFFIX = ".avg.pct_of_peak_sustained_elapsed"
TENSOR = [
    "sm__pipe_tensor_cycles_active",
    "sm__pipe_tensor_op_hmma_cycles_active",
    "sm__inst_executed_pipe_tensor_op_gmma",
    "sm__inst_executed_pipe_tensor_op_hmma",
]
OTHERS = ["dram__throughput", "lts__throughput", "sm__throughput"]


def profile(p):
    ncu = which("ncu")
    if not ncu:
        raise Skip("ncu is not found")
    known = p.call([ncu, "--query-metrics"], timeout=40, check=False)[1]
    tensor = [name for name in TENSOR if re.search(rf"^{name}\s", known, re.M)] or TENSOR[1:2]
    metrics = ["gpu__time_duration.sum", "dram__bytes.sum", *(name + SUFFIX for name in [*tensor, *OTHERS])]
    hot = {
        "gram": ("regex:tile_dots|sum_planes|gemm|nvjet|xmma|cutlass", 30, 30, p.shapes["large"]),
        "heads": (
            "regex:jacobi|pivoted_qr|unfactor|complete_columns|finish_|syev|sytrd|steqr|gemm|nvjet|xmma|cutlass",
            0,
            40,
            f"{p.shapes['large']}{'' if p.options.rehearse else '?layers=2'}",
        ),
    }
    for part, (kernels, skip, count, shape) in hot.items():
        # Clocks are left as they are; caches too: strips live in the second level between two kernels.
        under = [
            ncu,
            "--target-processes",
            "all",
            "--kernel-name",
            kernels,
            "--launch-skip",
            skip,
            "--launch-count",
            count,
            "--clock-control",
            "none",
            "--cache-control",
            "none",
            "--metrics",
            ",".join(metrics),
            "--csv",
            "--page",
            "raw",
            "--print-units",
            "base",
        ]
        code, text, _ = p.call(
            p.command("geom-mpi", "bench", part, "--shape", shape, "--backend", "cuda", "--repeat", 1, under=under),
            timeout=70,
            check=False,
        )
        (p.logs / f"ncu-{part}.csv").write_text(text[-2_000_000:])
        rows = kernel_rows(text)
        if not rows:
            wrong = re.search(r"==ERROR==.*", text)
            p.row(f"ncu, {part}", None, wrong[0][:160] if wrong else f"code {code}, no kernel was profiled")
        for name, about in sorted(rows.items(), key=lambda entry: -entry[1]["ns"])[:6]:
            pipes = ", ".join(
                f"{metric.removeprefix('sm__').removesuffix(SUFFIX)} {about[metric + SUFFIX]:.0f} %"
                for metric in tensor
                if about.get(metric + SUFFIX)
            )
            memory = ", ".join(
                f"{metric.split('__')[0]} {about[metric + SUFFIX]:.0f} %"
                for metric in OTHERS
                if metric + SUFFIX in about
            )
            p.row(
                f"ncu, {part}: {name[:48]}",
                "shown",
                f"{about['count']} x {about['ns'] / about['count'] / 1e3:.1f} us; {pipes or 'no tensor pipe'}; {memory}",
            )


def kernel_name(text):
    """Without its types, arguments and namespaces."""
    return re.sub(r"[<(].*", "", text.replace("(anonymous namespace)::", "").removeprefix("void ")).split("::")[-1]


def kernel_rows(text):
    """Of ncu's raw page: per kernel the number of launches, their time, and metrics weighted with it."""
    lines = text.splitlines()
    head = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if head is None:
        return {}
    kernels = {}
    for row in csv.DictReader(io.StringIO("\n".join(line for line in lines[head:] if line.startswith('"')))):
        if not row["ID"]:
            continue  # the units
        number = lambda text: float(text.replace(",", "")) if re.fullmatch(r"[\d.,eE+-]+", text or "") else 0.0
        ns = number(row.get("gpu__time_duration.sum"))
        about = kernels.setdefault(kernel_name(row["Kernel Name"]), {"count": 0, "ns": 0.0})
        about["count"] += 1
        about["ns"] += ns
        for name, value in row.items():
            if name and name.endswith(SUFFIX):
                about[name] = about.get(name, 0.0) + ns * number(value)
    for about in kernels.values():
        for name in about:
            if name.endswith(SUFFIX):
                about[name] /= about["ns"] or 1.0
    return kernels


STEPS = {
    "about": (30, about), "gram": (90, gram), "agree": (120, agree), "heads": (120, heads), "loops": (110, loops), "whole": (150, whole), "ranks": (150, ranks),
    "tests": (120, tests), "budget": (90, budget), "overlap": (90, overlap), "memcheck": (100, memcheck), "racecheck": (100, racecheck), "profile": (120, profile),
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=pathlib.Path)
    parser.add_argument("logs", type=pathlib.Path)
    parser.add_argument("--only", default="", metavar="NAME,...", help=", ".join(STEPS))
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    chosen = [name for name in options.only.split(",") if name] or list(STEPS)
    if unknown := [name for name in chosen if name not in STEPS]:
        parser.error(f"no step is called {', '.join(unknown)}; there are {', '.join(STEPS)}")
    with tempfile.TemporaryDirectory() as folder:
        prover = Prover(options, pathlib.Path(folder))
        try:
            prover.program("geom-mpi")
        except Skip as why:
            parser.error(f"{why}: neither an unpacked bundle nor a build folder")
        for name in STEPS:
            if name in chosen or name == "about":
                prover.do(name, *STEPS[name])
        return prover.finish()


if __name__ == "__main__":
    sys.exit(main())
