"""Forms with a file, as uploads are sent."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import Invalid
from ..ids import new_hex


def form_of(fields: Mapping[str, object], *, file_name: str, content: bytes) -> tuple[bytes, str]:
    """Return the body and the content type of a form with these fields and one part `file`.

    Fields that are None are left out. Raises `Invalid` for a file name that a header cannot carry.
    """
    if not file_name.isprintable():
        raise Invalid("file_name", f"{file_name!r} has characters that a form cannot carry")
    boundary = new_hex()
    given = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in fields.items()}
    parts = [_part(boundary, f'name="{name}"', given[name].encode()) for name in given if fields[name] is not None]
    quoted = file_name.replace("\\", "\\\\").replace('"', "%22")
    parts.append(_part(boundary, f'name="file"; filename="{quoted}"', content, kind="application/octet-stream"))
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


def _part(boundary: str, disposition: str, content: bytes, *, kind: str | None = None) -> bytes:
    kind_line = f"Content-Type: {kind}\r\n" if kind else ""
    head = f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n{kind_line}\r\n"
    return head.encode() + content + b"\r\n"
