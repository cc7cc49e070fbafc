import json

from jaxunlearn.data import load_tokenizer


def test_what_is_written_agrees_with_the_tokenizer_beside(learned):
    """The config that it began with names no end of text, and a key unknown to us."""
    folder, _ = learned
    options = json.loads((folder / "run" / "model" / "config.json").read_text())
    tokenizer = load_tokenizer(folder / "run" / "model")
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert options[name] == getattr(tokenizer, name) == 0
    assert options["task_specific_params"] == {"text-generation": {"max_length": 50}}
    run = json.loads((folder / "run" / "run.json").read_text())
    assert run["config"]["eos_token_id"] == 0
