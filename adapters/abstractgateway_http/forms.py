"""Requests whose forms leave no file open."""

from __future__ import annotations

from typing import IO, Any

from werkzeug.wrappers import Request


class FormRequest(Request):
    """A request that closes every file of its form.

    Werkzeug forgets those that it had begun to write when the rest of the form turned out to be none.
    """

    _parts: tuple[IO[bytes], ...] = ()

    def _get_file_stream(self, *args: Any, **kwargs: Any) -> IO[bytes]:
        stream: IO[bytes] = super()._get_file_stream(*args, **kwargs)
        self._parts += (stream,)
        return stream

    def close(self) -> None:
        super().close()
        for stream in self._parts:
            stream.close()
