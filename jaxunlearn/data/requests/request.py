"""What a removal request in words is about."""

import re

from jaxunlearn.data.requests.closeness import words

# The words in which English requests are phrased. They are taken off both ends of a
# request, never out of its middle. Words that are also names ("will", "mark", "may")
# are not among them.
REQUEST_WORDS = tuple(
    """
    please kindly could would you i we want like need ask request to
    delete erase forget remove unlearn purge scrub drop
    all any anything everything every each what which the a my me our your
    record records example examples entry entries data dataset information info facts
    details memory memories model training mention mentions mentioning mentioned
    know known knows knew have has had learned learnt remember stored
    it this that these those them about of on for regarding concerning related relating
    and from in with
    """.split()
)
QUOTED = re.compile(r'([^"]*)"(.+)"([^"]*)', re.DOTALL)
QUOTATION_MARKS = str.maketrans("“”„‟«»「」『』＂", '"' * 11)


def subject_of(request: str) -> str:
    """Return what a request is about, in plain words.

    That is what stands in double quotation marks, if nothing but ``REQUEST_WORDS``
    stands outside; or else what is left when those are taken off both ends.

    Raises:
      ValueError: Nothing is left.

    >>> subject_of("Please delete everything about Mara Velkin from your memory.")
    'mara velkin'
    """
    quoted = QUOTED.fullmatch(request.translate(QUOTATION_MARKS))
    if quoted and all(w in REQUEST_WORDS for w in words(quoted[1] + " " + quoted[3])):
        subject = words(quoted[2])
    else:
        subject = words(request)
        while subject and subject[0] in REQUEST_WORDS:
            subject = subject[1:]
        while subject and subject[-1] in REQUEST_WORDS:
            subject = subject[:-1]
    if not subject:
        raise ValueError(
            f"request={request!r} names nothing to forget: say whom or what it is "
            "about; put that in double quotation marks if it looks like a request"
        )
    return " ".join(subject)
