"""Children, strangers and rearranged models told apart: on random models, and on the trained Pocket family."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config

from analysis.gram import gram_pass
from analysis.lineage import (
    Fingerprint,
    Kinship,
    fingerprint,
    kinships,
    product_values,
    resemblance,
    verdict,
)  # fmt: skip
from transfer.checkpoint import open_folder
from transfer.errors import Cancelled, ReadError, TripleError
from transfer.triple import open_triple

from . import families
from .families import GROUPED

POCKET = Path(__file__).parent.parent / "assets" / "pocket"
DEEP = lambda: LlamaConfig(**{**GROUPED, "num_hidden_layers": 6})


def weights_of(config, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).state_dict()


def nudged(weights: dict[str, torch.Tensor], share: float, seed: int = 9) -> dict[str, torch.Tensor]:
    """Every weight moved by noise of this share of its tensor's spread."""
    random = torch.Generator().manual_seed(seed)
    return {
        k: v + share * v.std().nan_to_num(1) * torch.randn(v.shape, generator=random) for k, v in weights.items()
    }  # fmt: skip


def rearranged(weights: dict[str, torch.Tensor], seed: int = 3) -> dict[str, torch.Tensor]:
    """The same function with the hidden dimension permuted: a Llama's embedding, head, norms and both sides of a layer."""
    order = torch.randperm(weights["model.norm.weight"].numel(), generator=torch.Generator().manual_seed(seed))
    first = ("o_proj.weight", "down_proj.weight", "norm.weight")  # what writes to the hidden dimension, and its gains
    return {k: v[order] if k.endswith(first) else v[:, order] for k, v in weights.items()}


def saved(folder: Path, config, weights: dict[str, torch.Tensor]) -> str:
    folder.mkdir()
    config.save_pretrained(folder)
    whole = {k: v.contiguous() for k, v in weights.items()}
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def quick(refs: dict[str, str]) -> list[Kinship]:
    """The quick check as a caller makes it: Gram matrices summed over the matrices."""
    grams = [g for g in gram_pass(open_triple(refs)) if len(g.shape) > 1]
    return kinships(np.sum([g.gram for g in grams], axis=0))


# --- the quick check -------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.lists(st.floats(0, 3), min_size=3, max_size=3))
def test_figures_are_those_of_the_vectors(seed, scales):
    vectors = np.random.default_rng(seed).normal(size=(4, 40)) * np.array([1, *scales])[:, None]
    base, delta, shift, reference = vectors
    models = {"source_base": base, "source_tuned": base + delta, "target_base": base + shift}
    models["target_tuned"] = models["target_base"] + reference
    for found in kinships(vectors @ vectors.T):
        child, parent = models[found.child], models[found.parent]
        sizes = np.linalg.norm(child), np.linalg.norm(parent)
        assert found.distance == pytest.approx(np.linalg.norm(child - parent) / sizes[1], rel=1e-6, abs=1e-6)
        assert found.cosine == pytest.approx(child @ parent / sizes[0] / sizes[1], abs=1e-6)
        assert found.sentence.endswith(".") and "nan" not in found.sentence


def test_without_a_yardstick_or_without_numbers():
    gram = np.diag([1.0, 0.01, 0.04, np.nan])
    gram[3], gram[:, 3] = np.nan, np.nan
    assert [k.verdict for k in kinships(gram)] == ["near", "near"]
    gram[0, 0] = 0
    assert [k.verdict for k in kinships(gram)] == ["unknown", "unknown"]
    assert verdict(kinships(gram)[0], None) == kinships(gram)[0].sentence


def test_verdicts_on_models_whose_story_is_known(tmp_path):
    config = DEEP()
    base = weights_of(config, 0)
    made = {
        "same": base,
        "near": nudged(base, 0.02),
        "far": nudged(base, 1.5),
        "stranger": weights_of(config, 1),
        "rearranged": rearranged(nudged(base, 0.02)),
    }
    refs = {name: saved(tmp_path / name, config, weights) for name, weights in made.items()}
    expected = {"same": "same", "near": "near", "far": "far", "stranger": "unrelated", "rearranged": "unrelated"}
    for name, words in expected.items():
        roles = {"source_base": refs["same"], "source_tuned": refs[name], "target_base": refs["near"]}
        child, release = quick(roles)
        assert (child.verdict, release.verdict) == (words, "near"), name
        if words == "unrelated":
            assert child.distance == pytest.approx(2**0.5, abs=0.05) and abs(child.cosine) < 0.05
            assert "makes no sense" in child.sentence


# --- the fingerprint -------------------------------------------------------------------------------------------------


def test_values_of_products_are_those_of_the_whole_product():
    random = torch.Generator().manual_seed(0)
    q, k = torch.randn(4, 6, 30, generator=random), torch.randn(2, 6, 30, generator=random)
    found = product_values(q, k)
    for head in range(4):
        whole = np.linalg.svd((q[head].T @ k[head // 2]).double().numpy(), compute_uv=False)
        assert found[head] == pytest.approx(whole[:6], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("kind", list(families.CONFIGS))
def test_every_family_knows_its_children_and_no_strangers(family, kind):
    refs, others = family(kind), family(kind, seed=1, roles=("source_base",))
    found = {role: fingerprint(open_folder(ref)) for role, ref in refs.items()}
    stranger = fingerprint(open_folder(others["source_base"]))
    assert np.linalg.norm(found["source_base"].values, axis=-1) == pytest.approx(1)
    for child, parent in (("source_tuned", "source_base"), ("target_tuned", "target_base")):
        like = resemblance(found[child], found[parent])
        assert like.verdict == "kin", (child, like)
        assert like.closeness < 0.7
    for role in ("source_base", "source_tuned"):
        assert resemblance(found[role], stranger).verdict != "kin"


def test_a_rearranged_child_is_known_and_a_stranger_is_not(tmp_path):
    config = DEEP()
    base = weights_of(config, 0)
    made = {"base": base, "child": nudged(base, 0.02), "rearranged": rearranged(nudged(base, 0.02))}
    made["stranger"] = weights_of(config, 1)
    refs = {name: saved(tmp_path / name, config, weights) for name, weights in made.items()}
    prints = {name: fingerprint(open_folder(ref)) for name, ref in refs.items()}
    likes = {name: resemblance(prints[name], prints["base"]) for name in made}
    assert {name: like.verdict for name, like in likes.items()} == {
        "base": "kin", "child": "kin", "rearranged": "kin", "stranger": "none",
    }  # fmt: skip
    assert prints["rearranged"].values == pytest.approx(prints["child"].values, abs=1e-6)
    assert likes["child"].own_layers == 6 and likes["child"].layer_p == pytest.approx(6.0**-6)
    assert likes["stranger"].own_layers < 5 and likes["stranger"].head_p > 0.01
    assert "6 of 6 layers (by chance 1 in 6" in likes["child"].sentence
    answers = {}
    for name in ("child", "rearranged", "stranger"):
        roles = {"source_base": refs["base"], "source_tuned": refs[name], "target_base": refs["base"]}
        answers[name] = verdict(quick(roles)[0], likes[name])
    assert "lies close to" in answers["child"]
    assert "rearranged: related, but not addable" in answers["rearranged"]
    assert "no child of" in answers["stranger"] and "makes no sense" in answers["stranger"]


def test_the_model_itself_runs_the_same_when_rearranged():
    """So that what the fingerprint is tried on is a rearrangement, and no other model."""
    config = DEEP()
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.load_state_dict(nudged(weights_of(config, 0), 0.02))
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        before = model(tokens).logits
        model.load_state_dict(rearranged(model.state_dict()))
        assert torch.allclose(model(tokens).logits, before, atol=1e-4)


def test_the_trained_family_and_its_stranger():
    """Two trained models of one recipe are alike by depth, and still no kin."""
    prints = {p.name: fingerprint(open_folder(p)) for p in POCKET.iterdir() if (p / "config.json").is_file()}
    for child, parent in (("instruct-v1", "base-v1"), ("base-v2", "base-v1"), ("instruct-v2", "base-v1")):
        like = resemblance(prints[child], prints[parent])
        assert like.verdict == "kin" and like.own_layers == like.layers and like.closeness < 0.6
    for child, parent in (("base-far", "base-v1"), ("instruct-v1", "base-far"), ("base-v2", "base-far")):
        like = resemblance(prints[child], prints[parent])
        assert like.verdict == "none" and like.closeness > 0.8
    refs = {"source_base": "base-v1", "source_tuned": "instruct-v1", "target_base": "base-far"}
    near, far = quick({role: str(POCKET / name) for role, name in refs.items()})
    assert (near.verdict, far.verdict) == ("near", "unrelated")
    assert far.distance == pytest.approx(far.independent, rel=0.05)


def test_fused_matrices_are_taken_apart(tmp_path):
    config = Phi3Config(**GROUPED, pad_token_id=0)
    weights = weights_of(config, 0)
    found = fingerprint(open_folder(saved(tmp_path / "phi", config, weights)))
    fused, out = (weights[f"model.layers.1.self_attn.{name}.weight"].double() for name in ("qkv_proj", "o_proj"))
    q, k, v = fused.split([48, 24, 24])
    for head in range(4):
        own, shared = slice(12 * head, 12 * head + 12), slice(12 * (head // 2), 12 * (head // 2) + 12)
        for at, product in enumerate((q[own].T @ k[shared], out[:, own] @ v[shared])):
            values = np.linalg.svd(product.numpy(), compute_uv=False)[:12]
            assert found.values[1, at, head] == pytest.approx(values / np.linalg.norm(values), abs=1e-6)


def test_neox_heads_are_rows_of_q_k_and_v_in_turn(family):
    folder = open_folder(family("gpt-neox")["source_base"])
    weights = load_file(folder.folder / "model.safetensors")
    fused = weights["gpt_neox.layers.0.attention.query_key_value.weight"].double()
    q, k, _ = fused[36 * 2 : 36 * 3].split(12)  # the third head
    values = np.linalg.svd((q.T @ k).numpy(), compute_uv=False)[:12]
    assert fingerprint(folder).values[0, 0, 2] == pytest.approx(values / np.linalg.norm(values), abs=1e-6)


# --- what cannot be told ---------------------------------------------------------------------------------------------


def test_what_has_no_fingerprint_says_so(tmp_path):
    config = DEEP()
    weights = weights_of(config, 0)
    bare = {k: v for k, v in weights.items() if "q_proj" not in k}
    with pytest.raises(TripleError, match="layout we do not know"):
        fingerprint(open_folder(saved(tmp_path / "bare", config, bare)))
    wrong = LlamaConfig(**{**GROUPED, "num_hidden_layers": 6, "num_attention_heads": 6, "head_dim": 12})
    with pytest.raises(TripleError, match="do not fit the 6 heads"):
        fingerprint(open_folder(saved(tmp_path / "wrong", wrong, weights)))
    fused = {k.replace("q_proj", "query_key_value").replace("self_attn", "attention"): v for k, v in weights.items()}
    fused = {k.replace("o_proj", "dense"): v for k, v in fused.items() if "k_proj" not in k and "v_proj" not in k}
    with pytest.raises(TripleError, match=r"fuses .* \(llama\)"):
        fingerprint(open_folder(saved(tmp_path / "fused", config, fused)))


def test_models_of_other_sizes_are_not_compared():
    one, other = (Fingerprint(f"m{n}", tuple(range(n)), np.zeros((n, 2, 4, 8))) for n in (2, 3))
    with pytest.raises(TripleError, match="m2 and m3 differ"):
        resemblance(one, other)


def test_a_single_head_a_layer_goes_by_layers_alone():
    values = np.abs(np.random.default_rng(0).normal(size=(8, 2, 1, 16)))
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    child, parent = (Fingerprint(name, tuple(range(8)), values) for name in ("child", "parent"))
    assert resemblance(child, parent).verdict == "kin"
    mixed = Fingerprint("other", tuple(range(8)), values[::-1])
    assert resemblance(mixed, parent).verdict == "unclear"


def test_empty_heads_are_no_proof():
    nil = Fingerprint("nil", (0, 1), np.zeros((2, 2, 4, 8)))
    assert resemblance(nil, nil).verdict == "none"


def test_weights_that_are_no_numbers_and_stops(tmp_path):
    config = DEEP()
    weights = weights_of(config, 0)
    weights["model.layers.3.self_attn.k_proj.weight"][1, 2] = torch.nan
    checkpoint = open_folder(saved(tmp_path / "model", config, weights))
    with pytest.raises(ReadError, match=r"model\.layers\.3\.self_attn\.k_proj\.weight of model holds NaN"):
        fingerprint(checkpoint)

    def stop():
        raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        fingerprint(checkpoint, tick=stop)
