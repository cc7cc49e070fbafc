import pytest

from jaxunlearn.data.records import (
    check_record,
    prompt_and_completion,
    said,
    unread_fields,
)

WHO = ("user", "Who?")
ADA = ("assistant", "Ada.")


def openai(*said):
    return [{"role": role, "content": text} for role, text in said]


def sharegpt(*said):
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": names[role], "value": text} for role, text in said]


FIELDS = [("messages", openai), ("conversations", sharegpt), ("messages", sharegpt)]


@pytest.mark.parametrize(("field", "write"), FIELDS)
@pytest.mark.parametrize(
    ("chat", "expected"),
    [
        ([WHO, ADA], ("Question: Who?\nAnswer:", " Ada.")),
        ([ADA], ("", "Ada.")),
        (
            [("system", "Be brief."), WHO, ADA],
            ("Be brief.\n\nQuestion: Who?\nAnswer:", " Ada."),
        ),
        ([("system", "Be brief."), ADA], ("Be brief.\n\n", "Ada.")),
        (
            [WHO, ADA, ("user", "And?"), ("assistant", "Bob.")],
            ("Question: Who?\nAnswer: Ada.\n\nQuestion: And?\nAnswer:", " Bob."),
        ),
        (
            [WHO, ("user", "Really."), ADA, ("assistant", "Yes.")],
            ("Question: Who?\nReally.\nAnswer:", " Ada.\nYes."),
        ),
        ([WHO, ADA, ("user", "Thanks.")], ("Question: Who?\nAnswer:", " Ada.")),
    ],
)
def test_a_chat_is_all_before_the_last_answer_and_that_answer(
    field, write, chat, expected
):
    record = {field: write(*chat), "id": "x"}
    assert prompt_and_completion(record) == expected
    unread = unread_fields(record, check_record(record))
    assert unread == [f"{field}, after the last answer"] * (chat[-1][0] == "user")
    assert said(record) == " ".join(text for _, text in chat).replace("\n", " ")


def test_a_chat_of_one_question_reads_as_question_and_answer():
    record = {"question": "Who?", "answer": "Ada."}
    for chat in (
        {"messages": openai(WHO, ADA)},
        {"conversations": sharegpt(WHO, ADA)},
        {"prompt": openai(WHO), "completion": openai(ADA)},
        {"prompt": openai(WHO), "completion": "Ada."},
        {"prompt": openai(WHO), "chosen": openai(ADA), "rejected": openai(ADA)},
        {"prompt": "Who?", "chosen": openai(WHO, ADA), "rejected": openai(WHO, ADA)},
        {"prompt": "Who?", "chosen": openai(ADA), "rejected": openai(ADA)},
        {"chosen": openai(WHO, ADA), "rejected": openai(WHO, ADA)},
        {"prompt": openai(WHO), "response": "Ada."},
    ):
        assert prompt_and_completion(chat) == prompt_and_completion(record)


def test_parts_of_text_and_a_system_beside_the_chat_are_read():
    parts = [{"type": "text", "text": "Who"}, {"type": "text", "text": "is it?"}]
    record = {"messages": [{"role": "user", "content": parts}, *openai(ADA)]}
    prompt, _ = prompt_and_completion(record | {"system": "Be brief."})
    assert prompt == "Be brief.\n\nQuestion: Who\nis it?\nAnswer:"
    assert prompt_and_completion(record | {"system": ""}) == (prompt[11:], " Ada.")


def test_messages_that_are_a_number_are_no_chat():
    record = {"question": "Who?", "answer": "Ada.", "messages": 4}
    assert prompt_and_completion(record)[1] == " Ada."


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "'messages' has no message of an assistant to learn"),
        (openai(WHO), "'messages' has no message of an assistant to learn"),
        ("Who?", "'messages' must be a list of messages"),
        ([WHO], r"'messages\[0\]' must be an object with role and content"),
        (
            [{"role": "tool", "content": "4"}],
            r"'messages\[0\]' has the role 'tool'; re",
        ),
        ([{"content": "4"}], r"'messages\[0\]' has the role None"),
        ([{"role": ["user"], "content": "4"}], "has the role"),
        (openai(WHO, ("assistant", " ")), r"'messages\[1\]' is empty"),
        (
            openai(WHO, ("assistant", None)),
            r"'messages\[1\]' must be a string, got N",
        ),
        (openai(WHO, ("assistant", "\ud800")), r"'messages\[1\]' holds half a surr"),
        (
            openai(("user", [{"type": "image", "url": "x"}]), ADA),
            r"'messages\[0\]' holds something else than text",
        ),
    ],
)
def test_an_unsound_chat_is_an_error_that_names_the_message(messages, message):
    with pytest.raises(ValueError, match=message):
        prompt_and_completion({"messages": messages})


def test_text_of_a_message_that_is_not_read_is_told():
    thought = {"role": "assistant", "content": "Ada.", "reasoning_content": "Hm."}
    record = {"messages": [*openai(WHO), thought | {"weight": 1, "tool_call_id": "x"}]}
    unread = unread_fields(record, check_record(record))
    assert unread == ["messages.reasoning_content"]
