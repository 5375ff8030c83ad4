"""Reference of the synthetic weights (src/checkpoint/synthetic.hpp): written from the formula alone, in NumPy.

Prints the golden values of tests/unit/test_synthetic.cpp: python tests/reference/synthetic.py
"""

from fractions import Fraction
from math import floor, frexp, ldexp, sqrt

import numpy as np

MASK = np.uint64(0xFFFFFFFF)


def philox4x32_10(counter, key):
    """counter: four arrays, key: two ints of 32 bits each, in uint64."""
    c = [np.asarray(x, np.uint64) for x in counter]
    k = list(key)
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [
            (p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]),
            p1 & MASK,
            (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]),
            p0 & MASK,
        ]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(c)


def fnv1a(name):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return h


def centred_sums(seed, name, index):
    index = np.asarray(index, np.uint64)
    block, key = index // np.uint64(2), fnv1a(name)
    counter = [
        block & MASK,
        block >> np.uint64(32),
        np.full_like(block, key & 0xFFFFFFFF),
        np.full_like(block, key >> 32),
    ]
    words = philox4x32_10(counter, (seed & 0xFFFFFFFF, seed >> 32))
    odd = (index % np.uint64(2)).astype(bool)
    a, b = np.where(odd, words[2], words[0]), np.where(odd, words[3], words[1])
    low, high = np.uint64(0xFFFF), np.uint64(16)
    return [2 * int(s) - 4 * 65535 for s in (a & low) + (a >> high) + (b & low) + (b >> high)]


def factors(hidden, t):
    """A, B, m."""
    c = sqrt(1.0 / (4.0 * (2**32 - 1) / 3.0 * hidden))
    m = 29 - (frexp(c)[1] - 1)
    return [floor(Fraction(ldexp(sqrt(x) * c, m)) + Fraction(1, 2)) for x in (1.0 - t, t)] + [m]


def values(seed, name, layer, layers, hidden, drift, index):
    """Exact, as fractions."""
    t = drift * layer / (layers - 1) if layer is not None and layers > 1 else 0.0
    base_name = name if layer is None else name.replace(f"layers.{layer}.", "layers.", 1)
    a, b, m = factors(hidden, t)
    sums = zip(centred_sums(seed, base_name, index), centred_sums(seed, name, index), strict=True)
    return [Fraction(a * s + b * o, 2**m) for s, o in sums]


def bf16(x):
    """Bits of an exact value rounded to nearest even; x is zero or in the normal range."""
    if x == 0:
        return 0
    e = frexp(float(abs(x)))[1] - 1
    return ((x < 0) << 15) + ((e + 127 - 1) << 7) + round(abs(x) / Fraction(2) ** (e - 7))


def tokens(seed, vocabulary, count):
    block, key = np.arange((count + 3) // 4, dtype=np.uint64), fnv1a("token_ids")
    counter = [
        block & MASK,
        block >> np.uint64(32),
        np.full_like(block, key & 0xFFFFFFFF),
        np.full_like(block, key >> 32),
    ]
    words = philox4x32_10(counter, (seed & 0xFFFFFFFF, seed >> 32)).T.ravel()
    return [int(word) * vocabulary >> 32 for word in words[:count]]


if __name__ == "__main__":
    print(tokens(0, 151936, 9), tokens(2**40 + 5, 1024, 5))
    for seed, name, layer, layers, hidden, drift, first in [
        (0, "model.layers.7.self_attn.q_proj.weight", 7, 28, 1024, 0.5, 0),
        (0x123456789ABCDEF0, "model.layers.63.mlp.down_proj.weight", 63, 64, 5120, 0.25, 2**33 + 1),
        (1, "model.embed_tokens.weight", None, 28, 1024, 0.5, 7),
    ]:
        exact = values(seed, name, layer, layers, hidden, drift, range(first, first + 4))
        print(
            seed,
            name,
            first,
            [hex(bf16(x)) for x in exact],
            [hex(np.float16(float(x)).view("u2")) for x in exact],
            [float(x).hex() for x in exact],
        )
