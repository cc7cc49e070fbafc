"""Files to records, records to examples, examples to fixed-shape batches."""

from jaxunlearn.data.batching import (
    Batches,
    batches,
    collate,
    epoch_order,
    in_order,
    step_indices,
)
from jaxunlearn.data.formats import UnreadFieldsWarning, read_lines, read_records
from jaxunlearn.data.records import prompt_and_completion, record_text
from jaxunlearn.data.requests.matching import Match, match
from jaxunlearn.data.text.examples import (
    Example,
    TokenizedData,
    TruncationWarning,
    subset,
    tokenize,
)
from jaxunlearn.data.text.tokenizer import (
    check_tokenizer,
    load_tokenizer,
    pad_token_id,
    train_tokenizer,
)

__all__ = [
    "Batches",
    "Example",
    "Match",
    "TokenizedData",
    "TruncationWarning",
    "UnreadFieldsWarning",
    "batches",
    "check_tokenizer",
    "collate",
    "epoch_order",
    "in_order",
    "load_tokenizer",
    "match",
    "pad_token_id",
    "prompt_and_completion",
    "read_lines",
    "read_records",
    "record_text",
    "step_indices",
    "subset",
    "tokenize",
    "train_tokenizer",
]
