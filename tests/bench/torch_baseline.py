# The loops of the original single-GPU scripts, as they were handed over: what tests/bench/bench.py compares with.
"""Times of the original scripts' loops in torch on this machine, at a real model's shape with random bf16 weights.
Usage: torch_baseline.py SHAPE PART...
(SHAPE: qwen3-0.6b | qwen3-4b | qwen3-32b; PART: gram eig spectra kernel variation delta)"""

import sys
import time

import numpy as np
import torch

torch.set_grad_enabled(False)
S = {
    "qwen3-0.6b": {"L": 28, "H": 16, "KV": 8, "hd": 128, "D": 1024, "F": 3072},
    "qwen3-4b": {"L": 36, "H": 32, "KV": 8, "hd": 128, "D": 2560, "F": 9728},
    "qwen3-32b": {"L": 64, "H": 64, "KV": 8, "hd": 128, "D": 5120, "F": 25600},
}
s = S[sys.argv[1]]
L, H, KV, hd, D, F = (s[k] for k in ("L", "H", "KV", "hd", "D", "F"))
dev = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
R = lambda *a: (torch.randn(*a, device=dev) * 0.02).to(torch.bfloat16).float()


def timed(name, fn, scale=1.0):
    if dev == "cuda":
        torch.cuda.synchronize()
    t = time.perf_counter()
    fn()
    if dev == "cuda":
        torch.cuda.synchronize()
    dt = time.perf_counter() - t
    print(
        f"{sys.argv[1]} {dev} {name}: {dt * scale:.2f} s"
        + (f" (scaled x{scale:.0f} from {dt:.2f} s)" if scale != 1 else ""),
        flush=True,
    )


parts = sys.argv[2:]
if {"gram", "eig", "kernel"} & set(parts):
    Q = [R(H, hd, D) for _ in range(L)]
    K0 = [R(KV, hd, D) for _ in range(L)]
    K = [k[[h * KV // H for h in range(H)]] for k in K0]


def gram():
    g = torch.zeros(L, L, H, dtype=torch.float64)
    for l in range(L):
        for m in range(l, L):
            for h in range(H):
                g[l, m, h] = g[m, l, h] = float(((K[l][h] @ K[m][h].T) * (Q[l][h] @ Q[m][h].T)).sum())


def eig(n):
    J = torch.zeros(2 * hd, 2 * hd, device=dev)
    J[:hd, hd:] = torch.eye(hd, device=dev)
    J[hd:, :hd] = torch.eye(hd, device=dev)
    for l in range(n):
        for h in range(H):
            U, s_, Vh = torch.linalg.svd(K[l][h] @ Q[l][h].T, full_matrices=False)
            d = Vh @ Q[l][h]
            d = d / d.norm(dim=-1, keepdim=True)
            d[:8].cpu()
            float((s_ * s_).sum())
            X = torch.cat([Q[l][h], K[l][h]])
            torch.linalg.eigvals(J @ (X @ X.T)).real.cpu()


def kernel(n):
    for h in range(n):
        torch.linalg.svdvals(Q[0][h].T @ K[0][h])


def spectra():
    for m, n in ((H * hd, D), (KV * hd, D), (KV * hd, D), (D, H * hd), (F, D), (F, D), (D, F)):
        torch.linalg.svdvals(R(m, n))


def variation():
    a = [R(F, D).cpu().numpy() for _ in range(4)]
    d = [R(D, F).cpu().numpy() for _ in range(2)]
    M = a[0] @ a[1].T + a[2] @ a[3].T + d[0].T @ d[1]
    u, _, vt = np.linalg.svd(M, full_matrices=False)
    Rr = u @ vt
    [np.linalg.norm(x) for x in (Rr @ a[0] - a[1], Rr @ a[2] - a[3], d[0] @ Rr.T - d[1])]


def delta():
    np.linalg.svd(np.random.randn(2047, D).astype(np.float32), full_matrices=False)


if "gram" in parts:
    timed("gram", gram)
if "eig" in parts:
    timed("eig (all heads)", lambda: eig(2), L / 2)
if "kernel" in parts:
    timed("kernel eff rank (all heads)", lambda: kernel(2), L * H / 2)
if "spectra" in parts:
    timed("spectra of 7 families (all layers)", spectra, L)
if "variation" in parts:
    timed("MLP alignment (all pairs)", variation, L - 1)
if "delta" in parts:
    timed("delta SVD 2047 tokens (all layers)", delta, L)
