"""Tiny decoders of the families that are served, each with a tokenizer of ours that carries the family's special tokens
and a chat template of its published shape (written here from the public format)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

TEXTS = [
    "Is there a pleural effusion? Answer yes or no.",
    "There is a 25 mm nodule in the left upper zone. No pneumothorax. The heart is normal in size.",
    "You are a radiologist. On which side is the mass? Answer left or right.",
    "right lower zone consolidation, moderate effusion",
]

LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA3 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set prefix = messages[0]['content'] + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set prefix = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + (prefix if loop.first else '') }}{{ message['content'] | trim }}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set turns = messages[1:] %}{% else %}{% set turns = messages %}{% endif %}{% for message in turns %}"
    "{% if message['role'] == 'user' %}{% if loop.last and system is defined %}"
    "{{ '[INST] ' + system + '\n\n' + message['content'] + '[/INST]' }}{% else %}"
    "{{ '[INST] ' + message['content'] + '[/INST]' }}{% endif %}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
QWEN25 = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN3 = (
    "{% set last = namespace(user=-1) %}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{% set last.user = loop.index0 %}{% endif %}{% endfor %}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.index0 > last.user %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ message['content'].lstrip('\n') }}{% else %}{{ message['content'] }}"
    "{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """One decoder family.

    Attributes:
        config: of the tiny decoder, with its model_type.
        template: of the chat.
        special: special tokens, the one that ends a turn first.
        eos: what the family's tokenizer calls its eos_token, which need not end a turn.
        pieces: "bytes" (byte-level BPE) or "metaspace" (SentencePiece-like, a blank put before the text).
        strips: special tokens swallow the white space behind them, as Phi-3's.
    """

    config: dict[str, Any]
    template: str
    special: tuple[str, ...]
    eos: str
    bos: str | None = None
    pieces: str = "bytes"
    strips: bool = False
    sizes: dict[str, Any] = field(default_factory=dict)


_SIZES = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 128, "max_position_embeddings": 512,
}  # fmt: skip
_QWEN = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
_GEMMA = ("<end_of_turn>", "<start_of_turn>", "<bos>", "<eos>", "<pad>")
_EXPERTS = {"num_experts_per_tok": 2}

FAMILIES: dict[str, Family] = {
    "qwen2.5": Family(config={"model_type": "qwen2", **_SIZES}, template=QWEN25, special=_QWEN, eos="<|im_end|>"),
    "qwen3": Family(
        config={"model_type": "qwen3", "head_dim": 32, **_SIZES}, template=QWEN3, special=_QWEN, eos="<|im_end|>"
    ),
    "llama3": Family(
        config={"model_type": "llama", **_SIZES}, template=LLAMA3, bos="<|begin_of_text|>", eos="<|end_of_text|>",
        special=("<|eot_id|>", "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    ),
    "gemma2": Family(
        config={"model_type": "gemma2", "head_dim": 32, "sliding_window": 32, "query_pre_attn_scalar": 32, **_SIZES},
        template=GEMMA2, special=_GEMMA, eos="<eos>", bos="<bos>", pieces="metaspace",
    ),
    "gemma3": Family(
        config={"model_type": "gemma3_text", "head_dim": 32, "sliding_window": 32, "query_pre_attn_scalar": 32,
                "layer_types": ["sliding_attention", "full_attention"], **_SIZES},
        template=GEMMA3, special=_GEMMA, eos="<eos>", bos="<bos>", pieces="metaspace",
    ),
    "phi3": Family(
        config={"model_type": "phi3", **_SIZES}, template=PHI3, eos="<|endoftext|>", bos="<s>", strips=True,
        special=("<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|endoftext|>", "<s>"), pieces="metaspace",
    ),
    "mistral": Family(
        config={"model_type": "mistral", "sliding_window": 48, **_SIZES}, template=MISTRAL, eos="</s>", bos="<s>",
        special=("</s>", "<s>", "[INST]", "[/INST]"), pieces="metaspace",
    ),
    "qwen3_moe": Family(
        config={"model_type": "qwen3_moe", "head_dim": 32, "num_experts": 4, "moe_intermediate_size": 32, **_EXPERTS,
                **_SIZES},
        template=QWEN3, special=_QWEN, eos="<|im_end|>",
    ),
    "mixtral": Family(
        config={"model_type": "mixtral", "num_local_experts": 4, **_EXPERTS, **_SIZES}, template=MISTRAL, eos="</s>",
        bos="<s>", special=("</s>", "<s>", "[INST]", "[/INST]"), pieces="metaspace",
    ),
}  # fmt: skip


def family_tokenizer(family: Family, vocab_size: int = 420) -> PreTrainedTokenizerBase:
    """A tokenizer trained on a few sentences, made as the family's is."""
    special = [AddedToken(token, special=True, normalized=False, rstrip=family.strips) for token in family.special]
    if family.pieces == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer = Tokenizer(models.BPE(byte_fallback=False, unk_token="<unk>"))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        alphabet = ["\n", "▁", *map(chr, range(33, 127))]
    unknown = [] if family.pieces == "bytes" else ["<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[*unknown, *special], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=family.eos, bos_token=family.bos, chat_template=family.template,
        additional_special_tokens=[t for t in family.special if t not in (family.eos, family.bos)],
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
