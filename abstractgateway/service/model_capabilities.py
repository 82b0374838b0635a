"""What is published about well-known families of models.

A row counts for every model whose name begins with one of its beginnings, once the maker's name before a slash is
taken off; the longest beginning wins. Context lengths are those of the model itself: a server on one's own machine may
have been started with less.
"""

from __future__ import annotations

from typing import NamedTuple

from ..jsonvalue import JsonObject


class _Family(NamedTuple):
    """How names begin, tokens of the context, tokens of an answer (None: not published), and what it can do."""

    beginnings: tuple[str, ...]
    context: int
    output: int | None
    has_tools: bool = True
    has_vision: bool = False
    has_thinking: bool = False


_FAMILIES: tuple[_Family, ...] = (
    _Family(("gpt-5",), 400_000, 128_000, has_vision=True, has_thinking=True),
    _Family(("gpt-4.1",), 1_047_576, 32_768, has_vision=True),
    _Family(("gpt-4o", "chatgpt-4o"), 128_000, 16_384, has_vision=True),
    _Family(("gpt-oss",), 131_072, None, has_thinking=True),
    _Family(("o3", "o4-mini"), 200_000, 100_000, has_vision=True, has_thinking=True),
    _Family(("claude-3-5", "claude-3.5"), 200_000, 8_192, has_vision=True),
    _Family(("claude-3-7", "claude-3.7", "claude-sonnet-4"), 200_000, 64_000, has_vision=True, has_thinking=True),
    _Family(("claude-opus-4",), 200_000, 32_000, has_vision=True, has_thinking=True),
    _Family(("llama3.1", "llama-3.1", "llama3.2", "llama-3.2", "llama3.3", "llama-3.3"), 131_072, None),
    _Family(("qwen2.5",), 32_768, 8_192),
    _Family(("qwen3",), 32_768, None, has_thinking=True),
    _Family(("gemma3", "gemma-3"), 131_072, 8_192, has_tools=False, has_vision=True),
    _Family(("mistral-small3.1", "mistral-small3.2", "mistral-small-3"), 131_072, None, has_vision=True),
)


def capabilities_of(model_name: str) -> JsonObject:
    """Return `{known, max_tokens, max_output_tokens, tool_support, …}` of a model; null is what is not known."""
    name = model_name.strip().lower().rpartition("/")[2]
    found = [(begin, row) for row in _FAMILIES for begin in row.beginnings if name.startswith(begin)]
    if not found:
        names = ("max_tokens", "max_output_tokens", "tool_support", "vision_support", "thinking_support")
        return {"known": False, "family": None, **dict.fromkeys(names)}
    begin, row = max(found, key=lambda item: len(item[0]))
    return {
        "known": True,
        "family": begin,
        "max_tokens": row.context,
        "max_output_tokens": row.output,
        "tool_support": row.has_tools,
        "vision_support": row.has_vision,
        "thinking_support": row.has_thinking,
    }
