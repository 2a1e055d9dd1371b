"""Foreign templates: rendered as transformers renders them, refused in sentences, stopped in time, and nobody else the worse."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from transformers import AutoTokenizer

from transfer import template
from transfer.errors import ChatError
from transfer.template import Pool, Worker, render, warm

from . import families

ROOT = Path(__file__).resolve().parent.parent
GOOD = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}"
ASK = [{"role": "user", "content": "Who is the mayor?"}]
SAID = "[user] Who is the mayor?"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"

# In each what templates of one kind do; the words are ours.
TEMPLATES = {
    "chatml": """{%- if messages[0].role != 'system' %}
{{- '<|im_start|>system\\nYou are a helpful river.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}""",
    "date and bos": """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start|>system<|stop|>\\n\\nToday: " + date_string + "\\n\\n" + system_message }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|start|>' + message['role'] + '<|stop|>\\n\\n' + message['content'] | trim + eos_token }}
    {%- endif %}
{%- endfor %}
{{- '<|start|>assistant<|stop|>\\n\\n' if add_generation_prompt }}""",
    "roles by turns": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role here') }}{% endif %}
{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<turn>' + role + '\n' + message['content'] | trim + '<end>\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}""",
    "instructions in brackets": """{%- if messages and messages[0]["role"] == "system" %}
    {%- set system, rest = messages[0]["content"], messages[1:] %}
{%- else %}
    {%- set system, rest = none, messages %}
{%- endif %}
{%- set users = rest | selectattr("role", "equalto", "user") | list %}
{{- bos_token }}
{%- for m in rest %}
    {%- if m["role"] == "user" %}
        {{- "[INST] " ~ (system ~ "\\n\\n" if system and m == users[-1] else "") ~ m["content"] ~ "[/INST]" }}
    {%- elif m["role"] == "assistant" %}
        {{- " " + m["content"] | trim + eos_token }}
    {%- endif %}
{%- endfor %}""",
    "tools and thoughts": """{%- if tools %}{{- tools | map('tojson') | join('\\n') }}{%- endif %}
{%- set ns = namespace(last=-1, many=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages | length - 1) - loop.index0 %}
    {%- if ns.many and message.role == "user" and message.content is string
        and not (message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.many = false %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if '</think>' in content %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- message.role ~ (' (last)' if loop.index0 == ns.last else '') ~ ': ' ~ content | tojson ~ '\\n' }}
{%- endfor %}
{%- if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}{{- '<think>' }}{%- endif %}""",
    "generation marks": """{% for message in messages %}
{% if message['role'] == 'assistant' %}
A: {% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}

{% else %}
Q: {{ message['content'] }}
{% endif %}
{% endfor %}
{{ 'A:' if add_generation_prompt else '' }}""",
    "loop controls": """{% for message in messages %}
    {% if message.role == 'system' %}{% continue %}{% endif %}
    {% if loop.index > 2 %}
        {% break %}
    {% endif %}
    {{ loop.cycle('a', 'b') }}{{ message.content }}{{ ',' if not loop.last }}
{% endfor %}""",
    "macros": """{% macro turn(role, content='', end=true) -%}
<{{ role }}>{{ content | trim }}{% if end %}</{{ role }}>{% endif %}
{%- endmacro %}
{% for m in messages %}{{ turn(m.role, m.content) }}{% endfor %}{{ turn('assistant', end=false) if add_generation_prompt }}
{% macro framed() %}({{ caller('x') }}){% endmacro %}{% call(x) framed() %}{{ x }}{% endcall %}""",
    "white space": "  {% if true %}  \n  a\n   {%- if true -%}  b  {%- endif %}\n {%+ endif %} c {{- 1 }} {# no #}\n\n{# no #}\n {{ 'd' }} \n",
    "filters": """{{ messages | map(attribute='content') | map('upper') | join(' / ') }}
{{ messages | groupby('role') | list | length }} {{ messages | rejectattr('role', 'eq', 'user') | list | count }}
{{ messages[0] | tojson(indent=2) }} {{ dict(a=1, **messages[0]) | items | first }} {{ messages[-1].content[:5] | e }}
{{ '%s and %s' | format('x', 'y') }} {{ 'x' is in ['x'] }} {{ messages[0].get('name', 'nobody') }} {{ 7 // 2 }} {{ 1.5 | round }}
{{ range(3) | list }} {{ {'z': [none, true]} | string }} {{ 'ab' * 2 ~ 1 }} {{ messages | last | length }} {{ loop is defined }}""",
    "undefined things": "{{ nothing }}{% if tools is none and documents is none %}none{% endif %}{{ messages[0].name }}{{ x | default('y') }}{{ bos_token }}",
    "letters": "{{ '\\N{BULLET} \\u00e9 \\x41' }}\u2028ü\r\n{{ '🔭' | length }}{{ unk_token is defined }}",
}  # fmt: skip
SPOKEN = {
    "question": ASK,
    "chat": [
        {"role": "user", "content": " Wer ist Bürgermeister? \n"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nA \"quoted\" one & <b>, 'too'"},
        {"role": "user", "content": "In 日本 🔭\u2028\x00\ud800?"},
    ],
    "system": [{"role": "system", "content": "Be brief.\n"}, *ASK],
    "out of order": [*ASK, *ASK],
}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(ROOT / "assets/pocket/instruct-v1")


@pytest.fixture
def soon(monkeypatch):
    """Templates are stopped after half a second; a worker's own clock goes on as it did."""
    monkeypatch.setattr(template, "SECONDS", 0.5)


def workers(of: psutil.Process | None = None) -> list[psutil.Process]:
    """The workers of a process that run, this one's by default."""
    mine = (of or psutil.Process()).children()
    return [p for p in mine if p.status() != psutil.STATUS_ZOMBIE and "transfer.template" in p.cmdline()]


def until(done, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.02)
    return done()


def refusal(text: str, messages=ASK) -> str:
    with pytest.raises(ChatError) as caught:
        render(text, messages, {})
    return str(caught.value)


def together(*jobs) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("generation", [True, False])
@pytest.mark.parametrize("spoken", SPOKEN)
@pytest.mark.parametrize("name", TEMPLATES)
def test_it_is_what_transformers_makes(tokenizer, name, spoken, generation):
    text, messages = TEMPLATES[name], SPOKEN[spoken]
    try:
        right = tokenizer.apply_chat_template(
            messages, chat_template=text, add_generation_prompt=generation, tokenize=False
        )
    except Exception as error:
        with pytest.raises(ChatError) as caught:
            render(text, messages, tokenizer.special_tokens_map, generation)
        assert str(caught.value) == f"The chat template refused these messages: {error}"
        assert name == "roles by turns" and spoken in ("system", "out of order")
    else:
        assert render(text, messages, tokenizer.special_tokens_map, generation) == right


def test_own_tokenizers(tokenizer):
    for own in (tokenizer, families.tokenizer(), families.tokenizer(("<|more|>",))):
        for messages in SPOKEN.values():
            right = own.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            assert render(own.chat_template, messages, own.special_tokens_map) == right


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ENDLESS, "longer than 2 seconds and was stopped"),
        ("{{ 10 ** (10 ** 9) }}", "longer than 2 seconds and was stopped"),
        ("{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}", "more than 512 MB"),
        ("{{ 'a' * 10 ** 12 }}", "more than 512 MB"),
        ("{{ range(99999) | list | join('a' * 100000) }}", "more than 512 MB"),
        ("{{ raise_exception('a' * 200000000) }}", "more than 512 MB"),
        ("{% for i in range(99999) %}" + "a" * 50 + "{% endfor %}", "more than 4 MB of text"),
        ("{{ 'é' * 3900000 }}", "more than 4 MB of text"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "too deeply"),
        ("{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}", "too deeply"),
        ("a\n{% if %}", "no valid Jinja, in line 2: Expected an expression"),
        ("{{ 'a' | polish }}", "no valid Jinja, in line 1: No filter named 'polish'"),
        ("{{ messages[0].name.first }}", "refused these messages: 'dict object' has no attribute 'name'"),
        ("{{ raise_exception('Only one\nof them') }}", "refused these messages: Only one$"),
        ("{{ raise_exception('') }}", "refused these messages: TemplateError$"),
        ("{{ range(10 ** 9) }}", "refused these messages: Range too big"),
        ("{{ ''.__class__.__mro__ }}", "refused these messages: access to attribute '__class__'"),
        ("{% include '/etc/passwd' %}", "refused these messages: no loader"),
    ],
    ids=lambda value: value[:30],
)  # fmt: skip
def test_hostile_ones_get_a_sentence_and_the_next_renders(text, words, capfd):
    with pytest.raises(ChatError, match=words):
        render(text, ASK, {})
    assert render(GOOD, ASK, {}) == SAID
    assert capfd.readouterr() == ("", "")


def test_a_special_token_cannot_take_the_place_of_the_messages():
    with pytest.raises(ChatError, match="refused"):
        render(GOOD, ASK, {"messages": "none"})


def test_templates_that_stay_large_cost_the_next_nothing():
    """Constants are worked out as a template is compiled, and compiled ones are kept."""
    for number in range(8):
        assert render(f"{{% if messages[9] %}}{{{{ '{number} ' * 32000000 }}}}{{% endif %}}{number}", ASK, {}) == str(
            number
        )
    assert render(GOOD, ASK, {}) == SAID


def test_good_ones_beside_hostile_ones(soon):
    wrong, stopped = [], []

    def good(number):
        for turn in range(20):
            asked = [{"role": "user", "content": f"{number}:{turn}"}]
            if render(GOOD, asked, {}) != f"[user] {number}:{turn}":
                wrong.append((number, turn))

    def hostile(number):
        for _ in range(3):
            stopped.append(refusal(ENDLESS + str(number)))

    together(*(lambda n=n: good(n) for n in range(8)), *(lambda n=n: hostile(n) for n in range(2)))
    assert not wrong and len(stopped) == 6 and all("was stopped" in words for words in stopped)


def test_known_hostile_ones_wait_for_one_another_and_good_ones_do_not(soon):
    refusal(ENDLESS)
    threads = [threading.Thread(target=refusal, args=(ENDLESS,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        assert render(GOOD, ASK, {}) == SAID
    assert sum(thread.is_alive() for thread in threads) >= 3
    for thread in threads:
        thread.join(60)


def test_a_template_that_was_slow_once_is_not_for_ever():
    text = GOOD + "{% if messages | length > 1 %}" + ENDLESS + "{% endif %}"
    refusal(text, [*ASK, *ASK])
    assert hash(text) in template.KNOWN_SLOW
    assert render(text, ASK, {}) == SAID and hash(text) not in template.KNOWN_SLOW


def test_turns_are_taken_in_order():
    pool, order, began = Pool(1), [], []

    def want(number):
        began.append(number)
        with pool.lend():
            order.append(number)

    with pool.lend():
        threads = [threading.Thread(target=want, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
            assert until(lambda: len(pool._waiting) == len(began))
    for thread in threads:
        thread.join(10)
    assert order == began == list(range(6)) and len(pool._idle) == 1


def test_a_turn_given_up_is_lost_to_nobody(monkeypatch):
    pool = Pool(1)

    class Interrupted(template.Future):
        def result(self, timeout=None):
            if not self.done():
                raise KeyboardInterrupt
            return super().result(timeout)

    monkeypatch.setattr(template, "Future", Interrupted)
    with pool.lend(), pytest.raises(KeyboardInterrupt), pool.lend():
        pass
    with pool.lend():
        pass
    assert len(pool._idle) == 1


def test_an_interrupt_leaves_no_answer_for_the_next(monkeypatch):
    real = Worker._answer

    def interrupted(self, seconds):
        monkeypatch.setattr(Worker, "_answer", real)
        raise KeyboardInterrupt

    assert render(GOOD, ASK, {}) == SAID
    monkeypatch.setattr(Worker, "_answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        render("something else", ASK, {})
    assert render(GOOD, ASK, {}) == SAID


def test_a_worker_killed_by_hand_is_replaced():
    assert render(GOOD, ASK, {}) == SAID
    for worker in workers():
        os.kill(worker.pid, signal.SIGKILL)
    assert render(GOOD, ASK, {}) == SAID
    template.POOL.close()
    warm()
    [worker] = [w._process for w in template.POOL._all if w.running]
    os.kill(worker.pid, signal.SIGKILL)
    assert render(GOOD, ASK, {}) == SAID


def test_a_template_that_breaks_its_worker_is_told_so():
    """As if it did: somebody kills all that it is given."""
    text, over = ENDLESS + "broken", threading.Event()

    def kill():
        while not over.wait(0.2):
            for worker in [*template.POOL._all, *template.SLOW_ONES._all]:
                if worker._ready and (process := worker._process) is not None:
                    process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert "brought the process down" in refusal(text)
    finally:
        over.set()
        killer.join()
    assert render(GOOD, ASK, {}) == SAID


@pytest.mark.parametrize("program", ["/nowhere/python", shutil.which("false")])
def test_no_worker_is_told_too(monkeypatch, program):
    with monkeypatch.context() as patch:
        template.POOL.close()
        patch.setattr(sys, "executable", program)
        warm()
        assert "does not start" in refusal(GOOD + "alone")
    assert render(GOOD, ASK, {}) == SAID


def test_one_at_a_time_needs_one_worker():
    template.POOL.close()
    template.SLOW_ONES.close()
    assert not workers()
    warm()
    warm()
    for _ in range(20):
        render(GOOD, ASK, {})
    assert len(workers()) == 1


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads what Linux tells")
def test_what_a_worker_is_given_and_may_do(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("OTHER_SECRET", "secret")
    template.POOL.close()
    assert render(GOOD, ASK, {}) == SAID
    [worker] = [w._process.pid for w in template.POOL._all if w.running]
    assert "secret" not in Path(f"/proc/{worker}/environ").read_text().lower()
    held = psutil.Process(worker).memory_info()
    limits = {line[:25].strip(): line.split()[-2] for line in Path(f"/proc/{worker}/limits").read_text().splitlines()}
    assert limits["Max open files"] == limits["Max core file size"] == "0"
    assert held.vms < int(limits["Max address space"]) <= held.vms + 2 * template.MEMORY


SCRIPT = """
import os, signal, sys, threading, time
from transfer import template
ask, no = [dict(role="user", content="Who?")], dict()
say = lambda: print(template.render("{{{{ messages[0].content }}}}", ask, no), flush=True)
def endless():
    try:
        template.render({!r}, ask, no)
    except BaseException:
        pass
def pids():
    print(*(w._process.pid for w in template.POOL._all if w.running), flush=True)
def begin():
    threading.Thread(target=endless, daemon=True).start()
    time.sleep(1)
"""


def script(lines: str, warned: str = "default", **how) -> subprocess.Popen:
    """A program of its own that renders."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": warned}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(ENDLESS) + lines],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )


@pytest.mark.parametrize("busy", [False, True])
def test_no_worker_outlives_its_parent(busy):
    parent = script("say(); begin(); print('on', flush=True); time.sleep(60)" if busy else "say(); time.sleep(60)")
    assert parent.stdout.readline() == "Who?\n"
    if busy:
        parent.stdout.readline()
    found = workers(psutil.Process(parent.pid))
    parent.kill()
    parent.communicate()
    assert found and until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in found))


@pytest.mark.parametrize("lines", ["template.warm()", "say()", "begin()", "say(); begin(); begin()"])
def test_a_program_ends_without_a_word_and_so_do_its_workers(lines):
    parent = script(lines + "; pids()")
    assert until(lambda: parent.poll() is not None, 30), "it hangs"
    out, err = parent.communicate()
    *said, left = out.splitlines()
    assert parent.returncode == 0 and err == "" and said == ["Who?"] * lines.count("say")
    assert left and not any(psutil.pid_exists(int(pid)) for pid in left.split())


def test_ctrl_c_is_for_the_program():
    lines = "try:\n say(); pids()\n time.sleep(60)\nexcept KeyboardInterrupt:\n say(); pids()\n"
    parent = script(lines, start_new_session=True)
    before = [parent.stdout.readline(), parent.stdout.readline()]
    os.killpg(parent.pid, signal.SIGINT)
    out, err = parent.communicate(timeout=30)
    assert (out, err, parent.returncode) == ("".join(before), "", 0)


def test_a_fork_has_workers_of_its_own():
    lines = "say(); pids()\nif child := os.fork():\n os.waitpid(child, 0)\nelse:\n say(); pids()\n os._exit(0)\nsay(); pids()"
    out, err = script(lines, warned="ignore").communicate(timeout=30)
    assert err == ""
    said, pids = out.splitlines()[::2], out.splitlines()[1::2]
    assert said == ["Who?"] * 3 and pids[0] == pids[2] != pids[1]
