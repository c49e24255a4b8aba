"""Train the miniature language model of the stories, and measure it.

    python scripts/train_mini_story_lm.py --work mini-story-work     # about 25 minutes of one core

Each document is a story with its own cast, followed by questions with their answers; some are
made of sentences that tell what stories never tell (jobs, towns, instruments). Documents grow in
length over training, so that the model finds the facts of a text when few things compete. A run
that is broken off goes on where it was. The folder of weights is in the format of Hugging Face,
with a model card of what was measured on stories of seeds that training never sees.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from engramma.errors import DataError
from engramma.generative.ngrams import NGramModel
from engramma.generative.story_model import MINI_STORY, CausalLanguageModel
from engramma.memory.language_model import small_language_model
from engramma.memory.training import cosine
from engramma.nn.seed import seeded
from engramma.nn.train import train
from engramma.worlds.stories import knowledge_sentences, stories
from engramma.worlds.story_author import Story
from engramma.worlds.story_documents import completions, document
from engramma.worlds.story_questions import KINDS, ask
from engramma.worlds.story_words import vocabulary

WIDTH, LAYERS, HEADS, CONTEXT = 192, 4, 3, 512
#: Share of the steps, sentences and questions of a story, and documents in a batch.
STAGES = ((0.35, 9, 8, 16), (0.25, 18, 10, 10), (0.4, 28, 10, 8))
RATE, WEIGHT_DECAY, EPOCHS = 1.5e-3, 0.05, 40
#: Answers are few tokens among many; their loss weighs more.
ANSWER_WEIGHT = 4.0
KNOWLEDGE_SHARE = 0.05
#: Seeds of stories: training counts up from 10^6; these are for what is measured.
HELD_OUT, FITTED_ON = range(100), range(1000, 1040)
SPECIAL = ("<unk>", "<pad>", "<s>", "</s>")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word or sign, in lower case."""
    words = {w: i for i, w in enumerate((*SPECIAL, *vocabulary()))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), behavior="isolated"),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", words["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", bos_token="<s>",
        eos_token="</s>", model_max_length=CONTEXT, clean_up_tokenization_spaces=True,
    )  # fmt: skip


def story(seed: int, n_sentences: int, **options: Any) -> Story:
    """Tell a story whose cast is in proportion to its length."""
    small = n_sentences < 15
    cast = {"n_people": 3, "n_things": 6, "n_places": 4} if small else {}
    return stories(seed, n_sentences=n_sentences, recap_rate=0.1, **(cast | options))


def text_of(seed: int, n_sentences: int, n_questions: int) -> str:
    """Make one document of training."""
    rng = np.random.default_rng([seed, 1])
    if rng.random() < KNOWLEDGE_SHARE:
        facts = knowledge_sentences()["text"].to_numpy()
        told = " ".join(facts[rng.permutation(len(facts))[: 2 * n_questions]])
        asked = ask(story(seed, 5), n_questions, rng=rng, kinds=("knowledge",))
        return " ".join([told, *(f"Question: {q.text} Answer: {q.answer}." for q in asked)])
    told_story = story(seed, n_sentences)
    # Most questions are of what is true now and of single facts, from which the others follow.
    kinds = ("place", "fact", "place", "holder", *KINDS[:6], "previous")
    order = [kinds[i] for i in rng.permutation(len(kinds))]
    return document(told_story, ask(told_story, n_questions, rng=rng, kinds=order))


def batch(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> tuple[torch.Tensor, ...]:
    """Tokens, and how much the prediction of each weighs."""
    encoded = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    tokens = encoded["input_ids"]
    answer, stop = (tokenizer.convert_tokens_to_ids(w) for w in ("answer", "."))
    place = torch.arange(tokens.shape[1])
    last_answer, last_stop = (
        torch.where(tokens == sign, place, -1).cummax(1).values for sign in (answer, stop)
    )
    inside = (last_answer > last_stop) & (place >= last_answer + 2)  # after "Answer:"
    return tokens, encoded["attention_mask"] * torch.where(inside, ANSWER_WEIGHT, 1.0)


def loss(model: Any, group: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Weighted cross-entropy of the next token."""
    tokens, weights = group  # padding comes last, so that nothing causal sees it
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=tokens, use_cache=False).logits
    each = F.cross_entropy(logits[:, :-1].float().transpose(1, 2), tokens[:, 1:], reduction="none")
    weights = weights[:, 1:]
    return (each * weights).sum() / weights.sum()


def stage_of(step: int, steps: int) -> tuple[int, int, int]:
    """Sentences, questions and documents of the batches of a step."""
    ends = np.cumsum([share for share, *_ in STAGES])
    _, sentences, questions, documents = STAGES[int((step >= ends[:-1] * steps).sum())]
    return sentences, questions, documents


def fit(work: Path, steps: int) -> CausalLanguageModel:
    """Train, and save the folder into ``work``."""
    tokenizer = make_tokenizer()
    model = small_language_model(len(tokenizer), WIDTH, LAYERS, HEADS, seed=0)
    model.set_attn_implementation("eager")  # twice as fast in half precision on a processor
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": WEIGHT_DECAY},
            {"params": vectors, "weight_decay": 0},
        ],
        lr=RATE,
        betas=(0.9, 0.98),
    )
    edges = np.linspace(0, steps, EPOCHS + 1).astype(int)
    began = time.process_time()

    def batches(epoch: int) -> Iterator[tuple[torch.Tensor, ...]]:
        for step in range(edges[epoch], edges[epoch + 1]):
            for group in optimizer.param_groups:
                group["lr"] = RATE * cosine(step, steps, 0.05)
            sentences, questions, size = stage_of(step, steps)
            first = 10**6 + 100 * step
            yield batch(tokenizer, [text_of(first + i, sentences, questions) for i in range(size)])

    def report(epoch: int, mean: float) -> None:
        print(f"{epoch + 1}/{EPOCHS}: {mean:.4f}, {time.process_time() - began:.0f} s", flush=True)

    with seeded(0):
        train(
            model, loss, batches, epochs=EPOCHS, optimizer=optimizer, clip=1.0,
            checkpoint=work / "checkpoint.pt", after_epoch=report,
        )  # fmt: skip
    model.set_attn_implementation("sdpa")
    config = model.config
    config.max_position_embeddings = CONTEXT
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    folder = work / "mini-story"
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return CausalLanguageModel(folder)


def measure(model: CausalLanguageModel) -> dict[str, Any]:
    """Measure perplexity, facts and answers on stories that training has not seen."""
    held_out = [story(seed, 28) for seed in HELD_OUT]
    ids = [model.encode(tale.text) for tale in held_out]
    bits = np.concatenate([model.token_bits(row)[1:] for row in ids])
    perplexity = {"model": 2 ** float(bits.mean())} | ngram_perplexities(model, ids)
    return {
        "perplexity": perplexity,
        "completions": {n: facts(model, n) for n in (9, 18, 28)},
        "questions": {kind: answers(model, kind) for kind in KINDS},
    }


def ngram_perplexities(model: CausalLanguageModel, ids: list[list[int]]) -> dict[str, float]:
    """Perplexity of the baselines, which count 2000 stories of training."""
    counted, fitted = (
        np.concatenate([model.encode(story(seed, 28).text) for seed in seeds])
        for seeds in (range(10**6, 10**6 + 2000), FITTED_ON)
    )
    tested = np.concatenate(ids)
    found = {}
    for order, name in enumerate(("unigram", "bigram", "trigram", "4-gram"), start=1):
        ngrams = NGramModel(order, len(model.tokenizer)).fit(counted, fitted)
        # Starts of texts are given, not predicted.
        keep = tested[order - 1 :] != model.tokenizer.bos_token_id
        found[name] = 2 ** float(ngrams.bits(tested)[keep].mean())
    return found


def facts(model: CausalLanguageModel, n_sentences: int) -> dict[str, float]:
    """Accuracy of completing "X is in the", of saying the place named last, and of guessing."""
    right, latest, chance = [], [], []
    for seed in HELD_OUT:
        tale = story(seed, n_sentences)
        text = tale.text.lower()
        for c in completions(tale, 3, rng=np.random.default_rng(seed)):
            right.append(c.choices[int(model.score(c.prompt, c.choices).argmax())] == c.answer)
            latest.append(max(c.choices, key=text.rfind) == c.answer)
            chance.append(1 / len(c.choices))
    means = map(float, map(np.mean, (right, latest, chance)))
    return dict(zip(("model", "place named last", "chance"), means, strict=True)) | {
        "n": len(right)
    }


def answers(model: CausalLanguageModel, kind: str) -> dict[str, float]:
    """Accuracy of choosing the answers of one kind of question."""
    right, chance = [], []
    for seed in HELD_OUT[:30]:
        tale = story(seed, 18)
        try:
            questions = ask(tale, 2, rng=np.random.default_rng(seed), kinds=(kind,))
        except DataError:  # nothing of that kind happened
            continue
        for q in questions:
            context = "" if kind == "knowledge" else tale.text
            right.append(model.answer(q.text, context, q.choices) == q.answer)
            chance.append(q.chance)
    return {"model": float(np.mean(right)), "chance": float(np.mean(chance)), "n": len(right)}


def card(found: dict[str, Any], steps: int) -> str:
    """Write the model card."""
    perplexity = "\n".join(f"| {k} | {v:.2f} |" for k, v in found["perplexity"].items())
    told = "\n".join(
        f"| {n} | {r['model']:.2f} | {r['place named last']:.2f} | {r['chance']:.2f} | {r['n']} |"
        for n, r in found["completions"].items()
    )
    asked = "\n".join(
        f"| {kind} | {r['model']:.2f} | {r['chance']:.2f} | {r['n']} |"
        for kind, r in found["questions"].items()
    )
    return f"""# mini-story: a miniature causal language model of stories

A Llama of {LAYERS} blocks and {WIDTH} values ({HEADS} heads, rotary positions, tied embeddings, one
token a word, context of {CONTEXT} tokens), stored in half precision. It was trained from scratch
by `scripts/train_mini_story_lm.py` on generated stories (`engramma.worlds.stories`) with questions
and answers after them: {steps} steps on documents of 9, 18 and 28 sentences. It knows no other
English.

It stands where a language model stands in a paper. Use `CausalLanguageModel("mini-story")`, or any
folder of Hugging Face in its place.

## Measured on stories of other seeds

Perplexity a token, {len(HELD_OUT)} stories of 28 sentences. The n-gram models are interpolated,
and count 2000 stories of training.

| model | perplexity |
|---|---|
{perplexity}

Completing "X is in the" after a story: the place must come from the text (accuracy among the
places of the story).

| sentences | model | place named last | chance | n |
|---|---|---|---|---|
{told}

Questions after a story of 18 sentences, answers chosen by their probability (knowledge: without
any text).

| kind | model | chance | n |
|---|---|---|---|
{asked}

Where it stands at chance, claims that presuppose the ability cannot be tested with it.
"""


def main() -> None:
    """Train, measure, and put the folder where the package has it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("mini-story-work"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--to", type=Path, default=MINI_STORY)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(exist_ok=True, parents=True)
    model = fit(options.work, options.steps)
    found = measure(model)
    print(json.dumps(found, indent=1))
    (options.work / "mini-story" / "README.md").write_text(card(found, options.steps))
    (options.work / "mini-story" / "measured.json").write_text(json.dumps(found, indent=1))
    options.to.mkdir(exist_ok=True, parents=True)
    for path in (options.work / "mini-story").iterdir():
        target = options.to / path.name
        target.write_bytes(path.read_bytes())
        target.chmod(0o644)  # safetensors writes for the owner alone


if __name__ == "__main__":
    main()
