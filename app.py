"""Transferscope: builds the page out of ui/, reads settings, launches.

Settings are environment variables: HOST and PORT (127.0.0.1:7860; gradio's own GRADIO_SERVER_NAME and
GRADIO_SERVER_PORT work too), TRANSFERSCOPE_HOSTED=1 for a page that strangers use (Spaces set it by themselves).
"""

import logging
import os
import warnings

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from transformers.utils import logging as transformers_logging

from ui.page import build
from ui.theme import CSS, theme

transformers_logging.disable_progress_bar()
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
logging.getLogger("httpx").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", category=DeprecationWarning)

demo = build()
demo.queue(default_concurrency_limit=8, max_size=64)

if __name__ == "__main__":
    demo.launch(
        theme=theme(),
        css=CSS,
        server_name=os.environ.get("HOST") or None,
        server_port=int(os.environ["PORT"]) if os.environ.get("PORT") else None,
        show_error=True,
        footer_links=["settings"],
    )
