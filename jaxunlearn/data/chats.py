"""Conversations: lists of messages, as chat data holds them, to prompt and completion.

A chat is written as questions and answers are everywhere in this package, so that a
chat of one question reads as a record of question and answer. A tokenizer's chat
template is not applied: it is one family's, and records mean the same for all models.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxunlearn.data.fields import checked, holds_text, listed

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
# By the names of OpenAI's messages and of ShareGPT's.
ROLES = {
    "system": SYSTEM,
    "developer": SYSTEM,
    "user": USER,
    "human": USER,
    "prompter": USER,
    "assistant": ASSISTANT,
    "gpt": ASSISTANT,
    "chatgpt": ASSISTANT,
    "bing": ASSISTANT,
    "bard": ASSISTANT,
    "model": ASSISTANT,
}

READ = ("role", "from", "content", "value")


class Turn(NamedTuple):
    """What one side says before the other side speaks."""

    role: str
    text: str


def turns(field: str, messages: Any) -> list[Turn]:
    """Read a list of messages; what one role says in a row is one turn.

    Args:
      field: The field's name, for messages of errors.
      messages: ``{"role": ..., "content": ...}`` or ``{"from": ..., "value": ...}``,
        with text or a list of ``{"type": "text", "text": ...}`` as content.

    Raises:
      ValueError: A message is none of these, has another role or is blank.
    """
    if not isinstance(messages, list | tuple):
        raise ValueError(f"field {field!r} must be a list of messages")
    found: list[Turn] = []
    for i, message in enumerate(messages):
        place = f"{field}[{i}]"
        if not isinstance(message, dict):
            raise ValueError(f"field {place!r} must be an object with role and content")
        name = message.get("role", message.get("from"))
        role = ROLES.get(name.lower()) if isinstance(name, str) else None
        if role is None:
            raise ValueError(
                f"field {place!r} has the role {name!r:.60}; read are {listed(ROLES)}"
            )
        text = content_text(place, message.get("content", message.get("value")))
        if found and found[-1].role == role:
            text = found.pop().text + "\n" + text
        found.append(Turn(role, text))
    return found


def unread(field: str, messages: Sequence[dict]) -> list[str]:
    """Return the fields of sound messages that hold text nobody reads."""
    found = dict.fromkeys(
        f"{field}.{name}"
        for message in messages
        for name, value in message.items()
        if name not in READ and not name.endswith("id") and holds_text(value)
    )
    return list(found)


def answered(field: str, chat: Sequence[Turn]) -> list[Turn]:
    """Return a chat up to its last answer.

    Raises:
      ValueError: There is no answer.
    """
    last = max((i for i, t in enumerate(chat) if t.role == ASSISTANT), default=-1)
    if last < 0:
        raise ValueError(f"field {field!r} has no message of an assistant to learn")
    return list(chat[: last + 1])


def prompt_and_answer(chat: Sequence[Turn]) -> tuple[str, str]:
    r"""Write a chat that ends with an answer; the prompt is all before that answer.

    >>> prompt_and_answer([Turn("user", "Who?"), Turn("assistant", "Ada.")])
    ('Question: Who?\nAnswer:', ' Ada.')
    """
    *before, last = chat
    prompt = ""
    for i, turn in enumerate(before):
        if turn.role == SYSTEM:
            prompt += f"{turn.text}\n\n"
        elif turn.role == USER:
            follows = chat[i + 1].role == ASSISTANT
            prompt += f"Question: {turn.text}\n" + "Answer:" * follows
        else:
            prompt += f" {turn.text}\n\n"
    apart = prompt != "" and not prompt[-1].isspace()
    return prompt, " " * apart + last.text


def content_text(field: str, content: Any) -> str:
    """Return a turn's content as one text; its parts are lines."""
    if isinstance(content, list | tuple):
        parts = [
            part.get("text") if isinstance(part, dict) else part for part in content
        ]
        if not all(isinstance(part, str) for part in parts):
            raise ValueError(f"field {field!r} holds something else than text")
        content = "\n".join(parts)
    return checked(field, content)
