"""What gradio has no event for: clicks on the marks of figures and on buttons within HTML, and dials that come to rest. A
script hears them and hands over a mark: a list."""

import json

import gradio as gr

# The figure forgets its listeners when it is drawn anew, hence the look every so often.
LISTEN = """
const listen = () => document.querySelectorAll(BOXES).forEach(box => {
    const figure = box.querySelector('.js-plotly-plot');
    if (!figure || !figure.on || figure._ts === figure._ev) return;
    figure._ts = figure._ev;
    figure.on('plotly_click', event => {
        const mark = event.points.map(point => point.customdata).find(data => data && data[0] !== null);
        if (mark) trigger('select', {mark: Array.isArray(mark) ? mark : [mark]});
    });
});
setInterval(listen, 400);
"""


def listener(*boxes: str) -> gr.HTML:
    """Something without a look whose `select` tells the custom data of a clicked mark in any of these boxes, as
    `event.mark`, a list."""
    chosen = json.dumps(", ".join(f"#{box}" for box in boxes))
    return gr.HTML("", js_on_load=LISTEN.replace("BOXES", chosen), padding=False, elem_classes="ts-nothing")


# Buttons have what they are pressed for in data-act. A dial rests when nothing has moved it for a moment.
DEEDS = """
document.addEventListener('click', event => {
    const pressed = event.target.closest('[data-act]');
    if (!pressed || pressed.disabled) return;
    const act = pressed.dataset.act;
    trigger('select', {mark: JSON.parse(act)});
    [300, 900].forEach(wait => setTimeout(() => {  // what was pressed is drawn anew, and keeps the focus
        if (document.activeElement !== document.body) return;
        [...document.querySelectorAll('[data-act]')].find(other => other.dataset.act === act)?.focus({preventScroll: true});
    }, wait));
});
let rest = 0, strip = '';
const moved = event => {  // also by the button that sets a dial back, and by leaving a number that had to be cut
    const dial = event.target.closest('DIALS');
    if (!dial || (event.type === 'click' && !event.target.closest('button'))) return;
    clearTimeout(rest);
    rest = setTimeout(() => trigger('select', {mark: ['rest']}), 250);
};
['input', 'click', 'focusout'].forEach(name => document.addEventListener(name, moved));
setInterval(() => {  // the present answer of a strip is in sight
    const now = document.querySelector('.ts-strip .ts-now');
    if (now && now.textContent !== strip) now.parentElement.scrollLeft = now.offsetLeft - now.parentElement.offsetLeft - 80;
    strip = now?.textContent ?? '';
}, 500);
"""


def deeds(*dials: str) -> gr.HTML:
    """Like `listener`, for every button with data-act on the page, whose data is the mark, and for these dials: ["rest"]."""
    chosen = ", ".join(f"#{dial}" for dial in dials)
    return gr.HTML("", js_on_load=DEEDS.replace("DIALS", chosen), padding=False, elem_classes="ts-nothing")
