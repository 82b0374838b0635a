"""The providers that are known by name: a row each."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from abstractgateway.config import GatewayConfig

from . import anthropic_messages, openai_chat
from .errors import ModelError
from .keys import Key
from .wire import Wire


@dataclass(frozen=True)
class Provider:
    """A provider: its name, and how its requests are written.

    `field` is what its settings begin with: `<field>_base_url` and `<field>_api_key`; `keyed_host` answers nobody
    without a key.
    """

    name: str
    field: str
    wire: Wire
    keyed_host: str = ""


@dataclass(frozen=True)
class Endpoint:
    """Where a provider's requests go, and with which key."""

    provider: Provider
    url: str
    key: Key

    @property
    def name(self) -> str:
        """The provider and its host, for people."""
        return f"{self.provider.name} ({urlsplit(self.url).netloc})"


PROVIDERS: tuple[Provider, ...] = (
    Provider("openai", "openai", openai_chat.Chat(limit_name="max_completion_tokens"), "api.openai.com"),
    Provider("anthropic", "anthropic", anthropic_messages.Messages(), "api.anthropic.com"),
    Provider("openrouter", "openrouter", openai_chat.Chat(), "openrouter.ai"),
    Provider("ollama", "ollama", openai_chat.Chat()),
    Provider("lmstudio", "lmstudio", openai_chat.Chat()),
    Provider("vllm", "vllm", openai_chat.Chat()),
    Provider("openai-compatible", "openai_compatible", openai_chat.Chat()),
)
_ALIASES = {"lm-studio": "lmstudio", "claude": "anthropic"}


def known_provider(name: str) -> Provider | None:
    """Return the row of a provider, however its name is written (`OpenAI_Compatible`), or None."""
    plain = name.strip().lower().replace("_", "-")
    plain = _ALIASES.get(plain, plain)
    return next((row for row in PROVIDERS if row.name == plain), None)


def endpoint_of(config: GatewayConfig, provider: Provider) -> Endpoint:
    """Return where a provider is. Raises `ModelError` when its base URL or key is missing or cannot be used."""
    base = getattr(config, f"{provider.field}_base_url")
    key = Key(getattr(config, f"{provider.field}_api_key"), provider=provider.name)
    prefix = provider.field.upper()
    if not base:
        raise ModelError(f"provider {provider.name!r} has no address; set {prefix}_BASE_URL")
    if urlsplit(base).scheme not in ("http", "https") or not urlsplit(base).hostname:
        raise ModelError(f"{prefix}_BASE_URL is no address such as http://127.0.0.1:8000/v1")
    if "@" in urlsplit(base).netloc:
        raise ModelError(f"{prefix}_BASE_URL has a user name in it; put the key into {prefix}_API_KEY")
    if not key and urlsplit(base).hostname == provider.keyed_host:
        raise ModelError(f"provider {provider.name!r} needs a key; set {prefix}_API_KEY")
    return Endpoint(provider, provider.wire.url(base.rstrip("/")), key)
