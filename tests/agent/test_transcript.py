"""What an agent said, as the journal shows it and as later phases get it."""

from tests.promise import proves

from muster.agent.transcript import MESSAGE_BYTES_MAX, Transcript

PLAN = "Here it is:\n\n```yaml\nmuster: 1\n\nname: a\n```"


def say(transcript, text):
    return transcript.update(
        {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}
    )


def tool(transcript):
    transcript.update({"sessionUpdate": "tool_call", "toolCallId": "1", "status": "completed"})


@proves("agent.answer-unbroken")
def test_an_answer_that_pauses_in_the_middle_of_a_line_is_handed_on_unbroken():
    transcript = Transcript()
    for piece in (PLAN[:20], PLAN[20:25], PLAN[25:]):
        say(transcript, piece)
        # The journal shows what there is when an agent pauses; the answer must not notice.
        transcript.flush()
    assert transcript.tail.text() == PLAN
    assert transcript.last_message == PLAN.rpartition("\n\n")[2]


@proves("agent.answer-unbroken")
def test_words_after_a_tool_are_a_message_of_their_own():
    transcript = Transcript()
    say(transcript, "I look.")
    tool(transcript)
    say(transcript, "It is done.")
    assert transcript.tail.text() == "I look.\nIt is done."
    assert transcript.last_message == "It is done."


@proves("agent.answer-unbroken")
def test_of_a_long_answer_the_end_is_kept_with_a_mark():
    transcript = Transcript()
    say(transcript, "x" * MESSAGE_BYTES_MAX)
    say(transcript, "the end")
    assert transcript.tail.text().startswith("[7 bytes cut]… xxx")
    assert transcript.tail.text().endswith("xthe end")
    assert len(transcript.last_message) == MESSAGE_BYTES_MAX
