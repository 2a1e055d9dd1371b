"""The look: a calm theme of our own, system fonts only, light and dark."""

from pathlib import Path

import gradio as gr

CSS = (Path(__file__).resolve().parent.parent / "assets" / "style.css").read_text(encoding="utf-8")

violet = gr.themes.Color(
    name="violet", c50="#f5f3ff", c100="#ece8fe", c200="#dbd4fd", c300="#c0b3fa", c400="#a08af5", c500="#8b5cf6",
    c600="#6d3fe0", c700="#5a30bd", c800="#4a2a99", c900="#3d257a", c950="#24144d",
)  # fmt: skip
slate = gr.themes.Color(
    name="slate", c50="#f8f9fc", c100="#f0f2f7", c200="#e2e6ee", c300="#cbd2de", c400="#98a2b5", c500="#667085",
    c600="#4a5468", c700="#343d50", c800="#1f2636", c900="#151a27", c950="#0d111b",
)  # fmt: skip


def theme() -> gr.themes.Base:
    """The gradio theme."""
    return gr.themes.Base(
        primary_hue=violet,
        secondary_hue=violet,
        neutral_hue=slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
    ).set(
        body_background_fill="#f7f8fb",
        body_background_fill_dark="#0f131e",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#171c2a",
        block_background_fill="#ffffff",
        block_background_fill_dark="#171c2a",
        block_border_width="1px",
        block_border_color="#e2e6ee",
        block_border_color_dark="#283044",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_shadow="none",
        button_primary_background_fill="#6d3fe0",
        button_primary_background_fill_hover="#5a30bd",
        button_primary_background_fill_dark="#6d3fe0",
        button_primary_background_fill_hover_dark="#7d52ea",
        button_primary_text_color="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#1f2636",
        button_secondary_border_color="#cbd2de",
        button_secondary_border_color_dark="#343d50",
        button_cancel_background_fill="#ffffff",
        button_cancel_background_fill_dark="#1f2636",
        button_cancel_text_color="#b42318",
        button_cancel_text_color_dark="#fda29b",
        button_cancel_border_color="#cbd2de",
        button_cancel_border_color_dark="#343d50",
        input_background_fill="#ffffff",
        input_background_fill_dark="#1b2130",
        input_border_width="1px",
        input_border_color="#cbd2de",
        input_border_color_dark="#343d50",
        button_border_width="1px",
        button_border_width_dark="1px",
        button_primary_border_color="#6d3fe0",
        button_primary_border_color_dark="#6d3fe0",
        layout_gap="14px",
        slider_color="#6d3fe0",
        slider_color_dark="#a08af5",
    )
