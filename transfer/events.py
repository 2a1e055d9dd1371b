"""Server-sent events out of bytes as they come, by the WHATWG's rules."""

import re


class Events:
    """Lines end in CR, LF or both, an event in an empty line, and its lines of data are one text."""

    def __init__(self):
        self.line = bytearray()
        self.data: list[str] = []
        self.size = 0  # of that data, with its lines' ends
        self.half = False  # the last byte was a CR, whose LF may come yet
        self.first = True

    @property
    def pending(self) -> int:
        """Bytes and characters of what is not whole yet."""
        return len(self.line) + self.size

    def feed(self, chunk: bytes) -> list[str]:
        """The data of every event that these bytes complete."""
        if self.half and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self.half = chunk.endswith(b"\r")
        events = []
        begin, *others = re.split(rb"\r\n|\r|\n", chunk)
        self.line += begin
        for begin in others:
            line = self.line.decode("utf-8", "replace")
            self.line[:] = begin
            if self.first:
                line, self.first = line.removeprefix("\ufeff"), False
            if line:
                self.take(line)
            elif self.data:
                events.append("\n".join(self.data))
                self.data, self.size = [], 0
        return events

    def take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "error":  # llama.cpp's servers of old
            name, value = "data", f'{{"error": {value}}}'
        if name == "data":
            self.data.append(value)
            self.size += len(value) + 1
