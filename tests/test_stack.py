"""Stacks: every row answers, to the bit, as a live model at its point; what cannot be stacked is refused; rows move."""

import pytest
import torch
from torch import nn

from transfer import stack as module
from transfer.live import LiveModel
from transfer.plane import CORNERS, point
from transfer.stack import NotStackable, Stack, StackedLinear
from transfer.store import Store

MIXES = [CORNERS["source_base"], point(0.5), CORNERS["target_tuned"], point(1)]
IDS = torch.tensor([[5, 9, 30, 44, 7, 8]])


@torch.inference_mode()
def logits(model, rows: int = 1) -> torch.Tensor:
    return model(IDS.expand(rows, -1)).logits


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    "kind",
    ["llama", "llama-tied", "qwen2", "gemma2", "gemma3", "olmo2", "mistral", "gpt-neox", "phi3", "gpt2", "bloom"],
)
def test_every_row_answers_as_its_point_alone(triple, kind, dtype):
    found = triple(kind, dtype=dtype)
    stack = Stack(found, MIXES)
    together = logits(stack.model, len(MIXES))
    for row, mix in enumerate(MIXES):
        live = LiveModel(found, mix)
        alone = logits(live.model)[0]
        if dtype == torch.bfloat16:
            assert torch.equal(together[row], alone)
        assert torch.allclose(together[row], alone, rtol=1e-4, atol=1e-5)
        assert stack.fingerprint(row) == live.fingerprint
    assert stack.nbytes == len(MIXES) * live.nbytes


@pytest.mark.parametrize("kind", ["mixtral", "qwen3-moe", "deepseek", "falcon", "opt"])
def test_families_that_cannot_be_stacked_say_so(triple, kind):
    with pytest.raises(NotStackable, match="Models of this family"):
        Stack(triple(kind), MIXES[:2])


class FirstForAll(StackedLinear):
    """Takes one row's weights for all of them: what a wrong replacement would do."""

    def forward(self, x):
        return nn.functional.linear(x, self.weight[0])


class LastForAll(StackedLinear):
    def forward(self, x):
        return nn.functional.linear(x, self.weight[-1])


@pytest.mark.parametrize("wrong", [FirstForAll, LastForAll])
def test_a_wrong_replacement_is_found_out(triple, monkeypatch, wrong):
    monkeypatch.setitem(module.KINDS, nn.Linear, wrong)
    with pytest.raises(NotStackable, match="otherwise"):
        Stack(triple("llama"), MIXES)


def test_only_rows_with_another_point_move(triple, monkeypatch):
    stack = Stack(triple("llama"), MIXES)
    moved = []
    real = LiveModel.move
    monkeypatch.setattr(LiveModel, "move", lambda self, mix, tick: moved.append(mix) or real(self, mix, tick))
    after = [MIXES[0], point(0.7), *MIXES[2:]]
    stack.move(after)
    assert moved == [point(0.7)] and stack.mixes == after
    assert stack.fingerprint(1) == LiveModel(stack.triple, point(0.7)).fingerprint
    assert stack.fingerprint(3) == LiveModel(stack.triple, point(1)).fingerprint


def test_a_move_that_breaks_off_leaves_no_row_taken_for_another(triple, monkeypatch):
    stack = Stack(triple("llama"), MIXES)

    def broken(self, mix, tick):
        raise OSError("the disk went away")

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(LiveModel, "move", broken)
        stack.move([point(0.1), *MIXES[1:]])
    assert stack.mixes[0] is None
    stack.move([point(0.1), *MIXES[1:]])
    assert stack.fingerprint(0) == LiveModel(stack.triple, point(0.1)).fingerprint


def test_the_store_lends_moves_and_forgets_stacks(triple):
    found, store = triple("llama"), Store()
    with store.lend_stack(found, MIXES) as one, store.lend_stack(found, MIXES) as two:
        assert one is two
        with store.lend_stack(found, [*MIXES[:3], point(0.3)]) as other:
            assert other is not one
    with store.lend_stack(found, [*MIXES[:3], point(0.4)]) as moved:
        assert moved in (one, other) and moved.mixes[3] == point(0.4)
    small = Store(budget=5 * found.nbytes)
    with small.lend(found, point(1)):
        pass
    with small.lend_stack(found, MIXES):  # the idle model makes way
        assert len(small._entries) == 1
    assert store.stacks(found)


def test_the_store_remembers_what_cannot_be_stacked(triple):
    store, found = Store(), triple("mixtral")
    with pytest.raises(NotStackable), store.lend_stack(found, MIXES):
        pass
    assert not store.stacks(found) and not store._entries
