"""Codes of heads: planted circuits, counts by sets and dense arrays, the published format."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engramma.errors import ConfigError, DataError, DataWarning
from engramma.probing.head_outputs import head_outputs, paired_head_outputs, read_head_outputs
from engramma.probing.model import LanguageModel
from engramma.probing.paired_tokens import VOCABULARY, colour_tokens
from engramma.probing.places import Place
from engramma.probing.sparse_autoencoder import SparseAutoencoder, fit_sparse_autoencoder
from engramma.probing.training import learned_position_model
from engramma.systems.probing.sae_circuits import SAECircuits, agreement
from engramma.systems.probing.sae_circuits_claims import mean_difference, planted_head_outputs


@pytest.fixture(scope="module")
def planted():
    return planted_head_outputs(np.random.default_rng(3), heads=24, planted=4, dim=32, prompts=80)


@pytest.fixture(scope="module")
def fitted(planted):
    x, y, _ = planted
    return SAECircuits(features=60, steps=150).fit(x, y)


# -- the autoencoder ---------------------------------------------------------------------------


def test_autoencoder_recovers_directions_that_vectors_are_made_of():
    rng = np.random.default_rng(0)
    directions = np.eye(8, dtype=np.float32)
    used = rng.random((400, 8)) < 0.15
    x = torch.from_numpy((used * rng.uniform(1, 2, used.shape)).astype(np.float32) @ directions)
    model = SparseAutoencoder(8, 24, seed=1)
    losses = fit_sparse_autoencoder(model, x, sparsity=1.0, rate=1e-2, steps=600)
    assert losses[-1] < 0.1 * losses[0]
    features = torch.nn.functional.normalize(model.decoder.weight.detach(), dim=0)
    assert float(features.max(dim=1).values.min()) > 0.85  # each axis has a feature of its own
    again = SparseAutoencoder(8, 24, seed=1)
    fit_sparse_autoencoder(again, x, sparsity=1.0, rate=1e-2, steps=600)
    assert torch.equal(model.decoder.weight, again.decoder.weight)


def test_loss_is_that_of_the_paper():
    x = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    model = SparseAutoencoder(2, 3, seed=0)
    w, v = (p.weight.detach().numpy() for p in (model.encoder, model.decoder))
    c = np.maximum(x.numpy() @ w.T, 0)
    expected = ((c @ v.T - x.numpy()) ** 2).mean() + 0.3 * np.abs(c).mean() + 7
    first = fit_sparse_autoencoder(
        model, x, sparsity=0.3, steps=1, penalty=lambda _: torch.tensor(7.0)
    )[0]
    assert first == pytest.approx(expected, rel=1e-5)


# -- scores ------------------------------------------------------------------------------------


def test_planted_heads_are_found_and_means_do_not_find_them(planted, fitted):
    x, y, truth = planted
    raw = SAECircuits(features=60, steps=150, score="raw").fit(x, y).head_scores()
    assert agreement(raw, truth, truth)["auc"] > 0.9
    assert agreement(fitted.head_scores(), truth, fitted.circuit())["auc"] > 0.75
    assert agreement(mean_difference(x, y), truth, truth)["auc"] < 0.85
    shuffled = np.random.default_rng(0).permutation(y)
    lost = SAECircuits(features=60, steps=150).fit(x, shuffled)
    assert agreement(lost.head_scores(), truth, truth)["auc"] < 0.85


def test_counts_are_those_of_sets(planted, fitted):
    x, y, _ = planted
    codes = fitted.codes(x)
    raw = SAECircuits(features=60, steps=150, score="raw").fit(x, y)
    normalised = SAECircuits(features=60, steps=150, score="normalised").fit(x, y)
    for head in range(codes.shape[1]):
        positive, negative = set(codes[y == 1, head]), set(codes[y == 0, head])
        assert raw.head_scores()[head] == len(positive - negative)
        assert normalised.head_scores()[head] == pytest.approx(
            len(positive - negative) / len(positive | negative)
        )


def test_edges_are_those_of_the_dense_array(planted, fitted):
    x, y, _ = planted
    codes, n, features = fitted.codes(x), 24, 60
    seen = np.zeros((2, n, n, features, features), dtype=bool)
    for row, label in zip(codes, y, strict=True):
        seen[label, np.arange(n)[:, None], np.arange(n), row[:, None], row] = True
    alone = (seen[1] & ~seen[0]).sum((2, 3)) / seen.any(0).sum((2, 3))
    found = fitted.edge_scores()
    off = ~np.eye(n, dtype=bool)
    np.testing.assert_allclose(found[off], alone[off])
    assert np.isnan(np.diag(found)).all()


def test_node_scores_keep_the_rank_and_sum_to_one(fitted):
    scores, nodes = fitted.head_scores(), fitted.node_scores()
    assert nodes.sum() == pytest.approx(1)
    assert (np.argsort(scores, kind="stable") == np.argsort(nodes, kind="stable")).all()
    assert not fitted.circuit(theta=1.0).any()


def test_similarity_term_separates_the_classes(planted):
    x, y, _ = planted

    def overlap(alpha):
        system = SAECircuits(features=60, steps=150, similarity=alpha).fit(x, y)
        with torch.no_grad():
            codes = system.network.encode(x / system.scale)
        means = [torch.nn.functional.normalize(codes[y == c].mean(0), dim=-1) for c in (0, 1)]
        return float((means[0] * means[1]).sum(-1).mean())

    assert overlap(1.0) < overlap(0.0)


def test_agreement_by_hand():
    found = agreement(
        np.array([3.0, 2.0, 1.0, 0.0]),
        np.array([True, False, True, False]),
        np.array([True, True, False, False]),
    )
    assert found == {"auc": 0.75, "precision": 0.5, "recall": 0.5, "f1": 0.5}


# -- models and files --------------------------------------------------------------------------


def test_heads_add_up_to_what_attention_puts_out():
    network = learned_position_model(VOCABULARY, dim=16, layers=2, heads=4, positions=32)
    model = LanguageModel(network)
    tokens = colour_tokens(3, rng=np.random.default_rng(0)).clean
    last = torch.tensor([18, 10, 4])
    attention = model.run(tokens, keep=[Place("attention", 1)], at=0)[Place("attention", 1)]
    bias = network.transformer.h[1].attn.c_proj.bias.detach()
    means = head_outputs(model, tokens, last)
    ends = head_outputs(model, tokens, last, "last")
    for row in range(3):
        whole = attention[row, : last[row] + 1] - bias
        torch.testing.assert_close(means[row, 4:].sum(0), whole.mean(0), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(ends[row, 4:].sum(0), whole[-1], rtol=1e-4, atol=1e-6)


def test_locate_and_intervene_on_the_trained_model():
    model = LanguageModel.load("circuit_reuse_0")
    prompts = colour_tokens(60, rng=np.random.default_rng(0))
    scores = SAECircuits(features=60, steps=60).locate(model, prompts)
    assert scores.shape == (3, 4)
    x, y = paired_head_outputs(model, prompts)
    assert x.shape == (120, 12, 64)
    assert y.tolist() == [1] * 60 + [0] * 60
    before = model.logits(prompts.clean, at=18)
    with SAECircuits().intervene(model, [(2, 1)]) as edited:
        assert not torch.allclose(edited.logits(prompts.clean, at=18), before)
    assert torch.equal(model.logits(prompts.clean, at=18), before)


def test_published_files_are_read(tmp_path):
    x = torch.randn(8, 4, 5)
    torch.save(x, tmp_path / "resid_heads_mean.pt")
    torch.save(["L0H0", "L0H1", "L1H0", "L10H1"], tmp_path / "labels_heads_mean.pt")
    torch.save([(10, 1), (0, 0)], tmp_path / "ground_truth.pt")
    found = read_head_outputs(tmp_path)
    assert found.heads[-1] == (10, 1)
    assert found.truth.tolist() == [True, False, False, True]
    assert found.y.tolist() == [1] * 4 + [0] * 4
    torch.save([(11, 1)], tmp_path / "ground_truth.pt")
    with pytest.raises(DataError, match="as published"):
        read_head_outputs(tmp_path)


def test_bad_input_is_refused(planted):
    x, y, _ = planted
    small = SAECircuits(features=20, steps=5)
    with pytest.warns(DataWarning, match=r"80 positive and 40 negative prompts; 40"):
        small.fit(x[:120], y[:120])
    with pytest.raises(DataError, match="lower lambda"):
        small.fit(torch.ones_like(x), y)
    with pytest.raises(DataError, match="labels are"):
        small.fit(x, np.ones(160))
    with pytest.raises(DataError, match="prompt x head x d"):
        small.fit(x[:, 0], y)
    with pytest.raises(DataError, match="not finite"):
        small.fit(torch.full_like(x, torch.nan), y)
    with pytest.raises(ConfigError, match="call fit"):
        SAECircuits().head_scores()
    with pytest.raises(ConfigError, match="no pool"):
        SAECircuits(pool="max")
