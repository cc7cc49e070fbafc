"""The words of a text, in any script.

A word is a run of letters, marks and digits of any script; everything else, apostrophes
straight and curly included, stands between words. Compatibility forms (full-width
letters and digits, ligatures), composed and decomposed accents, and case count as one
(NFKC and case folding); accents and vowel signs are kept. Scripts that put no spaces
between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) are cut into characters,
each a word. Of ASCII text the words are those of OpenUnlearning.
"""

import unicodedata

import regex

_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
# Letters by their category, but written for an apostrophe in Ukrainian and Hawaiian.
_APOSTROPHES = r"[\u02bb-\u02bd]"
# Direction marks, joiners and soft hyphens are not seen and part nothing; the space of
# no width does.
_UNSEEN = r"[\p{Cf}--\u200b]"
_WORD = (
    rf"(?:[{_UNSPACED}&&\p{{L}}]\p{{M}}*"
    rf"|[[\p{{L}}\p{{N}}]--[{_UNSPACED}&&\p{{L}}]--{_APOSTROPHES}]"
    rf"[[\p{{L}}\p{{M}}\p{{N}}{_UNSEEN}]--[{_UNSPACED}&&\p{{L}}]--{_APOSTROPHES}]*)"
)
_WORDS = regex.compile(_WORD, regex.V1)
_OTHER = rf"(?:(?!{_WORD})\S)*"
_PIECES = regex.compile(rf"\s+|{_OTHER}{_WORD}{_OTHER}|\S+", regex.V1)
_UNSEEN_ONES = regex.compile(_UNSEEN, regex.V1)


def unicode_words(text: str) -> list[str]:
    """Return the words of a text, in one case and one form.

    >>> unicode_words("José Núñez, born in １９８０")
    ['josé', 'núñez', 'born', 'in', '1980']
    >>> unicode_words("Она родилась в Праге.")
    ['она', 'родилась', 'в', 'праге']
    >>> unicode_words("हिन्दी में"), unicode_words("東京都")
    (['हिन्दी', 'में'], ['東', '京', '都'])
    """
    words = _WORDS.findall(unicodedata.normalize("NFKC", text))
    plain = (_UNSEEN_ONES.sub("", word).casefold() for word in words)
    return [unicodedata.normalize("NFKC", word) for word in plain]


def pieces(text: str) -> list[str]:
    """Return a text cut into white space, and words with the signs beside them.

    >>> pieces("Mira’s owl, Max!")
    ['Mira’', 's', ' ', 'owl,', ' ', 'Max!']
    """
    return _PIECES.findall(text)
