import json

import pytest

from jaxunlearn.models.checkpoints import huggingface
from jaxunlearn.training.starting import starting_point

RECORDS = [{"text": "a few words"}]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (dict(n_embd=2 * 10**9), r"a model of 192,000,\d{3},\d{3}\.\d GB, and"),
        (dict(vocab_size=2**31 - 1), r"small\.json describes a model of 13\d\.\d GB"),
        (dict(n_layer=10**9), "n_layer=1000000000: must be 1 to 10000"),
    ],
)
def test_sizes_are_refused_before_anything_is_allocated(
    tmp_path, monkeypatch, sizes, message
):
    monkeypatch.setattr(huggingface, "available_memory", lambda: 10**9)
    options = dict(vocab_size=300, n_positions=8, n_embd=16, n_layer=1, n_head=2)
    path = tmp_path / "small.json"
    path.write_text(json.dumps(options | sizes))
    with pytest.raises(ValueError, match=message) as caught:
        starting_point(str(path), None, RECORDS, None, 0)
    assert "\n" not in str(caught.value)
