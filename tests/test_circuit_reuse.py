"""Path patching against a forward pass written out here, an induction circuit built by hand."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from engramma.errors import ConfigError, DataError, DataWarning, NotTestableError
from engramma.memory.language_model import small_language_model
from engramma.nn.seed import seeded
from engramma.probing.head_edits import attend_to
from engramma.probing.hooks import Edit
from engramma.probing.model import LanguageModel
from engramma.probing.paired_prompts import PairedPrompts, TextPair, tokenise
from engramma.probing.paired_tasks import (
    TASKS,
    coloured_objects,
    greater_than,
    read_coloured_objects,
)
from engramma.probing.paired_tokens import (
    VOCABULARY,
    colour_tokens,
    identification_tokens,
    training_batch,
)
from engramma.probing.patching import Patching, Receiver
from engramma.probing.places import Place
from engramma.probing.training import learned_position_model
from engramma.systems.probing.circuit_reuse import Circuit, CircuitReuse


class Words:
    """A tokenizer of words, marks and two digits; "notebook" is two tokens."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        text = text.replace("notebook", "note book")
        words = re.findall(r"\d\d|[A-Za-z]+|[^\w ]", text)
        return {"input_ids": [self.known.setdefault(w, len(self.known)) for w in words]}

    def decode(self, tokens: list[int]) -> str:
        names = {number: word for word, number in self.known.items()}
        return " ".join(names[t] for t in tokens)


@pytest.fixture(scope="module")
def reader() -> LanguageModel:
    """A model of random weights that reads words."""
    return LanguageModel(small_language_model(400, dim=16, layers=2, heads=2), Words(), "reader")


@pytest.fixture(scope="module")
def random_model() -> LanguageModel:
    network = learned_position_model(
        VOCABULARY, dim=16, layers=3, heads=2, neurons=24, positions=32
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(3))
    return LanguageModel(network)


# -- path patching -----------------------------------------------------------------------------


def norm(x, layer):
    return functional.layer_norm(x, (x.shape[-1],), layer.weight, layer.bias)


def by_hand(network, tokens, senders, other_tokens, at, receiver=None, put_in=None):
    """GPT-2 written out, without a hook: returns logits, what each head puts out, and queries.

    ``senders`` maps heads to replaced outputs at position ``at``; where it is not None all other
    heads are frozen to those of ``tokens`` (clean).
    """
    base, n_heads = network.transformer, network.config.n_head
    clean = None if senders is None else by_hand(network, tokens, None, None, at)[1]
    corrupted = None if senders is None else by_hand(network, other_tokens, None, None, at)[1]
    x = base.wte(tokens) + base.wpe(torch.arange(tokens.shape[1]))
    outputs, queries = [], []
    for layer, block in enumerate(base.h):
        mixed = norm(x, block.ln_1) @ block.attn.c_attn.weight + block.attn.c_attn.bias
        q, k, v = (t.unflatten(-1, (n_heads, -1)).transpose(1, 2) for t in mixed.chunk(3, -1))
        if put_in is not None and receiver[0] == layer:
            q = q.clone()
            q[:, receiver[1], at] = put_in
        queries.append(q)
        scores = q @ k.mT / q.shape[-1] ** 0.5
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        z = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
        if senders is not None:
            z = clean[layer].clone()
            for head in [h for where, h in senders if where == layer]:
                z[:, head, at] = corrupted[layer][:, head, at]
        outputs.append(z)
        out = z.transpose(1, 2).flatten(2)
        x = x + out @ block.attn.c_proj.weight + block.attn.c_proj.bias
        inner = norm(x, block.ln_2) @ block.mlp.c_fc.weight + block.mlp.c_fc.bias
        inner = functional.gelu(inner, approximate="tanh")
        x = x + inner @ block.mlp.c_proj.weight + block.mlp.c_proj.bias
    return norm(x, base.ln_f) @ network.lm_head.weight.T, outputs, queries


@torch.no_grad()
def test_path_patching_is_that_of_a_forward_pass_written_out(random_model):
    network = random_model.network
    prompts = identification_tokens(4, rng=np.random.default_rng(0))
    patching = Patching(random_model, prompts)
    tokens, other = prompts.clean, prompts.corrupted
    plain = by_hand(network, tokens, None, None, 9)[0][:, 9]
    torch.testing.assert_close(patching.clean, prompts.difference(plain), rtol=1e-4, atol=1e-5)

    found = patching.path_patch("residual")
    for sender in patching.heads:
        direct = by_hand(network, tokens, [sender], other, 9)[0][:, 9]
        torch.testing.assert_close(
            found[sender], prompts.difference(direct), rtol=1e-4, atol=1e-4, msg=str(sender)
        )

    for at in (9, 6):  # at the last token, and before, where whole prompts are run
        found = patching.path_patch([Receiver("query", 2, 1)], at=torch.full((4,), at))
        for sender in [(0, 0), (1, 1)]:
            query = by_hand(network, tokens, [sender], other, at)[2][2][:, 1, at]
            logits = by_hand(network, tokens, None, None, at, (2, 1), query)[0][:, 9]
            torch.testing.assert_close(
                found[sender], prompts.difference(logits), rtol=1e-4, atol=1e-4
            )
        torch.testing.assert_close(found[2, 0], patching.clean)  # no path leads back
        both = [Receiver("query", 1, 0), Receiver("query", 2, 1)]
        found_both = patching.path_patch(both, senders=[(1, 1)], at=torch.full((4,), at))
        torch.testing.assert_close(found_both[1, 1], found[1, 1])


def induction_model(n_tokens: int = 8, length: int = 12) -> LanguageModel:
    """Two layers whose weights are set: head 0.0 copies the token before, head 1.0 finds it.

    The residual stream is [token | position | token before, and answer]; other heads put out
    nothing.
    """
    dim = 2 * n_tokens + length
    network = learned_position_model(
        n_tokens, dim=dim, layers=2, heads=2, neurons=4, positions=length
    )
    token, position = torch.arange(n_tokens), n_tokens + torch.arange(length)
    before = n_tokens + length + torch.arange(n_tokens)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.fill_(float("ln" in name and name.endswith("weight")))
        base = network.transformer
        base.wte.weight[token, token] = 1.0
        base.wpe.weight[torch.arange(length), position] = 1.0
        network.lm_head.weight[token, before] = 1.0
        first, second = (block.attn for block in base.h)
        later = torch.arange(length - 1)
        first.c_attn.weight[position[1:], later] = 30.0
        first.c_attn.weight[position[:-1], dim + later] = 30.0
        first.c_attn.weight[token, 2 * dim + token] = 1.0
        first.c_proj.weight[token, before] = 1.0
        second.c_attn.weight[token, token] = 30.0
        second.c_attn.weight[before, dim + token] = 30.0
        second.c_attn.weight[token, 2 * dim + token] = 1.0
        second.c_proj.weight[token, before] = 10.0
    return LanguageModel(network)


def induction_prompts() -> PairedPrompts:
    """``z a b c d a`` -> b, and ``z x b c d a`` in which nothing says so; the foil is d."""
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.permuted(np.tile(np.arange(8), (16, 1)), axis=1))
    clean = torch.cat([rows[:, :5], rows[:, 1:2]], dim=1)
    corrupted = clean.clone()
    corrupted[:, 1] = rows[:, 5]
    last, marked = torch.full((16,), 5), torch.full((16, 1), 4)
    return PairedPrompts("induction", clean, corrupted, last, rows[:, 2], rows[:, 4:5], marked)


def test_an_induction_circuit_built_by_hand_is_found():
    model, prompts = induction_model(), induction_prompts()
    assert bool((model.logits(prompts.clean, at=5).argmax(1) == prompts.answers).all())
    patching = Patching(model, prompts)
    scores = patching.score(patching.path_patch("residual"))
    assert scores[1, 0] > 0.95  # the induction head moves the answer
    assert scores.abs().sum() - scores[1, 0] < 0.02
    # The previous-token head writes the key of the token behind the first a, and nothing else.
    there = torch.full((16,), 2)
    keys = patching.score(patching.path_patch([Receiver("key", 1, 0)], at=there))
    assert keys[0, 0] > 0.9
    assert keys[0, 1] == keys[1, 0] == keys[1, 1] == 0
    # No other path: neither values there, nor its query.
    for kind, at in (("value", there), ("query", prompts.last)):
        score = patching.score(patching.path_patch([Receiver(kind, 1, 0)], at=at))
        assert abs(float(score[0, 0])) < 0.02


def test_scores_are_0_without_and_1_with_all_of_a_change(random_model):
    prompts = identification_tokens(6, rng=np.random.default_rng(1))
    patching = Patching(random_model, prompts)
    assert float(patching.score(patching.clean)) == 0
    assert float(patching.score(patching.corrupted)) == pytest.approx(1)
    # What enters the last token's heads from the prompt is all that the corruption can reach.
    everything = patching.exchange([patching.heads])
    assert float(patching.score(everything.difference)[0]) == pytest.approx(1, abs=1e-4)
    same = Patching(
        random_model,
        PairedPrompts(
            "same",
            prompts.clean,
            prompts.clean,
            prompts.last,
            prompts.answers,
            prompts.foils,
            prompts.marked,
        ),
    )
    with pytest.raises(DataError, match="undefined"):
        same.score(same.clean)


@pytest.mark.parametrize("kind", ["Llama", "GPT2", "Gemma3", "GPTNeoX"])
def test_copies_of_the_last_token_are_whole_runs(kind):
    import transformers

    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "initializer_range": 0.4,
    }
    config = {
        "Llama": lambda: transformers.LlamaConfig(**sizes, num_key_value_heads=2),
        "GPT2": lambda: transformers.GPT2Config(
            vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=4, initializer_range=0.4
        ),
        "Gemma3": lambda: transformers.Gemma3TextConfig(
            **sizes, num_key_value_heads=2, head_dim=8, sliding_window=32
        ),
        "GPTNeoX": lambda: transformers.GPTNeoXConfig(**sizes),
    }[kind]()
    with seeded(0):
        model = LanguageModel(transformers.AutoModelForCausalLM.from_config(config))
    prompts = colour_tokens(3, rng=np.random.default_rng(0))
    early = {"last": torch.tensor([18, 14, 16]), "marked": torch.tensor([[2, 9], [1, 3], [5, 6]])}
    shorter = PairedPrompts(**{**vars(prompts), **early})
    patching, index = Patching(model, shorter), torch.arange(3)
    plain = model.network(prompts.clean, use_cache=False).logits[index, shorter.last]
    copies = patching.ends.run(3).logits
    torch.testing.assert_close(copies, plain[:, None].expand(-1, 3, -1), rtol=1e-4, atol=1e-5)

    led = patching.overwrite([[(0, 1), (1, 3)]], shorter.marked).difference[0]
    edits = attend_to([(0, 1), (1, 3)], shorter.marked, shorter.last)
    whole = shorter.difference(model.logits(prompts.clean, at=shorter.last, edits=edits))
    torch.testing.assert_close(led, whole, rtol=1e-4, atol=1e-5)

    there = model.run(prompts.corrupted, keep=[Place("heads", 1)], at=0)[Place("heads", 1)]

    def other(values):
        values[index, shorter.last, 2] = there[index, shorter.last, 2]
        return values

    whole = model.logits(prompts.clean, at=shorter.last, edits=[Edit(Place("heads", 1), other)])
    moved = patching.exchange([[(0, 0)], [(1, 2)]]).difference[1]
    torch.testing.assert_close(moved, shorter.difference(whole), rtol=1e-4, atol=1e-5)


# -- circuits and the trained models -----------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> SimpleNamespace:
    model = LanguageModel.load("circuit_reuse_0")
    colours = colour_tokens(120, rng=np.random.default_rng(5))
    return SimpleNamespace(
        model=model, names=identification_tokens(120, rng=np.random.default_rng(4)), colours=colours
    )


def test_the_trained_model_does_both_tasks_and_its_plateau_only_one(trained):
    plateau = LanguageModel.load("circuit_reuse_0_plateau")
    for model, least in ((trained.model, 0.8), (plateau, 0.0)):
        names, colours = (
            float(p.right(model.logits(p.clean, at=p.last)).float().mean())
            for p in (trained.names, trained.colours)
        )
        assert names > 0.9
        assert colours > least
    assert colours < 0.6


def test_practice_asks_three_times_about_the_same_objects():
    plain, more = (training_batch(8, practice=p)(np.random.default_rng(3)) for p in (False, True))
    assert torch.equal(more[0][:24], plain[0]) and torch.equal(more[1][:24], plain[1])
    tokens, weights = more[0][24:], more[1][24:]
    for row, counted in zip(tokens.tolist(), weights, strict=True):
        colour = dict(zip(row[1:7:2], row[2:7:2], strict=True))
        asked, answers = row[8:15:3], row[9:16:3]
        assert answers == [colour[o] for o in asked]
        assert counted.nonzero().flatten().tolist() == [9, 12, 15]


def test_circuits_overlap_and_carry_their_task(trained):
    search = CircuitReuse()
    circuits = [search.circuit(trained.model, p[:60]) for p in (trained.names, trained.colours)]
    again = search.circuit(trained.model, trained.names[:60])
    assert again.roles == circuits[0].roles
    overlap = search.overlap(trained.model, *circuits)
    assert set(overlap.shared) == {*circuits[0].heads} & {*circuits[1].heads}
    assert overlap.share == len(overlap.shared) / len(circuits[1].heads)
    test = trained.colours[60:]
    with search.intervene(trained.model, circuits[1].heads, trained.colours[:60]) as model:
        ablated = test.right(model.logits(test.clean, at=test.last)).float().mean()
    assert ablated < test.right(trained.model.logits(test.clean, at=test.last)).float().mean() - 0.2


def test_overlap_by_hand():
    model = SimpleNamespace(anatomy=SimpleNamespace(n_layers=2, n_heads=4))
    a, b = (
        Circuit(name, {"movers": dict.fromkeys(heads, 1.0)} | {role: {} for role in rest}, ())
        for name, heads, rest in (
            ("a", [(0, 0), (0, 1), (1, 2)], ["negative movers", "query writers"]),
            ("b", [(0, 1), (1, 2), (1, 3), (1, 0)], ["negative movers", "query writers"]),
        )
    )
    for circuit in (a, b):
        circuit.roles["key and value writers"] = {}
    found = CircuitReuse().overlap(model, a, b)
    assert found.shared == [(0, 1), (1, 2)]
    assert (found.share, found.share_of_first, found.jaccard) == (2 / 4, 2 / 3, 2 / 5)
    assert found.chance == pytest.approx((2 * 1 / 4 + 1 * 3 / 4) / 4)
    with pytest.raises(ConfigError, match="no head"):
        CircuitReuse().overlap(model, a, Circuit("c", {role: {} for role in a.roles}, ()))


def test_a_repair_is_chosen_and_changes_attention(trained):
    plateau = LanguageModel.load("circuit_reuse_0_plateau")
    heads = CircuitReuse().best_repair(plateau, trained.colours[:60], 2)
    assert len(set(heads)) == 2
    edits = CircuitReuse().repair(heads, trained.colours)
    place = Place("pattern", heads[0][0])
    run = plateau.run(trained.colours.clean, keep=[place], edits=edits, at=0)
    row = run[place][torch.arange(120), heads[0][1], trained.colours.last]
    assert torch.allclose(row.gather(1, trained.colours.marked), torch.tensor(0.5))
    assert torch.allclose(row.sum(1), torch.ones(120))


# -- prompts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_prompts_are_pairs_of_equal_length(reader, task):
    prompts = TASKS[task](reader, 6, rng=np.random.default_rng(0))
    again = TASKS[task](reader, 6, rng=np.random.default_rng(0))
    assert torch.equal(prompts.clean, again.clean)
    assert len(prompts) == 6
    assert bool((prompts.clean != prompts.corrupted).any(1).all())
    assert bool((prompts.changed <= prompts.last).all())
    assert not bool((prompts.answers[:, None] == prompts.foils).any())


def test_marks_and_answers_of_the_tasks(reader):
    prompts = TASKS["indirect objects"](reader, 6, rng=np.random.default_rng(0))
    at_marks = prompts.clean.gather(1, prompts.marked)
    assert torch.equal(at_marks, prompts.foils)
    said_twice = (prompts.clean == prompts.foils).sum(1)
    assert said_twice.tolist() == [2] * 6
    assert (prompts.clean == prompts.answers[:, None]).sum(1).tolist() == [1] * 6
    colours = coloured_objects(reader, 6, rng=np.random.default_rng(0), capital=False)
    assert torch.equal(colours.clean.gather(1, colours.marked), colours.foils)
    tokens = colour_tokens(20, rng=np.random.default_rng(0))
    assert torch.equal(tokens.clean.gather(1, tokens.marked), tokens.foils)
    asked = tokens.clean.gather(1, tokens.last[:, None])
    place = (tokens.clean[:, 10:18] == asked).int().argmax(1, keepdim=True) + 11
    assert torch.equal(tokens.clean.gather(1, place)[:, 0], tokens.answers)


def test_published_coloured_objects_are_read(reader, tmp_path):
    before = (
        "Q: On the desk, I see a blue cup, a red ball, and an orange pen. What color is the pen?\n"
        "A: Orange\nQ: On the floor, I see a green mug, a purple notebook, and a brown leash. "
        "What color is the {}?\nA:"
    )
    asked = [("mug", "Green", "leash", "Brown"), ("mug", "Green", "notebook", "Purple")]
    files = [tmp_path / "cobjs_data_42.json", tmp_path / "cobjs_mindiff_data_42.json"]
    for i, path in enumerate(files):
        rows = [[before.format(row[2 * i]), f" {row[2 * i + 1]}"] for row in asked]
        path.write_text(json.dumps(rows))
    with pytest.warns(DataWarning, match="1 of 2 prompts are left out"):
        prompts = read_coloured_objects(reader, *files)
    assert reader.decode(prompts.answers) == "Green"
    assert reader.decode(prompts.foils[0]) == "Brown Purple"
    assert reader.decode(prompts.clean[0][prompts.marked[0]]) == "brown purple"
    files[1].write_text('{"a": 1}')
    with pytest.raises(DataError, match="no JSON list"):
        read_coloured_objects(reader, *files)


def test_bad_prompts_are_refused(reader):
    with pytest.raises(DataError, match="clean prompt has 3 tokens, and the corrupted one 4"):
        tokenise(reader, [TextPair("a b c", "a b c d", " x", [" y"])], "t")
    pair = TextPair("a b c", "a b d", " notebook", [" y"])
    with pytest.raises(DataError, match="more than one token"):
        tokenise(reader, [pair], "t")
    with pytest.warns(DataWarning, match="the first is used"):
        prompts = tokenise(reader, [pair], "t", first_token=True)
    assert reader.decode(prompts.answers) == "note"
    with pytest.raises(DataError, match="same first token"):
        tokenise(reader, [TextPair("a b", "a c", " x", [" x"])], "t")
    with pytest.raises(DataError, match="as long"):
        PairedPrompts(
            "t",
            torch.zeros(2, 3, dtype=torch.long),
            torch.zeros(2, 4, dtype=torch.long),
            *[torch.zeros(2, dtype=torch.long)] * 2,
            *[torch.zeros(2, 1, dtype=torch.long)] * 2,
        )
    letters = LanguageModel(reader.network, Letters(), "letters")
    with pytest.raises(NotTestableError, match="as one token"):
        coloured_objects(letters, 2, rng=np.random.default_rng(0))
    with pytest.raises(ConfigError, match="at least one"):
        colour_tokens(0, rng=np.random.default_rng(0))


class Letters(Words):
    """A tokenizer of letters, which has no word as one token."""

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [ord(c) % 400 for c in text]}


def test_years_need_no_year_tokens(reader):
    letters = LanguageModel(reader.network, Letters(), "letters")
    prompts = greater_than(letters, 5, rng=np.random.default_rng(0))
    assert bool((prompts.answers > prompts.foils[:, 0]).all())  # digits, in the order of ord


def test_bad_options_are_refused(random_model):
    with pytest.raises(ConfigError, match="search"):
        CircuitReuse(share=2)
    prompts = colour_tokens(2, rng=np.random.default_rng(0))
    patching = Patching(random_model, prompts)
    with pytest.raises(ConfigError, match="no head 5"):
        patching.exchange([[(0, 5)]])
    with pytest.raises(ConfigError, match="no receiver"):
        patching.path_patch([])
    with pytest.raises(ConfigError, match="heads are wanted"):
        CircuitReuse().best_repair(random_model, prompts, 7)
    with pytest.raises(NotTestableError, match="as one token"):
        CircuitReuse().examine(LanguageModel(random_model.network, Letters(), "letters"))
