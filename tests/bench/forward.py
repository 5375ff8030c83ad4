#!/usr/bin/env python3
"""The forward pass of a Qwen3 shape against that of transformers, taking turns.

    python tests/bench/forward.py [--program build/geom-mpi] [--repeat 5] [--threads 2] [--isa avx2]
                                  [--layers 28]

Needs torch and transformers. 2048 tokens through layers of Qwen3-0.6B's shape with random weights, without embedding
and lm_head on both sides; bf16 weights here, float32 and bf16 there. Prints Markdown: medians (least-most), ratios
within a turn, so that a machine that slows down slows both sides.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time

import torch
from transformers import Qwen3Config, Qwen3Model

HERE = pathlib.Path(__file__).resolve().parent
TOKENS = 2048


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, default=HERE.parents[1] / "build" / "geom-mpi")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--isa", default="", help="GEOM_MPI_ISA for geom-mpi alone")
    return parser.parse_args()


def make_model(dtype, layers):
    config = Qwen3Config(
        vocab_size=1024,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=4096,
    )
    torch.manual_seed(0)
    return Qwen3Model(config).eval().to(dtype)


def seconds_of(model, ids):
    begin = time.perf_counter()
    model(ids, use_cache=False)
    return time.perf_counter() - begin


def rows_of(arguments):
    command = [arguments.program.resolve(), "bench", "forward", "--backend", "cpu"]
    command += ["--shape", f"qwen3-0.6b?layers={arguments.layers}"]
    command += ["--threads", arguments.threads, "--repeat", "1", "--json", "-"]
    environment = {**os.environ, "GEOM_MPI_ISA": arguments.isa}
    finished = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment)
    if finished.returncode != 0:
        raise SystemExit(finished.stderr)
    return json.loads(finished.stdout)["rows"]


def shown(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}\N{EN DASH}{max(values):.{digits}f})"


def main():
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    ids = torch.arange(TOKENS).remainder(1024).unsqueeze(0)
    types = {"float32": torch.float32, "bf16": torch.bfloat16}
    models = {name: make_model(dtype, arguments.layers) for name, dtype in types.items()}
    for model in models.values():  # once for the library to settle
        model(ids[:, :256], use_cache=False)
    ours, theirs = [], {name: [] for name in models}
    path = ""
    for _ in range(arguments.repeat):
        rows = rows_of(arguments)
        ours.append(rows[0]["values"][0])
        path = rows[1]["name"].removeprefix("forward, ")
        for name, model in models.items():
            theirs[name].append(seconds_of(model, ids))
    print(f"| forward, {TOKENS} tokens, {arguments.threads} threads | seconds | that / geom-mpi |\n|---|---|---|")
    print(f"| geom-mpi, {path} | {shown(ours, 2)} | |")
    for name, seconds in theirs.items():
        ratios = [other / own for other, own in zip(seconds, ours, strict=True)]
        print(f"| transformers, {name} | {shown(seconds, 2)} | {shown(ratios, 2)} |")


if __name__ == "__main__":
    main()
