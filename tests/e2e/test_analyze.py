"""geom-mpi analyze: the tables of results of golden checkpoints, held against the numbers of the HDF5 file by numpy;
the same cells in every format; other anchors against runs with that anchor; files of hundreds of megabytes in little
memory.
"""

import csv
import functools
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import (
    ENVIRONMENT,
    GOLDEN,
    PROGRAM,
    attention_name,
    golden,
    read_checkpoint,
    read_config,
    run,
    write_checkpoint,
)

h5py = pytest.importorskip("h5py")

MODELS = [*GOLDEN, "qwen3-trained"]
USAGE, INPUT, OUTPUT = 2, 3, 5


def analyze(file, *arguments, **options):
    options.setdefault("folder", file.parent)
    finished = run("analyze", file, *arguments, **options)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    return finished.stdout


@functools.cache
def json_of(file, *arguments):
    return analyze(file, "--format", "json", *arguments)


def about_and_tables(file, *arguments):
    found = json.loads(json_of(file, *arguments))
    return found, found.pop("tables")


def tables_of(file, *arguments):
    return about_and_tables(file, *arguments)[1]


def column(table, name):
    return np.array([math.nan if row[name] is None else row[name] for row in table["rows"]], dtype=float)


def equal(found, wanted, **tolerances):
    """To the last bit or two: sums over heads may be taken in another order."""
    np.testing.assert_allclose(found, wanted, **{"rtol": 1e-13, "atol": 1e-15, **tolerances})


def nan_mean(values, axis):
    values = np.asarray(values)
    count = (~np.isnan(values)).sum(axis)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, np.nansum(values, axis) / count, np.nan)


def read(file):
    with h5py.File(file) as opened:
        found = {}
        opened.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        return found


# --- the numbers are the file's ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_cosines_with_the_anchor_are_those_of_the_file(runs, model):
    result = runs(golden(model))
    table = tables_of(result.file)["cosines_to_anchor"]
    cos, hidden = result["analysis/cos"][:, -1], read_config(model)["hidden_size"]
    equal(column(table, "layer"), result["layer"])
    equal(column(table, "cos"), result["analysis/anchor_cos"])
    equal(column(table, "scale"), result["analysis/anchor_scale"])
    equal(column(table, "residual"), result["analysis/anchor_residual"], atol=1e-7)
    equal(column(table, "min"), np.nanmin(cos, -1))
    equal(column(table, "max"), np.nanmax(cos, -1))
    for name in ("z_two_sided", "z_shared"):
        equal(column(table, name), nan_mean(result[f"analysis/{name}"][:, -1], -1))
    p = result["analysis/p_two_sided"][:, -1]
    equal(column(table, "p_below_0.01"), nan_mean(np.where(np.isnan(p), np.nan, p < 0.01), -1))
    null = 1 / (hidden * np.sqrt((~np.isnan(cos)).sum(-1)))
    null[-1] = math.nan
    equal(column(table, "null_sd"), null)


@pytest.mark.parametrize("model", MODELS)
def test_cosines_of_consecutive_layers_are_those_of_the_file(runs, model):
    result = runs(golden(model))
    table = tables_of(result.file)["cosines_adjacent"]
    layers = np.arange(result["layer"].size - 1)
    equal(column(table, "layer"), result["layer"][:-1])
    equal(column(table, "layer_b"), result["layer"][1:])
    equal(column(table, "cos"), result["analysis/cos_mean"][layers, layers + 1])
    cos = result["analysis/cos"][layers, layers + 1]
    equal(column(table, "residual"), nan_mean(np.sqrt(1 - cos**2), -1))
    equal(column(table, "z_two_sided"), nan_mean(result["analysis/z_two_sided"][layers, layers + 1], -1))
    assert np.nanmean(column(table, "cos")) == pytest.approx(result["analysis/mean_cos_adjacent"])


@pytest.mark.parametrize("model", MODELS)
def test_layers_and_heads_are_ranked_by_their_cosines(runs, model):
    result = runs(golden(model))
    tables, file = tables_of(result.file), result["analysis/mean_cos_with_others"]
    layers = tables["layers_by_cosine"]
    order = np.argsort(-file, kind="stable")
    order = order if order.size <= 10 else np.concatenate([order[:5], order[-5:]])
    equal(column(layers, "layer"), result["layer"][order])
    equal(column(layers, "cos"), file[order])
    heads = tables["heads_by_cosine"]
    cosines = nan_mean(result["analysis/cos"][-1, :-1], 0)
    equal(column(heads, "cos"), cosines[column(heads, "head").astype(int)])
    equal(cosines, result["analysis/anchor_cos_head"])
    assert (np.diff(column(heads, "cos")) <= 0).all()
    assert column(heads, "cos")[0] == pytest.approx(cosines.max())
    assert column(heads, "cos")[-1] == pytest.approx(cosines.min())
    assert column(heads, "rank")[0] == 1 and column(heads, "rank")[-1] == cosines.size


@pytest.mark.parametrize("model", MODELS)
def test_every_number_of_the_summary_is_where_it_says(runs, model):
    result = runs(golden(model))
    summary = tables_of(result.file)["summary"]
    file = read(result.file)
    with h5py.File(result.file) as opened:
        verdicts = dict(opened["analysis"].attrs)
    words, scalars = 0, 0
    for row in summary["rows"]:
        path = row["in_the_file"]
        if path.startswith("analysis, attribute "):
            assert row["value"] == verdicts[path.removeprefix("analysis, attribute ")]
            words += 1
        elif file[path].ndim == 0:
            assert row["value"] == (None if np.isnan(file[path]) else file[path])
            scalars += 1
        elif path != "analysis/subspace_overlap":
            assert row["value"] in file[path] or row["value"] == pytest.approx(np.nanmean(file[path]))
    assert words == 3 and scalars >= 15
    assert summary["note"].startswith(verdicts["verdict"])
    for row in summary["rows"]:
        if row["what"].startswith("mean cosine"):
            assert row["null_mean"] == 0 and 0 < row["null_sd"] < 0.01
    overlap = next(row for row in summary["rows"] if row["in_the_file"] == "analysis/subspace_overlap")
    assert overlap["value"] == pytest.approx(file["analysis/subspace_overlap"][:-1].mean())
    assert overlap["null_mean"] == pytest.approx(file["analysis/subspace_overlap_chance"][:-1].mean())


@pytest.mark.parametrize("model", MODELS)
def test_signs_and_angles_are_those_of_the_file(runs, model):
    result = runs(golden(model))
    tables = tables_of(result.file)
    signs = tables["sign_agreement"]
    equal(column(signs, "leading"), result["top_k_signs"])
    for third in ("early", "middle", "late"):
        equal(column(signs, third), result[f"analysis/sign_agreement_{third}"])
    equal(column(signs, "null_sd"), result["analysis/sign_agreement_chance_sd"])
    angles = tables["angles"]
    for name in ("angle_mean_cos", "angle_min_cos", "top1_overlap", "subspace_overlap"):
        equal(column(angles, name), result[f"analysis/{name}"])
    equal(column(angles, "subspace_null"), result["analysis/subspace_overlap_chance"])
    equal(column(angles, "top1_null"), 1 / read_config(model)["hidden_size"])


@pytest.mark.parametrize("model", MODELS)
def test_effective_ranks_and_their_statistics_are_those_of_the_file(runs, model):
    result = runs(golden(model))
    tables, ranks = tables_of(result.file), result["heads/eff_rank"]
    matrix = tables["eff_rank"]
    equal(np.array([column(matrix, f"h{h}") for h in range(ranks.shape[1])]).T, ranks)
    for name, axis in (("heads_by_layer", 1), ("heads_by_head", 0)):
        table = tables[name]
        for figure, function in {
            "mean": np.mean,
            "sd": np.std,
            "min": np.min,
            "median": np.median,
            "max": np.max,
        }.items():
            equal(column(table, figure), function(ranks, axis), rtol=1e-11)
    for name in ("eff_rank_energy", "stable_rank", "asymmetry", "positivity", "sym_positive_energy"):
        equal(column(tables["heads_by_layer"], name), nan_mean(result[f"heads/{name}"], 1))
    means = ranks.mean(0)
    low, high = np.quantile(means, [0.25, 0.75])
    tags = ["LOW-RANK" if mean < low else "HIGH-RANK" if mean > high else "" for mean in means]
    assert [row["tag"] for row in tables["heads_by_head"]["rows"]] == tags
    assert "LOW-RANK" in tags and "HIGH-RANK" in tags
    extremes = column(tables["eff_rank_extremes"], "eff_rank")
    equal(extremes, np.concatenate([np.sort(ranks.ravel())[::-1][:5], np.sort(ranks.ravel())[::-1][-5:]]))


@pytest.mark.parametrize("model", MODELS)
def test_a_head_in_depth_is_what_numpy_makes_of_its_numbers(runs, model):
    result = runs(golden(model))
    layer, head = result["layer"].size // 2, 0
    for arguments in ((), ("--head", "1:3")):
        if arguments:
            layer, head = 1, 3
        tables = tables_of(result.file, *arguments)
        assert tables["head"]["title"].startswith(f"Layer {layer}, head {head}:")
        figures = {row["figure"]: row["value"] for row in tables["head"]["rows"]}
        singular = result["heads/singular_values"][layer, head]
        values = result["heads/eigvals_re"][layer, head] + 1j * result["heads/eigvals_im"][layer, head]
        symmetric = result["heads/sym_eigs"][layer, head]
        assert figures["eff_rank"] == result["heads/eff_rank"][layer, head]
        assert figures["asymmetry"] == result["heads/asymmetry"][layer, head]
        assert figures["eigenvalues that are complex"] == np.iscomplex(values).sum()
        assert figures["singular values above zero"] == (singular > 0).sum()
        assert figures["eigenvalues of g + g^T below zero"] == (symmetric < 0).sum()
        energy = np.cumsum(singular**2) / (singular**2).sum()
        assert figures["energy in the first 5 singular values"] == pytest.approx(energy[4])
        largest = tables["head_largest"]
        n = len(largest["rows"])
        assert n == min(20, symmetric.size)
        padded = lambda numbers, n=n: np.concatenate([numbers, np.full(n, np.nan)])[:n]
        equal(column(largest, "singular_value"), padded(singular))
        equal(column(largest, "energy"), padded(energy))
        equal(column(largest, "eig_re") + 1j * column(largest, "eig_im"), padded(values))
        equal(column(largest, "eig_abs"), padded(np.abs(values)))
        equal(column(largest, "sym_eig"), symmetric[:n])
        equal(column(largest, "sym_energy"), (np.cumsum(symmetric**2) / (symmetric**2).sum())[:n])
        ranges = {row["of"]: row for row in tables["head_ranges"]["rows"]}
        for name, numbers in {
            "singular values": singular,
            "|eigenvalues|": np.abs(values),
            "real parts": values.real,
        }.items():
            for share, where in {"min": 0, "5%": 0.05, "25%": 0.25, "median": 0.5, "95%": 0.95, "max": 1}.items():
                assert ranges[name][share] == pytest.approx(np.quantile(numbers, where), abs=1e-13)


# --- one set of tables, four formats ----------------------------------------------------------------------------------


def shown(value):
    """A cell as people see it: four significant digits."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int):
        return str(value)
    text = f"{value:#.4g}"
    return text[: text.index(".")] if re.fullmatch(r"-?\d{4,}\.\d*", text) else text


def same_cells(found, table):
    """Cells as texts, a list a row, against a table of JSON, where NaN is null like a cell with nothing in it."""
    assert len(found) == len(table["rows"])
    for texts, row in zip(found, table["rows"], strict=True):
        for text, value in zip(texts, row.values(), strict=True):
            assert text == shown(value) or (value is None and text == "NaN")


@pytest.mark.parametrize("model", ["qwen3-tiny", "qwen3-trained"])
def test_markdown_holds_the_same_cells(runs, model):
    file = runs(golden(model)).file
    tables = tables_of(file)
    head, *sections = analyze(file, "--format", "md").split("\n## ")
    assert head.startswith("# ") and head.count("\n# ") == 0, "one document"
    plain = lambda text: re.sub(r"\\(.)", r"\1", text)
    assert [plain(section.split("\n")[0]) for section in sections] == [table["title"] for table in tables.values()]
    for section, table in zip(sections, tables.values(), strict=True):
        lines = [line for line in section.split("\n") if line.startswith("|")]
        cells = [[plain(cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
        assert cells[0] == list(table["rows"][0])
        assert all(re.fullmatch(r":---|---:", cell) for cell in cells[1])
        same_cells(cells[2:], table)


@pytest.mark.parametrize("model", ["qwen3-tiny", "qwen3-trained"])
def test_text_holds_the_same_cells_in_columns_of_a_terminal(runs, model):
    file = runs(golden(model)).file
    tables, text = tables_of(file), analyze(file)
    assert max(map(len, text.split("\n"))) <= 120
    for table in tables.values():
        begin = text.index(f"{table['title']}\n{'=' * len(table['title'])}\n")
        lines = text[begin:].split("\n\n", 1)[1].split("\n\n\n")[0].split("\n")
        edges = [match.span() for match in re.finditer("-+", lines[1])]
        if len(edges) < len(table["rows"][0]):
            continue  # cut into blocks, as the unit tests have it
        cells = [[line[begin:end].strip() for begin, end in edges] for line in lines if line]
        assert cells[0] == list(table["rows"][0])
        same_cells(cells[2:], table)


@pytest.mark.parametrize("model", ["qwen3-tiny", "qwen3-trained"])
def test_csv_gives_back_every_digit_in_files_and_in_sections(runs, model, tmp_path):
    file = runs(golden(model)).file
    tables, folder = tables_of(file), tmp_path / "some" / "where"
    said = analyze(file, "--format", "csv", "-o", folder)
    assert str(folder) in said and str(len(tables)) in said
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.csv" for name in tables)
    sections = analyze(file, "--format", "csv").split("\n\n")
    for (name, table), section in zip(tables.items(), sections, strict=True):
        first, rest = section.split("\n", 1)
        assert first == f"# {name}: {table['title']}"
        assert rest.strip("\n") == (folder / f"{name}.csv").read_text().strip("\n")
        rows = list(csv.DictReader(io.StringIO(rest)))
        assert len(rows) == len(table["rows"])
        for row, wanted in zip(rows, table["rows"], strict=True):
            for key, value in wanted.items():
                if value is None:
                    assert row[key] in ("", "NaN")
                else:
                    assert type(value)(row[key]) == value


def test_a_folder_gets_one_file_of_the_other_formats(runs, tmp_path):
    file = runs(golden("qwen3-tiny")).file
    for format, name in {"text": "tables.txt", "md": "tables.md", "json": "tables.json"}.items():
        analyze(file, "--format", format, "-o", tmp_path)
        assert (tmp_path / name).read_text() == analyze(file, "--format", format)
    assert len(list(tmp_path.iterdir())) == 3


# --- another anchor, another head, labels -----------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_another_anchor_gives_what_a_run_with_it_gives(runs, model):
    last, second = runs(golden(model)), runs(golden(model), "--anchor", 1)
    before = last.file.read_bytes()
    (about, tables), (wanted_about, wanted) = about_and_tables(last.file, "--anchor", 1), about_and_tables(second.file)
    assert about.pop("file") != wanted_about.pop("file")
    assert about == wanted_about and about["anchor"] == 1
    assert tables == wanted
    assert tables != tables_of(last.file)
    assert tables_of(second.file, "--anchor", -1) == tables_of(last.file) == tables_of(last.file, "--anchor", -1)
    assert last.file.read_bytes() == before, "the file is only read"


def test_layers_go_by_their_numbers(runs):
    some = runs(golden("qwen2-tiny"), "--layers", "4:8")
    about, tables = about_and_tables(some.file, "--anchor", 5, "--head", "7:1")
    assert about["anchor"] == 5 and about["layers"] == "4 to 7 of 9"
    for name in ("cosines_to_anchor", "angles", "eff_rank", "heads_by_layer"):
        assert [row["layer"] for row in tables[name]["rows"]] == [4, 5, 6, 7]
    assert column(tables["cosines_to_anchor"], "cos")[1] == pytest.approx(1)
    assert tables["head"]["title"].startswith("Layer 7, head 1")
    assert tables["head"]["rows"][0]["value"] == some["heads/eff_rank"][3, 1]
    assert "layer 5" in tables["cosines_to_anchor"]["title"]
    assert [(row["layer"], row["layer_b"]) for row in tables["cosines_adjacent"]["rows"]] == [(4, 5), (5, 6), (6, 7)]
    assert tables_of(some.file)["head"]["title"].startswith("Layer 6, head 0"), "the middle one of these"
    alone = tables_of(runs(golden("qwen2-tiny"), "--layers", "4:5").file)
    assert "A single layer" in alone["summary"]["note"] and "cosines_adjacent" not in alone


# --- what is there ----------------------------------------------------------------------------------------------------


def test_tables_without_their_numbers_are_left_out(runs):
    whole = tables_of(runs(golden("qwen3-tiny")).file)
    gram, heads = (runs(golden("qwen3-tiny"), "-m", measure).file for measure in ("gram", "heads"))
    of_gram, of_heads = tables_of(gram), tables_of(heads)
    assert list(of_gram) == ["summary", "cosines_to_anchor", "cosines_adjacent", "layers_by_cosine", "heads_by_cosine"]
    of_match = {"matched_to_anchor", "matched_adjacent"}
    of_spectra = {name for name in whole if name.startswith("spectra")}
    of_residual = {"residual_by_layer", "residual_by_phase"}
    assert set(of_heads) == set(whole) - set(of_gram) - of_match - of_spectra - {"variation"} - of_residual | {
        "summary"
    }
    assert set(tables_of(runs(golden("qwen3-tiny"), "-m", "spectra").file)) == of_spectra
    assert "z_shared" not in of_gram["cosines_to_anchor"]["rows"][0]
    assert of_heads["head"] == whole["head"]
    tables_of(heads, "--anchor", 1)
    finished = run("analyze", gram, "--head", "0:0", folder=gram.parent)
    assert finished.returncode == USAGE and "no measure heads" in finished.stderr


def test_zero_operators_have_no_cosines_and_no_verdict(runs, tmp_path):
    tensors = read_checkpoint(golden("qwen3-tiny"))
    tensors[attention_name(1, "q")].bits = np.zeros_like(tensors[attention_name(1, "q")].bits)
    file = runs(write_checkpoint(tmp_path / "model", read_config("qwen3-tiny"), tensors)).file
    cosines = tables_of(file)["cosines_to_anchor"]["rows"]
    assert [row["layer"] for row in cosines if row["cos"] is None] == [1]
    assert cosines[1]["null_sd"] is None and cosines[1]["scale"] == 0
    tables = tables_of(file, "--anchor", 1, "--head", "1:0")
    assert tables["summary"]["note"].startswith("No verdict")
    assert all(row["cos"] is None for row in tables["cosines_to_anchor"]["rows"])
    assert tables["heads_by_cosine"]["rows"] == []
    figures = {row["figure"]: row["value"] for row in tables["head"]["rows"]}
    assert figures["eff_rank"] is None and figures["singular values above zero"] == 0
    for format in ("text", "md", "csv"):
        assert "NaN" in analyze(file, "--anchor", 1, "--format", format)


def test_several_ranks_speak_once(runs):
    file = runs(golden("qwen3-tiny")).file
    assert analyze(file, ranks=3) == analyze(file)


# --- matched heads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_matched_heads_are_those_of_the_file(runs, model):
    result = runs(golden(model))
    tables, last = tables_of(result.file), result["layer"].size - 1
    sizes, moved = nan_mean(np.abs(result["match/matched_cos"]), -1), result["match/assignment"]
    moved = (moved != np.arange(moved.shape[-1])).sum(-1)
    pairs = np.arange(last)
    for name, others in {"matched_adjacent": pairs + 1, "matched_to_anchor": np.full(last, last)}.items():
        table = tables[name]
        equal(column(table, "layer"), pairs)
        equal(column(table, "layer_b"), others)
        equal(column(table, "matched_abs_cos"), sizes[pairs, others])
        equal(column(table, "matched_null"), result["match/matched_null"][pairs, others])
        equal(column(table, "matched_excess"), result["match/matched_excess"][pairs, others])
        equal(column(table, "moved"), moved[pairs, others])
        equal(column(table, "same_head_abs_cos"), nan_mean(np.abs(result["analysis/cos"]), -1)[pairs, others])
    rows = {row["what"]: row for row in tables["summary"]["rows"]}
    assert rows["matched heads: mean |cosine|"]["value"] == result["match/mean_matched_cos"]
    assert rows["matched heads: mean |cosine|"]["null_mean"] == result["match/mean_matched_null"]
    of_other = tables_of(result.file, "--anchor", 1)
    assert {row["layer_b"] for row in of_other["matched_to_anchor"]["rows"]} == {1}


@pytest.mark.parametrize("model, reordered", [("qwen2-tiny", 4), ("qwen3-tiny", 1)])
def test_matched_heads_show_which_layer_is_reordered(runs, model, reordered):
    rows = tables_of(runs(golden(model)).file)["matched_adjacent"]["rows"]
    assert {row["layer"] for row in rows if row["moved"]} == {reordered - 1, reordered}
    for row in rows:
        if row["moved"]:
            assert row["matched_abs_cos"] > row["same_head_abs_cos"] + 0.1


# --- spectra ----------------------------------------------------------------------------------------------------------

FOLLOWED = ["eff_rank", "stable_rank", "alpha"]
STATISTICS = {
    "mean": np.mean,
    "median": np.median,
    "std": np.std,
    "variance": np.var,
    "cv": lambda x: x.std() / abs(x.mean()),
    "min": np.min,
    "max": np.max,
    "range": np.ptp,
    "first": lambda x: x[0],
    "last": lambda x: x[-1],
}


def labels(values):
    return [b"".join(row).decode().rstrip("\0") if row.dtype.kind == "S" else str(row) for row in values]


def across_depth(result):
    """Layers and numbers of every family by (figure, family): those of experts are means."""
    found = {}
    for figure in FOLLOWED:
        for group, prefix in {"spectra": "", "experts": "experts/"}.items():
            with h5py.File(result.file) as file:
                if group not in file:
                    continue
                values, layers = file[group][figure][()], file[group]["layer"][()]
                names = labels(file[group]["family"][()])
            for name, numbers in zip(names, values, strict=True):
                numbers = numbers if numbers.ndim == 1 else nan_mean(numbers, -1)
                there = ~np.isnan(numbers)
                found[figure, prefix + name] = layers[there], numbers[there]
    return found


def by_keys(table, *keys):
    return {tuple(row[key] for key in keys): row for row in table["rows"]}


def number(cell):
    return math.nan if cell is None else cell


@pytest.mark.parametrize("model", GOLDEN)
def test_spectra_across_depth_are_what_numpy_makes_of_the_file(runs, model):
    result = runs(golden(model))
    tables, families = tables_of(result.file), across_depth(result)
    statistics = by_keys(tables["spectra_statistics"], "figure", "family")
    thirds = by_keys(tables["spectra_thirds"], "figure", "family", "third")
    trends = by_keys(tables["spectra_trends"], "figure", "family")
    assert list(statistics) == list(trends) == list(families)
    for (figure, family), (layers, values) in families.items():
        row = statistics[figure, family]
        assert row["count"] == len(values)
        for name, statistic in STATISTICS.items():
            equal(number(row[name]), statistic(values) if len(values) else math.nan, err_msg=name, rtol=1e-12)
        n = len(values) // 3
        parts = [values[:n], values[n : 2 * n], values[2 * n :]] if n else [values[:0]] * 3
        for name, part in zip(["early", "middle", "late"], parts, strict=True):
            row = thirds[figure, family, name]
            assert row["count"] == len(part)
            for column_name in ["mean", "std", "min", "max", "median", "range", "cv"]:
                wanted = STATISTICS[column_name](part) if len(part) else math.nan
                equal(number(row[column_name]), wanted, err_msg=column_name, rtol=1e-12)
        row = trends[figure, family]
        if n == 0:
            assert row["trend"] == "" and row["drop"] is None and row["drop_from"] is None
            continue
        early, middle, late = (part.mean() for part in parts)
        equal([row["early"], row["middle"], row["late"]], [early, middle, late])
        signs = {(-1, -1): "MONOTONE DOWN", (1, 1): "MONOTONE UP"}
        trend = "U-SHAPE" if middle < min(early, late) else "OTHER"
        assert row["trend"] == signs.get((np.sign(middle - early), np.sign(late - middle)), trend)
        steps = np.diff(values)
        for name, at in {"drop": steps.argmin(), "jump": steps.argmax()}.items():
            if (steps[at] < 0) == (name == "drop"):
                assert row[name] == steps[at]
                assert (row[f"{name}_from"], row[f"{name}_to"]) == (layers[at], layers[at + 1])
    for figure in FOLLOWED:
        rows = [row for (of, _, third), row in thirds.items() if of == figure and third == "late"]
        assert rows[-1]["family"] == "(mean of families)"
        for name in ["mean", "std", "cv"]:
            equal(number(rows[-1][name]), nan_mean([number(row[name]) for row in rows[:-1]], 0))


@pytest.mark.parametrize("model", GOLDEN)
def test_every_matrix_has_its_row(runs, model):
    result = runs(golden(model))
    tables = tables_of(result.file)
    with h5py.File(result.file) as file:
        for group, name in {"spectra": "spectra_by_layer", "spectra_global": "spectra_global"}.items():
            families, figures = labels(file[group]["family"][()]), file[group]
            layers = figures["layer"][()] if group == "spectra" else [None]
            for row in tables[name]["rows"]:
                at = (families.index(row["family"]),)
                at += (list(layers).index(row["layer"]),) if group == "spectra" else ()
                assert row["shape"] == f"{figures['rows'][at]:.0f} x {figures['cols'][at]:.0f}"
                for figure in row.keys() - {"layer", "family", "shape"}:
                    equal(number(row[figure]), figures[figure][at])
            assert len(tables[name]["rows"]) == (~np.isnan(figures["rows"][()])).sum()
        if "experts" in file:
            rows = by_keys(tables["experts_by_layer"], "layer", "family")
            ranks = file["experts/eff_rank"][()]
            equal([row["eff_rank_mean"] for row in rows.values()], ranks.mean(-1).T.ravel())
            equal([row["eff_rank_max"] for row in rows.values()], ranks.max(-1).T.ravel())
            assert {row["experts"] for row in rows.values()} == {ranks.shape[-1]}


def test_shapes_are_those_of_the_checkpoint(runs):
    result, tensors = runs(golden("qwen3-tiny")), read_checkpoint(golden("qwen3-tiny"))
    rows = by_keys(tables_of(result.file)["spectra_statistics"], "figure", "family")
    for family, part in {"k_proj": "self_attn", "down_proj": "mlp"}.items():
        shape = tensors[f"model.layers.0.{part}.{family}.weight"].bits.shape
        assert rows["eff_rank", family]["shape"] == f"{shape[0]} x {shape[1]}"


def test_two_layers_have_statistics_but_no_thirds(runs):
    tables = tables_of(runs(golden("qwen2-tiny"), "-m", "spectra", "--layers", "3:5").file)
    row = tables["spectra_statistics"]["rows"][0]
    assert row["count"] == 2 and row["std"] > 0
    assert all(row["mean"] is None for row in tables["spectra_thirds"]["rows"])
    assert all(row["trend"] == "" and row["jump"] is None for row in tables["spectra_trends"]["rows"])


def test_layers_without_a_family_are_skipped(runs, tmp_path):
    """A mixture whose layers 0 and 2 have a dense MLP, whose layer 1 has experts."""
    config, tensors = read_config("qwen3moe-tiny"), read_checkpoint(golden("qwen3moe-tiny"))
    config["mlp_only_layers"] = [0, 2]
    for layer in config["mlp_only_layers"]:
        for name in [name for name in tensors if f".{layer}.mlp." in name]:
            tensor = tensors.pop(name)
            if ".experts.0." in name:
                tensors[name.replace("experts.0.", "")] = tensor
    config["intermediate_size"] = len(tensors["model.layers.0.mlp.gate_proj.weight"].bits)
    result = runs(write_checkpoint(tmp_path / "model", config, tensors), "-m", "spectra")
    rows = by_keys(tables_of(result.file)["spectra_statistics"], "figure", "family")
    assert rows["eff_rank", "q_proj"]["count"] == 3
    assert rows["eff_rank", "up_proj"]["count"] == 2
    assert rows["eff_rank", "experts/up_proj"]["count"] == 1
    equal(rows["eff_rank", "up_proj"]["last"], result["spectra/eff_rank"][5, 2])
    of_layers = tables_of(result.file)["spectra_by_layer"]["rows"]
    assert [row["layer"] for row in of_layers if row["family"] == "up_proj"] == [0, 2]


# --- what goes wrong --------------------------------------------------------------------------------------------------


def refused(code, *arguments, mentions, ranks=1, folder):
    finished = run("analyze", *arguments, folder=folder, ranks=ranks)
    assert finished.returncode == code, finished.stderr
    assert finished.stdout == ""
    lines = [line for line in finished.stderr.splitlines() if line.startswith("geom-mpi: error:")]
    assert len(lines) == 1, finished.stderr
    for mention in mentions:
        assert str(mention) in lines[0]


@pytest.mark.parametrize("ranks", [1, 2])
def test_what_is_no_finished_result_is_the_inputs_fault(runs, tmp_path, ranks):
    refuse = lambda name, *mentions: refused(INPUT, name, mentions=[name, *mentions], folder=tmp_path, ranks=ranks)
    refuse("missing.h5", "No such file")
    (tmp_path / "text.h5").write_text("not HDF5 at all, but long enough to be looked at")
    refuse("text.h5")
    refuse(".")
    h5py.File(tmp_path / "foreign.h5", "w").close()
    refuse("foreign.h5", "not a complete geom-mpi result")
    shutil.copy(runs(golden("qwen3-tiny")).file, tmp_path / "half.h5")
    with h5py.File(tmp_path / "half.h5", "r+") as file:
        del file.attrs["complete"]
    refuse("half.h5", "not a complete geom-mpi result")
    whole = runs(golden("qwen3-tiny")).file.read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    refuse("cut.h5")


def test_usage_errors_name_what_there_is(runs, tmp_path):
    file = runs(golden("qwen2-tiny"), "--layers", "4:8").file
    refuse = lambda *arguments, mentions: refused(USAGE, *arguments, mentions=mentions, folder=tmp_path)
    refuse(file, "--anchor", 2, mentions=["--anchor 2", "from 4 to 7"])
    refuse(file, "--anchor", -5, mentions=["--anchor -5"])
    refuse(file, "--anchor", "last", mentions=["--anchor"])
    refuse(file, "--head", "2:0", mentions=["--head 2:0", "from 4 to 7"])
    refuse(file, "--head", "4:99", mentions=["--head 4:99", "heads are 0 to"])
    for text in ("4", "4:", "4:1:2", "a:b", "-4:1"):
        refuse(file, f"--head={text}", mentions=["--head", "L:H"])
    refuse(file, "--format", "xml", mentions=["--format", "xml"])
    refuse(mentions=["FILE.h5"])
    refuse(file, file, mentions=["geom-mpi --help"])


def test_a_folder_that_cannot_be_written_is_said(runs, tmp_path):
    file = runs(golden("qwen3-tiny")).file
    (tmp_path / "file").write_text("in the way")
    for format in ("text", "csv"):
        refused(OUTPUT, file, "--format", format, "-o", "file", mentions=["file"], folder=tmp_path)
        refused(OUTPUT, file, "--format", format, "-o", "file/below", mentions=["file/below"], folder=tmp_path)
        refused(OUTPUT, file, "--format", format, "-o", "/proc/tables", mentions=["/proc/tables"], folder=tmp_path)
    if os.path.exists("/dev/full"):
        with open("/dev/full", "w") as full:
            finished = subprocess.run(
                [str(PROGRAM), "analyze", str(file)], stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
            )
        assert finished.returncode == OUTPUT and "No space left" in finished.stderr


# --- files larger than memory should have to be -----------------------------------------------------------------------

LAYERS, HEADS, RANK, TOP_K, HIDDEN = 256, 256, 4, 2, 1024


def allocated(file, path, dtype, shape):
    """A dataset of holes: its whole size in the file, nothing on the disk."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    if "/" in path:
        file.require_group(path.split("/")[0])
    space = h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
    h5py.h5d.create(file.id, path.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, properties)
    return file[path]


def write_large_result(name, small):
    """The layout of a small result at a size at which gram and its like have 134 MB each; most of it zeros."""
    lengths = {
        "layer": LAYERS,
        "layer_b": LAYERS,
        "head": HEADS,
        "rank": RANK,
        "sym": 2 * RANK,
        "direction": TOP_K,
        "hidden": HIDDEN,
    }
    random = np.random.default_rng(0)
    with h5py.File(small) as source, h5py.File(name, "w", libver=("earliest", "v108")) as file:
        file.attrs.update(
            {**source.attrs, "hidden": HIDDEN, "heads": HEADS, "layers": f"0:{LAYERS}", "model_layers": LAYERS}
        )
        scales = {}

        def copy(path, item):
            if not isinstance(item, h5py.Dataset) or path.startswith("run/"):
                return
            dim = path.split("/")[-1]
            if h5py.h5ds.is_scale(item.id):
                length = lengths.get(dim, item.shape[0])
                file[path] = np.arange(length, dtype="i4") if dim in lengths else item[()]
                file[path].make_scale(dim)
                scales[path] = file[path]

        def grow(path, item):
            if not isinstance(item, h5py.Dataset) or path.startswith("run/") or path in scales:
                return
            dims = [item.dims[axis].label or item.dims[axis].keys()[0] for axis in range(item.ndim)]
            group = path.split("/")[0]
            axes = [scales.get(f"{group}/{dim}", scales.get(dim)) for dim in dims]
            data = allocated(file, path, item.dtype, tuple(scale.shape[0] for scale in axes))
            for axis, scale in enumerate(axes):
                data.dims[axis].attach_scale(scale)
            if item.ndim <= 2 and group == "heads":
                data[...] = random.uniform(1, RANK, data.shape)

        source.visititems(copy)
        source.visititems(grow)
        file["analysis/anchor"][()] = LAYERS - 1
        for l in range(LAYERS):
            file["gram/gram"][l, l] = 1
        file["gram/gram"][17, 3], file["gram/gram"][3, 17] = 0.25, 0.25
        file["analysis/cos_mean"][3, 17] = file["analysis/cos_mean"][17, 3] = 0.25
        file["heads/singular_values"][...] = np.sort(random.uniform(0, 1, (LAYERS, HEADS, RANK)))[..., ::-1]
        file["heads/sym_eigs"][...] = random.standard_normal((LAYERS, HEADS, 2 * RANK))


PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_a_file_of_a_gigabyte_is_analysed_in_little_memory(runs, tmp_path):
    file = tmp_path / "large.h5"
    small = runs(golden("qwen3-tiny"), "-m", "gram,heads", "--top-k", TOP_K).file
    write_large_result(file, small)
    assert file.stat().st_size > 1e9

    def peak_and_tables(result, *arguments):
        out = tmp_path / "tables"
        command = [str(PROGRAM), "analyze", str(result), "--format", "json", "-o", str(out), *map(str, arguments)]
        # from a small process: what a child has between fork and exec counts as the child's
        finished = subprocess.run(
            [sys.executable, "-c", PEAK, *command], env=ENVIRONMENT, capture_output=True, text=True
        )
        assert finished.returncode == 0, finished.stderr
        return int(finished.stdout) * 1024, json.loads((out / "tables.json").read_text())["tables"]

    of_program, _ = peak_and_tables(small)  # with libraries, which are large where CUDA is among them
    for arguments in ((), ("--anchor", 3)):
        peak, tables = peak_and_tables(file, *arguments)
        taken = peak - of_program
        assert taken < 80 << 20, f"{taken / 2**20:.0f} MiB, less than one of the large variables has"
        assert len(tables["eff_rank"]["rows"]) == LAYERS
    assert tables["cosines_to_anchor"]["rows"][17]["scale"] == 0.25
    rows = {row["what"]: row["value"] for row in tables["summary"]["rows"]}
    assert rows["mean cosine with layer 3"] == pytest.approx(0.25 / (LAYERS - 1))
