"""Will not end when asked, and neither will its child."""

import os
import signal
import subprocess
import sys
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "child" not in sys.argv:
    subprocess.Popen([sys.executable, __file__, "child"], start_new_session=True)
print(f"pid {os.getpid()}", flush=True)
time.sleep(600)
