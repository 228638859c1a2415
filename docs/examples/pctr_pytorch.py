"""pCTR by PyTorch: python pctr_pytorch.py rows.parquet → pctr.onnx, pctr-net.contract.json"""

import copy
import sys

import numpy as np
import torch
from waggle_rows import log_loss, read_rows, weight, write_contract

torch.manual_seed(1)
rows = read_rows(sys.argv[1])
train, later = rows.split(0.8)
PRIOR = rows.about["features"].index("prior_logit_ctr")


class Net(torch.nn.Module):
    """The prior's logit and what a small network adds to it, scaling included: rows go in as Waggle has them."""

    def __init__(self, x):
        super().__init__()
        mean, sd = x.mean(0), x.std(0)
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("scale", torch.from_numpy(np.where(sd > 1e-6, 1 / np.maximum(sd, 1e-6), 0).astype(np.float32)))
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(x.shape[1], 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)
        )
        torch.nn.init.zeros_(self.layers[2].weight)
        torch.nn.init.zeros_(self.layers[2].bias)

    def logit(self, x):
        return x[:, PRIOR] + self.layers(torch.clamp((x - self.mean) * self.scale, -3, 3))[:, 0]

    def forward(self, x):
        return torch.sigmoid(self.logit(x))


net = Net(train.x)
# Small and strongly drawn to the prior: a sample network has a few thousand rows.
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1)
counts = train.delivered * weight(train)
x, share, counts = (torch.from_numpy(a.astype(np.float32)) for a in
                    (train.x, train.clicks / train.delivered, counts / counts.mean()))
best = (np.inf, None)
for epoch in range(20):
    for batch in torch.randperm(len(train)).split(512):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(net.logit(x[batch]), share[batch], counts[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        now = log_loss(net(torch.from_numpy(later.x)).numpy(), later)
    if now < best[0]:
        best = (now, copy.deepcopy(net.state_dict()))
net.load_state_dict(best[1])
net.eval()
examples = torch.from_numpy(later.part(0, 200).x)
torch.onnx.export(net, (examples,), "pctr.onnx", input_names=["features"], output_names=["probability"],
                  dynamic_axes={"features": {0: "n"}, "probability": {0: "n"}}, opset_version=17, dynamo=False)
with torch.no_grad():
    answers = net(examples).numpy()
write_contract(
    "pctr-net.contract.json", rows, (examples.numpy(), answers),
    name="pctr_pytorch", producer=f"torch {torch.__version__}", format="onnx", missing="refuse",
    tensors={"input": "features", "output": "probability"},
)
print(f"log-loss of {len(later)} later rows {best[0]:.6f}, "
      f"of the prior alone {log_loss(1 / (1 + np.exp(-later.prior)), later):.6f}")
