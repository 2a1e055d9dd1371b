"""Points, mixes and paths of the transfer plane."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.errors import PointError
from transfer.plane import CORNERS, PATHS, ROLES, Mix, Path, point

small = st.floats(-10, 10, allow_nan=False)


@given(small, small)
def test_coefficients_sum_to_one_and_give_the_point_back(alpha, beta):
    mix = point(alpha, beta)
    assert math.isclose(sum(mix.coefficients), 1, abs_tol=1e-9)
    assert mix.plane == (alpha, beta)


@given(small)
def test_on_the_edges_through_merged_the_source_base_takes_exactly_minus_alpha(t):
    assert point(t).coefficients == (-t, t, 1.0, 0.0)
    assert point(1.0, t).coefficients[0] == -t


def test_corners_are_one_checkpoint_each():
    for role in ROLES:
        assert CORNERS[role].corner == role
        assert CORNERS[role].parts == {role: 1.0}
    assert CORNERS["merged"].coefficients == (-1.0, 1.0, 1.0, 0.0)
    assert CORNERS["merged"].corner is None


@given(small, small, small, small)
def test_a_path_ends_where_it_should_to_the_bit(a, b, c, d):
    path = Path("any", point(a, b), point(c, d))
    assert path.at(0) == path.start
    middle = path.at(0.5).plane
    assert middle == pytest.approx(((a + c) / 2, (b + d) / 2))


def test_named_paths_run_between_their_corners():
    assert PATHS["strength"].at(0) == CORNERS["target_base"]
    assert PATHS["strength"].at(1) == CORNERS["merged"]
    assert PATHS["strength"].at(0.3).plane == (0.3, 1.0)
    assert PATHS["source_target"].at(0) == CORNERS["source_tuned"]
    assert PATHS["source_target"].at(1) == CORNERS["merged"]
    off = Path("to the yardstick", CORNERS["merged"], CORNERS["target_tuned"])
    assert off.at(1) == CORNERS["target_tuned"] and off.at(0.5).coefficients == (-0.5, 0.5, 0.5, 0.5)
    assert off.at(0.5).plane is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 11, -10.5])
def test_no_point_beyond_the_bounds(bad):
    with pytest.raises(PointError):
        point(bad)
    with pytest.raises(PointError):
        point(1, bad)
    with pytest.raises(PointError):
        PATHS["strength"].at(bad)


def test_a_mix_must_sum_to_one():
    with pytest.raises(PointError, match="sum to 1"):
        Mix((0.5, 0.5, 0.5, 0.0))
