"""What is done for a request while it waits, outside of any run's steps: talking, making media, looking around."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..clock import Clock
from ..config import GatewayConfig
from ..hosts.base import WorkflowHost
from ..jsonvalue import JsonObject
from ..runtime.effects.model import LanguageModel
from ..runtime.effects.tools import ToolBox
from ..stores.base import Stores
from .direct_calls import DirectCalls
from .discovery import Described, DiscoveryService
from .host_metrics import HostMetrics
from .media import Media, MediaService
from .model_choice import ModelChoice
from .prompt_cache import PromptCacheService
from .providers_of_settings import ProvidersOfSettings
from .run_events import RunEvents
from .talk import TalkService

THREADS_KEPT_FREE = 2
"""So many threads of the server are left to other requests, however many calls are allowed."""


@dataclass(frozen=True)
class OnRequest:
    """These use cases by noun."""

    talk: TalkService
    media: MediaService
    discovery: DiscoveryService
    prompt_cache: PromptCacheService
    host_metrics: HostMetrics

    @staticmethod
    def of(
        config: GatewayConfig,
        *,
        stores: Stores,
        clock: Clock,
        host: WorkflowHost,
        list_bundles: Callable[[], JsonObject],
        tools: ToolBox,
        model: LanguageModel,
        is_own_model: bool,
        media: Media | None,
        providers: ProvidersOfSettings,
        knowledge: Callable[[], Mapping[str, object] | None],
    ) -> OnRequest:
        """Return them for a gateway. With `is_own_model` the model is the embedding program's, which knows its own."""
        most = min(config.direct_calls, max(1, config.http_threads - THREADS_KEPT_FREE))
        calls = DirectCalls(most=most, timeout_s=config.direct_timeout_s)
        events = RunEvents(stores=stores, clock=clock, max_inline_bytes=config.max_inline_bytes)
        choice = ModelChoice(
            provider=config.provider,
            model=config.model,
            host=host,
            list_bundles=list_bundles,
            is_free=is_own_model,
        )
        made = media or providers.media(
            has_speech=config.speech_provider is not None,
            has_transcripts=config.transcription_provider is not None,
            has_images=config.image_provider is not None,
        )
        return OnRequest(
            talk=TalkService(
                stores=stores,
                events=events,
                model=model,
                choice=choice,
                calls=calls,
                max_thread_bytes=config.max_chat_thread_bytes,
            ),
            media=MediaService(
                stores=stores, events=events, media=made, calls=calls, max_image_bytes=config.image_max_bytes
            ),
            discovery=DiscoveryService(
                tools=tools,
                catalogue=None if is_own_model else providers,
                choice=choice,
                media=made,
                described=_described(config),
                knowledge=knowledge,
            ),
            prompt_cache=PromptCacheService(),
            host_metrics=HostMetrics(clock=clock, path=config.command_path),
        )


def _described(config: GatewayConfig) -> Described:
    return Described(
        tool_mode=config.tool_mode,
        voices=config.speech_voices,
        speech=(config.speech_provider, config.speech_model),
        images=(config.image_provider, config.image_model),
        max_attachment_bytes=config.max_attachment_bytes,
        max_image_bytes=config.image_max_bytes,
        has_bundles=config.workflow_source == "bundle",
    )
