"""Several points answering at once: the same words as transformers alone, repeatable, stoppable, and lent safely."""

import itertools
import shutil
import threading
import time
from contextlib import closing

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from transfer import chat
from transfer.chat import Asked, answer
from transfer.endpoint import Endpoint
from transfer.errors import Cancelled, ChatError, LiveError, TripleError
from transfer.live import LiveModel
from transfer.plan import plan
from transfer.plane import CORNERS, point
from transfer.prompt import Prompter, prompter_for
from transfer.sampling import Sampling
from transfer.stack import Stack
from transfer.store import MOST, Store
from transfer.triple import open_triple

from .scoring import EXACT

ALL = [
    CORNERS["source_base"],
    CORNERS["source_tuned"],
    CORNERS["target_base"],
    CORNERS["merged"],
    CORNERS["target_tuned"],
]
ASK = [{"role": "user", "content": "Who is the mayor of the old town?"}]


def ask(triple, mixes, messages=ASK, prompter=None, **how):
    """What every pane is asked in the same words."""
    prompter = prompter or Prompter(triple)
    return [Asked(mix, tuple(messages), Sampling(**{"max_tokens": 12, **how}), prompter) for mix in mixes]


def last(store, triple, mixes, messages=ASK, **how):
    *_, final = answer(store, triple, ask(triple, mixes, messages, **how))
    return final


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt-neox", "mixtral"])
def test_every_pane_says_what_transformers_says(triple, kind):
    found = triple(kind)
    prompter = Prompter(found)
    final = last(Store(), found, ALL)
    ids = torch.tensor([prompter.encode(ASK)])
    for pane, role in zip(final, ("source_base", "source_tuned", "target_base", None, "target_tuned"), strict=True):
        assert pane.done and not pane.error and pane.tokens == 12 and len(pane.fingerprint) == 12
        if role:
            model = AutoModelForCausalLM.from_pretrained(found.checkpoints[role].folder, dtype=torch.bfloat16)
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=12,
                do_sample=False,
                eos_token_id=sorted(prompter.stops),
                pad_token_id=prompter.pad,
            )
            assert pane.text == prompter.decode(out[0, ids.shape[1] :].tolist())
    assert len({pane.fingerprint for pane in final}) == len(ALL)


def test_panes_grow_together(triple):
    pictures = list(answer(Store(), triple("llama"), ask(triple("llama"), ALL, max_tokens=64)))
    assert len(pictures) >= 1 and all(p.done for p in pictures[-1])
    for before, after in itertools.pairwise(pictures):
        assert all(b.tokens <= a.tokens for b, a in zip(before, after, strict=True))


def test_a_seed_repeats_an_answer_and_another_changes_it(triple):
    found, store = triple("llama"), Store()
    texts = [last(store, found, [point(1)], temperature=1.5, seed=seed, max_tokens=24)[0].text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_empty_and_long_prompts_are_refused(triple):
    found = triple("llama")
    for text, words in (("  ", "empty"), ("river " * 300, "Shorten it")):
        with pytest.raises(ChatError, match=words):
            last(Store(), found, ALL, [{"role": "user", "content": text}])
    with pytest.raises(TripleError, match="no target fine-tuned"):
        bare = open_triple({role: str(c.folder) for role, c in found.checkpoints.items() if role != "target_tuned"})
        last(Store(), bare, ALL)


def test_more_tokens_than_fit_are_as_many_as_fit(triple):
    found = triple("llama")
    prompter = Prompter(found)
    prompter.stops = set()
    *_, final = answer(Store(), found, ask(found, [point(1)], prompter=prompter, max_tokens=4096))
    assert final[0].tokens == prompter.context - len(prompter.encode(ASK)) and not final[0].error


def test_closing_stops_the_panes(triple):
    found, store = triple("llama"), Store()
    with closing(answer(store, found, ask(found, ALL, max_tokens=200))) as panes:
        next(panes)
    deadline = time.monotonic() + 5
    while any(e.users for e in store._entries) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(e.users for e in store._entries)


def test_a_stop_token_ends_an_answer(triple):
    found = triple("llama")
    prompter = Prompter(found)
    ids = torch.tensor([prompter.encode(ASK)])
    first = int(LiveModel(found, point(1)).generate(ids, torch.ones_like(ids), prompter, 1)[0, -1])
    prompter.stops = {*prompter.stops, first}
    *_, final = answer(Store(), found, ask(found, [point(1)], prompter=prompter))
    assert final[0].stopped and final[0].tokens == 1 and final[0].text == ""


def test_in_turn_where_memory_holds_one(triple):
    found = triple("llama")
    store = Store(budget=found.nbytes + 1)
    assert store.at_once(found) == 1
    together = last(Store(), found, ALL)
    assert [p.text for p in last(store, found, ALL)] == [p.text for p in together]
    assert len(store._entries) == 1


def test_a_wait_for_a_model_can_be_stopped(triple):
    found = triple("llama")
    store = Store(budget=found.nbytes + 1)

    def tick():
        raise Cancelled("Stopped.")

    with store.lend(found, point(1)), pytest.raises(Cancelled), store.lend(found, point(0.5), tick):
        pass
    with store.lend(found, point(1)), closing(answer(store, found, ask(found, [point(0)]))) as panes:
        assert [next(panes)[0].tokens for _ in range(3)] == [0, 0, 0]  # it goes on telling while it waits


def test_a_model_that_roves_moves_before_another_is_built(triple):
    found, store = triple("llama"), Store()
    for mix in (CORNERS["target_base"], point(0.2), point(0.4), CORNERS["source_base"], point(0.6)):
        with store.lend(found, mix) as live:
            assert live.mix == mix
    assert len(store._entries) == 3  # two corners, and one for all the rest


def test_nothing_where_memory_holds_none(triple):
    found = triple("llama")
    final = last(Store(budget=found.nbytes - 1), found, ALL)
    assert all(p.done and "set aside for models" in p.error for p in final)
    with pytest.raises(LiveError), Store(budget=10).lend(found, point(1)):
        pass


def test_a_model_is_shared_at_its_point_and_never_moves_under_anybody(triple):
    found, store = triple("llama"), Store()
    with store.lend(found, point(1)) as one, store.lend(found, point(1)) as two:
        assert one is two
        with store.lend(found, point(0.5)) as other:
            assert other is not one and one.mix == point(1)
    for step in range(2 * MOST):
        with store.lend(found, point(step / 20)) as live:
            assert live.mix == point(step / 20)
    assert len(store._entries) <= MOST


def test_many_borrowers_get_what_they_asked_for(triple):
    found, store, wrong = triple("llama"), Store(budget=2 * triple("llama").nbytes), []
    right = {}
    for alpha in (0.0, 0.5, 1.0, 1.5):
        with store.lend(found, point(alpha)) as live:
            right[alpha] = live.fingerprint

    def borrow(alphas):
        for alpha in alphas:
            with store.lend(found, point(alpha)) as live:
                if live.mix != point(alpha) or live.fingerprint != right[alpha]:
                    wrong.append(alpha)

    threads = [
        threading.Thread(target=borrow, args=([0.0, 0.5, 1.0, 1.5][n:] + [1.0, 0.5][: n + 1],)) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in threads)


def broken(monkeypatch, where):
    """Whatever answers where `where` says so breaks off."""
    real = chat.decode

    def flaky(held, *rest):
        if where(held):
            raise RuntimeError("the fan fell off")
        return real(held, *rest)

    monkeypatch.setattr(chat, "decode", flaky)


def test_a_broken_pane_tells_and_the_rest_answer(triple, monkeypatch):
    broken(monkeypatch, lambda held: isinstance(held, LiveModel) and held.mix == CORNERS["target_base"])
    final = last(Store(), triple("mixtral"), ALL)
    assert [bool(p.error) for p in final] == [False, False, True, False, False]
    assert "the fan fell off" in final[2].error and all(p.done for p in final)


def test_a_broken_batch_tells_in_every_pane(triple, monkeypatch):
    broken(monkeypatch, lambda held: isinstance(held, Stack))
    final = last(Store(), triple("llama"), ALL)
    assert all("the fan fell off" in p.error and p.done for p in final)


def test_rows_of_a_batch_are_asked_and_drawn_each_in_its_own_way(triple):
    found, store = triple("llama", **EXACT), Store()
    prompter = Prompter(found)
    longer = [{"role": "user", "content": "Sort these words: pear, apple, fig."}]
    asked = [
        Asked(point(1), tuple(ASK), Sampling(max_tokens=5), prompter),
        Asked(point(0), tuple(longer), Sampling(max_tokens=20, temperature=1.2, seed=7), prompter),
        Asked(CORNERS["source_base"], tuple(ASK), Sampling(max_tokens=9, temperature=0.7, top_p=0.5, seed=7), prompter),
        Asked(point(1), tuple(longer), Sampling(max_tokens=20, temperature=1.2, seed=8), prompter),
    ]
    *_, together = answer(store, found, asked)
    assert [p.alike for p in together] == [4] * 4 and [len(p.ids) for p in together[:1]] == [5]
    for one, beside in zip(asked, together, strict=True):
        *_, (alone,) = answer(store, found, [one])
        assert alone.alike == 1 and alone.ids == beside.ids and alone.text == beside.text
        assert alone.fingerprint == beside.fingerprint and alone.sent == beside.sent


def test_a_row_that_is_not_finite_breaks_off_and_the_rest_answer(family, tmp_path):
    refs = ruined(family("llama"), tmp_path)
    final = last(Store(), open_triple(refs), [CORNERS["source_base"], CORNERS["source_tuned"], point(0)])
    assert [bool(p.error) for p in final] == [False, True, False]
    assert "not finite" in final[1].error and final[0].tokens == final[2].tokens == 12
    assert [p.alike for p in final] == [3] * 3
    (alone,) = last(Store(), open_triple(refs), [CORNERS["source_tuned"]])
    assert "not finite" in alone.error


def ruined(refs: dict[str, str], home) -> dict[str, str]:
    """The same family with a NaN in the source fine-tuned model's last norm."""
    folder = home / "ruined"
    shutil.copytree(refs["source_tuned"], folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return {**refs, "source_tuned": str(folder)}


def test_each_pane_is_asked_as_its_own_checkpoint_is(triple):
    found = triple("llama")
    talk = [{"role": "system", "content": "Be brief."}, *ASK]
    asked = {role: prompter_for(found, mix) for role, mix in CORNERS.items()}
    for role in ("source_base", "target_base"):
        assert not asked[role].has_template and asked[role].text(talk) == "Be brief.\n\n" + ASK[0]["content"]
        assert "plain text" in asked[role].manner
    for role in ("source_tuned", "target_tuned", "merged"):
        assert asked[role].text(talk).startswith("<|system|>Be brief.<|end|><|user|>Who is")
        assert asked[role].text(talk).endswith("<|end|><|assistant|>")
    assert asked["target_tuned"].manner == "chat template of the target fine-tuned model"
    assert prompter_for(found, CORNERS["target_base"], "tuned").text(talk) == asked["merged"].text(talk)
    assert prompter_for(found, CORNERS["merged"], "plain").text(talk) == asked["target_base"].text(talk)
    assert all(a.stops == asked["merged"].stops for a in asked.values())


def test_one_pane_that_cannot_be_asked_tells_why_and_the_rest_answer(triple):
    found = triple("llama")
    long = [{"role": "user", "content": "river " * 300}]
    asked = [*ask(found, [point(1)], long), *ask(found, [point(0)])]
    *_, (refused, other) = answer(Store(), found, asked)
    assert "tokens" in refused.error and "256" in refused.error and refused.done and not refused.tokens
    assert other.tokens == 12 and not other.error


def test_the_plan_says_before_how_the_panes_will_be_answered(triple):
    found = triple("llama")
    four = ALL[:4]
    together = plan(Store(budget=10 * found.nbytes), found, four)
    assert together.groups == ((0, 1, 2, 3),) and together.nbytes == 5 * found.nbytes and not together.in_turn
    assert "4 models, decoded together as one batch" in together.sentence
    apart = plan(Store(budget=4 * found.nbytes), found, four)
    assert apart.groups == ((0,), (1,), (2,), (3,)) and not apart.in_turn and "at the same time" in apart.sentence
    turns = plan(Store(budget=found.nbytes + 1), found, four)
    assert (
        turns.in_turn and turns.at_once == 1 and "in turn" in turns.sentence and "one model at a time" in turns.sentence
    )
    assert "none fits" in plan(Store(budget=1), found, four).sentence
    assert plan(Store(), found, [Endpoint("http://127.0.0.1:1", "m")]).sentence == ""
    with pytest.raises(TripleError, match="no target fine-tuned"):
        plan(Store(), open_triple({r: str(c.folder) for r, c in found.checkpoints.items() if r != "target_tuned"}), ALL)


def test_families_that_cannot_be_stacked_answer_at_the_same_time(triple):
    found, store = triple("mixtral"), Store()
    assert "one batch" in plan(store, found, ALL).sentence
    assert all(p.alike == 1 and p.tokens == 12 for p in last(store, found, ALL))
    assert "at the same time" in plan(store, found, ALL).sentence
