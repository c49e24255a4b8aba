"""Reading, patching and removing what is inside language models of many architectures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engramma.errors import ConfigError, DataError
from engramma.memory.language_model import small_language_model
from engramma.nn.seed import seeded
from engramma.probing.ablation import (
    ablate_heads,
    ablate_neurons,
    clamp_neurons,
    mean_values,
    random_heads,
    random_neurons,
    sweep_heads,
)
from engramma.probing.hooks import Edit
from engramma.probing.model import LanguageModel, pad
from engramma.probing.places import KINDS, Place
from engramma.probing.scores import log_probability, logit_difference, mean_interval
from engramma.probing.training import (
    learned_position_model,
    next_token_loss,
    train_language_model,
)

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
GROUPED = {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}
ARCHITECTURES = {
    "Llama": GROUPED,
    "Mistral": GROUPED | {"sliding_window": 6},
    "Qwen2": {"intermediate_size": 48, "num_key_value_heads": 2},
    "Qwen3": GROUPED,
    "Gemma": GROUPED,
    "Gemma2": GROUPED | {"query_pre_attn_scalar": 8, "sliding_window": 6},
    "Phi3": {"intermediate_size": 48, "num_key_value_heads": 2},
    "Olmo2": {"intermediate_size": 48, "num_key_value_heads": 2},
    "GPTNeoX": {"intermediate_size": 48},
    "GPT2": {},
}


def build(name: str):
    with seeded(0):
        return LanguageModel(random_network(name))


def random_network(name: str):
    if name == "GPT2":
        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=50, n_embd=32, n_layer=3, n_head=4, n_positions=64, bos_token_id=None,
                eos_token_id=None,
            )
        )  # fmt: skip
    config = getattr(transformers, f"{name}Config")(**SIZES, **ARCHITECTURES[name])
    return getattr(transformers, f"{name}ForCausalLM")(config)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request):
    return build(request.param)


@pytest.fixture(scope="module")
def tokens():
    return torch.from_numpy(np.random.default_rng(0).integers(50, size=(2, 9)))


def every_place(model):
    anatomy = model.anatomy
    for kind in KINDS:
        for layer in range(anatomy.n_layers):
            place = Place(kind, layer)
            if kind != "pattern":
                try:
                    anatomy.tap(place)
                except ConfigError:
                    continue
            yield place
    yield Place("residual", anatomy.n_layers)


# -- the model is left as it is ------------------------------------------------------------


def test_unpatched_outputs_are_those_of_the_plain_model(model, tokens):
    with torch.no_grad():
        own = model.network(tokens).logits
    assert torch.allclose(model.logits(tokens), own, atol=1e-6)
    places = list(every_place(model))
    same = [Edit(place, lambda values: values) for place in places]
    run = model.run(tokens, keep=places, edits=same)
    assert torch.allclose(run.logits, own, atol=1e-5)
    assert set(run.values) == set(places)
    with torch.no_grad():
        assert torch.equal(model.network(tokens).logits, own)
    assert model.network.config._attn_implementation in ("sdpa", "eager")


def test_hooks_go_whatever_happens(model, tokens):
    before = model.logits(tokens)

    def fails(values):
        raise RuntimeError("in the middle")

    for kind in ("heads", "pattern"):
        with pytest.raises(RuntimeError, match="in the middle"):
            model.run(tokens, edits=[Edit(Place(kind, 1), fails)])
    with pytest.raises(RuntimeError, match="in the middle"):
        stream = torch.zeros(2, 9, 32)
        model.run(tokens, edits=[Edit(Place("mlp", 2), fails)], start=(2, stream))
    assert torch.equal(model.logits(tokens), before)


# -- values are what they are said to be ---------------------------------------------------


def test_values_fit_together(model, tokens):
    anatomy = model.anatomy
    run = model.run(tokens, keep=list(every_place(model)))
    for layer in range(anatomy.n_layers):
        module = anatomy.tap(Place("heads", layer)).module
        bias = 0 if module.bias is None else module.bias.detach()
        put_out = torch.einsum("bthw,hwd->btd", run["heads", layer], anatomy.output_weight(layer))
        assert torch.allclose(put_out + bias, run["attention", layer], atol=1e-5)
        down = anatomy.tap(Place("neurons", layer)).module
        bias = 0 if down.bias is None else down.bias.detach()
        written = run["neurons", layer] @ anatomy.neuron_weight(layer, "down")
        assert torch.allclose(written + bias, run["mlp", layer], atol=1e-5)
        if anatomy.gated:
            product = run["gate", layer] * run["up", layer]
            assert torch.allclose(product, run["neurons", layer], atol=1e-6)
        pattern = run["pattern", layer]
        assert torch.allclose(pattern.sum(-1), torch.ones(()), atol=1e-5)
        assert (pattern * torch.ones(9, 9).triu(1)).abs().max() == 0
        if ("value", layer) in anatomy._taps:
            values = run["value", layer].repeat_interleave(
                anatomy.n_heads // anatomy.n_key_heads, dim=2
            )
            mixed = torch.einsum("bhts,bshw->bthw", pattern, values)
            assert torch.allclose(mixed, run["heads", layer], atol=1e-5)
        if ("up", layer) in anatomy._taps and anatomy.tap(Place("up", layer)).module.bias is None:
            read = run["mlp_in", layer] @ anatomy.neuron_weight(layer, "up").T
            assert torch.allclose(read, run["up", layer], atol=1e-5)
    assert torch.allclose(model.unembed(run["residual", anatomy.n_layers]), run.logits, atol=1e-5)


def test_a_run_from_the_middle_goes_on_the_same(model, tokens):
    run = model.run(tokens, keep=[Place("residual", layer) for layer in range(3)])
    for layer in range(3):
        again = model.run(tokens, start=(layer, run["residual", layer]))
        assert torch.allclose(again.logits, run.logits, atol=1e-6)


def test_padding_changes_nothing(model, tokens):
    rows = [tokens[0].tolist(), tokens[1, :5].tolist()]
    padded, last = pad(rows)
    assert last.tolist() == [8, 4]
    both = model.logits(padded, at=last)
    alone = torch.stack([model.logits(torch.tensor([r]), at=-1)[0] for r in rows])
    assert torch.allclose(both, alone, atol=1e-5)
    spread = model.logits(padded, at=torch.stack([last - 1, last], 1))
    assert torch.allclose(spread[:, 1], both, atol=1e-6)


# -- changes -------------------------------------------------------------------------------


def test_a_head_without_output_is_a_head_without_output_weights(model, tokens):
    changed = model.logits(tokens, edits=ablate_heads(model, [(1, 2)]))
    weight = model.anatomy.tap(Place("heads", 1)).module.weight
    columns = weight.T if isinstance(weight, torch.nn.Parameter) else weight
    is_linear = isinstance(model.anatomy.tap(Place("heads", 1)).module, torch.nn.Linear)
    width = model.anatomy.head_width
    rows = slice(2 * width, 3 * width)
    kept = weight.detach().clone()
    with torch.no_grad():
        (columns if is_linear else weight)[rows] = 0
        by_weights = model.network(tokens).logits
        weight.copy_(kept)
    assert torch.allclose(changed, by_weights, atol=1e-5)


def test_neurons_are_removed_and_clamped(model, tokens):
    run = model.run(tokens, keep=[Place("neurons", 0)], edits=ablate_neurons(model, [(0, 7)]))
    assert (run["neurons", 0][..., 7] == 0).all() and (run["neurons", 0][..., 6] != 0).any()
    clamped = model.run(
        tokens, keep=[Place("up", 1), Place("neurons", 1)],
        edits=clamp_neurons(model, [(1, 3), (1, 5)], 2.0, kind="up"),
    )  # fmt: skip
    assert (clamped["up", 1][..., [3, 5]] == 2).all()


def test_interchange_and_mean(model, tokens):
    places = [Place("heads", layer) for layer in range(3)]
    other = tokens.flip(0)
    reference = model.run(other, keep=places).values
    heads = [(layer, head) for layer in range(3) for head in range(4)]
    everything = ablate_heads(model, heads, "resample", reference)
    run = model.run(tokens, keep=places, edits=everything)
    assert all(torch.equal(run[p], reference[p]) for p in places)
    one = ablate_heads(model, [(0, 1)], "resample", reference, positions=[8])
    changed = model.run(tokens, keep=places[:1], edits=one)["heads", 0]
    plain = model.run(tokens, keep=places[:1])["heads", 0]
    assert torch.equal(changed[:, 8, 1], reference[places[0]][:, 8, 1])
    changed[:, 8, 1] = plain[:, 8, 1]
    assert torch.equal(changed, plain)
    last = torch.tensor([8, 4])
    means = mean_values(model, tokens, last, places)
    values = model.run(tokens, keep=places)["heads", 2]
    expected = torch.cat([values[0], values[1, :5]]).mean(0)
    assert torch.allclose(means[places[2]], expected, atol=1e-6)
    ablated = model.run(tokens, keep=places, edits=ablate_heads(model, [(2, 3)], "mean", means))
    assert torch.allclose(ablated["heads", 2][:, :, 3], expected[3].expand(2, 9, -1), atol=1e-6)


def test_the_sweep_is_one_ablation_after_another(model, tokens):
    def score(logits):
        return logits[:, 0]

    found = sweep_heads(model, tokens, score, at=-1, rows=5)
    reference = model.run(tokens.flip(0), keep=[Place("heads", x) for x in range(3)]).values
    swapped = sweep_heads(model, tokens, score, at=-1, mode="resample", reference=reference)
    for layer in range(3):
        for head in range(4):
            alone = model.logits(tokens, at=-1, edits=ablate_heads(model, [(layer, head)]))
            assert torch.allclose(found[layer, head], alone[:, 0], atol=1e-5)
            edits = ablate_heads(model, [(layer, head)], "resample", reference)
            alone = model.logits(tokens, at=-1, edits=edits)
            assert torch.allclose(swapped[layer, head], alone[:, 0], atol=1e-5)


def test_attention_can_be_overwritten(model, tokens):
    def look_at_the_first(pattern):
        pattern[:, 1] = 0
        pattern[:, 1, :, 0] = 1
        return pattern

    keep = [
        Place("heads", 0),
        *([Place("value", 0)] if ("value", 0) in model.anatomy._taps else []),
    ]
    run = model.run(tokens, keep=keep, edits=[Edit(Place("pattern", 0), look_at_the_first)])
    if len(keep) == 2:
        group = 1 // (model.anatomy.n_heads // model.anatomy.n_key_heads)
        expected = run["value", 0][:, :1, group].expand(-1, 9, -1)
        assert torch.allclose(run["heads", 0][:, :, 1], expected, atol=1e-6)
    # All positions get the same from this head.
    assert torch.allclose(run["heads", 0][:, :1, 1], run["heads", 0][:, :, 1], atol=1e-6)


def test_greedy_continuation_is_that_of_whole_runs(model, tokens):
    new = model.continue_greedily(tokens, 4)
    whole = tokens
    for _ in range(4):
        whole = torch.cat([whole, model.logits(whole, at=-1).argmax(-1)[:, None]], dim=1)
    assert torch.equal(new, whole[:, 9:])
    stopped = model.continue_greedily(tokens, 4, stop=[int(new[0, 0])])
    assert (stopped[0, 1:] == -1).all()


def test_edits_pass_gradients(tokens):
    model = build("Llama")
    with model.edited(clamp_neurons(model, [(1, 3)], 0.0)):
        loss = model.network(tokens).logits.square().mean()
        loss.backward()
    down = model.anatomy.tap(Place("neurons", 1)).module.weight.grad
    assert (down[:, 3] == 0).all() and (down[:, 4] != 0).any()


# -- random choices, scores, errors --------------------------------------------------------


def test_random_choices_match_the_layers_and_leave_out_what_is_excluded():
    model = build("Llama")
    rng = np.random.default_rng(0)
    chosen = [(0, 1), (0, 2), (2, 3)]
    for _ in range(20):
        drawn = random_heads(model, chosen, rng, exclude=[(2, 0)])
        assert sorted(x[0] for x in drawn) == [0, 0, 2]
        assert not set(drawn) & {*chosen, (2, 0)} and len(set(drawn)) == 3
    whole_layer = [(1, h) for h in range(4)]
    drawn = random_heads(model, whole_layer, rng)
    assert len(set(drawn)) == 4 and all(x[0] != 1 for x in drawn)
    with pytest.raises(ConfigError, match="cannot be drawn"):
        random_heads(model, [(x, h) for x in range(3) for h in range(4)], rng)
    assert len(random_neurons(model, [(0, 1)] * 3, rng)) == 3


def test_scores_are_what_they_say():
    logits = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
    answers, foils = torch.tensor([2, 0]), torch.tensor([0, 1])
    assert logit_difference(logits, answers, foils).tolist() == [3.0, 0.0]
    expected = logits.softmax(1)[[0, 1], [2, 0]].log()
    assert torch.allclose(log_probability(logits, answers), expected)
    values = np.random.default_rng(0).normal(1, 1, 400)
    interval = mean_interval([*values, np.nan], rng=np.random.default_rng(1))
    assert interval.value == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / 20, rel=0.15)


def test_surprisal_is_that_of_the_library(model, tokens):
    own = model.surprisal(tokens)
    assert torch.isnan(own[:, 0]).all()
    with torch.no_grad():
        mean = model.network(tokens, labels=tokens).loss
    assert torch.allclose(own[:, 1:].mean(), mean, atol=1e-5)


def test_what_cannot_be_is_refused(tokens):
    model = build("Llama")
    with pytest.raises(ConfigError, match="no 'heads' in layer 9"):
        model.run(tokens, keep=[Place("heads", 9)])
    with pytest.raises(ConfigError, match="no head 4 in layer 0"):
        model.run(tokens, edits=ablate_heads(model, [(0, 4)]))
    with pytest.raises(ConfigError, match="needs values of heads"):
        model.run(tokens, edits=ablate_heads(model, [(0, 1)], "mean"))
    with pytest.raises(ConfigError, match="no ablation 'half'"):
        model.run(tokens, edits=ablate_heads(model, [(0, 1)], "half", {}))
    with pytest.raises(ConfigError, match="returns shape"):
        model.run(tokens, edits=[Edit(Place("mlp", 0), lambda values: values[:1])])
    with pytest.raises(DataError, match="0 to 49"):
        model.logits(torch.tensor([[50]]))
    with pytest.raises(ConfigError, match="no tokenizer"):
        model.encode(["text"])


# -- training ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["learned positions", "rotary"])
def test_a_small_model_learns_what_follows(kind):
    """The next token is the last one plus one: the loss falls to nothing."""
    network = (
        learned_position_model(11, dim=32, heads=2, positions=16)
        if kind == "learned positions"
        else small_language_model(11, dim=32, heads=2)
    )

    def batch(rng):
        start = torch.from_numpy(rng.integers(11, size=(32, 1)))
        tokens = (start + torch.arange(8)) % 11
        return tokens, torch.ones(32, 8)

    before = [p.clone() for p in network.parameters()]
    history = train_language_model(network, batch, steps=150, rate=5e-3, warm_up=10)
    assert history[-1] < 0.1 < 2 < next_token_loss_of_nothing()
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    again = (
        learned_position_model(11, dim=32, heads=2, positions=16)
        if kind == "learned positions"
        else small_language_model(11, dim=32, heads=2)
    )
    assert train_language_model(again, batch, steps=150, rate=5e-3, warm_up=10) == history


def next_token_loss_of_nothing() -> float:
    network = small_language_model(11, dim=32, heads=2)
    tokens = torch.arange(8)[None] % 11
    return next_token_loss(network, tokens, torch.ones(1, 8)).item()


def test_only_the_named_parameters_are_trained():
    network = small_language_model(11, dim=32, heads=2)
    before = {name: p.clone() for name, p in network.named_parameters()}
    block = list(network.model.layers[1].parameters())

    def batch(rng):
        return torch.from_numpy(rng.integers(11, size=(4, 6))), torch.ones(4, 6)

    train_language_model(network, batch, steps=5, parameters=block)
    for name, p in network.named_parameters():
        assert torch.equal(p, before[name]) == (not name.startswith("model.layers.1."))
        assert p.requires_grad
