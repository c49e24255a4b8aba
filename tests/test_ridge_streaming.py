"""Ridge from zarr to zarr: equal to the answer in memory, resumable, atomic."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import zarr

from engramma.encoding import streaming
from engramma.encoding.ridge import RidgeCV
from engramma.encoding.streaming import ridge_to_zarr
from engramma.errors import ConfigError, DataError, DataWarning

ALPHAS = (1.0, 10.0, 100.0, 1000.0)


@pytest.fixture
def data(rng, tmp_path):
    X = rng.standard_normal((60, 8)).astype(np.float32) + 1
    Y = (X @ rng.standard_normal((8, 230)) + 3 * rng.standard_normal((60, 230))).astype("f4")
    X_new = rng.standard_normal((5, 8)).astype(np.float32)
    array = zarr.create_array(
        str(tmp_path / "responses.zarr"), shape=Y.shape, chunks=(60, 50), dtype="f4"
    )
    array[:] = Y
    return X, Y, X_new, tmp_path / "responses.zarr"


def equals(group, X, Y, X_new, **options):
    model = RidgeCV(ALPHAS, **options).fit(X, Y)
    np.testing.assert_array_equal(group["alphas"][:], model.alphas_)
    np.testing.assert_allclose(group["cv_scores"][:], model.cv_scores_, atol=1e-6)
    np.testing.assert_allclose(group["weights"][:], model.coef_, atol=1e-5)
    np.testing.assert_allclose(group["intercept"][:], model.intercept_, atol=1e-5)
    np.testing.assert_allclose(group["predictions"][:], model.predict(X_new), atol=1e-5)


@pytest.mark.parametrize("kind", ["path", "zarr", "dask"])
def test_equals_the_answer_in_memory(data, tmp_path, kind):
    X, Y, X_new, path = data
    source = {
        "path": path,
        "zarr": zarr.open_array(str(path), mode="r"),
        "dask": da.from_zarr(str(path)),
    }[kind]
    group = ridge_to_zarr(
        X, source, tmp_path / "out", X_new=X_new, alphas=ALPHAS, units_per_chunk=100
    )
    equals(group, X, Y, X_new)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "responses.zarr"]


def test_options_reach_the_solver(data, tmp_path):
    X, Y, X_new, path = data
    options = {"scoring": "correlation", "standardize": True, "cv": 3}
    group = ridge_to_zarr(X, path, tmp_path / "out", X_new=X_new, alphas=ALPHAS, **options)
    equals(group, X, Y, X_new, **options)
    some = ridge_to_zarr(X, path, tmp_path / "some", alphas=ALPHAS, write=["alphas"])
    assert list(some.array_keys()) == ["alphas"]


def test_a_run_that_was_killed_goes_on(data, tmp_path, monkeypatch):
    X, Y, X_new, path = data
    out = tmp_path / "out"
    old = ridge_to_zarr(X, path, out, alphas=(5.0,), write=["alphas"])
    solve = streaming._solve_chunk
    solved = []

    def die_at_third(job, source, start, stop):
        if len(solved) == 2:
            raise KeyboardInterrupt
        solved.append(start)
        return solve(job, source, start, stop)

    run = {"X_new": X_new, "alphas": ALPHAS, "units_per_chunk": 50}
    monkeypatch.setattr(streaming, "_solve_chunk", die_at_third)
    with pytest.raises(KeyboardInterrupt):
        ridge_to_zarr(X, path, out, **run)
    assert (zarr.open_group(str(out), mode="r")["alphas"][:] == 5).all()  # the old results stand
    assert old is not None

    def count(job, source, start, stop):
        solved.append(start)
        return solve(job, source, start, stop)

    monkeypatch.setattr(streaming, "_solve_chunk", count)
    group = ridge_to_zarr(X, path, out, **run)
    assert solved == [0, 50, 100, 150, 200]
    equals(group, X, Y, X_new)


def test_an_unfinished_run_of_other_options_is_not_taken_over(data, tmp_path, monkeypatch):
    X, Y, X_new, path = data
    solve = streaming._solve_chunk

    def die(job, source, start, stop):
        solve(job, source, start, stop)
        raise KeyboardInterrupt

    monkeypatch.setattr(streaming, "_solve_chunk", die)
    with pytest.raises(KeyboardInterrupt):
        ridge_to_zarr(X, path, tmp_path / "out", X_new=X_new, alphas=(1.0, 7.0))
    monkeypatch.setattr(streaming, "_solve_chunk", solve)
    with pytest.warns(DataWarning, match="discarded"):
        group = ridge_to_zarr(X, path, tmp_path / "out", X_new=X_new, alphas=ALPHAS)
    equals(group, X, Y, X_new)


def test_bad_input_is_named_and_leaves_nothing(data, tmp_path):
    X, Y, _, path = data
    with pytest.raises(DataError, match="cannot be opened"):
        ridge_to_zarr(X, tmp_path / "nowhere.zarr", tmp_path / "out")
    with pytest.raises(DataError, match="60 presentations"):
        ridge_to_zarr(X[:-1], path, tmp_path / "out")
    with pytest.raises(ConfigError, match="X_new"):
        ridge_to_zarr(X, path, tmp_path / "out", write=["predictions"])
    with pytest.raises(ConfigError, match="positive"):
        ridge_to_zarr(X, path, tmp_path / "out", alphas=[-1])
    assert [p.name for p in tmp_path.iterdir()] == ["responses.zarr"]
    with pytest.raises(ConfigError, match="executor"):
        ridge_to_zarr(X, path, tmp_path / "out", executor="cluster")
    Y[3, 120] = np.nan
    with pytest.raises(DataError, match="unit 120, presentation 3"):
        ridge_to_zarr(X, da.from_array(Y, chunks=(60, 50)), tmp_path / "other")
    assert not (tmp_path / "out").exists() and not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", ["path", "dask"])
def test_a_cluster_gives_the_same(data, tmp_path, kind):
    from distributed import Client, LocalCluster

    X, Y, X_new, path = data
    source = path if kind == "path" else da.from_zarr(str(path))
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        Client(cluster),
    ):
        group = ridge_to_zarr(
            X,
            source,
            tmp_path / "out",
            X_new=X_new,
            alphas=ALPHAS,
            units_per_chunk=50,
            executor=cluster.scheduler_address,
        )
    equals(group, X, Y, X_new)
