"""Transferscope: builds the page out of ui/, reads settings, launches.

Settings are environment variables: gradio's own GRADIO_SERVER_NAME and GRADIO_SERVER_PORT for the address, and
TRANSFERSCOPE_HOSTED=1 for a page that strangers use (a Space is one without being told).
"""

import logging
import os
import threading
import warnings

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from transformers.utils import logging as transformers_logging

from analysis import kernel
from transfer import mixing, template
from ui.page import build
from ui.theme import CSS, theme

transformers_logging.disable_progress_bar()
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
logging.getLogger("httpx").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", category=DeprecationWarning)

threading.Thread(target=lambda: (kernel.warm(), mixing.warm(), template.warm()), daemon=True).start()
demo = build()
demo.queue(default_concurrency_limit=8, max_size=64)

if __name__ == "__main__":
    demo.launch(
        theme=theme(),
        css=CSS,
        show_error=True,
        max_file_size="20mb",
        footer_links=["settings"],
        run_history=False,  # keys of endpoints are typed here
    )
