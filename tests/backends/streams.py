"""What every package for CUDA must be able to do, whichever device it is on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from practise_backends.runtimes.tensorrt.cuda import Cuda


def there_and_back(stream: Cuda, side: int = 5) -> float:
    """Bytes go to the device and come back as they were, and nothing is kept; milliseconds between the events around it."""
    with stream.active():
        array, back = (stream.pinned((side, side), np.dtype("float16")) for _ in range(2))
        array[...], back[...] = np.arange(side * side).reshape(side, side) % 1000, 0
        buffer = stream.allocate(array.nbytes)
        first, last = stream.event(), stream.event()
        first.record()
        stream.copy_in(buffer, array)
        stream.copy_out(back, buffer)
        last.record()
        stream.synchronise()
        np.testing.assert_array_equal(back, array)
        took_ms = last.since_ms(first)
        buffer.free()
        del array, back, first, last
    return took_ms


def in_another_thread(stream: Cuda) -> float:
    """The same, as under LoadGen."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(there_and_back, stream).result()
