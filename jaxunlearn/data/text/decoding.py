"""What each token adds to a text."""

from collections.abc import Sequence
from typing import Any

UNFINISHED = "\ufffd"
"""What a character reads as whose bytes are not all there yet."""

LONGEST_CHARACTER = 4  # bytes in UTF-8, and so tokens


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Return what each token adds to the text; together they are the text.

    A character that several tokens make stands at the last of them. Each token is read
    behind those before it, since some decoders drop a space where a text begins.

    Args:
      tokenizer: That the ids are of.
      ids: Token ids.

    Cost: two decodings a token, each of a few tokens, however long the text.
    """
    ids = [int(token) for token in ids]
    texts: list[str] = []
    begin = read = done = 0  # of the window, of what is not given yet, letters given
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[begin:end])
        whole = text if end == len(ids) else finished(text)
        texts.append(whole[done:])
        done = max(done, len(whole))
        if len(whole) == len(text):
            begin, read = read, end
            done = len(tokenizer.decode(ids[begin:end]))
        elif end - read > LONGEST_CHARACTER:  # bytes that are no characters
            begin = read = end - LONGEST_CHARACTER + 1
            done = len(finished(tokenizer.decode(ids[begin:end])))
    return texts


def finished(text: str) -> str:
    """Return a text without the part of a character at its end.

    >>> finished("caf\\ufffd"), finished("cafe")
    ('caf', 'cafe')
    """
    whole = text.rstrip(UNFINISHED)
    unfinished = min(len(text) - len(whole), LONGEST_CHARACTER - 1)
    return text[: len(text) - unfinished]
