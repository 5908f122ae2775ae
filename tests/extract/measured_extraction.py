"""Run by `test_memory`: extracts the images of a folder and prints the most memory it added.

Arguments: folder of images, output, images per pass. In bytes. The detector is slower than
decoding, so whatever is not held back piles up.
"""

import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from semvlp.extract.detectors.detector import Proposals
from semvlp.extract.images.resize import Resized
from semvlp.extract.pipeline import ExtractSettings, extract
from tests.extract.fake_detector import FakeDetector

SECONDS_PER_IMAGE = 0.05


def resident() -> int:
    """Bytes of this process in memory; its peak is that of loading PyTorch, which says nothing."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Slow(FakeDetector):
    most = 0

    def detect(self, images: Sequence[Resized]) -> list[Proposals]:
        time.sleep(SECONDS_PER_IMAGE * len(images))
        self.most = max(self.most, resident())
        return super().detect(images)


def main() -> None:
    images, out, images_per_pass = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    detector = Slow()
    detector.images_per_pass = images_per_pass
    before = resident()
    extract(images, out, ExtractSettings(workers=2), detector=detector)
    assert sum(detector.batches) == len(list(images.iterdir()))
    print(detector.most - before)


if __name__ == "__main__":
    main()
