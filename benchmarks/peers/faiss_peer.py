"""FAISS flat (exact) with and without filters, HNSW and IVF, inner product."""

import numpy as np
from protocol import Arrays, save_rows, serve, skip, threads_wanted, timed

try:
    import faiss
except ImportError as error:
    skip(f"faiss is not installed: {error}")

faiss.omp_set_num_threads(threads_wanted())
arrays = Arrays()
indexes = {}


def build_flat(matrix, metric="ip"):
    x = arrays[matrix]
    index = faiss.IndexFlatL2(x.shape[1]) if metric == "l2" else faiss.IndexFlatIP(x.shape[1])
    step = 65_536
    ms, _ = timed(lambda: [index.add(np.ascontiguousarray(x[i : i + step])) for i in range(0, len(x), step)])
    indexes["flat"] = index
    return {"ms": ms}


def topk(queries, k, matrix=None, metric=None, filter=None, filters=None, save=None):
    q = np.ascontiguousarray(arrays[queries])
    index = indexes["flat"]
    if filters is not None:
        # One bitmap per query: the library takes one selector a call.
        bits = np.ascontiguousarray(arrays[filters])
        def run():
            parts = []
            for i in range(len(q)):
                selector = faiss.IDSelectorBitmap(bits[i])
                parts.append(index.search(q[i : i + 1], k, params=faiss.SearchParameters(sel=selector)))
            return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
        ms, (scores, rows) = timed(run)
    elif filter is not None:
        bits = np.ascontiguousarray(arrays[filter]).reshape(-1)
        params = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        ms, (scores, rows) = timed(lambda: index.search(q, k, params=params))
    else:
        ms, (scores, rows) = timed(lambda: index.search(q, k))
    save_rows(save, rows, scores)
    return {"ms": ms}


def build_hnsw(matrix, m, efConstruction):
    x = np.ascontiguousarray(arrays[matrix])
    index = faiss.IndexHNSWFlat(x.shape[1], m, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = efConstruction
    ms, _ = timed(lambda: index.add(x))
    indexes["hnsw"] = index
    return {"ms": ms}


def search(queries, k, ef, save=None):
    q = np.ascontiguousarray(arrays[queries])
    params = faiss.SearchParametersHNSW(efSearch=ef)
    ms, (_, rows) = timed(lambda: indexes["hnsw"].search(q, k, params=params))
    save_rows(save, rows)
    return {"ms": ms}


def build_ivf(matrix, lists):
    """int8 lists, as ours; the library's own advice for the number of training points."""
    x = np.ascontiguousarray(arrays[matrix])
    dim = x.shape[1]
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dim), dim, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    def run():
        index.train(x)
        index.add(x)
    ms, _ = timed(run)
    indexes["ivf"] = index
    return {"ms": ms}


def search_ivf(queries, k, probes, save=None):
    q = np.ascontiguousarray(arrays[queries])
    params = faiss.SearchParametersIVF(nprobe=probes)
    ms, (_, rows) = timed(lambda: indexes["ivf"].search(q, k, params=params))
    save_rows(save, rows)
    return {"ms": ms}


serve(
    "faiss-cpu",
    faiss.__version__,
    {
        "load": arrays.load,
        "build_flat": build_flat,
        "topk": topk,
        "build_hnsw": build_hnsw,
        "search": search,
        "build_ivf": build_ivf,
        "search_ivf": search_ivf,
    },
    simd=faiss.get_compile_options().strip(),
)
