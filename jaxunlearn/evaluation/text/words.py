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

UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
# Letters by their category, but written for an apostrophe in Ukrainian and Hawaiian.
APOSTROPHES = r"[\u02bb-\u02bd]"
# Direction marks, joiners and soft hyphens are not seen and part nothing; the space of
# no width does.
UNSEEN = r"[\p{Cf}--\u200b]"
WORD = (
    rf"(?:[{UNSPACED}&&\p{{L}}]\p{{M}}*"
    rf"|[[\p{{L}}\p{{N}}]--[{UNSPACED}&&\p{{L}}]--{APOSTROPHES}]"
    rf"[[\p{{L}}\p{{M}}\p{{N}}{UNSEEN}]--[{UNSPACED}&&\p{{L}}]--{APOSTROPHES}]*)"
)
WORDS = regex.compile(WORD, regex.V1)
OTHER = rf"(?:(?!{WORD})\S)*"
PIECES = regex.compile(rf"\s+|{OTHER}{WORD}{OTHER}|\S+", regex.V1)
UNSEEN_ONES = regex.compile(UNSEEN, regex.V1)


def unicode_words(text: str) -> list[str]:
    """Return the words of a text, in one case and one form.

    >>> unicode_words("José Núñez, born in １９８０")
    ['josé', 'núñez', 'born', 'in', '1980']
    >>> unicode_words("Она родилась в Праге.")
    ['она', 'родилась', 'в', 'праге']
    >>> unicode_words("हिन्दी में"), unicode_words("東京都")
    (['हिन्दी', 'में'], ['東', '京', '都'])
    """
    words = WORDS.findall(unicodedata.normalize("NFKC", text))
    plain = (UNSEEN_ONES.sub("", word).casefold() for word in words)
    return [unicodedata.normalize("NFKC", word) for word in plain]


def pieces(text: str) -> list[str]:
    """Return a text cut into white space, and words with the signs beside them.

    >>> pieces("Mira’s owl, Max!")
    ['Mira’', 's', ' ', 'owl,', ' ', 'Max!']
    """
    return PIECES.findall(text)
