"""`geom-mpi selfcheck`: layers changed by random elements of the gauge function, and what must not change compared."""

import pytest
from conftest import Tensor, attention_name, golden, read_checkpoint, read_config, run, write_checkpoint


@pytest.mark.parametrize("model", ["qwen3-tiny", "qwen2-tiny", "llama-tiny", "qwen3moe-tiny"])
def test_what_theory_says_holds_of_every_family(model, tmp_path):
    done = run("selfcheck", "--model", golden(model), "--threads", "2", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.endswith("holds")]
    for row, what in zip(rows, ["output", "cross entropy", "QK operators", "gauge function", "nothing"], strict=True):
        assert what in row
    assert list(tmp_path.iterdir()) == []


def test_the_table_is_the_same_on_any_number_of_threads_and_ranks(tmp_path):
    tables = {
        run("selfcheck", "--model", golden("qwen3-tiny"), "--threads", threads, ranks=ranks, folder=tmp_path).stdout
        for threads, ranks in [(1, 1), (3, 1), (1, 2)]
    }
    assert len(tables) == 1


def test_a_model_without_a_forward_pass_is_checked_by_its_weights(tmp_path):
    config = {**read_config("llama-tiny"), "model_type": "mistral", "sliding_window": 8}
    config.pop("rope_scaling", None)
    write_checkpoint(tmp_path / "model", config, read_checkpoint(golden("llama-tiny")))
    done = run("selfcheck", "--model", tmp_path / "model", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "No forward pass: " in done.stdout and "cross entropy" not in done.stdout
    assert sum(line.endswith("holds") for line in done.stdout.splitlines()) == 3


def test_numbers_too_large_to_check_are_an_error_of_numerics(tmp_path):
    tensors = {
        name: Tensor.of(tensor.values(), "F64") for name, tensor in read_checkpoint(golden("llama-tiny")).items()
    }
    tensors[attention_name(2, "q")].bits[0] = 1e200  # its square is no number any more
    write_checkpoint(tmp_path / "model", read_config("llama-tiny"), tensors)
    done = run("selfcheck", "--model", tmp_path / "model", folder=tmp_path)
    assert done.returncode == 4
    assert "infinity" in done.stderr


def test_a_model_that_is_not_there_is_an_error_of_input(tmp_path):
    assert run("selfcheck", "--model", tmp_path / "none", folder=tmp_path).returncode == 3
    assert run("selfcheck", folder=tmp_path).returncode == 2
