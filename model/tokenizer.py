"""A small byte-level BPE tokenizer with a chat template, trained on the user's own text; no download."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

VISUAL_TOKEN = "<|visual|>"
"""One placeholder stands for one visual token, whatever the kind."""

PAD, TURN_START, TURN_END = "<|pad|>", "<|im_start|>", "<|im_end|>"

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML, the template of the Qwen family."""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of at most ``vocab_size`` entries: any text can be encoded, none is unknown.

    Digits are split one by one so that sizes such as "25 mm" are spelled, not memorised.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, TURN_START, TURN_END, VISUAL_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=TURN_END,
        additional_special_tokens=[TURN_START, VISUAL_TOKEN],
        chat_template=CHATML,
        clean_up_tokenization_spaces=False,
    )


def set_chat_template(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    """Give ``tokenizer`` a chat template: "chatml", or the path of a Jinja file.

    ChatML brings its two turn tokens as new special tokens, and a beginning-of-text token when ``tokenizer`` puts one
    before plain text: a base model has seen it before every text.

    Raises:
        ValueError: there is no such file.
    """
    if template != "chatml":
        path = Path(template)
        if not path.is_file():
            raise ValueError(
                f"model.tokenizer.chat_template is {template!r}, which is no file and no template of ours; write "
                "chatml, or the path of a .jinja file"
            )
        tokenizer.chat_template = path.read_text(encoding="utf-8")
        return
    missing = [token for token in (TURN_START, TURN_END) if token not in tokenizer.get_vocab()]
    if missing:
        tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    begins = tokenizer.bos_token is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + CHATML


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """Rows that an embedding needs for every id: more than ``len(tokenizer)`` where ids have gaps."""
    return max(tokenizer.get_vocab().values()) + 1


def add_visual_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Make sure that ``tokenizer`` has the placeholder, as a special token; return its id."""
    if VISUAL_TOKEN not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"additional_special_tokens": [VISUAL_TOKEN]}, replace_extra_special_tokens=False)
    return int(tokenizer.convert_tokens_to_ids(VISUAL_TOKEN))  # type: ignore[arg-type]
