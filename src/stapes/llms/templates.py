"""Chat templates by name, for LLMs whose tokenizer brings none. A recipe says ``chat_template: vicuna``.

    plain      instruction, speech, a line each; for models that were never taught to chat, and the default without a template
    chatml     <|im_start|>user ... <|im_end|>; for the bases of Qwen and SmolLM2
    vicuna     one line of prose, USER: ... ASSISTANT:; Vicuna 1.1 to 1.5 (github.com/lm-sys/FastChat, conversation.py)

Vicuna was tuned with one system sentence, which therefore stays; that the instruction opens the user's message is ours.
"""

from stapes.errors import RecipeError
from stapes.registry import nearest

TEMPLATES = {
    "plain": "{% for message in messages %}{{ message.content + '\n' }}{% endfor %}",
    "chatml": (
        "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "vicuna": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('the system sentence is fixed') }}{% endif %}"
        "{{ 'A chat between a curious user and an artificial intelligence assistant. '"
        ' + "The assistant gives helpful, detailed, and polite answers to the user\'s questions." }}'
        "{% for message in messages %}"
        "{{ ' USER: ' + message.content if message.role == 'user' else ' ASSISTANT: ' + message.content + '</s>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
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
