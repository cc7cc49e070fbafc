import importlib.util
import json
import math

import pytest

from jaxunlearn.models import (
    GPT2Config,
    load_config,
)
from jaxunlearn.models.checkpoints.families import FAMILIES


@pytest.fixture(scope="module")
def options():
    return dict(vocab_size=97, n_positions=24, n_embd=16, n_layer=2, n_head=2)


def test_a_bare_file_gives_a_configuration_to_train_from(options, tmp_path):
    path = tmp_path / "small.json"
    path.write_text(json.dumps(options))
    assert load_config(path) == GPT2Config(**options)
    harmless = dict(
        model_type="gpt2",
        n_ctx=24,
        use_cache=False,
        summary_type="cls_index",
        task_specific_params={"text-generation": {}},
        tie_word_embeddings=True,
        quantization_config=None,
        n_inner=23,
        attn_pdrop=0,
        eos_token_id=None,
        attention="cudnn",
        dtype="bfloat16",
    )
    path.write_text(json.dumps(options | harmless))
    assert load_config(str(path)) == GPT2Config(
        **options, n_inner=23, attn_pdrop=0, eos_token_id=None
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(model_type="llama"), "model_type='llama' is not supported, only 'gpt2'"),
        (
            dict(scale_attn_by_inverse_layer_idx=True),
            "scale_attn_by_inverse_layer_idx=True is not supported, only False: ",
        ),
        (dict(reorder_and_upcast_attn=True), "reorder_and_upcast_attn=True"),
        (dict(add_cross_attention=True), "add_cross_attention=True .*no encoder"),
        (dict(tie_word_embeddings=False), "tie_word_embeddings=False .*head is"),
        (dict(is_encoder_decoder=True), "is_encoder_decoder=True"),
        (dict(pruned_heads={"0": [1]}), "pruned_heads="),
        (
            dict(quantization_config={"bits": 4}),
            "quantization_config={'bits': 4} .*quantised weights",
        ),
        (dict(activation_function="quick_gelu"), "activation_function='quick_gelu'"),
        (dict(n_head=3), "n_embd=16 is not a multiple of n_head=3"),
        (dict(n_embd="16"), "n_embd='16' must be int"),
        (dict(layer_norm_epsilon=None), "layer_norm_epsilon=None must be float"),
        (dict(eos_token_id=[]), r"eos_token_id=\[\] must be int \| None"),
        (dict(eos_token_id="</s>"), r"eos_token_id='</s>' must be int \| None"),
        (dict(n_layer=True), "n_layer=True must be int"),
        (dict(resid_pdrop=False), "resid_pdrop=False must be float"),
        (dict(hidden_size=32), "n_embd=16 and hidden_size=32 are two names of one"),
        (dict(n_layer=0), "n_layer=0: must be 1 to 10000"),
        (dict(n_layer=10**9), "n_layer=1000000000: must be 1 to 10000"),
        (dict(n_embd=10**30), "n_embd=10+: must be 1 to 2147483647"),
        (dict(n_inner=0), "n_inner=0: must be 1 to"),
        (dict(layer_norm_epsilon=-1), "layer_norm_epsilon=-1: must be a finite"),
        (dict(layer_norm_epsilon=0), "layer_norm_epsilon=0: .* above 0"),
        (dict(layer_norm_epsilon=10**400), "layer_norm_epsilon=10+: must be a finite"),
        (dict(initializer_range=-0.5), "initializer_range=-0.5: must be a finite"),
        (dict(attn_pdrop=1.0), "attn_pdrop=1.0: a dropout rate is at least 0"),
        (dict(embd_pdrop=-0.5), "embd_pdrop=-0.5: a dropout rate"),
        (dict(resid_pdrop=1.5), "resid_pdrop=1.5: a dropout rate"),
    ],
)
def test_an_option_that_is_not_supported_is_named(options, tmp_path, changes, message):
    (tmp_path / "config.json").write_text(json.dumps(options | changes))
    with pytest.raises(ValueError, match=message) as caught:
        load_config(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"n_layer": 2, "n_layer": 3}', "the key 'n_layer' stands twice"),
        ('{"layer_norm_epsilon": NaN}', "NaN is no JSON number"),
        ("[1]", r"must hold a JSON object, not \[1\]"),
        ("{}", "lacks vocab_size, n_positions, n_embd, n_layer, n_head"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config(tmp_path)


def test_a_missing_configuration_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="small.json does not exist"):
        load_config(tmp_path / "small.json")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "name", ["layer_norm_epsilon", "initializer_range", "resid_pdrop", "attn_pdrop"]
)
def test_a_number_that_is_none_is_refused(options, tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: "):
        GPT2Config(**options, **{name: value})
    text = json.dumps(options | {name: value}).replace("Infinity", "1e999")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="NaN is no JSON|larger than any"):
        load_config(tmp_path)


def test_fields_under_transformers_other_names(options, tmp_path):
    path = tmp_path / "config.json"
    aliases = FAMILIES["gpt2"].aliases
    names = {name: alias for alias, name in aliases.items()}
    aliased = {names.get(name, name): value for name, value in options.items()}
    assert aliased.keys() & aliases.keys() == aliases.keys()
    path.write_text(json.dumps(aliased))
    assert load_config(path) == GPT2Config(**options)
    path.write_text(json.dumps(aliased | options))
    assert load_config(path) == GPT2Config(**options)
    del aliased["hidden_size"]
    path.write_text(json.dumps(aliased))
    with pytest.raises(ValueError, match="lacks n_embd"):
        load_config(path)


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="transformers needs torch"
)
def test_the_other_names_are_all_of_transformers():
    from transformers import GPT2Config as Theirs

    assert Theirs.attribute_map == FAMILIES["gpt2"].aliases


def test_the_first_of_several_ends_of_text_is_taken(options, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(options | {"eos_token_id": [3, 5]}))
    assert load_config(path).eos_token_id == 3
