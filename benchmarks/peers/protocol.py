"""The contender's side of the benchmarks' protocol: JSON lines on stdin and stdout, data in raw little-endian files."""

import json
import os
import sys
import time

try:
    import numpy as np
except ImportError as error:
    print(json.dumps({"skip": f"NumPy is not installed for {sys.executable}: {error}"}), flush=True)
    sys.exit(0)

DTYPES = {"f32": np.float32, "i32": np.int32, "u8": np.uint8}


def skip(reason):
    print(json.dumps({"skip": reason}), flush=True)
    sys.exit(0)


class Arrays:
    """Arrays by name, mapped from their files: every contender reads the same pages."""

    def __init__(self):
        self.by_name = {}

    def load(self, **o):
        shape = (o["rows"], o["cols"])
        self.by_name[o["as"]] = np.memmap(o["path"], DTYPES[o.get("dtype", "f32")], "r", shape=shape)

    def resident(self, **o):
        """As `load`, in memory of its own, as a user of the library would have it."""
        shape = (o["rows"], o["cols"])
        self.by_name[o["as"]] = np.fromfile(o["path"], DTYPES[o.get("dtype", "f32")]).reshape(shape)

    def __getitem__(self, name):
        return self.by_name[name]


def timed(action):
    start = time.perf_counter()
    value = action()
    return (time.perf_counter() - start) * 1000, value


def save_rows(path, rows, scores=None):
    if path is None:
        return
    np.ascontiguousarray(rows, np.int32).tofile(path + ".rows")
    if scores is not None:
        np.ascontiguousarray(scores, np.float32).tofile(path + ".scores")


def threads_wanted():
    return int(os.environ["WAGGLE_BENCH_THREADS"])


def serve(name, version, handlers, **extra):
    out = os.fdopen(os.dup(1), "w")
    # What libraries print must not land between the answers.
    os.dup2(2, 1)
    print(json.dumps({"name": name, "version": version, "threads": threads_wanted(), **extra}), file=out, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        op = request.pop("op")
        try:
            answer = handlers[op](**request) or {}
        except Exception as error:  # The benchmark decides what a peer's failure means.
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=out, flush=True)
