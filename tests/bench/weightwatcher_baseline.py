"""Seconds of WeightWatcher's analyze() on the weight matrices of a checkpoint in bf16, for tests/bench/bench.py to
compare the measure spectra with: seven families a layer, each a torch.nn.Linear.

    weightwatcher_baseline.py FOLDER
"""

import json
import pathlib
import struct
import sys
import time

import torch
import weightwatcher

FAMILIES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def matrices(folder):
    """Every matrix of these families, by name, as float32."""
    for shard in sorted(folder.glob("*.safetensors")):
        data = shard.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        for name, entry in json.loads(data[8 : 8 + length]).items():
            if not name.endswith(tuple(f".{family}.weight" for family in FAMILIES)):
                continue
            assert entry["dtype"] == "BF16", f"{name} is {entry['dtype']}"
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            bits = torch.frombuffer(bytearray(data[begin:end]), dtype=torch.bfloat16)
            yield name, bits.reshape(entry["shape"]).float()


model = torch.nn.Module()
for name, weight in matrices(pathlib.Path(sys.argv[1])):
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = weight
    model.add_module(name.replace(".", "_"), linear)
watcher = weightwatcher.WeightWatcher(model=model)
begun = time.perf_counter()
details = watcher.analyze()
seconds = time.perf_counter() - begun
wanted = len(list(model.children()))
assert wanted > 0 and len(details) == wanted, f"{len(details)} of {wanted} matrices were analysed"
print(f"weightwatcher {weightwatcher.__version__}, {wanted} matrices: {seconds:.2f} s")
