"""Server-sent events, in every way of ending lines, and wherever they are cut."""

import json

import pytest

from transfer.events import Events


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_events_are_read_by_the_rules_wherever_they_are_cut(end):
    chunk = {"choices": [{"delta": {"content": "Größe 東"}}]}
    first, *rest = json.dumps(chunk, ensure_ascii=False, indent=1).splitlines()
    lines = ["\ufeff: hello", "", ":", "event: message", f"data:{first}", *(f"data: {r}" for r in rest), "id: 7", ""]
    told = end.join([*lines, "retry: 3", "", "data", "data", "", "data: [DONE]", "", ""]).encode()
    for size in (1, 2, 3, 7, len(told)):
        events = Events()
        found = [e for i in range(0, len(told), size) for e in events.feed(told[i : i + size])]
        assert json.loads(found[0]) == chunk and found[1:] == ["\n", "[DONE]"] and not events.pending
