"""What can go wrong, in sentences for the person on the page: what is wrong, with the file or tensor, and what to do."""


class TransferscopeError(Exception):
    """The base of all of them. The page shows the text of these, and never a traceback."""


class CheckpointError(TransferscopeError):
    """A folder that is no readable safetensors checkpoint."""


class HubError(TransferscopeError):
    """The Hugging Face Hub, or the way to it, said no."""


class TripleError(TransferscopeError):
    """Checkpoints that do not fit one another."""


class PointError(TransferscopeError):
    """A coefficient that is no finite number, or a checkpoint asked for that the triple lacks."""


class ReadError(TransferscopeError):
    """Weights that could not be read as their header promised."""


class LiveError(TransferscopeError):
    """A model that could not be built, or does not fit in memory."""


class MergeError(TransferscopeError):
    """A checkpoint that could not be written."""


class ChatError(TransferscopeError):
    """A prompt that cannot be asked, or a pane that broke off."""


class TaskError(TransferscopeError):
    """A task file or a text that cannot be scored."""


class Cancelled(TransferscopeError):
    """Somebody pressed stop. What was done until then is kept."""
