"""PyTorch: exact search as chunked matmul and topk, on the CPU or, where WAGGLE_BENCH_DEVICE says so, on the GPU."""

import os

import numpy as np
from protocol import Arrays, save_rows, serve, skip, threads_wanted, timed

try:
    import torch
except ImportError as error:
    skip(f"torch is not installed: {error}")

device = os.environ.get("WAGGLE_BENCH_DEVICE", "cpu")
if device == "cuda" and not torch.cuda.is_available():
    skip("torch sees no GPU")
torch.set_num_threads(threads_wanted())
arrays = Arrays()
resident = {}
# Elements of one chunk's score matrix: 1 GiB of float32.
CHUNK_SCORES = 1 << 28


def load(dtype="f32", **o):
    arrays.resident(dtype=dtype, **o)
    if dtype == "f32":
        resident[o["as"]] = torch.from_numpy(arrays[o["as"]]).to(device)


def convert(name, dtype, **o):
    resident[o["as"]] = resident[name].to(getattr(torch, dtype))


def synchronize():
    if device == "cuda":
        torch.cuda.synchronize()


def topk(queries, matrix, k, metric=None, save=None):
    q, x = resident[queries], resident[matrix]

    def run():
        step = max(1, CHUNK_SCORES // max(1, len(q)))
        best_scores, best_rows = [], []
        for start in range(0, len(x), step):
            scores = q @ x[start : start + step].T
            s, r = torch.topk(scores, min(k, scores.shape[1]), dim=1)
            best_scores.append(s)
            best_rows.append(r + start)
        s, at = torch.topk(torch.cat(best_scores, 1), k, dim=1)
        rows = torch.gather(torch.cat(best_rows, 1), 1, at)
        synchronize()
        return rows

    synchronize()
    with torch.inference_mode():
        ms, rows = timed(run)
    save_rows(save, rows.cpu().numpy())
    return {"ms": ms}


def matmul(n, dtype):
    """The rate of a large matrix product on random data: the limit of what the device's arithmetic gives."""
    kind = getattr(torch, dtype)
    a = torch.randn(n, n, device=device).to(kind)
    b = torch.randn(n, n, device=device).to(kind)
    with torch.inference_mode():
        a @ b
        synchronize()
        ms, _ = timed(lambda: (a @ b, synchronize()))
    return {"ms": ms, "gflops": 2e-6 * n**3 / ms}


def bandwidth(bytes):
    """Read bandwidth: the sum of a buffer far larger than the caches."""
    x = torch.ones(bytes // 4, device=device)
    x.sum()
    synchronize()
    ms, _ = timed(lambda: (x.sum(), synchronize()))
    return {"ms": ms, "gbPerS": bytes / ms / 1e6}


serve(
    "torch",
    torch.__version__,
    {"load": load, "convert": convert, "topk": topk, "matmul": matmul, "bandwidth": bandwidth},
    **({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}),
)
