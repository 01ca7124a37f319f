"""The template for base models, which bring none."""

BASE_TEMPLATE = """\
{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}

{% elif message.role == 'user' %}### Question:
{{ message.content }}

{% else %}### Answer:
{{ message.content }}{{ eos_token }}
{% endif %}{% endfor %}{% if add_generation_prompt %}### Answer:
{% endif %}"""
"""For base models, which bring no template: headings that a model knows from its pretraining text, and the end token."""


def base_template(bos: str) -> str:
    """The template for base models; without the token that starts a text where the model's tokenizer puts none."""
    return BASE_TEMPLATE if bos else BASE_TEMPLATE.removeprefix("{{ bos_token }}")
