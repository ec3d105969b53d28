"""Cost against growth: the laws that are fitted, and the tables that tell them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from growth_study.fits import exponent, line, parabola
from growth_study.measuring import Cost
from growth_study.plots import plot
from growth_study.report import attention_share, report
from growth_study.settings import GROWTHS, Setting, Shape


@pytest.mark.parametrize(("power", "factor"), [(0, 3.0), (1, 0.5), (2, 7.0), (0.5, 1.0)])
def test_exponents_are_those_of_powers(power: float, factor: float) -> None:
    """A logarithm of another base, or x and y the wrong way round."""
    x = [32, 64, 128, 512]
    assert exponent(x, [factor * at**power for at in x]) == pytest.approx(power)


def test_lines_have_slope_and_base() -> None:
    """The two change places easily."""
    law = line([1, 2, 4], [5.0, 7.0, 11.0])
    assert law == pytest.approx((3.0, 2.0, 1.0))
    assert line([1, 2, 3], [1.0, 3.0, 1.0]).explained == pytest.approx(0.0)
    assert line([1, 2, 3], [4.0, 4.0, 4.0]).explained == 1.0


def test_parabolas_tell_the_quadratic_part() -> None:
    """Lengths and their squares differ by orders: a fit that is not scaled finds nothing."""
    x = [32, 64, 128, 256, 512]
    law = parabola(x, [0.1 + 2e-3 * at + 3e-6 * at**2 for at in x])
    assert law == pytest.approx((0.1, 2e-3, 3e-6))
    square = 3e-6 * 512**2
    assert law.quadratic_share(512) == pytest.approx(square / (0.1 + 2e-3 * 512 + square))


def test_parabolas_have_no_negative_part() -> None:
    """Noise would make a share below 0, or above 1."""
    law = parabola([1, 2, 3, 4], [1.0, 2.1, 3.0, 3.9])
    assert min(law) == 0
    assert 0 <= law.quadratic_share(4) <= 1


def test_attention_share_is_that_of_one_layer() -> None:
    """Worked out by hand: at a length of six widths both parts are equal."""
    shape = Shape(layers=2, width=8, heads=2)
    setting = Setting(shape, shape, batch=1, length=48, examples=1, pairs=())
    assert attention_share(setting) == pytest.approx(0.5)
    assert attention_share(replace(setting, length=24)) == pytest.approx(1 / 3)


def test_one_thing_grows_at_a_time() -> None:
    """Two that grow together would be told as one."""
    for name, growth in GROWTHS.items():
        varied = {
            field
            for setting in growth.settings.values()
            for field in ("student", "teacher", "batch", "length", "examples", "pairs", "cached")
            if getattr(setting, field) != getattr(next(iter(growth.settings.values())), field)
        }
        assert len(varied) == 1, name
        for setting in growth.settings.values():
            assert setting.examples >= setting.batch


def test_tables_tell_each_setting_and_its_laws() -> None:
    """A law of another column, or the mean of a process that was disturbed."""
    costs = {
        count: [
            Cost(0.1, 0.5, [0.25, 0.25, 9.0], 20_000_000, 0.002 * count, 1_000 * count),
            Cost(0.3, 0.5, [0.25, 0.25], 40_000_000, 0.002 * count, 1_000 * count),
        ]
        for count in (1_000, 10_000)
    }
    lines = report({"cached-examples": costs}).splitlines()
    assert lines[0] == "**Number of examples, cached teacher**"
    assert lines[2].startswith("| examples | construction, s | first step, s | s/step | peak, MB |")
    assert lines[4] == "| 1,000 | 0.2 | 0.5 | 0.25 | 30 | 2 | 1 | 0.25 to 0.25 |"
    assert lines[6].startswith("| exponent | 0.00 | 0.00 | ")
    assert "| 1.00 | 1.00 | |" in lines[6]
    assert "0.002 (R² 1.000) | 0.001 (R² 1.000) | |" in lines[7]


def test_growths_are_drawn_together(tmp_path: Path) -> None:
    """A panel that one of two growths does not have would end the run after all its minutes."""
    found = {
        name: {at: [Cost(0.1, 0.5, [0.2, 0.3], 10**7, 1.0, 10**6)] for at in GROWTHS[name].settings}
        for name in ("length", "cached-length", "depth")
    }
    plot(found, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 1000
