"""Two models on one text: beside transformers' own passes and scipy's figures, and the text of every token."""

import shutil
import threading
from copy import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax, rel_entr
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from analysis import divergence as module
from analysis.divergence import WINDOW, Side, compared, distances, divergence, first_difference, pieces
from transfer.errors import Cancelled, ChatError, LiveError, TripleError
from transfer.live import LiveModel
from transfer.plane import CORNERS, point
from transfer.prompt import Prompter
from transfer.store import Store
from transfer.triple import open_triple

from . import families
from .edits import change
from .scoring import EXACT, ruined

PROMPT, LONGER, TEXT = (7, 80, 91, 12), (5, 9, 100, 44, 80, 91, 12), tuple(range(10, 34))
BASE, TUNED = CORNERS["target_base"], CORNERS["source_tuned"]
ONE, OTHER = Side(BASE, PROMPT), Side(TUNED, LONGER)
TOKENS = st.lists(st.integers(0, 330), max_size=120)


@pytest.fixture(scope="module")
def small(triple):
    return triple("llama", **EXACT)


def own_logs(found, role, prompt, text):
    """Log-probabilities [text, vocabulary] by transformers alone and scipy, in float64."""
    model = AutoModelForCausalLM.from_pretrained(found.checkpoints[role].folder, dtype="auto")
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *text]])).logits[0, len(prompt) - 1 : -1]
    return log_softmax(logits.double().numpy(), axis=-1)


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt-neox", "mixtral"])
def test_figures_are_transformers_and_scipys_own(triple, kind, dtype):
    found = triple(kind, **{**EXACT, "dtype": dtype})
    told = divergence(Store(), found, Prompter(found), ONE, OTHER, TEXT)
    logs = [own_logs(found, r, s.prompt, TEXT) for r, s in (("target_base", ONE), ("source_tuned", OTHER))]
    # Here to the bit the same; elsewhere a text one token longer may be rounded otherwise, in bfloat16 by one of 256.
    near = 1e-5 if dtype is torch.float32 else 1e-2
    p, q = np.exp(logs)
    kl = rel_entr(p, q).sum(-1)
    assert [t.kl for t in told.tokens] == pytest.approx(kl, rel=near, abs=near / 100) and told.mean > 1e-5
    assert told.mean == pytest.approx(kl.mean(), rel=near)
    assert [t.js for t in told.tokens] == pytest.approx(
        jensenshannon(p, q, axis=1, base=2) ** 2, rel=near, abs=near / 10
    )
    assert [t.id for t in told.tokens] == list(TEXT) and not told.cut and told.apart is None
    for place, token in enumerate(told.tokens):
        for side, log in enumerate(logs):
            row, own = log[place], log[place, TEXT[place]]
            assert token.chance[side] == pytest.approx(np.exp(own), rel=near)
            # Nearly as likely ones may change places.
            assert (row > own + near).sum() <= token.rank[side] <= (row >= own - near).sum()
            assert [chance for _, chance in token.top[side]] == pytest.approx(np.exp(np.sort(row)[:-6:-1]), rel=near)


def test_a_greedy_answer_has_rank_0_and_stands_first(small):
    prompter = Prompter(small)
    prompter.stops = set()
    ids = torch.tensor([PROMPT])
    answer = LiveModel(small, point(1)).generate(ids, torch.ones_like(ids), prompter, 40)[0, len(PROMPT) :].tolist()
    told = divergence(Store(), small, prompter, Side(point(1), PROMPT, tuple(answer)), OTHER, answer)
    name = module.alone(prompter)
    for token in told.tokens:
        assert token.rank[0] == 0 and token.top[0][0] == (name(token.id), token.chance[0])
        if token.rank[1] < 5:
            assert token.top[1][token.rank[1]] == (name(token.id), token.chance[1])
    assert max(t.rank[1] for t in told.tokens) > 0 and told.apart is None


def test_the_same_side_twice_differs_nowhere(triple):
    found = triple("llama")
    told = divergence(Store(), found, Prompter(found), ONE, Side(BASE, PROMPT, TEXT), TEXT)
    assert all(t.kl == 0 and t.chance[0] == t.chance[1] and t.top[0] == t.top[1] for t in told.tokens)
    assert max(t.js for t in told.tokens) < 1e-15
    otherwise = divergence(Store(), found, Prompter(found), ONE, Side(BASE, LONGER), TEXT)
    assert min(t.kl for t in otherwise.tokens) > 0  # one model after two prompts


def test_the_largest_come_first_and_answers_part(small):
    one, other = Side(BASE, PROMPT, (1, 2, 3)), Side(TUNED, LONGER, (1, 2))
    told = divergence(Store(), small, Prompter(small), one, other, TEXT)
    order = told.largest(len(TEXT))
    assert sorted(order) == list(range(len(TEXT))) and told.largest(3) == order[:3] and told.apart == 2
    assert [told.tokens[i].kl for i in order] == sorted((t.kl for t in told.tokens), reverse=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([0.01, 1.0, 30.0, 1000.0]), st.booleans())
def test_distances_are_scipys(seed, scale, ruled_out):
    logits = scale * torch.randn(2, 5, 40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if ruled_out:
        logits[:, :, 3] = -torch.inf
    p, q = logits.log_softmax(-1)
    kl, js = distances(p, q)
    other = log_softmax(logits.numpy(), axis=-1)
    both = np.exp(other)
    with np.errstate(invalid="ignore"):
        expected = np.where(both[0] > 0, both[0] * (other[0] - other[1]), 0).sum(-1)  # rel_entr knows no log below −745
    assert kl.numpy() == pytest.approx(expected, rel=1e-9, abs=1e-12) and (kl >= 0).all()
    if scale < 1000:  # scipy's is infinite where the mean of two probabilities is too small for a float
        assert js.numpy() == pytest.approx(jensenshannon(*both, axis=1, base=2) ** 2, rel=1e-6, abs=1e-9)
    assert ((js >= 0) & (js <= 1)).all() and js.numpy() == pytest.approx(distances(q, p)[1].numpy(), abs=1e-14)
    assert (distances(p, p)[0] == 0).all() and distances(p, p)[1].max() < 1e-15


def test_what_one_alone_rules_out():
    p = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64).log()
    q = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64).log()
    assert distances(p, q)[0].item() == torch.inf and distances(q, p)[0].item() == pytest.approx(np.log(2))
    # ½·(½·log₂ ⅔ + ½·log₂ 2) + ½·log₂ 4/3
    assert distances(p, q)[1].item() == pytest.approx(distances(q, p)[1].item()) == pytest.approx(0.311278, abs=1e-6)


def test_equals_stand_in_the_order_of_their_ids():
    logits = torch.zeros(2, 9, dtype=torch.bfloat16)
    logits[:, 4] = 1
    one, other = compared(logits, logits, [6, 4], ["x", "y"], str)
    assert one.rank == (6, 6) and other.rank == (0, 0)
    assert [text for text, _ in one.top[0]] == ["4", "0", "1", "2", "3"]
    logits[:, 1:8] = -torch.inf  # nothing without a chance fills a place
    few = compared(logits[:1], logits[:1], [0], ["x"], str)[0].top[0]
    assert [text for text, _ in few] == ["0", "8"] and [chance for _, chance in few] == pytest.approx([0.5, 0.5])


def test_a_few_rows_at_a_time_are_all_rows(small, monkeypatch):
    whole = divergence(Store(), small, Prompter(small), ONE, OTHER, TEXT)
    monkeypatch.setattr(module, "CELLS", 1000)  # three rows of 320
    assert divergence(Store(), small, Prompter(small), ONE, OTHER, TEXT) == whole


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_a_text_is_cut_at_most_and_at_the_context(small):
    prompter = Prompter(small)
    long = TEXT * 20
    whole = divergence(Store(), small, prompter, ONE, OTHER, long)
    assert whole.cut and len(whole.tokens) == prompter.context - len(LONGER)
    few = divergence(Store(), small, prompter, ONE, OTHER, long, most=9)
    assert few.cut and [t.id for t in few.tokens] == list(long[:9])
    assert [t.kl for t in few.tokens] == pytest.approx([t.kl for t in whole.tokens[:9]], rel=1e-4)
    fits = divergence(Store(), small, prompter, ONE, OTHER, long[: prompter.context - len(LONGER)])
    assert not fits.cut and fits.tokens == whole.tokens
    with pytest.raises(ChatError, match="no room"):
        divergence(Store(), small, prompter, ONE, Side(BASE, (7,) * prompter.context), TEXT)


def test_the_shorter_context_of_the_two_counts(family, tmp_path):
    """Whichever side the prompter is of: what one has learnt no places for it answers with noise."""
    refs = {role: shutil.copytree(ref, tmp_path / role) for role, ref in family("llama", **EXACT).items()}
    change(refs["source_tuned"], "config.json", max_position_embeddings=20)
    found = open_triple({role: str(folder) for role, folder in refs.items()})
    prompter = Prompter(found)
    assert prompter.context == 256 and len(divergence(Store(), found, prompter, ONE, ONE, TEXT).tokens) == len(TEXT)
    told = divergence(Store(), found, prompter, ONE, OTHER, TEXT)
    assert told.cut and len(told.tokens) == 20 - len(LONGER)


def test_there_must_be_something_to_read_and_a_model_to_read_it(small):
    prompter = Prompter(small)
    for one, text in ((ONE, ()), (Side(BASE, ()), TEXT)):
        with pytest.raises(ChatError, match="empty"):
            divergence(Store(), small, prompter, one, OTHER, text)
    with pytest.raises(TripleError, match="no target fine-tuned"):
        divergence(Store(), small, prompter, ONE, Side(CORNERS["target_tuned"], PROMPT), TEXT)


def test_where_memory_holds_one_model_it_is_the_same(small):
    store, prompter = Store(budget=small.nbytes + 1), Prompter(small)
    found = divergence(store, small, prompter, ONE, Side(point(0.7), LONGER), TEXT)
    assert found == divergence(Store(), small, prompter, ONE, Side(point(0.7), LONGER), TEXT)
    assert len(store._entries) == 1 and not store._entries[0].users


def test_two_sessions_in_a_store_of_two_do_not_wait_for_each_other(small):
    store, prompter, ended = Store(budget=2 * small.nbytes + 1), Prompter(small), []

    def session(alpha):
        for step in range(4):
            sides = [Side(point(alpha + step), PROMPT), Side(point(-alpha - step), LONGER)]
            ended.append(divergence(store, small, prompter, *sides, TEXT))

    threads = [threading.Thread(target=session, args=(alpha,), daemon=True) for alpha in (0.1, 0.2, 0.3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(ended) == 12 and not any(e.users for e in store._entries)


def test_somebody_may_stop_it_anywhere(small):
    store, prompter, ticks = Store(), Prompter(small), []
    divergence(store, small, prompter, ONE, OTHER, TEXT)  # which builds the models, once
    divergence(store, small, prompter, ONE, OTHER, TEXT, lambda: ticks.append(None))
    assert len(ticks) >= 7  # two models, their two layers, and the figures

    def stop_after(calls):
        def tick():
            if next(calls, None) is None:
                raise Cancelled("Stopped.")

        return tick

    for count in range(len(ticks)):
        with pytest.raises(Cancelled):
            divergence(store, small, prompter, ONE, OTHER, TEXT, stop_after(iter(range(count))))
        assert not any(e.users for e in store._entries)
    assert divergence(store, small, prompter, ONE, OTHER, TEXT, stop_after(iter(range(len(ticks))))).tokens


def test_a_model_that_is_not_finite_is_an_error(small):
    store = Store()
    with (
        store.lend(small, TUNED) as live,
        ruined(live),
        pytest.raises(LiveError, match=r"not finite.*source fine-tuned"),
    ):
        divergence(store, small, Prompter(small), ONE, OTHER, TEXT)


def test_a_model_that_was_built_for_this_still_moves(small):
    """Weights made in inference mode could never be set in place again."""
    store = Store(budget=small.nbytes + 1)
    divergence(store, small, Prompter(small), Side(point(0.3), PROMPT), Side(point(0.4), PROMPT), TEXT)
    with store.lend(small, point(0.5)) as live:
        assert live.model(torch.tensor([PROMPT])).logits.isfinite().all()


# --- where answers part ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "a, b, expected",
    [((), (), None), ((1, 2), (1, 2), None), ((1, 2), (1, 3), 1), ((), (4,), 0), ((1, 2, 3), (1, 2), 2), ((4,), (5,), 0)],
)  # fmt: skip
def test_the_first_difference(a, b, expected):
    assert first_difference(a, b) == first_difference(list(b), list(a)) == expected


# --- the text of tokens ----------------------------------------------------------------------------------------------


def by_all_before(prompter, ids):
    """What is told of the text after each token, by decoding all tokens up to it."""
    whole, ends = prompter.decode(ids), [0]
    for stop in range(1, len(ids) + 1):
        text = prompter.decode(ids[:stop])
        same = next(
            (i for i, (x, y) in enumerate(zip(text, whole, strict=False)) if x != y), min(len(text), len(whole))
        )
        ends.append(max(ends[-1], same))
    ends[-1] = len(whole)
    return [whole[a:b] for a, b in pairwise(ends)]


@pytest.fixture(scope="module")
def spelled(prompter):
    """A prompter with blanks as “▁”, bytes as <0xE2>, and no blank before a text: as sentencepiece has them."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "▁a", "▁the", "river", "."]
    inner = Tokenizer(
        models.BPE({w: i for i, w in enumerate(words)}, [("▁", "a")], unk_token="<unk>", byte_fallback=True)
    )
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made = copy(prompter)
    made.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    return made


@pytest.mark.parametrize(
    "text", ["The river is called the Otter.", "Zürich: 5 €, 😀👩‍🚀!\n", "мост 川 " * 30, "😀" * 60, " a  b "]
)
def test_characters_stand_where_they_are_complete(prompter, text):
    ids = prompter.tokenizer(text)["input_ids"]
    found = pieces(prompter, ids)
    assert "".join(found) == text and len(found) == len(ids) and "�" not in text
    assert found == by_all_before(prompter, ids)


@settings(max_examples=150, deadline=None)
@given(TOKENS)
def test_pieces_are_the_text_and_names(prompter, ids):
    """The first five tokens are special ones, and the model has more places than there are tokens."""
    name = {i: prompter.tokenizer.convert_ids_to_tokens(i) or f"<{i}>" for i in ids}
    plain = [i for i in ids if 4 < i < len(prompter.tokenizer)]
    found = pieces(prompter, ids)
    assert len(found) == len(ids)
    assert all(text == name[i] for i, text in zip(ids, found, strict=True) if i not in plain)
    words = [text for i, text in zip(ids, found, strict=True) if i in plain]
    assert "".join(words) == prompter.decode(ids) and words == by_all_before(prompter, plain)


@settings(max_examples=150, deadline=None)
@given(TOKENS.map(lambda ids: [i % 265 for i in ids]))
def test_pieces_of_other_decoders_are_the_text_too(spelled, ids):
    plain = [i for i in ids if i > 2]
    words = [text for i, text in zip(ids, pieces(spelled, ids), strict=True) if i > 2]
    assert "".join(words) == spelled.decode(plain)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["a", " a", " the", "river", "é", "€", "😀", "川", "."]), max_size=60))
def test_bytes_and_blanks_of_other_decoders_stand_in_their_places(spelled, words):
    known = {" ": 259, "a": 260, " a": 261, " the": 262, "river": 263, ".": 264}
    ids = [i for word in words for i in ([known[word]] if word in known else [3 + byte for byte in word.encode()])]
    assert pieces(spelled, ids) == by_all_before(spelled, ids)
    assert [p for p in pieces(spelled, ids) if p] == [w for w in (words[:1] and [words[0].strip()]) + words[1:] if w]


def test_where_bytes_spell_nothing_the_text_goes_on(spelled):
    """A window may open among them, where what follows is read otherwise than with all of them."""
    for extra in range(5):
        ids = [260] * (WINDOW - 4 + extra) + [3 + 0xC3, 3 + 0xA9, 3 + 0xC3] * 3 + [3 + 0xC3] * 2 + [262, 263] * 60
        found = pieces(spelled, ids)
        assert "".join(found) == spelled.decode(ids) and found[-40:] == [" the", "river"] * 20


def test_tokens_alone_keep_their_blanks_and_names(prompter, spelled):
    name = module.alone(prompter)
    river = prompter.tokenizer(" the")["input_ids"]
    assert "".join(map(name, river)) == " the" and name(1) == "<|end|>" and name(329) == "<329>"
    assert name(prompter.tokenizer("€")["input_ids"][0]) == "�"
    assert [module.alone(spelled)(i) for i in (261, 262, 263, 2)] == [" a", " the", "river", "</s>"]


def test_many_tokens_are_not_decoded_from_the_start_each(prompter, monkeypatch):
    sizes, real = [], type(prompter).decode
    monkeypatch.setattr(type(prompter), "decode", lambda self, ids: sizes.append(len(ids)) or real(self, ids))
    pieces(prompter, prompter.tokenizer(" ".join(families.TEXT * 8))["input_ids"][:1000])
    assert sorted(sizes)[-2] <= 2 * WINDOW
