"""Where the parts of a serialized ROS message lie (XCDR1, little endian: what ROS 2 middlewares write).

A serializer leaves padding bytes as it finds them, so two serializations of one message differ there: compare
messages under a mask only.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Encapsulation header: representation identifier and options, 2 bytes each; alignment counts from its end.
ENCAPSULATION = 4
LITTLE_ENDIAN = b"\x00\x01"


class CdrLayout:
    """Built by walking through a message's fields in order; offsets count from the first byte of the data.

    Attributes:
        length: bytes so far.
    """

    def __init__(self) -> None:
        self.length = ENCAPSULATION
        self._meaningful: list[tuple[int, int]] = [(0, 2)]
        self._fixed: list[tuple[int, int]] = [(0, 2)]

    def field(self, size: int, count: int = 1, *, fixed: bool = False) -> int:
        """Append `count` primitives of `size` bytes, returns their offset. fixed: the layout's own."""
        if count:
            self.length += -(self.length - ENCAPSULATION) % size
        offset = self.length
        self.length += size * count
        self._meaningful.append((offset, self.length))
        if fixed:
            self._fixed.append((offset, self.length))
        return offset

    def string(self, text: str) -> None:
        """Append a string: length, bytes, a zero."""
        self.field(4, fixed=True)
        self.field(1, len(text.encode()) + 1, fixed=True)

    def strings(self, texts: Sequence[str]) -> None:
        """Append a sequence of strings."""
        self.field(4, fixed=True)
        for text in texts:
            self.string(text)

    def stamped_header(self, frame_id: str) -> int:
        """Append a std_msgs/Header; returns the offset of the stamp, i32 seconds and u32 nanoseconds."""
        offset = self.field(4, 2)
        self.string(frame_id)
        return offset

    def doubles(self, count: int) -> int:
        """Append a sequence of float64; returns the offset of the first one."""
        self.field(4, fixed=True)
        return self.field(8, count)

    def fixed_mask(self) -> NDArray[np.uint8]:
        """[length], 255 where the bytes are the layout's own (lengths, strings), 0 for values and padding."""
        return self._mask(self._fixed)

    def meaningful_mask(self) -> NDArray[np.uint8]:
        """[length], 255 everywhere but in padding."""
        return self._mask(self._meaningful)

    def _mask(self, ranges: list[tuple[int, int]]) -> NDArray[np.uint8]:
        mask = np.zeros(self.length, dtype=np.uint8)
        for start, stop in ranges:
            mask[start:stop] = 255
        return mask
