"""What a GPU reaches and what PyTorch does on it, for a machine without Node: JSON on stdout.

    python3 device_limits.py [ROWS …]

Read and copy bandwidth, the rate of large half-precision and int8 products, and exact search as chunked matmul and topk
(half precision, 384 dimensions, k = 100) at each number of rows. Medians; random data.
"""

import json
import sys
import time

import torch

DIM = 384
K = 100
# Elements of one chunk's score matrix, as in torch_peer.py.
CHUNK_SCORES = 1 << 28


def median_seconds(work, runs=7):
    work()
    torch.cuda.synchronize()
    times = []
    for _ in range(runs):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def search(queries, matrix):
    step = max(1, CHUNK_SCORES // len(queries))
    scores, rows = [], []
    for start in range(0, len(matrix), step):
        s, r = torch.topk(queries @ matrix[start : start + step].T, K, dim=1)
        scores.append(s)
        rows.append(r + start)
    _, at = torch.topk(torch.cat(scores, 1), K, dim=1)
    return torch.gather(torch.cat(rows, 1), 1, at)


def main():
    out = {"torch": torch.__version__, "device": torch.cuda.get_device_name()}
    x = torch.ones(2 << 30, device="cuda")
    y = torch.empty_like(x)
    out["read_gb_s"] = 4e-9 * x.numel() / median_seconds(x.sum)
    out["copy_gb_s"] = 8e-9 * x.numel() / median_seconds(lambda: y.copy_(x))
    del x, y
    for n in (8192, 16384):
        a, b = (torch.randn(n, n, device="cuda").half() for _ in range(2))
        out[f"f16_matmul_{n}_tflops"] = 2e-12 * n**3 / median_seconds(lambda: a @ b)
    n = 8192
    a, b = (torch.randint(-127, 128, (n, n), device="cuda", dtype=torch.int8) for _ in range(2))
    out[f"int8_matmul_{n}_tops"] = 2e-12 * n**3 / median_seconds(lambda: torch._int_mm(a, b.t()))
    del a, b
    for rows in map(int, sys.argv[1:]):
        matrix = torch.randn(rows, DIM, device="cuda", dtype=torch.half)
        for n_queries in (1, 64, 1024):
            queries = torch.randn(n_queries, DIM, device="cuda", dtype=torch.half)
            with torch.inference_mode():
                out[f"torch_topk_n{rows}_q{n_queries}_ms"] = 1e3 * median_seconds(lambda: search(queries, matrix))
        del matrix
    print(json.dumps(out, indent=1))


main()
