"""The Pocket family: tiny Llama models of an invented little world, and the command that trains them."""
