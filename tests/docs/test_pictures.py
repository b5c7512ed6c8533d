"""What docs/numerics.md says of its pictures holds for what they are drawn from."""

import numpy as np
import pictures
import pytest

NUMERICS = (pictures.IMAGES.parent / "numerics.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_each_picture_is_shown_and_can_be_drawn(name, tmp_path):
    assert f"(images/{name}.png)" in NUMERICS
    assert (pictures.IMAGES / f"{name}.png").exists()
    pictures.draw(name, tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").stat().st_size > 10_000


def test_truncation_falls_with_the_power_of_the_order_and_rounding_grows_as_the_step_shrinks():
    of = pictures.errors(np.float64)
    for order, off in zip(pictures.ORDERS, of.by_order, strict=True):
        inside = (of.steps < 0.1) & (off > 1e-11) & (of.steps > 1e-3)
        slope, _ = np.polyfit(np.log(of.steps[inside]), np.log(off[inside]), 1)
        assert slope == pytest.approx(order, abs=0.3)
    small = of.steps < 1e-6
    slope, _ = np.polyfit(np.log(of.steps[small]), np.log(of.by_order[:, small].mean(axis=0)), 1)
    assert slope == pytest.approx(-1, abs=0.15)


def test_float64_reaches_six_digits_more_than_float32():
    wide, narrow = pictures.errors(np.float64), pictures.errors(np.float32)
    assert narrow.stated.min() > 1e6 * wide.stated.min()


def test_the_noise_found_is_that_of_the_staircase():
    stairs = pictures.staircase()
    assert 0.5 < stairs.noise / np.std(stairs.rough) < 2


def test_every_stated_error_holds():
    stated, true = pictures.coverage()
    assert len(stated) == 480
    assert (true <= stated).all()
