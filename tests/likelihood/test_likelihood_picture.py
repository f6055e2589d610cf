"""The picture of likelihood over the position: what its axis says is what is drawn."""

import io

import numpy as np
import pytest

from hyperscale.likelihood.frames import Likelihood
from hyperscale.likelihood.picture import draw
from hyperscale.likelihood.scoring import TokenScores
from hyperscale.likelihood.settings import LikelihoodSettings
from hyperscale.methods.arm import Arm


@pytest.mark.parametrize(("documents", "has_bands"), [(9, False), (10, True)])
def test_bands_are_named_where_there_are_some(documents, has_bands):
    nats = np.random.default_rng(0).random((documents, 31))
    scores = TokenScores(nats, nats / 2, nats, nats, np.arange(31.0), np.ones(documents), 1.0)
    figure = draw({Arm("tova", 2.0): scores}, LikelihoodSettings(model="mini", methods=("tova",), crs=(2,), length=32))
    assert ("bands" in figure.get_supxlabel()) == has_bands
    drawn = [band.get_paths()[0].vertices for panel in figure.axes for band in panel.collections]
    assert bool(drawn) == has_bands


def test_a_model_with_dollars_in_its_name_is_no_mathematics():
    nats = np.ones((2, 31))
    scores = TokenScores(nats, nats / 2, nats, nats, np.arange(31.0), np.ones(2), 1.0)
    settings = LikelihoodSettings(model="runs/a$b_{$c", methods=("tova",), crs=(2,), length=32)
    figure = Likelihood(settings, (), (), {}, {}, nats, {Arm("tova", 2.0): scores}).plot()
    figure.savefig(io.BytesIO())
    assert figure.legends[0].get_title().get_text().startswith("a$b_{$c, 2 documents")
