"""NumPy: the rate of a large sgemm, and exact search as matmul and argpartition."""

import numpy as np
from protocol import Arrays, save_rows, serve, threads_wanted, timed

try:
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads_wanted())
except ImportError:
    pass  # OPENBLAS_NUM_THREADS, OMP_NUM_THREADS and MKL_NUM_THREADS are set by the parent.

arrays = Arrays()
factors = {}


def sgemm(n):
    if n not in factors:
        rng = np.random.default_rng(1)
        factors[n] = [rng.standard_normal((n, n), np.float32) for _ in range(2)] + [np.empty((n, n), np.float32)]
    a, b, c = factors[n]
    ms, _ = timed(lambda: np.matmul(a, b, out=c))
    return {"ms": ms, "gflops": 2e-6 * n**3 / ms}


def topk(queries, matrix, k, metric=None, batch=64, save=None):
    """In batches of queries: the scores of all of them would not fit in memory."""
    x = arrays[matrix]

    def some(q):
        scores = q @ x.T if len(q) > 1 else (x @ q[0])[None]
        top = np.argpartition(scores, len(x) - k, axis=1)[:, -k:]
        order = np.argsort(-np.take_along_axis(scores, top, 1), axis=1, kind="stable")
        return np.take_along_axis(top, order, 1)

    def run():
        q = arrays[queries]
        return np.concatenate([some(q[i : i + batch]) for i in range(0, len(q), batch)])

    ms, rows = timed(run)
    save_rows(save, rows)
    return {"ms": ms}


def blas():
    try:
        info = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{info['name']} {info['version']}"
    except Exception:
        return "unknown BLAS"


serve("numpy", f"{np.__version__} ({blas()})", {"load": arrays.resident, "sgemm": sgemm, "topk": topk})
