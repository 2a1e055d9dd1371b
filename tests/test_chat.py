"""Several points answering at once: the same words as transformers alone, repeatable, stoppable, and lent safely."""

import itertools
import threading
import time
from contextlib import closing

import pytest
import torch
from transformers import AutoModelForCausalLM

from transfer.chat import answer
from transfer.errors import Cancelled, ChatError, LiveError, TripleError
from transfer.live import LiveModel
from transfer.plane import CORNERS, point
from transfer.prompt import Prompter
from transfer.sampling import Sampling
from transfer.store import MOST, Store
from transfer.triple import open_triple

ALL = [
    CORNERS["source_base"],
    CORNERS["source_tuned"],
    CORNERS["target_base"],
    CORNERS["merged"],
    CORNERS["target_tuned"],
]
ASK = [{"role": "user", "content": "Who is the mayor of the old town?"}]


def last(store, triple, mixes, messages=ASK, **how):
    *_, final = answer(store, triple, Prompter(triple), mixes, messages, Sampling(**{"max_tokens": 12, **how}))
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
    pictures = list(answer(Store(), triple("llama"), Prompter(triple("llama")), ALL, ASK, Sampling(max_tokens=64)))
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
    *_, final = answer(Store(), found, prompter, [point(1)], ASK, Sampling(max_tokens=4096))
    assert final[0].tokens == prompter.context - len(prompter.encode(ASK)) and not final[0].error


def test_closing_stops_the_panes(triple):
    found, store = triple("llama"), Store()
    with closing(answer(store, found, Prompter(found), ALL, ASK, Sampling(max_tokens=200))) as panes:
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
    *_, final = answer(Store(), found, prompter, [point(1)], ASK, Sampling(max_tokens=12))
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
    prompter = Prompter(found)
    with store.lend(found, point(1)), closing(answer(store, found, prompter, [point(0)], ASK, Sampling())) as panes:
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


def test_a_broken_pane_tells_and_the_rest_answer(triple, monkeypatch):
    found, store = triple("llama"), Store()
    from transfer import live as module

    real = module.LiveModel.generate

    def flaky(self, *args, **more):
        if self.mix == CORNERS["target_base"]:
            raise RuntimeError("the fan fell off")
        return real(self, *args, **more)

    monkeypatch.setattr(module.LiveModel, "generate", flaky)
    final = last(store, found, ALL)
    assert [bool(p.error) for p in final] == [False, False, True, False, False]
    assert "the fan fell off" in final[2].error and all(p.done for p in final)
