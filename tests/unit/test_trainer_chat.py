"""Which tokens of a conversation are learned, for the templates that people have: exactly the assistant's, or none."""

from __future__ import annotations

from typing import Any

import pytest

from tollgate_trainer.data import chat
from tollgate_trainer.data.document import Document, Message
from tollgate_trainer.data.tokens import IGNORED, encode
from tollgate_trainer.models import tokenizer as tokenizers
from tollgate_trainer.refusal import DatasetRefused, ModelRefused
from trainer_fixtures import WORDS

DOCUMENTS = [Document(f"the {a} of the {b} for {c} coins", "here") for a in WORDS for b in WORDS[:6] for c in WORDS[:3]]
TALK = (
    Message("system", "Be short."),
    Message("user", "the gate?"),
    Message("assistant", "two coins"),
    Message("user", "the bridge, is it two coins too?"),
    Message("assistant", "three coins"),
)

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{%- generation -%}{{ m['content'] }}<|im_end|>{%- endgeneration -%}\n{% else %}{{ m['content'] }}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }} {{ eos_token }}"
    "{% else %}[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}"
)

# Shapes of templates that models are published with, none of which marks the assistant's turns.
CHATML_DEFAULT = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}{%- endif %}"
    "{%- for m in messages %}{%- if m['role'] == 'user' or (m['role'] == 'system' and not loop.first) "
    "or m['role'] == 'assistant' %}{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
LLAMA_3_DATED = (
    "{{- bos_token }}{%- if messages[0]['role'] == 'system' %}{%- set said = messages[0]['content'] | trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set said = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: 26 Jul 2024\\n\\n' + said + '<|eot_id|>' }}"
    "{%- for m in messages %}{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' "
    "+ m['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
MISTRAL_FIRST = (
    "{%- if messages[0]['role'] == 'system' %}{%- set said = messages[0]['content'] + '\\n\\n' %}"
    "{%- set rest = messages[1:] %}{%- else %}{%- set said = '' %}{%- set rest = messages %}{%- endif %}"
    "{{- bos_token }}{%- for m in rest %}{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('user and assistant must take turns') }}{%- endif %}{%- if m['role'] == 'user' %}"
    "{{- ' [INST] ' + (said if loop.first else '') + m['content'] + ' [/INST]' }}"
    "{%- else %}{{- ' ' + m['content'] + eos_token }}{%- endif %}{%- endfor %}"
)
MISTRAL_LAST = MISTRAL_FIRST.replace(
    "said if loop.first", "said if loop.index0 >= rest | length - 2 + rest | length % 2"
)
THINKING = (
    "{%- for m in messages %}{%- set text = m['content'] if loop.last else m['content'].split('</think>')[-1] %}"
    "{{- '<|im_start|>' + m['role'] + '\\n' + text + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizers.from_json(tokenizers.train(DOCUMENTS, 600))


def learned(tokenizer: Any, document: Document) -> list[str]:
    """The runs of tokens that carry loss, as text."""
    sample = encode(document, tokenizer)
    runs: list[list[int]] = []
    for index, label in enumerate(sample.labels):
        if label != IGNORED:
            if index == 0 or sample.labels[index - 1] == IGNORED:
                runs.append([])
            runs[-1].append(int(label))
    return [tokenizer.decode(run) for run in runs]


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        (chat.SIMPLE_TEMPLATE, "<|end|>"),
        (CHATML, "<|im_end|>\n"),
        (CHATML_MARKED, "<|im_end|>"),
        (LLAMA_3, "<|eot_id|>"),
        (LLAMA_2, " <|end|>"),
    ],
    ids=["simple", "ChatML", "ChatML marked", "Llama 3", "Llama 2"],
)
def test_exactly_the_assistants_turns_are_learned_with_what_ends_them(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, template: str, ends: str
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", template)
    found = learned(tokenizer, Document.of_chat(TALK, "talk:1"))
    assert [run.lstrip() for run in found] == [f"two coins{ends}", f"three coins{ends}"]


WITHOUT_SYSTEM = TALK[1:]
LONGER = (*TALK, Message("user", "and the road?"), Message("assistant", "the road is two coins"))
UNFINISHED = (*TALK, Message("user", "and the road?"))


@pytest.mark.parametrize("talk", [TALK[:3], TALK, WITHOUT_SYSTEM, LONGER, UNFINISHED])
@pytest.mark.parametrize(
    ("template", "before", "after"),
    [
        (CHATML_DEFAULT, "<|im_start|>assistant\n", "<|im_end|>\n"),
        (LLAMA_3_DATED, "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
        (MISTRAL_FIRST, "[/INST]", "<|end|>"),
    ],
    ids=["ChatML", "Llama 3", "Mistral"],
)
def test_templates_as_models_are_published_with_are_learned_turn_by_turn(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, template: str, before: str, after: str, talk: tuple[Message, ...]
) -> None:
    """Said by looking at the rendered text alone: what stands between an assistant's head and its end is learned."""
    monkeypatch.setattr(tokenizer, "chat_template", template)
    document = Document.of_chat(talk, "talk:1")
    text, spans = chat.rendered(document, tokenizer)
    turns = [{"role": turn.role, "content": turn.content} for turn in talk]
    assert text == tokenizer.apply_chat_template(turns, tokenize=False), "it is what the model is asked with later"
    said = [turn.content for turn in talk if turn.role == "assistant"]
    expected, start = [], 0
    for words in said:
        start = text.index(before, start) + len(before)
        end = text.index(after, start) + len(after)
        assert text[start:end].strip().startswith(words)
        expected.append((start, end))
        start = end
    assert spans == expected
    assert [run.strip() for run in learned(tokenizer, document)] == [f"{words}{after.strip()}" for words in said]


@pytest.mark.parametrize(
    ("template", "turn"),
    [(MISTRAL_LAST, 2), (THINKING, 2)],
    ids=["the system's words move to the last question", "earlier thoughts are left out"],
)
def test_a_template_that_rewrites_earlier_turns_is_refused_where_it_does_and_serves_where_it_does_not(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, template: str, turn: int
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", template)
    talk = tuple(
        Message(one.role, f"<think>the fee</think>{one.content}" if one.role == "assistant" else one.content)
        for one in TALK
    )
    assert len(learned(tokenizer, Document.of_chat(talk[:3], "talk:1"))) == 1
    with pytest.raises(DatasetRefused, match=f"renders turn {turn} differently") as refused:
        encode(Document.of_chat(talk, "talk:1"), tokenizer)
    assert refused.value.field == "model.tokenizer"
    assert "put {% generation %} before the assistant's content" in str(refused.value)


def test_the_marks_of_a_template_are_found_however_it_spells_them(tokenizer: Any) -> None:
    assert chat.GENERATION.search("{%- generation -%}")
    assert chat.GENERATION.search("{%generation%}")
    assert not chat.GENERATION.search("{% if add_generation_prompt %}")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (CHATML.replace("{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", ""), "the head of turn 2"),
        ("{{ messages | length }}: " + CHATML, "renders turn 2 differently"),
        ("{% generation %}" + CHATML + "{% endgeneration %}", "marks 1 parts"),
        ("{% generation %}{% endgeneration %}" + CHATML, "marks 1 parts"),
        (CHATML_MARKED.replace("'assistant'", "'user'"), "its turn is 'two coins'"),
        (CHATML_MARKED.replace("{{ m['content'] }}<|im_end|>{%-", "{%-"), "part 0 .* is ''"),
        (
            "{% for m in messages %}{% if m['role'] == 'assistant' %}{% generation %}{{ messages[loop.index0 - 1]"
            "['content'] }}{{ m['content'] }}{% endgeneration %}{% endif %}{% endfor %}",
            r"turn 0 \(system\) is lost",
        ),
        ("{% for m in messages %}{{ raise_exception('no system role') }}{% endfor %}", "no system role"),
    ],
    ids=["no prompt", "rewritten", "all", "empty", "user's", "nothing", "question too", "raises"],
)
def test_a_template_that_does_not_tell_the_assistants_tokens_apart_is_refused_with_the_fix(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, template: str, words: str
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(DatasetRefused, match=words) as refused:
        encode(Document.of_chat(TALK, "talk:1"), tokenizer)
    assert refused.value.field == "model.tokenizer"
    assert "talk:1" in str(refused.value)


def test_a_conversation_that_opens_with_the_assistant_needs_a_template_with_marks(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = Document.of_chat((Message("assistant", "two coins"), Message("user", "thanks")), "talk:1")
    monkeypatch.setattr(tokenizer, "chat_template", CHATML_MARKED)
    assert learned(tokenizer, talk) == ["two coins<|im_end|>"]
    monkeypatch.setattr(tokenizer, "chat_template", CHATML)
    with pytest.raises(DatasetRefused, match="opens with the assistant"):
        encode(talk, tokenizer)


def test_several_templates_are_refused(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", {"default": CHATML, "tools": CHATML})
    with pytest.raises(ModelRefused, match="several chat templates"):
        encode(Document.of_chat(TALK, "talk:1"), tokenizer)


def test_a_completion_is_learned_and_its_prompt_is_not_with_and_without_a_template(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Document.of_completion("the gate of the bridge?", "two coins", "ask:1")
    assert learned(tokenizer, asked) == ["two coins<|end|>"]
    monkeypatch.setattr(tokenizer, "chat_template", None)
    assert learned(tokenizer, asked) == ["two coins<|end|>"]
    assert tokenizer.decode(encode(asked, tokenizer).input_ids[1:]) == "the gate of the bridge?\ntwo coins<|end|>"
