"""Forms with a file, read as a stream: gigabytes pass through and are never kept here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import Message

from discovery_core.errors import ProblemError
from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from .problems import InvalidRequestError, TooLargeError, UnreadableRequestError

FIELD_BYTES = 64 * 1024
FIELDS_BYTES = 256 * 1024
HEADER_BYTES = 4 * 1024
MOST_FIELDS = 20
MOST_HEADERS = 16

Headers = tuple[tuple[bytes, bytes], ...]
# what the parser has found: its kind, and the bytes or the headers that belong to it
Event = tuple[str, bytes, Headers]

_HEADERS, _DATA, _PART_END, _END = "headers", "data", "part-end", "end"


class UnsupportedMediaTypeError(ProblemError):
    """A body that is no form."""

    status = 415
    kind = "unsupported-media-type"
    title = "Not a form with a file"


class StalledError(ProblemError):
    """A form whose fields do not arrive."""

    status = 408
    kind = "stalled"


@dataclass
class Part:
    """One part of a form. A file has a `file_name`; its stream has to be read before the next."""

    name: str
    file_name: str | None
    media_type: str
    form: Form

    async def stream(self) -> AsyncIterator[bytes]:
        """The part's bytes as they arrive. Raises ProblemError 400 where the form breaks off."""
        while True:
            kind, data, _ = await self.form.next_event()
            if kind == _PART_END:
                return
            yield data

    async def text(self) -> str:
        """A short field as text. Raises ProblemError 413 and 422."""
        content = bytearray()
        async for piece in self.stream():
            content += piece
            self.form.count(len(piece))
            if len(content) > FIELD_BYTES:
                raise TooLargeError(
                    f"{self.name}: at most {FIELD_BYTES} B", title="A field is too long"
                )
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise InvalidRequestError(self.name, title="A field is not UTF-8") from None


class Form:
    """The parts of a multipart/form-data request, in their order.

    The fields before a file have to be there within `seconds`.
    """

    def __init__(self, request: Request, seconds: float) -> None:
        self._seconds = seconds
        self._fields_end: float | None = asyncio.get_running_loop().time() + seconds
        self._fields_bytes = 0
        self._chunks = request.stream()
        self._events: deque[Event] = deque()
        self._headers: list[tuple[bytes, bytes]] = []
        self._field, self._value = bytearray(), bytearray()
        message = Message()
        message["content-type"] = request.headers.get("content-type", "")
        boundary = message.get_param("boundary")
        if message.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
            raise UnsupportedMediaTypeError(
                "send multipart/form-data with the fields first and `file` last",
            )
        self._parser = MultipartParser(
            boundary.encode(),
            {
                "on_part_begin": self._headers.clear,
                "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._header_ended,
                "on_headers_finished": self._headers_finished,
                "on_part_data": lambda data, start, end: self._events.append(
                    (_DATA, data[start:end], ())
                ),
                "on_part_end": lambda: self._events.append((_PART_END, b"", ())),
                "on_end": lambda: self._events.append((_END, b"", ())),
            },
            max_header_count=MOST_HEADERS,
            max_header_size=HEADER_BYTES,
        )

    def _header_ended(self) -> None:
        self._headers.append((bytes(self._field).lower(), bytes(self._value)))
        self._field.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        # a copy, because one chunk may hold the headers of several parts
        self._events.append((_HEADERS, b"", tuple(self._headers)))

    async def next_event(self) -> Event:
        """What comes next. Raises ProblemError 400 where the form is broken or breaks off."""
        while not self._events:
            chunk = await self._next_chunk()
            if not chunk:
                if chunk is None:
                    raise _broken("it breaks off")
                continue
            try:
                self._parser.write(chunk)
            except MultipartParseError as error:
                raise _broken(str(error)) from error
        return self._events.popleft()

    async def _next_chunk(self) -> bytes | None:
        try:
            async with asyncio.timeout_at(self._fields_end):
                return await anext(self._chunks, None)
        except TimeoutError:
            raise StalledError(
                title=f"the fields are not complete after {self._seconds:g} seconds"
            ) from None

    def count(self, size: int) -> None:
        """Counts bytes of a field. Raises ProblemError 413 where all are too many."""
        self._fields_bytes += size
        if self._fields_bytes > FIELDS_BYTES:
            raise TooLargeError(
                f"at most {FIELDS_BYTES} B together", title="The fields are too long"
            )

    async def parts(self) -> AsyncIterator[Part]:
        """Each part. What is not read of one is skipped. Raises ProblemError 400."""
        found = 0
        while True:
            kind, _, headers = await self.next_event()
            if kind == _END:
                return
            if kind == _HEADERS:
                part = self._part(headers)
                if part.file_name is None:
                    found += 1
                else:
                    self._fields_end = None
                if found > MOST_FIELDS:
                    raise _broken(f"it has more than {MOST_FIELDS} fields")
                yield part

    def _part(self, headers: Headers) -> Part:
        message = Message()
        for field, value in headers:
            message[field.decode("latin-1")] = value.decode("utf-8", "replace")
        name = message.get_param("name", header="content-disposition")
        file_name = message.get_param("filename", header="content-disposition")
        return Part(
            name=name if isinstance(name, str) else "",
            file_name=file_name if isinstance(file_name, str) else None,
            media_type=message.get_content_type(),
            form=self,
        )


def _broken(why: str) -> ProblemError:
    return UnreadableRequestError(why, title="The form cannot be read")
