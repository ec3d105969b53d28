"""The comparison with other libraries: what it calls equal, and that its reasons are checked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import peers
import pytest
import torch
from peer_losses.batches import Batch, batch, with_padding_counted
from peer_losses.comparison import Comparison, Loss, Peer, loss, measured
from torch import Tensor

from hf_distill.objectives import HiddenCosine, HiddenMSE

OURS = HiddenMSE()


def _theirs(given: Batch) -> Tensor:
    return loss(given, OURS)


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    """As the command sets it, and back."""
    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
    torch.set_num_threads(threads)


def _run(monkeypatch: pytest.MonkeyPatch, load: Callable[[], ModuleType], *rows: Comparison) -> int:
    def registered(module: ModuleType) -> list[str]:
        return ["theirs", "forgotten"]

    peer = Peer("nothing-installed", load, lambda module: [*rows], registered)
    monkeypatch.setattr(peers, "PEERS", (peer,))
    monkeypatch.setattr(sys, "argv", ["peers.py"])
    return peers.main()


def _loaded() -> ModuleType:
    return ModuleType("nothing")


@pytest.mark.parametrize(
    ("run", "verdict"),
    [
        (_theirs, "equal"),
        (lambda b: 3 * _theirs(b), "equal up to the factor"),
        (lambda b: _theirs(b) + 1, "same gradient"),
        (lambda b: 3 * _theirs(b) + 1, "same gradient up to a factor"),
        (lambda b: loss(b, HiddenCosine()), "different"),
        (lambda b: _theirs(b).detach(), "different"),
    ],
)
def test_verdicts_come_from_values_and_gradients(run: Loss, verdict: str) -> None:
    """A loss of the same value that trains towards something else would be called equal."""
    assert measured(Comparison("theirs", run, OURS, "")).verdict == verdict


def test_a_reason_must_give_value_and_gradient() -> None:
    """A reason that sounds right but is not the whole difference would be believed."""
    right = Comparison("theirs", lambda b: 3 * _theirs(b), OURS, "three times", factor=3)
    no_gradient = Comparison(
        "theirs", lambda b: _theirs(b).detach(), OURS, "same value", rebuilt=_theirs
    )
    padded = Comparison(
        "theirs",
        lambda b: loss(with_padding_counted(b), OURS),
        OURS,
        "it is the padding, which does not show without any",
        padding="right",
    )
    found = [measured(row).explained for row in (right, no_gradient, padded)]
    assert found == [True, False, False]


def test_padding_changes_only_what_is_real() -> None:
    """Cases drawn anew for each padding would differ by chance, not by padding."""
    plain, right, left = (batch(padding) for padding in ("none", "right", "left"))
    for padded in (right, left):
        assert all(map(torch.equal, plain.leaves, padded.leaves))
    assert torch.equal(right.mask.flip(-1), left.mask)
    assert plain.mask.all()
    assert not right.mask.all()


def test_gradients_reach_the_students_tensors_only() -> None:
    """A peer that does not detach the teacher would need a gradient that nobody compares."""
    given = batch()
    assert given.student.hidden[1].requires_grad
    assert not given.teacher.hidden[1].requires_grad
    assert {id(leaf) for leaf in given.leaves} >= {id(given.student.hidden[1]), id(given.logits[0])}


def test_an_unexplained_row_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new version of a peer would change a value, and the published reason would stay."""
    row = Comparison("theirs", lambda b: 3 * _theirs(b), OURS, "twice as large", factor=2)
    assert _run(monkeypatch, _loaded, row) == 1
    assert "UNEXPLAINED" in capsys.readouterr().out


def test_a_loss_that_raises_is_told_and_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One row that a new version of a peer breaks would hide all that come after it."""

    def broken(given: Batch) -> Tensor:
        raise TypeError("moved away")

    rows = (Comparison("gone", broken, OURS, ""), Comparison("theirs", _theirs, OURS, ""))
    assert _run(monkeypatch, _loaded, *rows) == 1
    told = capsys.readouterr().out
    assert "raises TypeError: moved away" in told
    assert "| equal |" in told


def test_a_library_that_is_not_there_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever has not all of them installed could compare with none."""

    def missing() -> ModuleType:
        raise ModuleNotFoundError("No module named 'nothing'")

    assert _run(monkeypatch, missing) == 0
    assert "nothing-installed: skipped" in capsys.readouterr().out


def test_losses_without_a_row_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A registry that is said to be covered would have gaps that nobody sees."""
    _run(monkeypatch, _loaded, Comparison("theirs, mask", _theirs, OURS, ""))
    told = capsys.readouterr().out
    assert "Not compared: forgotten (not looked at yet)." in told
    assert "HiddenCosine" in told.partition("Ours that no row has:")[2]
