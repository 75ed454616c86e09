"""Takes more memory than it may."""

import time

taken = [bytearray(b"x" * 32 * 1024 * 1024) for _ in range(12)]
time.sleep(600)
