"""The process that ``benchmarks.fid`` times: FID of a folder of PNG files against stored statistics.

python -m benchmarks.fid_folder [--bf16] FOLDER REFERENCE.npz
python -m benchmarks.fid_folder --save REFERENCE.npz FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.fid import read_pngs
from gs_search.measure.features import inception_features
from gs_search.measure.fid import Reference, frechet_distance


def main(arguments: list[str]) -> None:
    if arguments[0] == "--save":
        Reference.from_features(inception_features(read_pngs(Path(arguments[2])))).save(Path(arguments[1]))
        return
    bf16 = arguments[0] == "--bf16"
    folder, reference = map(Path, arguments[bf16:])
    features = inception_features(read_pngs(folder), precision="bf16" if bf16 else "float32")
    print("FID: ", frechet_distance(features, Reference.load(reference)))


if __name__ == "__main__":
    main(sys.argv[1:])
