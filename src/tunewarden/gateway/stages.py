"""The states of an exchange (`exchange.py`).

What each event does (empty: nothing):

    event                 RECEIVING     READY       PARSING    ENGINE         RESPONDING      WRITTEN   ABORTED
    `advance`             authenticate  parse
                                        -> PARSING,
                                        ENGINE
    parsed                                          -> ENGINE
    `complete`            -> READY
    `head_received`,                                           write          write
     `received`                                                -> RESPONDING  at its end
                                                                              -> WRITTEN
    `failed`                                                   error          error event
                                                               -> OVER        -> WRITTEN
    `refuse`              -> OVER       -> OVER     -> OVER    -> OVER
    `_revoked`: model                                          error          drop, or wait
     deleted, key revoked                                      -> OVER        -> ABORTED      -> ABORTED
    sent, acknowledged                                                                        -> OVER   -> OVER
    `lost` (client gone)  -> OVER       -> OVER     -> OVER    -> OVER        -> OVER         -> OVER   -> OVER
"""

from enum import Enum, auto


class Stage(Enum):
    """The state of an exchange."""

    RECEIVING = auto()  # its body is arriving
    READY = auto()  # its body is complete; it waits for its turn on the connection
    PARSING = auto()  # a long body is parsed by another process
    ENGINE = auto()  # admitted and sent to the engine; nothing was written yet
    RESPONDING = auto()  # part of the response was written
    WRITTEN = auto()  # all of it was; the last bytes may still be buffered
    ABORTED = auto()  # aborted; waiting until what was sent is acknowledged
    OVER = auto()


# By name: a look-up in the enum's class takes longer than the rest of a comparison.
RECEIVING, READY, PARSING, ENGINE, RESPONDING, WRITTEN, ABORTED, OVER = Stage
