"""gram with every instruction set that this processor has: right, the same bits however work is divided, and said."""

import numpy as np
import pytest
from conftest import GOLDEN, golden, operator_norms, read_config, run

h5py = pytest.importorskip("h5py")

ISAS = ["portable", "avx2", "avx512", "avx512-bf16", "amx-bf16"]
VECTOR_ISAS = ISAS[1:4]


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    """The instruction sets that the program finds here, as its refusal of an unknown one lists them."""
    refusal = run("--model", "synth:tiny", folder=tmp_path_factory.mktemp("isa"), environment={"GEOM_MPI_ISA": "none"})
    assert refusal.returncode == 2
    return refusal.stderr.split("this processor has ")[1].splitlines()[0].split(", ")


def with_isa(runs, isa, processor, model, *arguments, ranks=1):
    if isa not in processor:
        pytest.skip(f"this processor has no {isa}")
    return runs(model, "--backend", "cpu", *arguments, ranks=ranks, environment={"GEOM_MPI_ISA": isa})


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("model", GOLDEN)
def test_gram_of_a_golden_checkpoint_is_right_and_the_same_bits_on_any_number_of_ranks(runs, processor, isa, model):
    result = with_isa(runs, isa, processor, golden(model), "-m", "gram")
    with h5py.File(golden(model) / "golden.h5") as file:
        expected = file["gram/gram"][()]
    assert np.max(np.abs(result["gram/gram"] - expected) / np.maximum(operator_norms(expected), 1e-300)) <= 1e-5
    for ranks in (2, 3, 4):
        other = with_isa(runs, isa, processor, golden(model), "-m", "gram", ranks=ranks)
        assert other.datasets() == result.datasets(), ranks


@pytest.mark.parametrize("isa", ISAS)
def test_some_layers_give_the_bits_of_the_slice(runs, processor, isa):
    every = with_isa(runs, isa, processor, golden("qwen2-tiny"), "-m", "gram")
    some = with_isa(runs, isa, processor, golden("qwen2-tiny"), "-m", "gram", "--layers", "2:7", ranks=2)
    np.testing.assert_array_equal(some["gram/gram"], every["gram/gram"][2:7, 2:7])


@pytest.mark.parametrize("model", ["qwen3-tiny", "llama-tiny"])
def test_all_vector_instruction_sets_give_the_same_bits(runs, processor, model):
    here = [isa for isa in VECTOR_ISAS if isa in processor]
    if len(here) < 2:
        pytest.skip("this processor has one of them at most")
    grams = [with_isa(runs, isa, processor, golden(model), "-m", "gram")["gram/gram"] for isa in here]
    for gram in grams[1:]:
        np.testing.assert_array_equal(gram, grams[0])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("model", ["qwen3-tiny", "llama-tiny"])
def test_the_file_says_which_products_were_used(runs, processor, isa, model):
    wide = {"portable": "sgemm", "avx2": "avx2-f32"}.get(isa, "avx512-f32")
    of_bf16 = {"portable": "sgemm-bf16", "avx512-bf16": isa, "amx-bf16": isa}.get(isa, wide)
    expected = {"bfloat16": of_bf16, "float32": wide}[read_config(model)["torch_dtype"]]
    assert with_isa(runs, isa, processor, golden(model), "-m", "gram").attribute("product_path") == expected


def test_a_processor_is_not_asked_for_what_it_does_not_have(processor, tmp_path):
    for isa in set(ISAS) - set(processor) | {"avx"}:
        refusal = run("--model", "synth:tiny", folder=tmp_path, environment={"GEOM_MPI_ISA": isa})
        assert refusal.returncode == 2 and f"GEOM_MPI_ISA={isa}" in refusal.stderr
