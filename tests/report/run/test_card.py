"""The model card, written from unlearning.json."""

import pytest

from jaxunlearn.report.run.card import model_card

TOLD = {
    "matched": [{}],
    "layers": "^wte/",
    "settings": {},
    "method": "gradient_ascent",
    "status": "reached",
    "explanation": "The forget loss is at its target.",
    "target": {"forget_loss": 2.0, "meaning": "given"},
    "losses": {"before": {"forget": 1.0}, "after": {"forget": 2.0}},
    "seconds": 3.0,
    "versions": {"jax": "1"},
    "model": {"params_sha256": "a"},
    "result": {"params_sha256": "b"},
}


@pytest.mark.parametrize(("scale", "line"), [(0.5, ["* scale: `0.5`"]), (None, [])])
def test_only_one_step_along_one_direction_has_a_scale(scale, line):
    card = model_card(TOLD | {"scale": scale}, source={})
    assert [text for text in card.splitlines() if "scale" in text] == line


def test_a_target_that_was_not_used_is_not_told():
    told = TOLD | {"scale": None}
    assert "* Forget loss to reach: 2.0000 (given)." in model_card(told, source={})
    assert "to reach" not in model_card(told | {"target": None}, source={})
