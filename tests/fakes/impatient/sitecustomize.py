"""On the PYTHONPATH of a control: no worker waits for acknowledgements before it resets a connection."""

from tunewarden.gateway import exchange_ending
from tunewarden.serving import admission

NAME = "ACK_SECONDS"
for module in (exchange_ending, admission):
    assert hasattr(module, NAME), "else this is no control"
    setattr(module, NAME, 0.0)
