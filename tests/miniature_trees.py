"""Data sets of files in miniature: the real folders, names and list formats, with tiny pictures made by Pillow.

The classes differ from the real ones in their official counts only, each named here; every check runs as it would.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.celeba import CelebA
from bench.data.clothing1m import Clothing1M
from bench.data.waterbirds import Waterbirds
from bench.data.webvision import ImageNetVal, WebVision, WebVision50

SHARED = Path(os.environ.get("BENCH_SHARED") or Path(__file__).resolve().parents[2] / "shared")


def shared_data(folder: str) -> Path:
    """The folder of real files, or skip the test."""
    path = SHARED / "data" / folder
    if not path.is_dir():
        pytest.skip(f"needs the real files in {path} (set BENCH_SHARED)")
    return path


def picture(path: Path, width: int, height: int, *, seed: int = 0, mode: str = "RGB") -> Path:
    """A smooth random picture; the format is that of the suffix."""
    rng = np.random.Generator(np.random.PCG64(seed))
    coarse = rng.integers(0, 256, (4, 5, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(path, quality=90)
    return path


def write(path: Path, lines: list[str], end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


# --- Waterbirds


class TinyWaterbirds(Waterbirds):
    OFFICIAL = {"train": (4, 1, 1, 2), "val": (1, 1, 1, 1), "test": (2, 2, 1, 1)}


def waterbirds(root: Path) -> type[TinyWaterbirds]:
    folder = root / "waterbird_complete95_forest2water2"
    rows, number = ["img_id,img_filename,y,split,place,place_filename"], 0
    for split, counts in enumerate(TinyWaterbirds.OFFICIAL.values()):
        for group, count in enumerate(counts):
            for _ in range(count):
                number += 1
                name = f"{number % 3 + 1:03d}.Some_Bird/Some_Bird_{number:04d}_{number}.jpg"
                picture(folder / name, 40 + number, 30 + 2 * number, seed=number)
                rows.append(f"{number},{name},{group // 2},{split},{group % 2},/o/ocean/0000{number:04d}.jpg")
    write(folder / "metadata.csv", rows)
    return TinyWaterbirds


# --- CelebA


class TinyCelebA(CelebA):
    OFFICIAL = {"train": (3, 2, 2, 1), "val": (1, 1, 1, 1), "test": (2, 1, 1, 1)}


ATTRIBUTES = ["5_o_Clock_Shadow", "Attractive", "Blond_Hair", "Male", "Young"]


def celeba_rows() -> list[tuple[str, list[int], int]]:
    """(name, five attributes of -1 and 1, partition), shuffled so that splits and groups are mixed."""
    groups = [(s, g) for s, counts in enumerate(TinyCelebA.OFFICIAL.values()) for g, c in enumerate(counts) for _ in range(c)]
    order = np.random.Generator(np.random.PCG64(1)).permutation(len(groups))
    rows = []
    for number, at in enumerate(order, 1):
        split, group = groups[at]
        rows.append((f"{number:06d}.jpg", [1, -1, 2 * (group // 2) - 1, 2 * (group % 2) - 1, 1], split))
    return rows


def celeba(root: Path, *, kaggle: bool = False) -> type[TinyCelebA]:
    """torchvision's layout, or the Kaggle edition's with csv files and a doubled folder."""
    rows, folder = celeba_rows(), root / ("celebA/data" if kaggle else "celeba")
    if kaggle:
        attributes = ["image_id," + ",".join(ATTRIBUTES)]
        write(folder / "list_attr_celeba.csv", attributes + [f"{n},{','.join(map(str, v))}" for n, v, _ in rows])
        write(folder / "list_eval_partition.csv", ["image_id,partition", *(f"{name},{split}" for name, _, split in rows)])
    else:
        lines = [str(len(rows)), " ".join(ATTRIBUTES) + " "]
        write(folder / "list_attr_celeba.txt", lines + [f"{n} " + " ".join(f"{x:2d}" for x in v) for n, v, _ in rows])
        write(folder / "list_eval_partition.txt", [f"{name} {split}" for name, _, split in rows], end="\r\n")
    pictures = folder / "img_align_celeba" / ("img_align_celeba" if kaggle else "")
    for number, (name, _, _) in enumerate(rows):
        picture(pictures / name, 178, 218, seed=number)
    return TinyCelebA


# --- WebVision: six classes, of which the subset has three; two pictures of each in both validation sets


class TinyWebVision50(WebVision50):
    num_classes = 3
    CLASSES = 6
    PER_CLASS = 2
    QUOTED = 9
    LINES = {"all": 20, "google": 14, "flickr": 6}


class TinyWebVision(WebVision):
    num_classes = CLASSES = 6
    PER_CLASS = 2
    LINES = TinyWebVision50.LINES


class TinyImageNetVal(ImageNetVal):
    num_classes = 6
    PER_CLASS = 2


WNIDS = ["n01440764", "n01443537", "n01484850", "n01491361", "n01494475", "n01496331"]
WNID_NAMES = ["tench, Tinca tinca", "goldfish, Carassius auratus", "crane", "tiger shark", "crane", "electric ray"]
#: label of each google picture, in the order of the list; nine are below 3
GOOGLE = [0, 0, 1, 5, 2, 2, 3, 1, 4, 1, 2, 5, 3, 0]


def webvision(root: Path, *, ilsvrc: int | None = 3) -> type[TinyWebVision50]:
    """The subset's and the full set's files; `ilsvrc` is the arrangement of ILSVRC12's validation pictures."""
    folder = root / "webvision"
    write(folder / "info/synsets.txt", [f"{wnid} {name}" for wnid, name in zip(WNIDS, WNID_NAMES, strict=True)])
    write(folder / "info/queries_synsets_map.txt", [f"{label + 1} {label + 1}" for label in range(6)])
    google = [f"google/q{label + 1:04d}/a+b-{i}_x.jpg {label}" for i, label in enumerate(GOOGLE)]
    flickr = [f"flickr/q{label + 1:04d}/f{label}.jpg {label}" for label in range(6)]
    write(folder / "info/train_filelist_google.txt", google)
    write(folder / "info/train_filelist_flickr.txt", flickr)
    write(folder / "info/train_filelist_all.txt", google + flickr)
    val = [f"val{i + 1:06d}.jpg {i % 6}" for i in range(12)]
    write(folder / "info/val_filelist.txt", val)
    for number, line in enumerate(google + flickr):
        picture(folder / line.split()[0], 300, 256, seed=number)
    for number, line in enumerate(val):
        picture(folder / "val_images_256" / line.split()[0], 256, 280, seed=100 + number)
    if ilsvrc is not None:
        ilsvrc_validation(folder / "imagenet", ilsvrc)
    return TinyWebVision50


#: label of ILSVRC2012_val_00000001.JPEG, ...
ILSVRC = [4, 1, 2, 0, 3, 5, 5, 2, 1, 0, 3, 4]


def ilsvrc_validation(base: Path, arrangement: int) -> None:
    names = [f"ILSVRC2012_val_{i + 1:08d}.JPEG" for i in range(len(ILSVRC))]
    for number, (name, label) in enumerate(zip(names, ILSVRC, strict=True)):
        below = {1: f"val/{label}/", 2: "val/", 3: f"val/{WNIDS[label]}/", 4: ""}[arrangement]
        picture(base / (below + name), 310, 290, seed=200 + number)
    if arrangement == 2:
        write(base / "imagenet_val.txt", [f"{name} {label}" for name, label in zip(names, ILSVRC, strict=True)])
    if arrangement == 4:
        write(base / "data/ILSVRC2012_validation_to_webvision_labels_ground_truth.txt", [str(label) for label in ILSVRC])


# --- Clothing1M


class TinyClothing1M(Clothing1M):
    LINES = {
        "noisy_train_key_list.txt": 30, "clean_train_key_list.txt": 15, "clean_val_key_list.txt": 14,
        "clean_test_key_list.txt": 16, "noisy_label_kv.txt": 41, "clean_label_kv.txt": 45,
    }  # fmt: skip
    OFFICIAL = {"val": (1,) * 14, "test": (2, 2) + (1,) * 12}
    BOTH = 9


def clothing1m(root: Path, *, lists: str = "annotations", images: bool = True) -> type[TinyClothing1M]:
    """As released; `lists` "" and `images` False is the layout of DivideMix and ELR, lists "label" that of DISC."""
    folder = root / "clothing1m"

    def keys(first: int, count: int) -> list[str]:
        return [f"images/{i % 10}/{i % 7:02d}/{i * 37},{i * 101}.jpg" for i in range(first, first + count)]

    noisy, train, val, test = keys(0, 30), keys(100, 15), keys(200, 14), keys(300, 16)
    web = {key: i % 14 for i, key in enumerate(noisy)}
    clean = {key: i % 14 for part in (train, val, test) for i, key in enumerate(part)}
    both = {**{key: (clean[key] + 2 * (i % 3)) % 14 for i, key in enumerate(train[3:12])}, val[0]: 3, test[5]: 2}  # 6 of 9 differ
    for name, part in (("noisy_train", noisy), ("clean_train", train), ("clean_val", val), ("clean_test", test)):
        write(folder / lists / f"{name}_key_list.txt", part)
    shuffled = np.random.Generator(np.random.PCG64(2)).permutation(len(clean))
    pairs = list(clean.items())
    write(folder / lists / "clean_label_kv.txt", [f"{pairs[i][0]} {pairs[i][1]}" for i in shuffled])
    write(folder / lists / "noisy_label_kv.txt", [f"{key} {label}" for key, label in {**both, **web}.items()])
    for number, key in enumerate([*noisy, *train, *val, *test]):
        picture(folder / (key if images else key.removeprefix("images/")), 260, 300, seed=number)
    return TinyClothing1M
