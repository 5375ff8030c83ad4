"""What the end-to-end tests share: the program, the golden checkpoints, small checkpoints made on the spot.

Environment: GEOM_MPI names the program (build/geom-mpi when unset), GEOM_MPI_FAKES the one with fake measures,
GEOM_TEST_DATA the folder of test data, MPIEXEC the launcher.
"""

import dataclasses
import json
import os
import pathlib
import struct
import subprocess
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("GEOM_MPI", ROOT / "build" / "geom-mpi")).resolve()
FAKES = pathlib.Path(os.environ.get("GEOM_MPI_FAKES", ROOT / "build" / "tests" / "geom-mpi-fakes")).resolve()
DATA = pathlib.Path(os.environ.get("GEOM_TEST_DATA", ROOT / "tests" / "data")).resolve()
MPIEXEC = os.environ.get("MPIEXEC", "mpirun")
GOLDEN = ["qwen3-tiny", "qwen2-tiny", "llama-tiny", "qwen3moe-tiny"]

# Open MPI refuses to run as root, and binds ranks to cores, unless told otherwise.
ENVIRONMENT = {
    **os.environ,
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
}
ENVIRONMENT.pop("OMP_NUM_THREADS", None)


def golden(model):
    return DATA / "golden" / model


def run(*arguments, ranks=1, folder, environment=None, program=PROGRAM, **options):
    """The program, from `folder`; one rank starts without a launcher."""
    launcher = [MPIEXEC, "-n", str(ranks)] if ranks > 1 else []
    if program == FAKES:  # they look at bytes themselves
        arguments = [*arguments, "--backend", "cpu"]
    return subprocess.run(
        [*launcher, str(program), *map(str, arguments)],
        cwd=folder,
        env={**ENVIRONMENT, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def datasets(file):
    """Type, shape and bytes of everything outside /run of a complete result, by path."""
    h5py = pytest.importorskip("h5py")
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and not name.startswith("run/"):
            found[name] = (str(item.dtype), item.shape, np.asarray(item[()]).tobytes())

    with h5py.File(file) as opened:
        assert opened.attrs["complete"] == 1
        opened.visititems(visit)
    return found


def run_that_stands_still(folder, place, *arguments, environment=None):
    """The program, started and stopped by its own fault at PHASE:RANK:N; whoever asked has to end it."""
    process = subprocess.Popen(
        [str(PROGRAM), *map(str, arguments)],
        cwd=folder,
        env={**ENVIRONMENT, "GEOM_MPI_FAULT": f"stop:{place}", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if pathlib.Path(f"/proc/{process.pid}/stat").read_text().split(") ")[1][0] == "T":
            return process
        time.sleep(0.01)
    process.kill()
    raise AssertionError("the run did not stop where it was asked to")


@dataclasses.dataclass
class Result:
    """A finished run: its file, its JSON object, what it printed."""

    file: pathlib.Path
    about: dict
    stdout: str
    stderr: str

    def __getitem__(self, path):
        h5py = pytest.importorskip("h5py")
        with h5py.File(self.file) as file:
            return file[path][()]

    def attribute(self, name):
        h5py = pytest.importorskip("h5py")
        with h5py.File(self.file) as file:
            value = file.attrs[name]
            return value.decode() if isinstance(value, bytes) else value

    def datasets(self):
        return datasets(self.file)


class Runs:
    """Runs that have to succeed; the same one runs once a session."""

    def __init__(self, folder, program):
        self.folder = folder
        self.program = program
        self.done = {}

    def __call__(self, model, *arguments, ranks=1, environment=None):
        key = (str(model), *map(str, arguments), ranks, str(environment))
        if key not in self.done:
            file = self.folder / f"{len(self.done)}.geom.h5"
            about = file.with_suffix(".json")
            finished = run(
                *("--model", model, "-o", file, "--json", about, *arguments),
                ranks=ranks,
                folder=self.folder,
                environment=environment,
                program=self.program,
            )
            assert finished.returncode == 0, finished.stderr
            self.done[key] = Result(file, json.loads(about.read_text()), finished.stdout, finished.stderr)
        return self.done[key]


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not there: build first, or name the program in GEOM_MPI")
    return Runs(tmp_path_factory.mktemp("runs"), PROGRAM)


@pytest.fixture(scope="session")
def fake_runs(tmp_path_factory):
    """Runs of the program with fake measures."""
    if not FAKES.exists():
        pytest.skip(f"{FAKES} is not there: build first, or name the program in GEOM_MPI_FAKES")
    return Runs(tmp_path_factory.mktemp("fake_runs"), FAKES)


# --- small checkpoints ------------------------------------------------------------------------------------------------


def f8_e4m3_values():
    """The value of each of the 256 codes; S EEEE MMM, bias 7, no infinities."""
    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 15, code & 7
    values = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10.0))
    values[(code & 0x7F) == 0x7F] = np.nan
    return np.where(code & 128, -values, values)


def nearest_f8(values):
    """Codes of the nearest F8_E4M3 numbers; beyond the largest, the largest."""
    table = f8_e4m3_values()[:127]
    middle = (table[1:] + table[:-1]) / 2
    return (np.searchsorted(middle, np.abs(values)) | np.where(values < 0, 128, 0)).astype(np.uint8)


STORAGE = {"BF16": np.uint16, "F8_E4M3": np.uint8, "F16": np.float16, "F32": np.float32, "F64": np.float64}


@dataclasses.dataclass
class Tensor:
    """A tensor as stored: bf16 and f8 as the bits that they are."""

    dtype: str
    bits: np.ndarray

    @staticmethod
    def of(values, dtype):
        """`values` rounded to `dtype`."""
        if dtype == "BF16":
            single = np.ascontiguousarray(values, np.float32).view(np.uint32)
            return Tensor(dtype, ((single + 0x7FFF + ((single >> 16) & 1)) >> 16).astype(np.uint16))
        if dtype == "F8_E4M3":
            return Tensor(dtype, nearest_f8(values))
        return Tensor(dtype, np.asarray(values).astype(STORAGE[dtype]))

    def values(self):
        if self.dtype == "BF16":
            return (self.bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        if self.dtype == "F8_E4M3":
            return f8_e4m3_values()[self.bits]
        return self.bits.astype(np.float64)


def read_shard(file):
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, about in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = about["data_offsets"]
        bits = np.frombuffer(data[8 + length + begin : 8 + length + end], STORAGE[about["dtype"]])
        tensors[name] = Tensor(about["dtype"], bits.reshape(about["shape"]))
    return tensors


def read_checkpoint(folder):
    tensors = {}
    for shard in sorted(folder.glob("*.safetensors")):
        tensors.update(read_shard(shard))
    return tensors


def write_shard(file, tensors):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in tensors.items():
        raw = tensor.bits.tobytes()
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.bits.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def read_config(model):
    return json.loads((golden(model) / "config.json").read_text())


def write_checkpoint(folder, config, tensors, shards=1):
    """A model folder; with several shards the tensors are dealt out in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    if shards == 1:
        write_shard(folder / "model.safetensors", tensors)
        return folder
    where = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(tensors.items())[shard::shards])
        write_shard(folder / file, part)
        where.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def attention_name(layer, matrix):
    return f"model.layers.{layer}.self_attn.{matrix}_proj.weight"


# --- what gram is, naively --------------------------------------------------------------------------------------------


def operators(config, tensors):
    """W_Q [L, H, hd, D] and W_K of each query head [L, H, hd, D], f64."""
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    kv_heads, hidden = config["num_key_value_heads"], config["hidden_size"]
    stack = lambda matrix: np.stack([tensors[attention_name(l, matrix)].values() for l in range(layers)])
    q = stack("q").reshape(layers, heads, -1, hidden)
    k = stack("k").reshape(layers, kv_heads, -1, hidden)
    return q, np.repeat(k, heads // kv_heads, axis=1)


def gram_of(config, tensors):
    """gram[l, l', h] as the inner product of the D x D operators themselves."""
    q, k = operators(config, tensors)
    g = np.einsum("lhid,lhie->hlde", k, q)
    g = g.reshape(g.shape[0], g.shape[1], -1)
    return np.einsum("hlx,hmx->lmh", g, g, optimize=True)


def allowed_error(config, tensors):
    """1e-5 (sum |k_i| |q_i|)(sum |k'_i| |q'_i|): what the specification allows gram to be off by."""
    q, k = operators(config, tensors)
    size = (np.linalg.norm(q, axis=-1) * np.linalg.norm(k, axis=-1)).sum(-1)
    return 1e-5 * size[:, None, :] * size[None, :, :]


def operator_norms(gram):
    """|g[l, h]| |g[l', h]| of a gram [L, L, H]."""
    norms = np.sqrt(np.einsum("llh->lh", gram))
    return norms[:, None, :] * norms[None, :, :]
