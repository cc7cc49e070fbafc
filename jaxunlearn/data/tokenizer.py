"""Tokenizers: trained here, or loaded from the files that models come with."""

import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxunlearn.data.records import listed

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.models import Model
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
# Every byte has a token, so that any text has a tokenisation, and the end of text.
_MIN_VOCAB_SIZE = 256 + 1


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int
) -> "PreTrainedTokenizerFast":
    """Trains a byte-level byte-pair tokenizer, as GPT-2's, on texts.

    The same texts, in any order, give the same tokenizer. Decoding what was encoded
    gives back the text. `<|endoftext|>`, id 0, is the end, beginning and padding token.

    Args:
        texts: Non-empty collection of strings, such as `map(record_text, records)`.
        vocab_size: At most so many tokens, at least 257; fewer where the texts hold no
            more pairs to merge.

    Raises:
        ValueError: `texts` is one string or empty, or `vocab_size` is too small.

    Reference: Radford et al. 2019, "Language Models are Unsupervised Multitask
    Learners", section 2.2.
    """
    if isinstance(texts, str):
        raise ValueError("texts must be a collection of strings, got one string")
    texts = list(texts)
    if not texts:
        raise ValueError("texts is empty: a tokenizer needs text to be trained on")
    if vocab_size < _MIN_VOCAB_SIZE:
        raise ValueError(
            f"vocab_size must be at least {_MIN_VOCAB_SIZE} (256 bytes and "
            f"{END_OF_TEXT}), got {vocab_size}"
        )
    from tokenizers import models, pre_tokenizers, trainers

    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return _wrapped(tokenizer)


def load_tokenizer(
    path_or_hub_name: str | os.PathLike[str],
) -> "PreTrainedTokenizerBase":
    """Loads the tokenizer of a model directory, or of a model on the Hugging Face Hub.

    A directory holds `tokenizer.json`; or `vocab.json` and `merges.txt`, as OpenAI
    published GPT-2's; or `tokenizer.model` (SentencePiece), which needs the package
    `sentencepiece`. A tokenizer that names no end-of-text token, as the Hub's GPT-2
    files, gets `<|endoftext|>` if its vocabulary has it; one that names no padding
    token pads with its end of text.

    Args:
        path_or_hub_name: A directory, or a name on the Hub such as
            `openai-community/gpt2`.

    Raises:
        FileNotFoundError: There is no such directory or model, or it lacks those files.
        ValueError: The files are damaged or name no end-of-text token.
    """
    name = os.fspath(path_or_hub_name)
    folder = Path(name)
    if folder.is_file():
        raise ValueError(f"{name} is a file: name the directory that holds it")
    try:
        tokenizer = _from_folder(folder) if folder.is_dir() else _from_hub(name)
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


def pad_token_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Returns the id that fills padding: the tokenizer's own, or its end of text."""
    found = tokenizer.pad_token_id
    return tokenizer.eos_token_id if found is None else found


def check_tokenizer(tokenizer: "PreTrainedTokenizerBase", vocab_size: int) -> None:
    """Checks that a model has an embedding for every token that a tokenizer can emit.

    Args:
        tokenizer: The tokenizer of the data.
        vocab_size: The model's number of embeddings; more than the tokenizer has tokens
            is fine, since models round it up.

    Raises:
        ValueError: Some token's id is `vocab_size` or more. JAX would clamp it to the
            last embedding and give a number all the same.
    """
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if largest >= vocab_size:
        raise ValueError(
            f"mismatched tokenizer: its ids reach {largest} ({token!r}), but the model "
            f"has vocab_size={vocab_size}; use the tokenizer the model was trained with"
        )


def _byte_level(model: "Model") -> "Tokenizer":
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _wrapped(tokenizer: "Tokenizer") -> "PreTrainedTokenizerFast":
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def _from_folder(folder: Path) -> Any:
    import transformers

    if (folder / "tokenizer.json").exists():
        # Not AutoTokenizer: it asks for a config.json or a class name of its own
        # version, while tokenizer.json says all by itself.
        return transformers.PreTrainedTokenizerFast.from_pretrained(
            folder, local_files_only=True, clean_up_tokenization_spaces=False
        )
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    if vocab.exists() and merges.exists():
        from tokenizers import models

        tokenizer = _byte_level(models.BPE.from_file(str(vocab), str(merges)))
        if tokenizer.token_to_id(END_OF_TEXT) is None:
            raise ValueError(f"{vocab} lacks {END_OF_TEXT}, so it is not GPT-2's")
        return _wrapped(tokenizer)
    if (folder / "tokenizer.model").exists():
        if importlib.util.find_spec("sentencepiece") is None:
            raise ValueError("tokenizer.model needs `pip install sentencepiece`")
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    raise FileNotFoundError(
        f"no tokenizer in {folder}: it must hold tokenizer.json, or vocab.json and "
        f"merges.txt, or tokenizer.model; found: {listed(sorted(os.listdir(folder)))}"
    )


def _from_hub(name: str) -> Any:
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"no directory {name}, and the Hugging Face Hub gives no tokenizer of that "
            f"name: {error}"
        ) from error
