"""Tokenizers: trained here, or loaded from the files that models come with."""

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxunlearn.data.fields import listed
from jaxunlearn.files import read_json
from jaxunlearn.hub import check_folder, local_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.models import Model
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

# transformers tells whoever imports it that PyTorch is missing; nothing here needs it.
logging.getLogger("transformers").addFilter(
    lambda record: "PyTorch was not found" not in record.getMessage()
)

END_OF_TEXT = "<|endoftext|>"
TOKENIZER_FILES = [
    *("config.json", "tokenizer*", "*tokens*.json", "vocab*", "merges.txt", "*.model"),
    *("tekken.json", "chat_template*", "additional_chat_templates/*"),
]
"""The files of a repository on the Hub that make its tokenizer."""
# Every byte has a token, so that any text has a tokenisation, and the end of text.
MIN_VOCAB_SIZE = 256 + 1
# The files that hold a vocabulary, in the order in which transformers prefers them.
VOCABULARIES = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("tokenizer.model",),
    ("vocab.txt",),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
    ("tekken.json",),
)
JSON_FILES = (
    "tokenizer.json",
    "vocab.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
)


class TokenizerWarning(UserWarning):
    """A tokenizer is not all that its files say."""


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int
) -> "PreTrainedTokenizerFast":
    """Train a byte-level byte-pair tokenizer, as GPT-2's, on texts.

    The same texts, in any order, give the same tokenizer. Decoding what was encoded
    gives back the text. ``<|endoftext|>``, id 0, is the end, beginning and padding
    token.

    Args:
      texts: Non-empty collection of strings, such as ``map(record_text, records)``.
      vocab_size: At most so many tokens, at least 257; fewer where the texts hold no
        more pairs to merge.

    Raises:
      ValueError: ``texts`` is one string or empty, or ``vocab_size`` is too small.

    Reference: Radford et al. 2019, "Language Models are Unsupervised Multitask
    Learners", section 2.2.
    """
    if isinstance(texts, str):
        raise ValueError("texts must be a collection of strings, got one string")
    texts = list(texts)
    if not texts:
        raise ValueError("texts is empty: a tokenizer needs text to be trained on")
    if vocab_size < MIN_VOCAB_SIZE:
        raise ValueError(
            f"vocab_size must be at least {MIN_VOCAB_SIZE} (256 bytes and "
            f"{END_OF_TEXT}), got {vocab_size}"
        )
    from tokenizers import models, pre_tokenizers, trainers

    tokenizer = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return wrap(tokenizer)


def load_tokenizer(
    path_or_hub_name: str | os.PathLike[str],
) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a model directory, or of a model on the Hugging Face Hub.

    It is the one that ``transformers.AutoTokenizer`` gives, for a directory and for a
    name: all files count (``added_tokens.json``, ``special_tokens_map.json``, chat
    templates, ...), and the class that ``tokenizer_config.json`` or ``config.json``
    names. A directory with nothing but ``vocab.json`` and ``merges.txt``, as OpenAI
    published GPT-2's, which AutoTokenizer refuses, is GPT-2's. Code in the directory is
    not run.

    Only what is not named is filled in: the end of text is ``<|endoftext|>`` if the
    vocabulary has it, and padding is the end of text.

    Args:
      path_or_hub_name: A directory, or a name on the Hub such as
        ``openai-community/gpt2``.

    Raises:
      FileNotFoundError: There is no such directory or model, or it lacks those files.
      ValueError: The files are damaged, differ from those that the directory's
        ``checksums.json`` tells of, or name no end-of-text token.

    Warns:
      TokenizerWarning: The class that is named does not split text as tokenizer.json
        says; as in transformers, the class prevails.
    """
    name = os.fspath(path_or_hub_name)
    folder = local_folder(name, TOKENIZER_FILES)
    check_folder(folder, only=is_tokenizer_file)
    try:
        tokenizer = from_folder(folder)
        template_ids(tokenizer)
    except FileNotFoundError:
        raise
    except Exception as error:  # tokenizers raises bare Exception for damaged files
        raise ValueError(f"cannot load the tokenizer of {name}: {error}") from error
    if tokenizer.eos_token_id is None:
        if END_OF_TEXT not in tokenizer.get_vocab():
            raise ValueError(
                f"the tokenizer of {name} names no end-of-text token: set eos_token in "
                "its tokenizer_config.json"
            )
        tokenizer.eos_token = END_OF_TEXT
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def is_tokenizer_file(name: str) -> bool:
    """Say whether a model directory's file is part of its tokenizer."""
    return any(fnmatchcase(name, pattern) for pattern in TOKENIZER_FILES)


def encode(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]
) -> list[list[int]]:
    """Tokenize each text, whole and without the tokens that a template would add."""
    # A tokenizer.json may ask for padding or a cut. verbose=False: transformers would
    # tell of texts longer than the model, which we count.
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        padding=False,
        truncation=False,
        verbose=False,
    )
    return encoded["input_ids"]


def template_ids(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """Return the tokens that a tokenizer puts before and after every text.

    They are seen from a real text: around "" nobody can tell the two apart.

    Raises:
      ValueError: The text's own tokens are not found between them.
    """
    text = "Hello world."
    (own,) = encode(tokenizer, [text])
    whole = tokenizer(text, padding=False, truncation=False)["input_ids"]
    for begin in range(len(whole) - len(own) + 1):
        if own and whole[begin : begin + len(own)] == own:
            return whole[:begin], whole[begin + len(own) :]
    raise ValueError(
        f"it encodes {text!r} as {own} without its template and as {whole} with it: "
        "the template is not tokens before and after the text"
    )


def pad_token_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the id that fills padding: the tokenizer's own, or its end of text."""
    found = tokenizer.pad_token_id
    return tokenizer.eos_token_id if found is None else found


def check_tokenizer(tokenizer: "PreTrainedTokenizerBase", vocab_size: int) -> None:
    """Check that a model has an embedding for every token that a tokenizer can emit.

    Args:
      tokenizer: The tokenizer of the data.
      vocab_size: The model's number of embeddings; more than the tokenizer has tokens
        is fine, since models round it up.

    Raises:
      ValueError: Some token's id is ``vocab_size`` or more. The model would look up
        no embedding and compute with NaN.
    """
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if largest >= vocab_size:
        raise ValueError(
            f"mismatched tokenizer: its ids reach {largest} ({token!r}), but the model "
            f"has vocab_size={vocab_size}; use the tokenizer the model was trained with"
        )


def byte_level(model: "Model") -> "Tokenizer":
    """Return a tokenizer of bytes."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def wrap(tokenizer: "Tokenizer") -> "PreTrainedTokenizerFast":
    """Return a tokenizer as transformers' class."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def from_folder(folder: Path) -> Any:
    """Return the tokenizer of a folder."""
    import transformers

    present = set(os.listdir(folder))
    held = [names for names in VOCABULARIES if present.issuperset(names)]
    if not held:
        raise FileNotFoundError(
            f"no tokenizer in {folder}: it must hold "
            + ", or ".join(" and ".join(names) for names in VOCABULARIES)
            + f"; found: {listed(sorted(present))}"
        )
    # transformers takes the last of two equal keys, and what it is given for a length.
    read = {name: read_json(folder / name) for name in JSON_FILES if name in present}
    for name, value in read.items():
        if not isinstance(value, dict):
            raise ValueError(f"{folder / name} holds no JSON object")
    settings = read.get("tokenizer_config.json", {})
    limit = settings.get("model_max_length")
    if not isinstance(limit, int | float | None) or isinstance(limit, bool):
        raise ValueError(
            f"{folder / 'tokenizer_config.json'}: model_max_length={limit!r:.60} is no "
            "number"
        )
    class_named = settings.get("tokenizer_class") or {
        "model_type",
        "tokenizer_class",
    } & set(read.get("config.json", {}))
    if held[0] == ("vocab.json", "merges.txt") and not class_named:
        tokenizer = transformers.GPT2Tokenizer.from_pretrained(
            folder, local_files_only=True
        )
        words = {*read["vocab.json"], *read.get("added_tokens.json", {})}
        if tokenizer.eos_token not in words:
            raise ValueError(
                f"{folder / 'vocab.json'} lacks {tokenizer.eos_token}, so it is not "
                "GPT-2's"
            )
        return tokenizer
    needs_package = held[0][0].endswith(".model")
    if needs_package and importlib.util.find_spec("sentencepiece") is None:
        raise ValueError(f"{held[0][0]} needs `pip install sentencepiece`")
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    if held[0] == ("tokenizer.json",):
        tell_other_splitting(folder, tokenizer)
    return tokenizer


def tell_other_splitting(folder: Path, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Warn where a class of transformers splits text by rules of its own."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if type(tokenizer) is PreTrainedTokenizerFast:  # which takes the file as it is
        return
    file = Tokenizer.from_file(str(folder / "tokenizer.json"))
    file.no_truncation()
    file.no_padding()
    text = " The YEAR 1984, ﬁne; \n\n  it's Éva 's"  # a space in front is no difference
    if file.encode(text, add_special_tokens=False).ids != encode(tokenizer, [text])[0]:
        warnings.warn(
            f"{folder}: transformers reads it as {type(tokenizer).__name__}, which "
            "splits text by its own rules and not by those of tokenizer.json; so do "
            "we. If the model was trained by those, set tokenizer_class in "
            "tokenizer_config.json to PreTrainedTokenizerFast",
            TokenizerWarning,
            stacklevel=4,
        )
