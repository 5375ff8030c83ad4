"""The measure `heads` as its definition reads: the explicit D x D operator g = W_K^T W_Q, with 60 digits.

    python heads_reference.py > ../data/heads/hard_heads.txt

writes the heads that tests/unit/test_heads.cpp compares with: made to be hard for a method that never forms g. A head
is its name and shape, the weights as hexadecimal floats (exact), then spectra to 17 digits. Eigenvalues that are equal
in magnitude come in any order; what is exactly zero is 0.
"""

import mpmath as mp
import numpy as np

mp.mp.dps = 60
ROUNDING = mp.mpf(10) ** -25  # beside the largest value: far above the error at 60 digits, even of a double root


def spectra(q, k):
    """Singular values and eigenvalues of g (hd each), eigenvalues of g + g^T (2hd each), by descending magnitude."""
    head_dim = q.shape[0]
    g = mp.matrix(k.tolist()).T * mp.matrix(q.tolist())
    scale = mp.mnorm(g, "f")
    if scale == 0:
        return [mp.mpc(0)] * head_dim, [mp.mpc(0)] * head_dim, [mp.mpc(0)] * (2 * head_dim)
    values = list(mp.svd_r(g, compute_uv=False))
    roots = list(mp.eig(g, left=False, right=False))
    symmetric = list(mp.eigsy(g + g.T, eigvals_only=True))
    return [
        leading(found, count, scale)
        for found, count in ((values, head_dim), (roots, head_dim), (symmetric, 2 * head_dim))
    ]


def leading(values, count, scale):
    values = [mp.mpc(0) if abs(value) < ROUNDING * scale else mp.mpc(value) for value in values]
    values = sorted(values, key=lambda value: -abs(value))[:count]
    return values + [mp.mpc(0)] * (count - len(values))


def graded(rng, head_dim, hidden, condition):
    """Random singular vectors, singular values from 1 down to 1/condition."""
    u = np.linalg.qr(rng.standard_normal((head_dim, head_dim)))[0]
    v = np.linalg.qr(rng.standard_normal((hidden, head_dim)))[0]
    return (u * np.logspace(0, -np.log10(condition), head_dim)) @ v.T


def hard_heads():
    rng = np.random.default_rng(20)
    n, d = 6, 14

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32).astype(float)

    def whole(*shape):
        return np.round(4 * rng.standard_normal(shape)) + 0.0

    yield "random", normal(n, d), normal(n, d)
    yield "condition 1e4", graded(rng, n, d, 1e4), graded(rng, n, d, 1e4)
    yield "condition 1e8", graded(rng, n, d, 1e8), graded(rng, n, d, 1e8)
    yield "condition 1e8 of queries alone", graded(rng, n, d, 1e8), normal(n, d)
    outlier = normal(n, d)
    outlier[3, 5] = 1e6
    yield "an outlier of 1e6", outlier, normal(n, d)
    yield "an outlier of 1e6 on both sides", outlier, outlier[::-1, ::-1]
    yield "very different scales", 1e8 * normal(n, d), 1e-7 * normal(n, d)
    yield "graded rows", normal(n, d) * np.logspace(0, -6, n)[:, None], normal(n, d)
    yield "rank 1", np.outer(whole(n), whole(d)), np.outer(whole(n) + 9, whole(d))
    yield "rank 2 of queries alone", whole(n, 2) @ whole(2, d), normal(n, d)
    duplicated = normal(n, d)
    duplicated[4] = duplicated[1]
    yield "a row twice", duplicated, normal(n, d)
    yield "all singular values equal", np.eye(n, d), np.roll(np.eye(n, d), 5, axis=1)
    yield "singular values equal in pairs", np.repeat([4.0, 2.0, 1.0], 2)[:, None] * np.eye(n, d), np.eye(n, d)
    yield (
        "queries and keys in separate coordinates",
        np.pad(normal(n, 7), ((0, 0), (0, 7))),
        np.pad(normal(n, 7), ((0, 0), (7, 0))),
    )
    same = normal(n, d)
    yield "symmetric", same, same
    half, other = normal(n // 2, d), normal(n // 2, d)
    yield "antisymmetric", np.vstack([half, other]), np.vstack([other, -half])
    near = normal(n, d)
    yield "keys nearly queries", near, 0.5 * near + 1e-6 * normal(n, d)
    yield "no queries", np.zeros((n, d)), normal(n, d)
    yield "nothing at all", np.zeros((n, d)), np.zeros((n, d))
    yield "products that cancel", np.vstack([half, half]), np.vstack([other, -other])
    yield "wider than the hidden space", normal(n, 4), normal(n, 4)
    yield "as wide as the hidden space", normal(n, n), normal(n, n)
    yield "more than half as wide as the hidden space", normal(n, 9), normal(n, 9)
    yield "a head of one row", normal(1, 3), normal(1, 3)


def decimal(value):
    return mp.nstr(value, 17, min_fixed=1, max_fixed=0) if value else "0"


def main():
    for name, q, k in hard_heads():
        values, roots, symmetric = spectra(q, k)
        print(f"head {q.shape[0]} {q.shape[1]} {name}")
        for weights in (q, k):
            print(*(float(value).hex() for value in weights.flat))
        print(*(decimal(value.real) for value in values))
        print(*(decimal(value.real) for value in roots))
        print(*(decimal(value.imag) for value in roots))
        print(*(decimal(value.real) for value in symmetric))


if __name__ == "__main__":
    main()
