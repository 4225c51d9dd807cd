"""Makes the tests independent of how they were started."""

import signal

# A shell starts its background jobs with Ctrl-C ignored, and every process they start inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
