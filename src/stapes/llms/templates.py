"""Chat templates by name, in place of a tokenizer's own or where it brings none. A recipe says ``chat_template: vicuna``.

    plain             instruction, speech, a line each; for models that were never taught to chat, and the default without one
    chatml            <|im_start|>user ... <|im_end|>; for the bases of Qwen and SmolLM2
    vicuna            one line of prose, USER: ... ASSISTANT:; Vicuna 1.1 to 1.5 (github.com/lm-sys/FastChat, conversation.py)
    slam_asr          speech, then USER: instruction ASSISTANT:; arXiv 2402.08846, as its code has it, for Vicuna
    connect_mistral   [INST], a system sentence, speech, then the instruction; arXiv 2409.17044, after its code
    connect_llama     the same between the headers of Llama 3; arXiv 2409.17044, after its code

Vicuna was tuned with one system sentence, which therefore stays; that the instruction opens the user's message is ours.

A template is given the instruction as the system message and the speech as the user's. The last three put the speech first, by
writing the first message behind the second. Ours in them: the begin token stands before the speech, and white space in
``connect_mistral`` is Llama 2's. What is left out: that code's marks around the speech, ``<audio_input_start>`` and
``<audio_input_end>``, of which it is not known here whether they are tokens of their own, and if so, how they are trained.
"""

from stapes.errors import RecipeError
from stapes.registry import nearest

CURIOUS_USER = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
LANGUAGE_AND_SPEECH = (
    "As a helpful language and speech assistant, you are able to understand the speech content provided by the user, "
    "and assist the user with a variety of tasks using natural language."
)
# For templates that put the speech first: what is asked, and a loop over the user's messages and the assistant's.
ASKED = "{% set asked = messages[0].content if messages[0].role == 'system' else '' %}"
TURNS = "{% for message in messages if message.role != 'system' %}"

TEMPLATES = {
    "plain": "{% for message in messages %}{{ message.content + '\n' }}{% endfor %}",
    "chatml": (
        "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "vicuna": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('the system sentence is fixed') }}{% endif %}"
        + CURIOUS_USER
        + "{% for message in messages %}"
        "{{ ' USER: ' + message.content if message.role == 'user' else ' ASSISTANT: ' + message.content + '</s>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
    ),
    "slam_asr": (
        ASKED + TURNS + "{% if message.role == 'user' %}{{ message.content + 'USER: ' + asked }}"
        "{% else %}{{ ' \n ASSISTANT:' + message.content + '</s>' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ ' \n ASSISTANT:' }}{% endif %}"
    ),
    "connect_mistral": (
        ASKED
        + TURNS
        + "{% if message.role == 'user' %}[INST] <<SYS>>{{ '\n' }}"
        + LANGUAGE_AND_SPEECH
        + "{{ '\n<</SYS>>\n\n' + message.content + '\n' + asked + ' [/INST]' }}"
        "{% else %}{{ ' ' + message.content + '</s>' }}{% endif %}{% endfor %}"
    ),
    "connect_llama": (
        ASKED
        + "<|begin_of_text|><|start_header_id|>system<|end_header_id|>{{ '\n\n' }}"
        + CURIOUS_USER
        + "<|eot_id|>"
        + TURNS
        + "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content }}"
        "{{ '\n' + asked if message.role == 'user' }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
}

# Before any template: some write today's date, and a prompt must not change overnight. This is the day Llama 3.1 falls back to.
SAME_DAY = (
    "{% macro strftime_now(format) %}{{ format | replace('%d', '26') | replace('%b', 'Jul') | replace('%B', 'July') "
    "| replace('%m', '07') | replace('%y', '24') | replace('%Y', '2024') | replace('%A', 'Friday') }}{% endmacro %}"
)


def find(template: str) -> str:
    """The template of that name, or the argument where it is Jinja itself.

    Raises:
        RecipeError: neither; names the nearest.
    """
    if "{" in template:
        return template
    if template not in TEMPLATES:
        raise RecipeError("llm.chat_template", f"'{template}'", "a name or a Jinja template", nearest(template, TEMPLATES))
    return TEMPLATES[template]
