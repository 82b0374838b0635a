"""Who may ask, from where, and how much at once."""

from __future__ import annotations

from ..parsing import at_least, parse_bool, parse_list, seconds, time_limit
from ..setting import Setting, env, legacy

ROWS: tuple[Setting, ...] = (
    Setting("security", legacy("SECURITY"), parse_bool, "0 switches every check off; only for closed test systems."),
    Setting(
        "auth_tokens",
        (
            *env("AUTH_TOKEN"),
            *env("AUTH_TOKENS"),
            "ABSTRACTFLOW_GATEWAY_AUTH_TOKEN",
            "ABSTRACTFLOW_GATEWAY_AUTH_TOKENS",
        ),
        parse_list,
        "The bearer tokens that are accepted; both names are comma lists and are joined.",
    ),
    Setting("protect_read", legacy("PROTECT_READ"), parse_bool, "Whether GET and HEAD need a token."),
    Setting("protect_write", legacy("PROTECT_WRITE"), parse_bool, "Whether POST, PUT, PATCH and DELETE need a token."),
    Setting(
        "dev_read_no_auth",
        legacy("DEV_READ_NO_AUTH"),
        parse_bool,
        "Whether loopback clients may read without a token.",
    ),
    Setting("open_metrics", env("OPEN_METRICS"), parse_bool, "Whether `/metrics` is answered without a token."),
    Setting(
        "allowed_origins",
        legacy("ALLOWED_ORIGINS"),
        parse_list,
        "Browser origins that may call: texts, or globs with `*`.",
    ),
    Setting(
        "allowed_hosts",
        env("ALLOWED_HOSTS"),
        parse_list,
        "Names the `Host` header may have besides loopback and the bound address; `*` for any.",
    ),
    Setting("max_body_bytes", legacy("MAX_BODY_BYTES"), at_least(0), "The largest body of a write; 0 for no limit."),
    Setting("max_bundle_bytes", legacy("MAX_BUNDLE_BYTES"), at_least(1), "The largest bundle that may be uploaded."),
    Setting("max_attachment_bytes", legacy("MAX_ATTACHMENT_BYTES"), at_least(1), "The largest attachment."),
    Setting(
        "max_upload_body_bytes",
        legacy("MAX_UPLOAD_BODY_BYTES"),
        at_least(0),
        "One more bound for the bodies of both kinds of upload; 0 for none.",
    ),
    Setting("max_header_bytes", env("MAX_HEADER_BYTES"), at_least(1024), "The largest head of a request."),
    Setting("max_url_bytes", env("MAX_URL_BYTES"), at_least(0), "The longest path with its query; 0 for no limit."),
    Setting(
        "request_timeout_s",
        env("REQUEST_TIMEOUT_S"),
        seconds,
        "How many seconds a request may take to arrive, its body included; a silent connection is closed after 30.",
    ),
    Setting(
        "max_concurrency",
        legacy("MAX_CONCURRENCY"),
        at_least(1),
        "How many requests may be worked on at once, streams excluded; more are refused with 429. It counts where it "
        "is below `ABSTRACTGATEWAY_HTTP_THREADS`: otherwise requests wait until a thread is free, and none is refused.",
    ),
    Setting(
        "max_client_concurrency",
        env("MAX_CLIENT_CONCURRENCY"),
        at_least(0),
        "The same for one client address; 0 for no limit of its own.",
    ),
    Setting(
        "max_client_connections",
        env("MAX_CLIENT_CONNECTIONS"),
        at_least(0),
        "How many connections one address may have open besides streams; trusted proxies any number; 0 for no limit.",
    ),
    Setting(
        "max_client_sse",
        env("MAX_CLIENT_SSE"),
        at_least(0),
        "How many streams one client address may have open; 0 for no limit of its own.",
    ),
    Setting(
        "lockout_after",
        legacy("LOCKOUT_AFTER"),
        at_least(1),
        "After how many wrong tokens a client is locked out; valid tokens are served meanwhile.",
    ),
    Setting(
        "lockout_base_s",
        legacy("LOCKOUT_BASE_S"),
        time_limit,
        "How many seconds that lasts the first time, and twice as long each further time; 0 for never.",
    ),
    Setting("lockout_max_s", legacy("LOCKOUT_MAX_S"), time_limit, "How many seconds it lasts at most; 0 for no bound."),
    Setting(
        "trusted_proxies",
        env("TRUSTED_PROXIES"),
        parse_list,
        "Addresses and networks of the proxies whose `X-Forwarded-For` says who the client is.",
    ),
    Setting(
        "trust_proxy",
        legacy("TRUST_PROXY"),
        parse_bool,
        "Without `ABSTRACTGATEWAY_TRUSTED_PROXIES`: whether whoever connects is taken for one proxy.",
    ),
    Setting("max_sse", legacy("MAX_SSE"), at_least(1), "How many streams may be open at once."),
    Setting(
        "http_threads",
        env("HTTP_THREADS"),
        at_least(1),
        "How many requests are worked on at once; streams take no thread.",
    ),
)
