"""Whether a model keeps to the point in what it writes for `hyperscale retrofit --data self`, by the way it is drawn.

For each temperature and nucleus mass the model writes documents as a retrofit has it write them, and reads them again:
the entropy of its next token by position. In a text that makes sense it falls with the context or stays; where draws
from the tail have led the model astray it rises, and with repetitions it falls too far.

python benchmarks/own_texts.py FOLDER --draws 1:1,1:0.95 --documents 8 --length 3072        # 10 minutes each on a CPU
"""

import argparse
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import mean

import torch

from hyperscale.retrofit.sources.own_texts import OwnTextPlan, write_own_texts
from hyperscale.retrofit.sources.settings import OWN
from hyperscale.retrofit.sources.text_files import TokenIds
from hyperscale.utils.hub import load_tokenizer

FIRST_END = 256  # of the positions that are taken together; each of the next ends at twice the one before


def entropies(model: torch.nn.Module, ids: list[int], start: int) -> list[float]:
    """Nats of the model's distribution at each token that it wrote."""
    with torch.no_grad():
        logits = model(torch.tensor([ids], device=next(model.parameters()).device)).logits[0, start - 1 : -1]
        log = logits.float().log_softmax(-1)
        found: list[float] = (-(log.exp() * log).sum(-1)).tolist()
    return found


def main() -> None:
    """Write and read for each way to draw, and print a row."""
    from transformers import AutoModelForCausalLM

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a checkpoint")
    parser.add_argument("--draws", default="1:1,1:0.95", help="temperature:top_p, ...")
    parser.add_argument("--documents", type=int, default=8)
    parser.add_argument("--length", type=int, default=3072)
    parser.add_argument(
        "--prompts",
        type=lambda text: text if text == OWN else Path(text),
        help="file of prompts to answer, or self; else whole documents from the template's opening",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).to(arguments.device)
    ends = [0, FIRST_END]
    while ends[-1] < arguments.length:
        ends.append(min(2 * ends[-1], arguments.length))
    print("| temperature | top_p |", " | ".join(f"{a:,} to {b:,}" for a, b in pairwise(ends)), "| repeated |")
    for draw in arguments.draws.split(","):
        temperature, top_p = map(float, draw.split(":"))
        with tempfile.TemporaryDirectory() as folder:
            plan = OwnTextPlan(
                *(arguments.model, arguments.device, arguments.length, arguments.documents * arguments.length),
                *(arguments.seed, arguments.prompts, temperature, top_p),
            )
            source = write_own_texts(plan, load_tokenizer(arguments.model), Path(folder) / "self.jsonl", lambda _: None)
        read = []
        for entry in source.entries:
            assert isinstance(entry.content, TokenIds)
            read.append(entropies(model, entry.content.ids, entry.content.start))
        cells = []
        for a, b in pairwise(ends):
            nats = [nat for document in read for nat in document[a:b]]
            cells.append(f"{mean(nats):.2f}" if nats else "")
        print(
            f"| {temperature:g} | {top_p:g} |",
            " | ".join(cells),
            f"| {source.notes['repeated'].split()[0]} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
