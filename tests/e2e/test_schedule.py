"""One fake measure of each kind (tests/fakes) through the whole pipeline: what a schedule brings to a measure, whatever
the ranks, the budget, and what became of earlier runs.

A fake's number is the sum of the bits of what it was shown, so a few lines of NumPy over the safetensors say what has
to come out, to the bit.
"""

import json
import math
import random
import re

import numpy as np
import pytest
from conftest import FAKES, GOLDEN, golden, listing, read_checkpoint, run

h5py = pytest.importorskip("h5py")

ATTENTION, MLP = ["q", "k", "v", "o"], ["gate", "up", "down"]
ALL_FAKES = "fake_step,fake_walk,fake_pairs,fake_globals,fake_experts"
SYNTH = "L7-H8-KV4-hd32-D160-F64-V64"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Folder and what the program is told, by the model's name."""
    folder = tmp_path_factory.mktemp("synth") / "model"
    assert run("synth", SYNTH, folder, folder=folder.parent).returncode == 0
    return {**{name: (golden(name), golden(name)) for name in GOLDEN}, "synth": (folder, f"synth:{SYNTH}")}


MODELS = [*GOLDEN, "synth"]


# --- what the fakes are, naively --------------------------------------------------------------------------------------


def bits(array):
    return int(array.view({2: np.uint16, 4: np.uint32}[array.itemsize]).sum(dtype=np.uint64))


class Expected:
    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = {name: tensor.bits for name, tensor in read_checkpoint(folder).items()}
        self.layers = self.config["num_hidden_layers"]
        self.dense = "model.layers.0.mlp.gate_proj.weight" in self.tensors

    def weight(self, layer, name):
        return self.tensors[f"model.layers.{layer}.{name}.weight"]

    def attention(self, layer):
        return [self.weight(layer, f"self_attn.{matrix}_proj") for matrix in ATTENTION]

    def mlp(self, layer, prefix="mlp"):
        return [self.weight(layer, f"{prefix}.{matrix}_proj") for matrix in MLP]

    def steps(self, matrices):
        sums = [sum(map(bits, matrices(layer))) for layer in range(self.layers)]
        return np.diff(np.array(sums, np.float64))

    def walk(self):
        states, left = [1.0, 2.0, 3.0], []
        for layer in range(self.layers):
            q, _, _, o = map(bits, self.attention(layer))
            states = [math.fmod(3 * x + math.fmod(q + o, 1000003.0), 2147483647.0) for x in states]
            left.append(sum(states))
        return np.array(left)

    def pairs(self):
        heads, kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]

        def of_heads(matrix, count):
            """[layer, head]; f16 is kept as f32."""
            rows = [np.split(self.weight(layer, f"self_attn.{matrix}_proj"), count) for layer in range(self.layers)]
            widen = lambda a: a.astype(np.float32) if a.dtype == np.float16 else a
            return np.array([[bits(widen(block)) for block in layer] for layer in rows], np.float64)

        q, k = of_heads("q", heads), np.repeat(of_heads("k", kv_heads), heads // kv_heads, axis=1)
        return (k + q)[:, :, None, None] - q[None, None, :, :]

    def globals(self):
        names = ["model.embed_tokens.weight", "lm_head.weight"]
        tied = self.config.get("tie_word_embeddings", False)
        return np.array([bits(self.tensors[name]) for name in names[: 1 if tied else 2]], np.float64)

    def experts(self):
        count = self.config["num_experts"]
        of = lambda layer, expert: sum(map(bits, self.mlp(layer, f"mlp.experts.{expert}")))
        return np.array([[of(layer, expert) for expert in range(count)] for layer in range(self.layers)], np.float64)

    def datasets(self):
        found = {
            "fake_step/attention": self.steps(self.attention),
            "fake_walk/left": self.walk(),
            "fake_pairs/bits": self.pairs(),
            "fake_globals/bits": self.globals(),
        }
        if self.dense:
            found["fake_step/mlp"] = self.steps(self.mlp)
        else:
            found["fake_experts/bits"] = self.experts()
        return found


def numbers(datasets):
    """What is no scale."""
    return {path: values for path, values in datasets.items() if path.split("/")[-1] in NUMBERS}


NUMBERS = {"attention", "mlp", "left", "bits"}


# --- the whole pipeline -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("model", MODELS)
def test_every_measure_is_shown_exactly_what_it_asked_for_at_any_number_of_ranks(model, ranks, fake_runs, checkpoints):
    folder, name = checkpoints[model]
    result = fake_runs(name, ranks=ranks)
    expected = Expected(folder).datasets()
    assert set(numbers(result.datasets())) == set(expected)
    for path, values in expected.items():
        np.testing.assert_array_equal(result[path], values, err_msg=path)
    one = fake_runs(name)
    assert result.datasets() == one.datasets()
    assert result.attribute("weights_digest") == one.attribute("weights_digest")


@pytest.mark.parametrize("measure", ALL_FAKES.split(","))
@pytest.mark.parametrize("ranks", [1, 4])
def test_a_measure_by_itself_gives_the_bits_it_gives_among_others(measure, ranks, fake_runs):
    model = golden("qwen3moe-tiny")
    alone, among = fake_runs(model, "-m", measure, ranks=ranks).datasets(), fake_runs(model).datasets()
    assert numbers(alone)
    for path, values in numbers(alone).items():
        assert values == among[path], path


def test_real_measures_do_not_mind_fakes_beside_them(runs, fake_runs):
    alone = runs(golden("qwen3-tiny"), "-m", "gram,heads", "--backend", "cpu", ranks=2).datasets()
    among = fake_runs(golden("qwen3-tiny"), ranks=3).datasets()
    assert {path: among[path] for path in alone} == alone


# Blocks of 3 MB, passes of which differ by more than what a process takes by itself from run to run.
LARGE = "synth:L6-H6-KV3-hd64-D4096-F64-V64"


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("measures", ["fake_pairs", "gram," + ALL_FAKES])
def test_a_small_budget_takes_more_passes_to_the_same_bits(measures, ranks, fake_runs, tmp_path):
    whole = fake_runs(LARGE, "-m", measures, ranks=ranks)
    assert whole.about["passes"] == 1
    arguments = ["--model", LARGE, "-m", measures, "--memory-budget", 1]
    refusal = run(*arguments, ranks=ranks, folder=tmp_path, program=FAKES).stderr
    least = int(refusal.split(" bytes are needed")[0].split()[-1])
    seen = set()
    for budget in np.linspace(least + (1 << 20), whole.about["planned_memory"] - (1 << 20), 3, dtype=int):
        cut = fake_runs(LARGE, "-m", measures, "--memory-budget", budget, ranks=ranks)
        seen.add(cut.about["passes"])
        assert cut.datasets() == whole.datasets(), cut.about["passes"]
        assert cut.attribute("weights_digest") == whole.attribute("weights_digest"), cut.about["passes"]
        assert cut.about["bytes_read"] >= whole.about["bytes_read"]
    assert max(seen) > 1, f"passes seen: {seen}"


# --- bytes ------------------------------------------------------------------------------------------------------------


def owned_rows(model, measures, ranks, folder):
    """First and last + 1 layer of every rank that loads any, as the plan prints them."""
    arguments = ["--model", model, "-m", measures, "--dry-run"]
    plan = run(*arguments, ranks=ranks, folder=folder, program=FAKES).stdout
    found = [re.match(r" +\d+ +(\d+):(\d+) ", line) for line in plan.splitlines()]
    return [(int(row[1]), int(row[2])) for row in found if row]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("model", ["qwen3-tiny", "synth"])
def test_nothing_is_read_twice_but_the_layer_before_a_ranks_first(model, ranks, fake_runs, checkpoints, tmp_path):
    folder, name = checkpoints[model]
    measures = "gram,heads,fake_step,fake_pairs,fake_globals,fake_experts"
    result, expected = fake_runs(name, "-m", measures, ranks=ranks), Expected(folder)
    of_layer = [sum(a.nbytes for a in expected.attention(l) + expected.mlp(l)) for l in range(expected.layers)]
    once = sum(of_layer) + sum(a.nbytes for n, a in expected.tensors.items() if "embed" in n or "lm_head" in n)
    begins = [begin for begin, _ in owned_rows(name, measures, ranks, tmp_path) if begin > 0]
    # whoever owns layer 0 alone needs the heads of it, and only the next rank the rest
    heads = sum(expected.weight(0, f"self_attn.{name}_proj").nbytes for name in "qk")
    halos = sum(heads if begin == 1 else of_layer[begin - 1] for begin in begins)
    assert result.about["bytes_read"] == once + halos
    assert (halos > 0) == (ranks > 1)
    assert result.attribute("weights_digest") == fake_runs(name, "-m", measures).attribute("weights_digest")


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_every_expert_is_read_once(ranks, fake_runs):
    result, expected = (
        fake_runs(golden("qwen3moe-tiny"), "-m", "fake_experts", ranks=ranks),
        Expected(golden("qwen3moe-tiny")),
    )
    experts = sum(array.nbytes for name, array in expected.tensors.items() if ".experts." in name)
    assert result.about["bytes_read"] == experts


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_rising_sweep_keeps_its_layers_where_they_fit(ranks, fake_runs):
    result, expected = fake_runs(golden("qwen3-tiny"), "-m", "fake_walk", ranks=ranks), Expected(golden("qwen3-tiny"))
    q_and_o = sum(a.nbytes for layer in range(expected.layers) for a in expected.attention(layer)[::3])
    assert result.about["bytes_read"] == q_and_o, "three chunks, read once"


def test_a_rising_sweep_goes_row_by_row_where_its_layers_do_not_fit_and_reads_them_once(fake_runs, tmp_path):
    model = "synth:L12-H16-KV8-hd128-D2048-F64-V64"
    arguments = ["--model", model, "-m", "fake_walk", "--memory-budget", 1]
    refusal = run(*arguments, folder=tmp_path, program=FAKES).stderr
    least = int(refusal.split(" bytes are needed")[0].split()[-1])
    whole, cut = (
        fake_runs(model, "-m", "fake_walk"),
        fake_runs(model, "-m", "fake_walk", "--memory-budget", least + (1 << 20)),
    )
    assert cut.about["bytes_read"] == whole.about["bytes_read"] == 12 * 2 * 2048 * 2048 * 2
    assert cut.datasets() == whole.datasets()
    assert cut.attribute("weights_digest") == whole.attribute("weights_digest")
    assert cut.about["planned_memory"] < whole.about["planned_memory"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_rising_sweep_takes_what_the_first_one_has_loaded(ranks, fake_runs):
    alone, beside = (
        fake_runs(golden("qwen3-tiny"), "-m", "gram", ranks=ranks),
        fake_runs(golden("qwen3-tiny"), "-m", "gram,fake_walk", ranks=ranks),
    )
    expected = Expected(golden("qwen3-tiny"))
    o_proj = sum(expected.attention(layer)[3].nbytes for layer in range(expected.layers))
    assert beside.about["bytes_read"] == alone.about["bytes_read"] + o_proj
    walked = fake_runs(golden("qwen3-tiny"), "-m", "fake_walk").datasets()
    assert beside.datasets()["fake_walk/left"] == walked["fake_walk/left"]


# --- kills ------------------------------------------------------------------------------------------------------------

PLACES = ["load", "exchange", "gram", "heads", "fake_step", "fake_walk", "fake_pairs", "fake_globals", "write"]


@pytest.mark.parametrize("place", PLACES)
def test_a_run_killed_anywhere_goes_on_at_another_number_of_ranks_to_the_same_bits(place, fake_runs, tmp_path):
    random.seed(place)
    ranks, others = random.choice([(2, 3), (3, 1), (3, 4), (4, 2)])
    expected = fake_runs(f"synth:{SYNTH}").datasets()
    arguments = ["--model", f"synth:{SYNTH}", "-o", "r.h5"]
    for turn, rank in enumerate(random.sample(range(ranks), 2)):  # killed twice, to be resumed from two journals
        fault = {"GEOM_MPI_FAULT": f"kill:{place}:{rank}:{turn}"}
        run(*arguments, ranks=ranks, folder=tmp_path, environment=fault, program=FAKES)
    if not (tmp_path / "r.h5").exists():
        finished = run(*arguments, "--quiet", ranks=others, folder=tmp_path, program=FAKES)
        assert finished.returncode == 0, finished.stderr
    with h5py.File(tmp_path / "r.h5") as file:
        for path, (_, _, values) in expected.items():
            assert file[path][()].tobytes() == values, path
    assert listing(tmp_path) == ["r.h5"]
