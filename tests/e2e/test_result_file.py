"""Result files in other programs' hands: xarray through h5netcdf and netCDF4, netCDF4 and h5py themselves.

The file comes from the unit test ResultFile.makes_a_sample_for_other_readers; GEOM_UNIT_TESTS names the program when it
is not in build/. Warnings are errors: they are what a user would see first.
"""

import os
import pathlib
import subprocess

import numpy as np
import pytest
from conftest import golden

h5py = pytest.importorskip("h5py")
xarray = pytest.importorskip("xarray")

pytestmark = pytest.mark.filterwarnings("error")

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENGINES = ["h5netcdf", "netcdf4"]
GROUPS = ["", "gram", "spectra", "variation", "legacy", "legacy/variation", "analysis", "run", "run/io"]

# variable: its axes by name; element i of variable number v is 100 v + i
VARIABLES = {
    "gram/gram": ("layer", "layer_b", "head"),
    "spectra/eff_rank": ("family", "layer"),
    "spectra/singular_values_q_proj": ("layer", "index_q_proj"),
    "spectra/cross_gram": ("layer", "head"),
    "variation/residual": ("gauge", "layer"),
    "variation/layer_phase": ("layer",),
    "variation/by_phase": ("phase",),
    "legacy/variation/residual": ("family",),
    "analysis/sign_agreement": ("top_k_signs", "layer"),
    "analysis/anchor": (),
    "analysis/mean_cos_to_anchor": (),
}
LENGTHS = {"layer": 4, "layer_b": 4, "head": 3, "index_q_proj": 5, "gauge": 4, "phase": 2, "top_k_signs": 2}
LABELS = {
    "spectra": ("family", ["q_proj", "gate_proj", "naïve"]),
    "variation": ("gauge", ["none", "rotation", "none_folded", "function"]),
    "legacy/variation": ("family", ["q", "k"]),
}


def unit_tests() -> pathlib.Path:
    named = os.environ.get("GEOM_UNIT_TESTS")
    found = [pathlib.Path(named)] if named else sorted(ROOT.glob("build*/**/unit_tests"))
    if not found:
        pytest.skip("no unit_tests program: build first, or name it in GEOM_UNIT_TESTS")
    return found[0]


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("sample")
    subprocess.run(
        [unit_tests(), "--gtest_filter=ResultFile.makes_a_sample_for_other_readers"],
        env={**os.environ, "GEOM_SAMPLE_FOLDER": str(folder)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    assert [file.name for file in folder.iterdir()] == ["sample.geom.h5"], "nothing temporary is left behind"
    return folder / "sample.geom.h5"


def opened(sample, engine, group):
    pytest.importorskip("netCDF4" if engine == "netcdf4" else engine)
    with xarray.open_dataset(sample, engine=engine, group=group or None) as dataset:
        return dataset.load()


def split(path):
    group, _, name = path.rpartition("/")
    return group, name


@pytest.mark.parametrize("engine", ENGINES)
def test_every_group_opens_and_holds_its_variables(sample, engine):
    for group in GROUPS:
        expected = {name for g, name in map(split, VARIABLES) if g == group}
        assert set(opened(sample, engine, group).data_vars) == expected, group


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("number, path", list(enumerate(VARIABLES)))
def test_every_axis_has_its_name_and_every_number_its_place(sample, engine, number, path):
    group, name = split(path)
    variable = opened(sample, engine, group)[name]
    assert variable.dims == VARIABLES[path]
    family = {"spectra": 3, "legacy/variation": 2}.get(group)
    assert variable.shape == tuple(LENGTHS.get(dim, family) for dim in variable.dims)
    expected = 100 * number + np.arange(variable.size).reshape(variable.shape)
    np.testing.assert_array_equal(variable.values, expected)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("group", LABELS)
def test_labels_select(sample, engine, group):
    axis, labels = LABELS[group]
    dataset = opened(sample, engine, group)
    assert list(dataset[axis].values) == labels
    variable = next(v for v in dataset.data_vars.values() if v.dims[0] == axis)
    np.testing.assert_array_equal(variable.sel({axis: labels[1]}).values, variable.values[1])


@pytest.mark.parametrize("engine", ENGINES)
def test_root_holds_coordinates_and_attributes(sample, engine):
    root = opened(sample, engine, "")
    assert list(root["layer"].values) == [8, 9, 10, 11]
    assert list(root["head"].values) == [0, 1, 2]
    assert root["layer"].dtype == np.int32
    assert root.attrs["model"] == "Größe/模型"
    assert root.attrs["revision"] == ""
    assert root.attrs["seed"] == 1 << 40
    assert list(root.attrs["measures"]) == ["gram", "spectra"]
    assert len(root.attrs["config"]) == 100_000
    assert root.attrs["complete"] == 1
    assert opened(sample, engine, "run").attrs["seconds_total"] == 1.5


@pytest.mark.parametrize("engine", ENGINES)
def test_variables_say_what_they_are(sample, engine):
    for path in VARIABLES:
        group, name = split(path)
        attributes = opened(sample, engine, group)[name].attrs
        assert attributes["long_name"] and attributes["units"] == "1", path
    assert opened(sample, engine, "spectra")["eff_rank"].attrs["missing"] == "a zero matrix has none"
    assert opened(sample, engine, "analysis")["anchor"].attrs["verdict"] == "STRONG"


@pytest.mark.parametrize("engine", ENGINES)
def test_the_file_opens_as_a_tree_with_inherited_coordinates(sample, engine):
    pytest.importorskip("netCDF4" if engine == "netcdf4" else engine)
    with xarray.open_datatree(sample, engine=engine) as tree:
        assert list(tree["spectra/eff_rank"].coords["layer"].values) == [8, 9, 10, 11]
        assert float(tree["spectra/eff_rank"].sel(family="gate_proj", layer=9)) == 105


def test_netcdf4_knows_every_dimension(sample):
    netcdf4 = pytest.importorskip("netCDF4")
    with netcdf4.Dataset(sample) as file:
        for path, dims in VARIABLES.items():
            assert file[path].dimensions == dims
        assert not any(name.startswith("phony") for group in (file, *file.groups.values()) for name in group.dimensions)
        assert list(file["spectra/family"][:]) == ["q_proj", "gate_proj", "naïve"]


def test_h5py_sees_contiguous_little_endian_data_with_a_scale_on_every_axis(sample):
    with h5py.File(sample) as file:
        for path, dims in VARIABLES.items():
            variable = file[path]
            assert variable.chunks is None and variable.compression is None
            assert variable.id.get_offset() is not None, "allocated"
            assert variable.dtype.newbyteorder("<") == variable.dtype
            assert [len(dimension) for dimension in variable.dims] == [1] * len(dims)
        assert file.attrs["model"] == "Größe/模型"


LAYERS = [3, 4, 5]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("group, variable", [("gram", "gram"), ("analysis", "cos"), ("heads", "singular_values")])
def test_a_layers_number_selects_it_in_every_group_of_a_run_of_some_layers(runs, engine, group, variable):
    every = runs(golden("qwen3-tiny"))[f"{group}/{variable}"]
    some = opened(runs(golden("qwen3-tiny"), "--layers", "3:6", ranks=2).file, engine, group)
    for name in {"layer", "layer_b"} & set(some.dims):
        assert list(some[name].values) == LAYERS and some[name].attrs["long_name"].startswith("decoder layer")
    for layer in LAYERS:
        of_layer = some[variable].sel(layer=layer)
        if group == "heads":
            np.testing.assert_array_equal(of_layer.values, every[layer])
        else:
            for other in LAYERS:
                np.testing.assert_array_equal(of_layer.sel(layer_b=other).values, every[layer, other])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_tree_of_a_run_of_some_layers_selects_by_their_numbers(runs, engine):
    pytest.importorskip("netCDF4" if engine == "netcdf4" else engine)
    every = runs(golden("qwen3-tiny"))["gram/gram"]
    with xarray.open_datatree(runs(golden("qwen3-tiny"), "--layers", "3:6").file, engine=engine) as tree:
        np.testing.assert_array_equal(tree["gram/gram"].sel(layer=4, layer_b=5).values, every[4, 5])
        assert float(tree["analysis/cos_mean"].sel(layer=3, layer_b=3)) == pytest.approx(1)


def test_dimension_ids_are_unique_and_on_every_scale(sample):
    ids = []

    def visit(_, item):
        if isinstance(item, h5py.Dataset) and item.attrs.get("CLASS") == b"DIMENSION_SCALE":
            ids.append(int(item.attrs["_Netcdf4Dimid"]))

    with h5py.File(sample) as file:
        file.visititems(visit)
    assert sorted(ids) == list(range(len(ids))) and len(ids) > 10
