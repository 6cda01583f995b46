"""Works one NVIDIA GPU for some seconds by filling its memory over and over, through the driver's own library.

    python -m tests.hardware.gpu_load GPU-<uuid> SECONDS

Needs no CUDA toolkit. Source of truth: cuda.h (the driver API).
"""

import ctypes
import os
import sys
import time

BYTES = 2**30
FILLS_BEFORE_WAITING = 50


def main() -> int:
    """Fill memory until the time is over; exit status 1 if the driver refuses."""
    uuid, seconds = sys.argv[1], float(sys.argv[2])
    os.environ["CUDA_VISIBLE_DEVICES"] = uuid
    cuda = ctypes.CDLL("libcuda.so.1")

    def call(name: str, *arguments: object) -> None:
        status = getattr(cuda, name)(*arguments)
        if status != 0:
            raise SystemExit(f"gpu_load: {name} says {status}")

    device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuCtxCreate_v2", ctypes.byref(context), 0, device)
    call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(BYTES))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for value in range(FILLS_BEFORE_WAITING):
            call("cuMemsetD32Async", memory, ctypes.c_uint(value), ctypes.c_size_t(BYTES // 4), None)
        call("cuCtxSynchronize")
    return 0


if __name__ == "__main__":
    sys.exit(main())
