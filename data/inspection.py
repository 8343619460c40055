"""Compare a dataset with what is on disk and with its published numbers, and say what to mend."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field

from data.caption_checks import check_captions
from data.decoding import Progress, check_images
from data.findings import Finding, Level
from data.overlap import check_overlap
from data.records import SPLITS, PedesDataset, SplitStatistics, split_statistics


@dataclass(frozen=True)
class FolderCount:
    """How many images the annotation names in a folder, how many of them are missing, and how many lie there besides."""

    folder: str
    named: int
    missing: int
    unnamed: int


@dataclass
class Inspection:
    """What was found: per split and per folder counts, the mean caption length in words, and the findings."""

    found: dict[str, SplitStatistics]
    words_per_caption: float
    folders: list[FolderCount] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether training and evaluation can run on the set."""
        return all(finding.level != "error" for finding in self.findings)

    def add(self, level: Level, text: str) -> None:
        """Append a finding."""
        self.findings.append(Finding(level, text))


def inspect_dataset(
    dataset: PedesDataset,
    *,
    against: PedesDataset | None = None,
    deep: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Check a loaded dataset: splits, captions, identities, and that every image file is there and opens.

    By default the header of each image is read; `deep` decodes all pixels, which finds truncated files. `against` is a
    set that models may have been trained on which are to be evaluated on this one: images of both are looked for.
    """
    captions = [caption for split in SPLITS for record in dataset.split(split) for caption in record.captions]
    words = sum(len(caption.split()) for caption in captions) / max(len(captions), 1)
    inspection = Inspection({name: split_statistics(dataset.split(name)) for name in SPLITS}, words)
    images = list(dict.fromkeys(record.image for split in SPLITS for record in dataset.split(split)))
    _check_splits(dataset, inspection)
    _check_records(dataset, inspection)
    present = _check_files(dataset, images, inspection)
    _check_identities(dataset, present, inspection)
    inspection.findings += check_captions(dataset) + check_overlap(dataset)
    if against is not None:
        inspection.findings += check_overlap(dataset, against)
    _check_pixels(
        dataset, [image for image in images if image in present], inspection, deep, workers, progress
    )
    return inspection


def _check_splits(dataset: PedesDataset, inspection: Inspection) -> None:
    if dataset.expected is None and dataset.annotation is None:
        inspection.add(
            "note",
            "A bare folder has no captions and identities: it can be trained on and searched, not evaluated.",
        )
        return
    published = SPLITS if dataset.expected is not None else ()
    for split in published:
        found, expected = inspection.found[split], getattr(dataset.expected, split)
        if expected.images and not found.images:
            level = "warning" if split == "val" else "error"
            inspection.add(
                level, f"The {split} split is empty: the annotation names no image with split '{split}'."
            )
    if not inspection.found["test"].captions and inspection.found["test"].images:
        inspection.add("error", "No image of the test split has a caption: there is nothing to search for.")
    differing = [split for split in published if inspection.found[split] != getattr(dataset.expected, split)]
    if differing:
        inspection.add(
            "note",
            f"The counts of {' and '.join(differing)} differ from the published ones (table above): fine for a part of the set "
            f"or your own data, but results are then not comparable with published ones.",
        )


def _check_records(dataset: PedesDataset, inspection: Inspection) -> None:
    left_out = dataset.left_out
    if left_out.duplicates:
        inspection.add(
            "note",
            f"{left_out.duplicates:,} record(s) repeat an image and were merged into its first record.",
        )
    if left_out.empty_captions:
        inspection.add("note", f"{left_out.empty_captions:,} empty caption(s) were left out.")
    for split, images in left_out.uncaptioned.items():
        effect = (
            "serve training without captions only"
            if split == "train"
            else "are in the gallery, but nothing searches for them"
        )
        text = f"{len(images):,} {split} image(s) have no caption and {effect}, first {images[0]}."
        inspection.add("note" if split == "train" else "warning", text)
    if left_out.conflicts:
        inspection.add(
            "warning",
            f"{len(left_out.conflicts):,} image(s) are listed with two identities or in two splits, first "
            f"{left_out.conflicts[0]}: mend their records, or hits are counted wrongly.",
        )


def _check_identities(dataset: PedesDataset, present: set[str], inspection: Inspection) -> None:
    if dataset.expected is None and dataset.annotation is None:
        return
    identities = {split: {record.identity for record in dataset.split(split)} for split in SPLITS}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = sorted(identities[first] & identities[second])
        if shared:
            inspection.add(
                "warning",
                f"{len(shared):,} identit{'y is' if len(shared) == 1 else 'ies are'} in both {first} and {second}, first "
                f"{shared[0]}: people seen in training must not be in the test, so check the ids of the annotation.",
            )
    for split in SPLITS:
        with_image = {record.identity for record in dataset.split(split) if record.image in present}
        without = sorted(identities[split] - with_image)
        if without:
            inspection.add(
                "error",
                f"{len(without):,} identities of {split} have no image on disk at all, first {without[0]}.",
            )


def _check_files(dataset: PedesDataset, images: list[str], inspection: Inspection) -> set[str]:
    """Look every image up in a listing of its folder (one system call per folder); returns those that are there."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    for image in images:
        folder, _, name = image.rpartition("/")
        by_folder[folder].append(name)
    present: set[str] = set()
    missing: list[str] = []
    outside: list[str] = []
    differing_case = 0
    for folder, names in sorted(by_folder.items()):
        entries, links = _list_folder(os.path.join(dataset.image_root, folder))
        gone = [name for name in names if name not in entries]
        lowered = {name.lower() for name in entries}
        differing_case += sum(name.lower() in lowered for name in gone)
        paths = {name: f"{folder}/{name}" if folder else name for name in names}
        missing += [paths[name] for name in gone]
        outside += [paths[name] for name in names if name in links and _refused(dataset, paths[name])]
        present.update(paths[name] for name in names if name in entries)
        unnamed = len(entries - set(names))
        inspection.folders.append(FolderCount(folder, len(names), len(gone), unnamed))
    if missing:
        _say_missing(dataset, missing, len(images), differing_case, inspection)
    if outside:
        inspection.add(
            "error",
            f"{len(outside):,} image(s) are links that leave {dataset.image_root}, first {outside[0]}: put copies there.",
        )
    return present - set(outside)


def _list_folder(folder: str) -> tuple[set[str], set[str]]:
    """The names of all files in a folder, and of those that are links; both empty if it cannot be listed."""
    names, links = set(), set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file():
                    names.add(entry.name)
                    if entry.is_symlink():
                        links.add(entry.name)
    except (OSError, ValueError):
        return set(), set()
    return names, links


def _refused(dataset: PedesDataset, image: str) -> bool:
    try:
        dataset.path(image)
    except ValueError:
        return True
    return False


def _say_missing(
    dataset: PedesDataset, missing: list[str], total: int, differing_case: int, inspection: Inspection
) -> None:
    root = dataset.image_root
    first = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    inspection.add("error", f"{len(missing):,} of {total:,} images are missing below {root}: {first}.")
    if not root.is_dir():
        inspection.add("error", f"The image folder {root} does not exist: unpack the images there.")
    else:
        _say_empty_folders(dataset, inspection)
    if differing_case:
        inspection.add(
            "error",
            f"{differing_case:,} of the missing images are there with other upper/lower case: rename the files.",
        )
    for elsewhere in (root.parent, root / root.name, root / dataset.image_root.parent.name / root.name):
        if (elsewhere / missing[0]).is_file():
            inspection.add("error", f"They seem to lie in {elsewhere}: move its folders to {root}.")


def _say_empty_folders(dataset: PedesDataset, inspection: Inspection) -> None:
    """Name the folders that have none of their images: usually a part that was never unpacked."""
    whole = [count for count in inspection.folders if count.folder and count.named == count.missing]
    absent = [count for count in whole if not (dataset.image_root / count.folder).is_dir()]
    empty = [count for count in whole if (dataset.image_root / count.folder).is_dir()]
    for counts, state in ((absent, "missing"), (empty, "there, but without any of the images")):
        if counts:
            shown = ", ".join(f"{count.folder} ({count.named:,} images)" for count in counts[:8])
            more = f" and {len(counts) - 8:,} more" if len(counts) > 8 else ""
            text = f"{len(counts):,} folder(s) of {dataset.image_root} are {state}: {shown}{more}. Unpack them there."
            inspection.add("error", text)


def _check_pixels(
    dataset: PedesDataset,
    images: list[str],
    inspection: Inspection,
    deep: bool,
    workers: int | None,
    progress: Progress | None,
) -> None:
    paths = [os.path.join(dataset.image_root, image) for image in images]
    bad = check_images(paths, deep=deep, workers=workers, progress=progress)
    if bad:
        shown = " ".join(reason for _, reason in bad[:5])
        inspection.add(
            "error",
            f"{len(bad):,} of {len(images):,} images do not open: {shown} Copy them again, or remove their records.",
        )
