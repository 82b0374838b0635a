"""Providers of models, and what they are given."""

from __future__ import annotations

from ..parsing import at_least, base_url, ollama_url, parse_bool, seconds
from ..setting import Setting, env

ROWS: tuple[Setting, ...] = (
    Setting(
        "provider", env("PROVIDER", "ABSTRACTFLOW_PROVIDER"), str, "The model provider used where a flow names none."
    ),
    Setting("model", env("MODEL", "ABSTRACTFLOW_MODEL"), str, "The model used where a flow names none."),
    Setting(
        "prompt_cache",
        env("PROMPT_CACHE"),
        parse_bool,
        "Whether model calls of a session carry a key for the provider's cache of prompts; a start may say otherwise.",
    ),
    Setting("openai_base_url", ("OPENAI_BASE_URL",), base_url, "Where the provider `openai` is."),
    Setting("openai_api_key", ("OPENAI_API_KEY",), str, "The key for it."),
    Setting("anthropic_base_url", ("ANTHROPIC_BASE_URL",), base_url, "Where the provider `anthropic` is."),
    Setting("anthropic_api_key", ("ANTHROPIC_API_KEY",), str, "The key for it."),
    Setting("openrouter_base_url", ("OPENROUTER_BASE_URL",), base_url, "Where the provider `openrouter` is."),
    Setting("openrouter_api_key", ("OPENROUTER_API_KEY",), str, "The key for it."),
    Setting("ollama_base_url", ("OLLAMA_BASE_URL", "OLLAMA_HOST"), ollama_url, "Where the provider `ollama` is."),
    Setting("ollama_api_key", ("OLLAMA_API_KEY",), str, "The key for it, where it wants one."),
    Setting("lmstudio_base_url", ("LMSTUDIO_BASE_URL",), base_url, "Where the provider `lmstudio` is."),
    Setting("lmstudio_api_key", ("LMSTUDIO_API_KEY",), str, "The key for it, where it wants one."),
    Setting("vllm_base_url", ("VLLM_BASE_URL",), base_url, "Where the provider `vllm` is."),
    Setting("vllm_api_key", ("VLLM_API_KEY",), str, "The key for it, where it wants one."),
    Setting(
        "openai_compatible_base_url",
        ("OPENAI_COMPATIBLE_BASE_URL",),
        base_url,
        "Where the provider `openai-compatible` is: any other server with the chat completions of OpenAI.",
    ),
    Setting("openai_compatible_api_key", ("OPENAI_COMPATIBLE_API_KEY",), str, "The key for it, where it wants one."),
    Setting(
        "llm_connect_timeout_s",
        env("LLM_CONNECT_TIMEOUT_S"),
        seconds,
        "How many seconds connecting to a model provider may take.",
    ),
    Setting(
        "llm_read_timeout_s",
        env("LLM_READ_TIMEOUT_S"),
        seconds,
        "How many seconds a model provider may be silent; without streaming that is the time a whole answer takes.",
    ),
    Setting(
        "llm_retries",
        env("LLM_RETRIES"),
        at_least(0),
        "How often a model call is made again after 408, 429, 5xx or a lost connection.",
    ),
    Setting(
        "llm_stream",
        env("LLM_STREAM"),
        parse_bool,
        "Whether answers of model providers are streamed, so that clients can see them being written.",
    ),
    Setting(
        "llm_max_response_bytes",
        env("LLM_MAX_RESPONSE_BYTES"),
        at_least(1000),
        "The largest answer of a model provider that is read.",
    ),
    Setting("semantics_file", env("SEMANTICS_FILE"), str, "A JSON file with the registry that `/semantics` shows."),
    Setting(
        "embedding_provider",
        env("EMBEDDING_PROVIDER", "ABSTRACTFLOW_EMBEDDING_PROVIDER"),
        str,
        "The provider of embeddings; without it the one that was used last, and `lmstudio` at first.",
    ),
    Setting(
        "embedding_model",
        env("EMBEDDING_MODEL", "ABSTRACTFLOW_EMBEDDING_MODEL"),
        str,
        "The model of embeddings; without it the one that was used last, and at first a small one for `lmstudio`.",
    ),
)
