"""Wrong options of every module are refused when it is made, and right ones are printed."""

import math
from functools import partial

import pytest

from solo_dimreg import (
    TREGS,
    AdaDim,
    Decorrelation,
    DirectCLR,
    EffectiveRank,
    LDReg,
    LeJEPA,
    ShuffledDBN,
    SIGReg,
    VISReg,
)
from solo_dimreg.nn.normalization import normalization_layer

WHITENING = partial(ShuffledDBN, 6)
LAYER = partial(normalization_layer, 8)
WRONG = [
    (AdaDim, {"alpha": "rank"}, "Unknown alpha 'rank'. Did you mean 'erank'\\? Valid: cosine, erank, linear"),
    (AdaDim, {"alpha": 1.5}, r"alpha must be a finite number in \[0, 1\], got 1.5"),
    (AdaDim, {"alpha": None}, "got None"),
    (AdaDim, {"ema": 1.0}, "ema must be below 1"),
    (AdaDim, {"rank_every": 0}, "rank_every must be an integer >= 1, got 0"),
    (AdaDim, {"ema": -0.1}, r"ema must be a finite number in \[0, 1\]"),
    (AdaDim, {"gamma": math.inf}, "gamma must be a finite number, got inf"),
    (AdaDim, {"gamma": "1"}, "gamma must be a finite number, got '1'"),
    (AdaDim, {"rank_of": "views"}, "Unknown rank_of 'views'. Did you mean 'view'"),
    (AdaDim, {"rank_against": "begin"}, "Unknown rank_against 'begin'. Valid: attainable, start"),
    (AdaDim, {"beta_schedule": "gradually"}, "Unknown beta_schedule 'gradually'. Did you mean 'gradual'"),
    (AdaDim, {"order": 3}, "order must be 1 or 2, got 3"),
    (AdaDim, {"sample_weight": -1}, "sample_weight"),
    (AdaDim, {"dimension_weight": "1"}, "dimension_weight"),
    (AdaDim, {"temperature": 0}, "temperature"),
    (AdaDim, {"sim": -1}, "sim must be"),
    (AdaDim, {"var": -1}, "var must be"),
    (AdaDim, {"cov": -1}, "cov must be"),
    (ShuffledDBN, {"num_features": 0}, "num_features must be an integer >= 1, got 0"),
    (WHITENING, {"num_groups": 4}, "num_groups must divide the 6 axes, got 4"),
    (WHITENING, {"num_groups": True}, "got True"),
    (WHITENING, {"eps": -1e-5}, "eps must be a finite number >= 0"),
    (WHITENING, {"momentum": 1.5}, r"momentum must be a finite number in \[0, 1\], got 1.5"),
    (LAYER, {"normalization": "whiten"}, "Unknown normalization 'whiten'"),
    (LAYER, {"num_groups": 3}, "num_groups must divide the 8 axes, got 3"),
    (LAYER, {"num_groups": "all"}, "num_groups must be an integer >= 1, got 'all'"),
    (LAYER, {"eps": -1}, "eps must be a finite number >= 0"),
    (LAYER, {"momentum": 2}, "momentum"),
    (LAYER, {"affine": 1}, "affine must be true or false, got 1"),
    (LAYER, {"track_running_stats": None}, "track_running_stats must be true or false"),
    (DirectCLR, {"dim": 0}, "dim must be an integer >= 1, got 0"),
    (DirectCLR, {"dim": True}, "got True"),
    (DirectCLR, {"temperature": -0.1}, "temperature must be a finite number > 0, got -0.1"),
    (DirectCLR, {"temperature": "0.1"}, "got '0.1'"),
    (EffectiveRank, {"center": "yes"}, "center must be true or false, got 'yes'"),
    (LDReg, {"k": 0}, "k must be an integer >= 2, got 0"),
    (LDReg, {"k": True}, "got True"),
    (LDReg, {"k": 64.0}, "got 64.0"),
    (LDReg, {"k": "64"}, "got '64'"),
    (LDReg, {"estimator": "moments"}, "Unknown estimator 'moments'.*Valid: mle, mom"),
    (LDReg, {"norm": "L1"}, "Unknown norm 'L1'. Valid: l1, l2"),
    (LDReg, {"direction": "up"}, r"Unknown direction 'up'\. Valid: max, min"),
    (SIGReg, {"num_slices": 0}, "num_slices must be an integer >= 1, got 0"),
    (SIGReg, {"knots": 1}, "knots must be an integer >= 2"),
    (SIGReg, {"t_max": -1}, "t_max must be a finite number > 0"),
    (LeJEPA, {"weight": 1.5}, r"weight must be a finite number in \[0, 1\], got 1.5"),
    (LeJEPA, {"num_slices": 1.0}, "num_slices must be an integer >= 1, got 1.0"),
    (VISReg, {"num_slices": True}, "num_slices must be an integer >= 1, got True"),
    (VISReg, {"shape_weight": -1}, "shape_weight must be a finite number >= 0"),
    (VISReg, {"eps": 0}, "eps must be a finite number > 0"),
    (TREGS, {"sphere_weight": -0.1}, "sphere_weight must be a finite number >= 0"),
]


@pytest.mark.parametrize(("make", "options", "message"), WRONG)
def test_wrong_options_are_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_options_are_printed():
    assert repr(AdaDim()).startswith("AdaDim(alpha='erank', rank_of='view', rank_against='attainable', ema")
    expected = "ShuffledDBN(6, num_groups=2, eps=1e-05, momentum=0.1, affine=False, track_running_stats=True)"
    assert repr(ShuffledDBN(6, 2)) == expected
    assert repr(Decorrelation()).startswith("Decorrelation(correlation_weight=1.0")
    assert repr(DirectCLR()) == "DirectCLR(dim=360, temperature=0.1)"
    assert repr(EffectiveRank()) == "EffectiveRank(center=True)"
    assert repr(LDReg(k=8)) == "LDReg(k=8, estimator='mom', norm='l1', direction='max')"
    assert repr(SIGReg()) == "SIGReg(\n  knots=17, t_max=3.0\n  (slices): RandomSlices(1024)\n)"
    assert "scale_weight=1.0, shape_weight=1.0, center_weight=1.0, eps=0.0001" in repr(VISReg())
    assert repr(TREGS()) == "TREGS(sphere_weight=0.004)"
