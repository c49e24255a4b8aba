"""Sweeps over the heads of SmolLM2, beside TransformerLens and nnsight at equal answers.

Each head of some layers is taken out in turn, and the logits of the last token are read. The peers
are run as their users write it: one forward pass with a hook a head. Both are optional:
``pip install transformer-lens nnsight``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import torch
from torch import Tensor

from _measure import arguments, table, timed, write_json
from engramma.probing.ablation import sweep_heads
from engramma.probing.model import LanguageModel
from engramma.probing.places import Place

PROMPT = "When {a} and {b} went to the store, {b} gave a drink to"
NAMES = ("Mary", "John", "Tom", "Anna", "James", "Paul", "Kate", "Mark")


def prompts(model: LanguageModel, n: int) -> tuple[Tensor, int]:
    texts = [PROMPT.format(a=NAMES[i % 8], b=NAMES[(i + 3) % 8]) for i in range(n)]
    tokens, last = model.encode(texts)
    assert len(set(last.tolist())) == 1, "prompts of one length need no padding"
    return tokens, model.token_ids(" Mary", special=False)[0]


def ours(model: LanguageModel, tokens: Tensor, word: int, layers: list[int]) -> Tensor:
    return sweep_heads(model, tokens, lambda logits: logits[:, word], at=-1, layers=layers)[layers]


def transformer_lens(model: LanguageModel) -> Callable[[Tensor, int, list[int]], Tensor]:
    from transformer_lens.model_bridge import TransformerBridge

    folder = tempfile.mkdtemp()
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    bridge = TransformerBridge.boot_transformers(folder, device="cpu", dtype=torch.float32)

    def sweep(tokens: Tensor, word: int, layers: list[int]) -> Tensor:
        found = torch.empty(len(layers), model.anatomy.n_heads, len(tokens))
        for i, layer in enumerate(layers):
            for head in range(model.anatomy.n_heads):

                def without(z: Tensor, hook: object, head: int = head) -> Tensor:
                    z[:, :, head] = 0
                    return z

                name = f"blocks.{layer}.attn.hook_z"
                logits = bridge.run_with_hooks(tokens, fwd_hooks=[(name, without)])
                found[i, head] = logits[:, -1, word]
        return found

    return sweep


def nnsight(model: LanguageModel) -> Callable[[Tensor, int, list[int]], Tensor]:
    from nnsight import LanguageModel as Traced

    traced = Traced(model.network, tokenizer=model.tokenizer)
    width = model.anatomy.head_width

    def sweep(tokens: Tensor, word: int, layers: list[int]) -> Tensor:
        found = torch.empty(len(layers), model.anatomy.n_heads, len(tokens))
        for i, layer in enumerate(layers):
            for head in range(model.anatomy.n_heads):
                part = slice(head * width, (head + 1) * width)
                with torch.no_grad(), traced.trace(tokens):
                    traced.model.layers[layer].self_attn.o_proj.input[:, :, part] = 0
                    logits = traced.lm_head.output[:, -1, word].save()
                found[i, head] = logits
        return found

    return sweep


def main() -> None:
    options = arguments(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    model = LanguageModel.load("smollm2")
    tokens, word = prompts(model, 4 if options.small else 16)
    layers = [15] if options.small else [2, 15, 27]
    seconds, answer = timed(lambda: ours(model, tokens, word, layers))
    rows = [["engramma", seconds, 1.0, 0.0]]
    for name, make in (("TransformerLens", transformer_lens), ("nnsight", nnsight)):
        try:
            sweep = make(model)
        except ImportError as error:
            print(f"{name} is not installed ({error})")
            continue
        with torch.no_grad():
            peer_seconds, peer = timed(lambda sweep=sweep: sweep(tokens, word, layers))
        error = float((peer - answer).abs().max() / answer.abs().max())
        assert error < 1e-3, f"{name} answers otherwise, by {error:.1e}"
        rows.append([name, peer_seconds, peer_seconds / seconds, error])
    title = f"{len(layers)} layers of 9 heads removed, {tuple(tokens.shape)} tokens"
    table(title, ["library", "seconds", "times ours", "largest difference"], rows)
    plain, _ = timed(lambda: model.logits(tokens, at=-1), repeats=3)
    keep = [Place("heads", layer) for layer in range(model.anatomy.n_layers)]
    kept, _ = timed(lambda: model.run(tokens, keep=keep, at=-1), repeats=3)
    table("One pass", ["", "seconds"], [["plain", plain], ["with all heads kept", kept]])
    write_json(options.json, {"sweep": rows, "plain": plain, "kept": kept})


if __name__ == "__main__":
    main()
