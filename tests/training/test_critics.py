"""Critics: which states are scored, which are negatives, and that they are learnt and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hf_distill.objectives import InfoNCE, KLDivergence, MIAlpha
from hf_distill.objectives.critic import Critic
from hf_distill.objectives.pooling import pooled
from hf_distill.training.critics import LearntCritic
from hf_distill.training.heads import FILE, NAME
from tests.training.runs import Gradients, logged, student, trainer

PAIRS = ((1, 2), (2, 4))
SMALL = {"hidden": 8, "width": 4}
MASK = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0]], dtype=torch.bool)


def critic(pairs: Any = ((1, 1),), baseline: bool = False, **settings: Any) -> LearntCritic:
    torch.manual_seed(0)
    return LearntCritic(Critic(**{**SMALL, **settings}), pairs, 6, 5, baseline=baseline)


def states(seed: int = 0, size: int = 3) -> tuple[Tensor, Tensor]:
    make = torch.Generator().manual_seed(seed)
    return torch.randn(size, 3, 6, generator=make), torch.randn(size, 3, 5, generator=make)


@pytest.mark.parametrize("kind", ["separable", "bilinear"])
def test_scores_are_inner_products_of_what_both_sides_become(kind: str) -> None:
    """Rows and columns swapped still give a square, and a loss that falls."""
    made = critic(kind=kind)
    mine, theirs = states()
    found = made.score(0, mine, theirs, MASK)
    left = made.student(pooled(mine, MASK, "mean")[0])
    right = made.teacher(pooled(theirs, MASK, "mean")[0])
    assert found.positive[0].item() == pytest.approx((left[0] @ right[0]).item(), abs=1e-6)
    assert found.negative[0, 1].item() == pytest.approx((left[0] @ right[1]).item(), abs=1e-6)
    # The third sentence is empty: no unit and no candidate.
    assert found.real.tolist() == [[False, True], [True, False], [False, False]]


def test_normalised_scores_are_cosines() -> None:
    """Inner products with a temperature for cosines are off by the length of the states."""
    made = critic(normalize=True)
    found = made.score(0, *states(), MASK)
    left, right = (
        side(pooled(shown, MASK, "mean")[0])
        for side, shown in zip((made.student, made.teacher), states(), strict=True)
    )
    expected = torch.cosine_similarity(left.unsqueeze(1), right[:2].unsqueeze(0), dim=-1)
    torch.testing.assert_close(found.negative, expected)
    torch.testing.assert_close(found.positive[:2], expected.diagonal())


def test_baseline_is_of_the_students_state() -> None:
    """The bound conditions on the student: a baseline of the teacher's state is a looser one."""
    torch.manual_seed(0)
    made = LearntCritic(Critic(**SMALL), ((1, 1),), 6, 6, baseline=True)
    (mine, _), (theirs, _) = states(0), states(1)
    found = made.score(0, mine, theirs, MASK)
    assert made.baseline is not None
    expected = made.baseline(pooled(mine, MASK, "mean")[0]).squeeze(-1)
    torch.testing.assert_close(found.baseline, expected)


def test_autocast_leaves_scores_alone() -> None:
    """Exponentials of scores in half precision lose a bound's digits, or overflow."""
    made = critic(baseline=True)
    expected = made.score(0, *states(), MASK)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = made.score(0, *states(), MASK)
    for name in ("positive", "negative", "baseline"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_tokens_are_negatives_of_each_other_up_to_a_bound() -> None:
    """All against all tokens of a batch of 32 x 512 would be 268 million scores."""
    made = critic(pooling="tokens", candidates=4)
    found = made.score(0, *states(), MASK)
    assert found.negative.shape == (3, 3, 4)
    # 5 real tokens; the candidates are the real ones number 0, 1, 2 and 3.
    assert found.real.sum().item() == 4 * 5 - 4


def test_no_gradient_reaches_the_teacher() -> None:
    """A teacher that is trained through the critic comes towards the student."""
    mine, theirs = (side.requires_grad_() for side in states())
    made = critic(baseline=True)
    found = made.score(0, mine, theirs, MASK)
    (found.positive.sum() + found.negative.sum() + found.baseline.sum()).backward()
    assert mine.grad is not None
    assert theirs.grad is None
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_queue_is_first_in_first_out() -> None:
    """A queue that never forgets fills with one epoch's beginning; one that forgets all is none."""
    made = critic(queue=3)
    whole = torch.ones(2, 3, dtype=torch.bool)
    shown = []
    for seed in range(3):
        mine, theirs = states(seed, size=2)
        found = made.score(0, mine, theirs, whole)
        assert found.negative.shape == (2, 2 + min(2 * seed, 3))
        shown.append(pooled(theirs, whole, "mean")[0])
    expected = torch.cat([shown[2], shown[1][:1]])
    assert torch.equal(made.get_buffer("queue_0"), expected)


def test_queue_holds_what_the_teacher_shows_not_what_the_critic_made_of_it() -> None:
    """Critics change: queued projections of an old critic would age, which a teacher does not."""
    made = critic(queue=4)
    whole = torch.ones(3, 3, dtype=torch.bool)
    made.score(0, *states(0), whole)
    kept = made.get_buffer("queue_0")[:3].clone()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2)
    mine, theirs = states(1)
    found = made.score(0, mine, theirs, whole)
    left = made.student(pooled(mine, whole, "mean")[0])
    torch.testing.assert_close(found.negative[:, 3:], left @ made.teacher(kept).T)


def test_backward_after_the_queue_moved() -> None:
    """The queue changes in the forward pass: autograd refuses, or takes the new states."""
    made = critic(queue=4, pairs=PAIRS)
    for _ in range(2):
        made.score(0, *states(), MASK).negative.sum().backward()


def mutual(**critic: Any) -> dict[str, Any]:
    settings = {**SMALL, **critic}
    return {
        "mi": (1.0, MIAlpha(alpha=0.5, critic=settings)),
        "nce": (0.1, InfoNCE(critic={**settings, "pooling": "tokens"})),
        "kl": (1.0, KLDivergence()),
    }


def test_critics_are_trained_beside_the_student(tmp_path: Path) -> None:
    """A critic outside the optimizer stays random: the student learns a random target."""
    run = trainer(tmp_path, objectives=mutual(), layer_mapping=list(PAIRS), max_steps=20)
    names = [name for name, _ in run.model.named_parameters() if f"{NAME}.critics" in name]
    before = {name: run.model.get_parameter(name).detach().clone() for name in names}
    run.train()
    assert len(names) == 6 * 2 + 6 + 6 * 2
    for name in names:
        assert not torch.equal(run.model.get_parameter(name), before[name]), name
    assert logged(run, "loss_mi")[-1] < logged(run, "loss_mi")[0]


def test_checkpoint_is_an_ordinary_one(tmp_path: Path) -> None:
    """Critics in the released weights: unexpected keys for everyone who loads them."""
    run = trainer(tmp_path, objectives=mutual(queue=8))
    run.train()
    run.save_model(str(tmp_path / "out"))
    assert not any(NAME in name for name in load_file(tmp_path / "out" / "model.safetensors"))
    kept = load_file(tmp_path / "out" / FILE)
    assert any("queue" in name for name in kept)


def test_resume_goes_on_with_the_queue(tmp_path: Path) -> None:
    """An empty queue after a restart: another loss, and another student, than without it."""

    def run(**changes: Any) -> Any:
        dropout = {"hidden_dropout_prob": 0.1}
        model = student(**dropout)
        common = {"objectives": mutual(queue=16), "max_steps": 6, "save_strategy": "steps"}
        return trainer(tmp_path, model=model, count=24, save_steps=3, **common, **changes)

    whole = run()
    whole.train()
    resumed = run()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    state = whole.model.state_dict()
    for name, tensor in resumed.model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_seed_alone_decides_a_critic(tmp_path: Path) -> None:
    """A critic drawn from the global state differs between processes and runs."""
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        gradients = Gradients()
        model = student()
        torch.manual_seed(noise)
        made = trainer(tmp_path, model=model, objectives=mutual(), callbacks=[gradients])
        made.train()
        runs.append(gradients.steps[0])
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
