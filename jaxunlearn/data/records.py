"""What a record is: its accepted forms, its prompt and its completion."""

import functools
import string
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxunlearn.data.chats import ASSISTANT, USER, Turn, answered, turns, unread
from jaxunlearn.data.chats import prompt_and_answer as chat_text
from jaxunlearn.data.fields import flat, holds_text, listed, shown, text, texts

Record = dict[str, Any]
Parts = tuple[str, str]
_LETTERS = string.ascii_uppercase


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
    return _read(record)[1]


def record_text(record: Record) -> str:
    """Return all that the model reads of a record: its prompt and its completion."""
    return "".join(prompt_and_completion(record))


def said(record: Record) -> str:
    """Return what a record says: the values that are read, joined by spaces.

    Raises:
      ValueError: See ``check_record``.
    """
    form = check_record(record)
    record = _best_first(record, form)
    values = [record.get(field) for field in form.read]
    return " ".join(part for value in values if (part := flat(value)))


def check_record(record: Any) -> Form:
    """Return which of ``FORMS`` a record has, the first that it fits.

    Raises:
      ValueError: The record has none of them, or a field that is read, or that TOFU's
        perturbed sets name, has the wrong type or is blank.
    """
    return _read(record)[0]


def unread_fields(record: Record, form: Form) -> list[str]:
    """Return the names of the fields of a sound record that hold text nobody reads.

    Labels, such as TOFU's and RWKU's, and identifiers are not text.
    """
    found = [
        field
        for field in record.keys() - _known(form)
        if not field.endswith("_id") and holds_text(record[field])
    ]
    if record is not _best_first(record, form):
        found.append("response, after its first")
    for field in set(CHATS).intersection(form.fields):
        found += unread(field, record[field])
        if turns(field, record[field])[-1].role != ASSISTANT:
            found.append(f"{field}, after the last answer")
    return found


@functools.cache
def _known(form: Form) -> frozenset[str]:
    """Return the fields that are read, by somebody, or are no text."""
    return frozenset((*form.read, *_PARAPHRASES, "perturbed_answer", *LABELS))


def accepted() -> str:
    """Return the fields of all forms, as a message shows them."""
    return " | ".join(
        ", ".join([*form.fields, *(f"[{field}]" for field in form.optional)])
        for form in FORMS
    )


def _read(record: Any) -> tuple[Form, Parts]:
    if not isinstance(record, dict):
        what = "a record must be an object with named fields or a string"
        raise ValueError(f"{what}, got {shown(record)}")
    form = _form_of(record)
    parts = form.split(record, form)
    for field in _PARAPHRASES:
        if field in record:
            text(record, field)
    if "perturbed_answer" in record:
        texts("perturbed_answer", record["perturbed_answer"])
    return form, parts


def _form_of(record: Record) -> Form:
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


def _question(record: Record, form: Form) -> Parts:
    question, answer = (text(record, field) for field in form.fields)
    return f"Question: {question}\nAnswer:", f" {answer}"


def _continued(record: Record, form: Form) -> Parts:
    first, second = form.fields
    if isinstance(record[first], str) and isinstance(record[second], str):
        return _joined(text(record, first), text(record, second))
    prompt = _as_turns(record, first, USER)
    answer = _as_turns(record, second, ASSISTANT)
    return chat_text(answered(second, [*prompt, *answer]))


def _instruction(record: Record, form: Form) -> Parts:
    instruction, output = form.fields
    (extra,) = form.optional
    lines = [text(record, instruction)]
    if record.get(extra) is not None and record[extra] != "":
        lines += [text(record, extra, blank=True)]
    prompt = "\n".join(line for line in lines if line.strip())
    return _joined(prompt, text(record, output))


def _chat(record: Record, form: Form) -> Parts:
    (field,) = form.fields
    (extra,) = form.optional
    chat = answered(field, turns(field, record[field]))
    if record.get(extra) is not None:
        system = Turn("system", text(record, extra, blank=True))
        chat = [system, *chat] if system.text.strip() else chat
    return chat_text(chat)


def _preference(record: Record, form: Form) -> Parts:
    if not isinstance(record["chosen"], str):
        chat = turns("chosen", record["chosen"])
        # Some name the prompt beside a whole conversation, which begins with it.
        if "prompt" in form.fields and chat[:1] and chat[0].role == ASSISTANT:
            chat = [*_as_turns(record, "prompt", USER), *chat]
        return chat_text(answered("chosen", chat))
    if "prompt" in form.fields:
        return _continued(record, form._replace(fields=("prompt", "chosen")))
    before, mark, answer = text(record, "chosen").rpartition("\n\nAssistant:")
    return before + mark, answer


def _ranked(record: Record, form: Form) -> Parts:
    return _continued(_best_first(record, form), form)


def _best_first(record: Record, form: Form) -> Record:
    """Return the record with the first of its ranked responses, if it has such."""
    ranked = record["response"] if "response" in form.fields else None
    if not (isinstance(ranked, list | tuple) and ranked and isinstance(ranked[0], str)):
        return record
    return record | {"response": ranked[0]}


def _whole(record: Record, form: Form) -> Parts:
    return "", text(record, "text")


def _lettered(record: Record, form: Form) -> Parts:
    question = text(record, "question")
    choices, right = _choices(record, form)
    lines = [f"{_LETTERS[i]}. {choice}\n" for i, choice in enumerate(choices)]
    return f"Question: {question}\n{''.join(lines)}Answer:", f" {_LETTERS[right]}"


# Looked for in this order: a record that fits several forms has the first, so the more
# that a form says, the earlier it stands. Other fields are kept, and told if they hold
# text.
FORMS = (
    Form(("question", "choices", "answer"), _lettered),  # WMDP, MMLU: counts from 0
    Form(
        ("question", "option1", "option2", "option3", "option4", "answer"), _lettered
    ),  # TOFU MCQ
    Form(("messages",), _chat, ("system",)),  # OpenAI, TRL, UltraChat
    Form(("conversations",), _chat, ("system",)),  # ShareGPT
    Form(("prompt", "chosen", "rejected"), _preference, unread=("rejected",)),
    Form(("chosen", "rejected"), _preference, unread=("rejected",)),  # hh-rlhf
    Form(("instruction", "output"), _instruction, ("input",)),  # Alpaca, RWKU refusals
    Form(("instruction", "response"), _instruction, ("context",)),  # Dolly
    Form(("question", "answer"), _question),  # TOFU, MUSE knowmem
    Form(("query", "answer"), _question),  # RWKU
    Form(("prompt", "gt"), _continued),  # MUSE verbmem
    Form(("prompt", "completion"), _continued),  # OpenAI, TRL
    Form(("prompt", "response"), _ranked),  # RWKU pairs: [chosen, rejected]
    Form(("input", "output"), _continued),  # LUME
    Form(("text", "labels"), _question),  # KnowUnDo
    Form(("text",), _whole),  # MUSE raw and privleak, WMDP and RWKU corpora, plain text
)
CHATS = ("messages", "conversations")
_PARAPHRASES = ("paraphrased_question", "paraphrased_answer")
# Fields that sort records and are no text to be learnt.
LABELS = (
    *("id", "idx", "index", "uuid", "url", "source", "dataset", "split", "language"),
    *("task", "level", "type", "subject", "category", "prompt_type", "attribute"),
    "value",  # of a fact of the made-up world
)


def _as_turns(record: Record, field: str, role: str) -> list[Turn]:
    if isinstance(record[field], str):
        return [Turn(role, text(record, field))]
    return turns(field, record[field])


def _joined(prompt: str, completion: str) -> Parts:
    joined = prompt[-1].isspace() or completion[0].isspace()
    return prompt, completion if joined else " " + completion


def _choices(record: Record, form: Form) -> tuple[list[str], int]:
    """Return the choices of a record and the index of the right one."""
    answer = record["answer"]
    if "choices" in form.fields:
        choices = texts("choices", record["choices"])
        if not 2 <= len(choices) <= len(_LETTERS):
            raise ValueError(
                f"field 'choices' must hold 2 to {len(_LETTERS)} strings, "
                f"got {len(choices)}"
            )
        if not isinstance(answer, int) or isinstance(answer, bool):
            raise ValueError(f"field 'answer' must be an integer, got {shown(answer)}")
        if not 0 <= answer < len(choices):
            raise ValueError(
                f"field 'answer' must be in 0..{len(choices) - 1}, got {answer!r:.60}"
            )
        return choices, answer
    fields = form.fields[1:-1]
    choices = [text(record, field) for field in fields]
    answer = text(record, "answer")
    # Copies differ in what they store: the option itself, its field or its letter.
    for names in (choices, list(fields), list(_LETTERS[: len(fields)])):
        if answer in names:
            return choices, names.index(answer)
    raise ValueError(f"field 'answer' must be one of the options, got {shown(answer)}")
