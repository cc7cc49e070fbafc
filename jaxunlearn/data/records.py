"""What a record is: its accepted forms, its prompt and its completion."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxunlearn.data.chats import ASSISTANT, USER, Turn, answered, turns, unread
from jaxunlearn.data.chats import prompt_and_answer as chat_text
from jaxunlearn.data.fields import (
    LETTERS,
    choices_and_answer,
    flat,
    holds_text,
    listed,
    shown,
    text,
    texts,
)

Record = dict[str, Any]
Parts = tuple[str, str]


class Form(NamedTuple):
    """A kind of record.

    Attributes:
      fields: What a record of this form has.
      split: From a record to its prompt and its completion.
      optional: What is read too where it is present, and may be blank.
      unread: Of ``fields``, those that only tell the form.
    """

    fields: tuple[str, ...]
    split: Callable[[Record, "Form"], Parts]
    optional: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def read(self) -> tuple[str, ...]:
        """Return the fields that a model gets to read."""
        return tuple(f for f in (*self.fields, *self.optional) if f not in self.unread)


def prompt_and_completion(record: Record) -> Parts:
    r"""Split a record into the prompt, which bears no loss, and the completion.

    Question and answer (also query and answer, KnowUnDo's text and labels) become
    ``Question: {q}\nAnswer:`` and `` {a}``. Multiple choice lists ``A. {choice}`` lines
    before ``Answer:``, and the completion is the letter of the right one, as WMDP's
    harness scores it. Prompts, inputs and instructions (with their input on a line of
    its own) stay as they are, joined with what follows by one space where neither
    brings white space. Chats are written as questions and answers, and the completion
    is the last answer. Of preferences the chosen answer is read. A text is all
    completion.

    Args:
      record: A record with the fields of one of ``FORMS``.

    Returns:
      The two strings, whose concatenation is what the model reads.

    Raises:
      ValueError: A field is missing, has the wrong type or is blank.

    >>> prompt_and_completion({"question": "Who?", "answer": "Ada."})
    ('Question: Who?\nAnswer:', ' Ada.')
    """
    return form_and_parts(record)[1]


def record_text(record: Record) -> str:
    """Return all that the model reads of a record: its prompt and its completion."""
    return "".join(prompt_and_completion(record))


def said(record: Record) -> str:
    """Return what a record says: the values that are read, joined by spaces.

    Raises:
      ValueError: See ``check_record``.
    """
    form = check_record(record)
    record = best_first(record, form)
    values = [record.get(field) for field in form.read]
    return " ".join(part for value in values if (part := flat(value)))


def check_record(record: Any) -> Form:
    """Return which of ``FORMS`` a record has, the first that it fits.

    Raises:
      ValueError: The record has none of them, or a field that is read, or that TOFU's
        perturbed sets name, has the wrong type or is blank.
    """
    return form_and_parts(record)[0]


def unread_fields(record: Record, form: Form) -> list[str]:
    """Return the names of the fields of a sound record that hold text nobody reads.

    Labels, such as TOFU's and RWKU's, and identifiers are not text.
    """
    found = [
        field
        for field in record.keys() - known_fields(form)
        if not field.endswith("_id") and holds_text(record[field])
    ]
    if record is not best_first(record, form):
        found.append("response, after its first")
    for field in set(CHATS).intersection(form.fields):
        found += unread(field, record[field])
        if turns(field, record[field])[-1].role != ASSISTANT:
            found.append(f"{field}, after the last answer")
    return found


@functools.cache
def known_fields(form: Form) -> frozenset[str]:
    """Return the fields that are read, by somebody, or are no text."""
    return frozenset((*form.read, *PARAPHRASES, "perturbed_answer", *LABELS))


def accepted() -> str:
    """Return the fields of all forms, as a message shows them."""
    return " | ".join(
        ", ".join([*form.fields, *(f"[{field}]" for field in form.optional)])
        for form in FORMS
    )


def form_and_parts(record: Any) -> tuple[Form, Parts]:
    """Return a record's form, and its prompt and completion."""
    if not isinstance(record, dict):
        what = "a record must be an object with named fields or a string"
        raise ValueError(f"{what}, got {shown(record)}")
    form = matching_form(record)
    parts = form.split(record, form)
    for field in PARAPHRASES:
        if field in record:
            text(record, field)
    if "perturbed_answer" in record:
        texts("perturbed_answer", record["perturbed_answer"])
    return form, parts


def matching_form(record: Record) -> Form:
    """Return the first form whose fields a record has."""
    # Tables fill in null where a row lacks a field, and "messages" may be a number of
    # them; only if that leaves no form is the value itself the trouble, and told.
    held = {
        field
        for field, value in record.items()
        if value is not None and (field not in CHATS or isinstance(value, list))
    }
    for present in (held, set(record)):
        for form in FORMS:
            if present.issuperset(form.fields):
                return form
    raise ValueError(
        f"no accepted set of fields; found: {listed(record)}; accepted: {accepted()}"
    )


def from_question(record: Record, form: Form) -> Parts:
    """Return a question and its answer."""
    question, answer = (text(record, field) for field in form.fields)
    return f"Question: {question}\nAnswer:", f" {answer}"


def from_pair(record: Record, form: Form) -> Parts:
    """Return a text, or a conversation, and what follows it."""
    first, second = form.fields
    if isinstance(record[first], str) and isinstance(record[second], str):
        return with_space(text(record, first), text(record, second))
    prompt = as_turns(record, first, USER)
    answer = as_turns(record, second, ASSISTANT)
    return chat_text(answered(second, [*prompt, *answer]))


def from_instruction(record: Record, form: Form) -> Parts:
    """Return an instruction with its input, and the output."""
    instruction, output = form.fields
    (extra,) = form.optional
    lines = [text(record, instruction)]
    if record.get(extra) is not None and record[extra] != "":
        lines += [text(record, extra, blank=True)]
    prompt = "\n".join(line for line in lines if line.strip())
    return with_space(prompt, text(record, output))


def from_chat(record: Record, form: Form) -> Parts:
    """Return a conversation, and its last answer."""
    (field,) = form.fields
    (extra,) = form.optional
    chat = answered(field, turns(field, record[field]))
    if record.get(extra) is not None:
        system = Turn("system", text(record, extra, blank=True))
        chat = [system, *chat] if system.text.strip() else chat
    return chat_text(chat)


def from_preference(record: Record, form: Form) -> Parts:
    """Return a prompt and the answer that was preferred."""
    if not isinstance(record["chosen"], str):
        chat = turns("chosen", record["chosen"])
        # Some name the prompt beside a whole conversation, which begins with it.
        if "prompt" in form.fields and chat[:1] and chat[0].role == ASSISTANT:
            chat = [*as_turns(record, "prompt", USER), *chat]
        return chat_text(answered("chosen", chat))
    if "prompt" in form.fields:
        return from_pair(record, form._replace(fields=("prompt", "chosen")))
    before, mark, answer = text(record, "chosen").rpartition("\n\nAssistant:")
    return before + mark, answer


def from_ranking(record: Record, form: Form) -> Parts:
    """Return a prompt and its first answer."""
    return from_pair(best_first(record, form), form)


def best_first(record: Record, form: Form) -> Record:
    """Return the record with the first of its ranked responses, if it has such."""
    ranked = record["response"] if "response" in form.fields else None
    if not (isinstance(ranked, list | tuple) and ranked and isinstance(ranked[0], str)):
        return record
    return record | {"response": ranked[0]}


def from_text(record: Record, form: Form) -> Parts:
    """Return a text without a prompt."""
    return "", text(record, "text")


def from_choices(record: Record, form: Form) -> Parts:
    """Return a question with its lettered choices, and the right letter."""
    question = text(record, "question")
    choices, right = choices_and_answer(record, form.fields)
    lines = [f"{LETTERS[i]}. {choice}\n" for i, choice in enumerate(choices)]
    return f"Question: {question}\n{''.join(lines)}Answer:", f" {LETTERS[right]}"


# Looked for in this order: a record that fits several forms has the first, so the more
# that a form says, the earlier it stands. Other fields are kept, and told if they hold
# text.
FORMS = (
    Form(("question", "choices", "answer"), from_choices),  # WMDP, MMLU: counts from 0
    Form(
        ("question", "option1", "option2", "option3", "option4", "answer"), from_choices
    ),  # TOFU MCQ
    Form(("messages",), from_chat, ("system",)),  # OpenAI, TRL, UltraChat
    Form(("conversations",), from_chat, ("system",)),  # ShareGPT
    Form(("prompt", "chosen", "rejected"), from_preference, unread=("rejected",)),
    Form(("chosen", "rejected"), from_preference, unread=("rejected",)),  # hh-rlhf
    # Alpaca, RWKU refusals
    Form(("instruction", "output"), from_instruction, ("input",)),
    Form(("instruction", "response"), from_instruction, ("context",)),  # Dolly
    Form(("question", "answer"), from_question),  # TOFU, MUSE knowmem
    Form(("query", "answer"), from_question),  # RWKU
    Form(("prompt", "gt"), from_pair),  # MUSE verbmem
    Form(("prompt", "completion"), from_pair),  # OpenAI, TRL
    Form(("prompt", "response"), from_ranking),  # RWKU pairs: [chosen, rejected]
    Form(("input", "output"), from_pair),  # LUME
    Form(("text", "labels"), from_question),  # KnowUnDo
    # MUSE raw and privleak, WMDP and RWKU corpora, plain text
    Form(("text",), from_text),
)
CHATS = ("messages", "conversations")
PARAPHRASES = ("paraphrased_question", "paraphrased_answer")
# Fields that sort records and are no text to be learnt.
LABELS = (
    *("id", "idx", "index", "uuid", "url", "source", "dataset", "split", "language"),
    *("task", "level", "type", "subject", "category", "prompt_type", "attribute"),
    "value",  # of a fact of the made-up world
)


def as_turns(record: Record, field: str, role: str) -> list[Turn]:
    """Return a field as turns; a text is one of this role."""
    if isinstance(record[field], str):
        return [Turn(role, text(record, field))]
    return turns(field, record[field])


def with_space(prompt: str, completion: str) -> Parts:
    """Return a prompt and a completion with a space between them."""
    joined = prompt[-1].isspace() or completion[0].isspace()
    return prompt, completion if joined else " " + completion
