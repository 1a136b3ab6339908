# SPDX-License-Identifier: Apache-2.0
"""The embedded digits, the readers of files on disk, the loader and the augmentation."""

import gzip
import struct
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from fastconv.data import ArrayDataset, DataLoader, RandomAffine

IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}


def idx_bytes(array: np.ndarray, code: int) -> bytes:
    header = struct.pack(">BBBB", 0, 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(">" + IDX_DTYPES[code]).tobytes()


def write_mnist(folder: Path, *, joint: str = "-", packed: bool = False) -> dict[str, np.ndarray]:
    """Four files with 6 and 3 images of 28 x 28; returns what is in them."""
    generator = np.random.default_rng(7)
    written = {}
    for prefix, count in (("train", 6), ("t10k", 3)):
        written[f"{prefix}-images"] = generator.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        written[f"{prefix}-labels"] = np.arange(count, dtype=np.uint8) % 3
    for stem, array in written.items():
        content = idx_bytes(array, 0x08)
        name = f"{stem}{joint}idx{array.ndim}-ubyte"
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return written


# The embedded digits


def test_digits_are_all_there_scaled_and_labelled():
    train, test = fc.data.digits()
    assert train.images.shape == (1438, 1, 8, 8) and test.images.shape == (359, 1, 8, 8)
    for part in (train, test):
        assert part.images.dtype == np.float32 and part.labels.dtype == np.int64
        assert part.images.min() == 0.0 and part.images.max() == 1.0
        assert part.classes == tuple("0123456789")
    # Sums over the file as UCI publishes it: ink in all images, and images per digit.
    ink = (train.images.sum(dtype=np.float64) + test.images.sum(dtype=np.float64)) * 16
    assert ink == 561718.0
    counts = np.bincount(train.labels) + np.bincount(test.labels)
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_split_is_stratified_disjoint_and_fixed():
    train, test = fc.data.digits()
    assert np.bincount(test.labels).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    again, _ = fc.data.digits()
    np.testing.assert_array_equal(train.images, again.images)
    other, _ = fc.data.digits(seed=1)
    assert not np.array_equal(train.images, other.images)
    # Every image of the file is in exactly one part: the rows of both, sorted, are those of the file.
    with gzip.open(str(files("fastconv.data") / "digits.csv.gz"), "rt") as text:
        expected = np.loadtxt(text, delimiter=",")[:, :64] / 16
    both = np.concatenate([train.images, test.images]).reshape(-1, 64)
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, expected.tolist()))


def test_digits_at_32_pixels_keep_the_mean_ink():
    small, _ = fc.data.digits(8)
    large, _ = fc.data.digits(32)
    assert large.images.shape == (1438, 1, 32, 32) and large.images.dtype == np.float32
    np.testing.assert_array_equal(small.labels, large.labels)
    # Enlarging four times about pixel centres keeps the sum but for the clamped border.
    inner = small.images[:, :, 1:-1, 1:-1].mean(axis=(1, 2, 3))
    assert np.corrcoef(inner, large.images[:, :, 4:-4, 4:-4].mean(axis=(1, 2, 3)))[0, 1] > 0.99


@pytest.mark.parametrize("size", [0, 16, 28, "32"])
def test_digits_refuses_other_sizes(size):
    with pytest.raises(ValueError, match=r"digits: size is .* expected 8 or 32"):
        fc.data.digits(size)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_digits_refuses_impossible_fractions(fraction):
    with pytest.raises(ValueError, match=r"test_fraction is .*; expected a number between 0 and 1"):
        fc.data.digits(test_fraction=fraction)


def test_notice_is_beside_the_data():
    text = (files("fastconv.data") / "NOTICE").read_text()
    assert "E. Alpaydin and C. Kaynak" in text and "BSD 3-Clause" in text and "scikit-learn developers" in text


# Sizes of images


def test_resize_bilinear_by_hand():
    row = np.array([[0.0, 4.0]], np.float32)
    np.testing.assert_array_equal(fc.data.resize_bilinear(row, (1, 4)), [[0, 1, 3, 4]])
    np.testing.assert_array_equal(fc.data.resize_bilinear(row.T, (4, 1))[:, 0], [0, 1, 3, 4])
    np.testing.assert_array_equal(fc.data.resize_bilinear(np.array([[0, 2, 4, 6]], np.float32), (1, 2)), [[1, 5]])


def test_resize_bilinear_keeps_constants_identity_and_ramps():
    image = np.random.default_rng(3).normal(size=(2, 3, 5, 7)).astype(np.float32)
    np.testing.assert_array_equal(fc.data.resize_bilinear(image, (5, 7)), image)
    np.testing.assert_array_equal(
        fc.data.resize_bilinear(np.full((4, 4), 2.5, np.float32), (9, 3)), np.full((9, 3), 2.5)
    )
    ramp = np.arange(8, dtype=np.float32)[np.newaxis].repeat(8, 0)
    wide = fc.data.resize_bilinear(ramp, (8, 32))
    np.testing.assert_allclose(np.diff(wide[0, 2:-2]), 0.25, atol=1e-6)


@pytest.mark.parametrize(("shape", "size"), [((3,), (2, 2)), ((0, 4), (2, 2)), ((4, 4), (0, 2)), ((4, 4), (2,))])
def test_resize_bilinear_refuses_what_has_no_plane(shape, size):
    with pytest.raises(ValueError, match="resize_bilinear"):
        fc.data.resize_bilinear(np.zeros(shape, np.float32), size)


def test_fit_square_pads_a_margin_and_enlarges_the_rest():
    image = np.ones((2, 1, 28, 28), np.float32)
    padded = fc.data.fit_square(image, 32)
    assert padded.shape == (2, 1, 32, 32) and padded.sum() == image.sum()
    assert padded[:, :, 2:30, 2:30].min() == 1.0 and padded[:, :, :2].max() == 0.0
    assert fc.data.fit_square(image[..., :8, :8], 32).min() == 1.0
    assert fc.data.fit_square(padded, 32) is padded
    with pytest.raises(ValueError, match="images are 64x64; expected at most 32x32"):
        fc.data.fit_square(np.zeros((1, 1, 64, 64), np.float32), 32)
    with pytest.raises(ValueError, match=r"expected \(N, C, H, W\)"):
        fc.data.fit_square(image[0], 32)


# IDX


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("code", sorted(IDX_DTYPES))
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 3, 4), (0, 28, 28)])
def test_read_idx_every_dtype_and_rank(tmp_path, code, shape, packed):
    array = np.random.default_rng(code).integers(0, 100, shape).astype(IDX_DTYPES[code])
    content = idx_bytes(array, code)
    path = tmp_path / "values"
    path.write_bytes(gzip.compress(content) if packed else content)
    back = fc.data.read_idx(path)
    assert back.dtype == np.dtype(IDX_DTYPES[code]) and back.dtype.isnative and back.shape == shape
    np.testing.assert_array_equal(back, array)


WHOLE = idx_bytes(np.arange(12, dtype=np.uint8).reshape(3, 4), 0x08)
BROKEN_IDX = {
    "empty": (b"", "not an IDX file"),
    "foreign": (b"PK\x03\x04 a zip archive", "not an IDX file: it begins with b'PK"),
    "dtype": (b"\0\0\x0a\1\0\0\0\0", "its dtype is 0x0a; expected one of 0x08"),
    "axes": (WHOLE[:9], "cut short: it announces 2 axes"),
    "values": (WHOLE[:-1], r"cut short: shape \(3, 4\) of uint8 needs 12 bytes of values, got 11"),
    "trailing": (WHOLE + b"!", "goes on after the 12 bytes"),
    "enormous": (b"\0\0\x08\3" + b"\xff" * 12 + b"few", "cut short: shape"),
    "gzip cut": (gzip.compress(WHOLE)[:-10], "broken gzip data|cut short"),
    "gzip garbage": (b"\x1f\x8b" + b"\x08garbage that is no stream", "broken gzip data"),
}


@pytest.mark.parametrize("name", BROKEN_IDX)
def test_read_idx_says_what_is_broken_and_where(tmp_path, name):
    content, message = BROKEN_IDX[name]
    path = tmp_path / "broken.idx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        fc.data.read_idx(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("joint", ["-", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_folder_knows_the_mnist_names(tmp_path, joint, packed):
    written = write_mnist(tmp_path, joint=joint, packed=packed)
    for train, test in (fc.data.idx_folder(tmp_path), fc.data.load(tmp_path)):
        assert train.images.shape == (6, 1, 28, 28) and train.images.dtype == np.float32
        np.testing.assert_array_equal(train.images[:, 0], written["train-images"] / np.float32(255))
        np.testing.assert_array_equal(test.labels, written["t10k-labels"])


def test_idx_folder_names_the_missing_file(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="has no t10k-labels-idx1-ubyte"):
        fc.data.idx_folder(tmp_path)


def test_idx_folder_refuses_parts_that_do_not_belong_together(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(5, np.uint8), 0x08))
    with pytest.raises(ValueError, match=r"train part\).*images have shape \(6, 1, 28, 28\), labels \(5,\)"):
        fc.data.idx_folder(tmp_path)


# npz


def npz_arrays(count: int = 20) -> dict[str, np.ndarray]:
    images = np.random.default_rng(1).random((count, 8, 8)).astype(np.float32)
    return {"images": images, "labels": np.arange(count) % 4}


def test_npz_with_its_own_test_part(tmp_path):
    arrays = npz_arrays()
    path = tmp_path / "set.npz"
    np.savez(path, **arrays, test_images=arrays["images"][:3], test_labels=arrays["labels"][:3])
    train, test = fc.data.load(path)
    assert (len(train), len(test)) == (20, 3) and train.classes == test.classes == ("0", "1", "2", "3")
    np.testing.assert_array_equal(train.images[:, 0], arrays["images"])


def test_npz_without_test_part_is_split_by_class(tmp_path):
    np.savez(tmp_path / "set.npz", **npz_arrays())
    train, test = fc.data.load(tmp_path, seed=5)
    assert np.bincount(test.labels).tolist() == [1, 1, 1, 1] and len(train) == 16
    np.testing.assert_array_equal(fc.data.load(tmp_path, seed=5)[1].images, test.images)


def test_npz_folder_with_train_and_test_files(tmp_path):
    np.savez(tmp_path / "train.npz", **npz_arrays(12))
    np.savez(tmp_path / "test.npz", **npz_arrays(4))
    train, test = fc.data.load(tmp_path)
    assert (len(train), len(test)) == (12, 4)


def test_npz_errors(tmp_path):
    np.savez(tmp_path / "a.npz", pictures=np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match="has no images and no labels; it holds pictures"):
        fc.data.npz(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", images=np.zeros((2, 4, 4), np.int32), labels=np.zeros(2, int))
    with pytest.raises(ValueError, match="images are int32; expected uint8"):
        fc.data.npz(tmp_path / "b.npz")
    with pytest.raises(FileNotFoundError, match=r"holds 2 \.npz files"):
        fc.data.npz(tmp_path)
    np.savez(tmp_path / "c.npz", images=np.array([{}, {}], dtype=object), labels=np.zeros(2, int))
    with pytest.raises(ValueError, match=r"c\.npz: cannot be read"):
        fc.data.npz(tmp_path / "c.npz")
    (tmp_path / "d.npz").write_text("no archive")
    with pytest.raises(ValueError, match=r"d\.npz: not an \.npz archive"):
        fc.data.npz(tmp_path / "d.npz")


def test_load_names_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder; expected digits"):
        fc.data.load(tmp_path / "nowhere")
    assert fc.data.load("digits", size=32)[0].images.shape[2:] == (32, 32)


# ArrayDataset and DataLoader


def counting(count: int = 10) -> ArrayDataset:
    return ArrayDataset(np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1), np.arange(count) % 2)


def order(loader: DataLoader) -> list[int]:
    return [int(value) for images, _ in loader for value in images.reshape(-1)]


def test_array_dataset_checks_its_arrays():
    assert counting()[3][1] == 1 and len(counting()) == 10
    with pytest.raises(ValueError, match=r"images have shape \(3, 2\), labels \(4,\)"):
        ArrayDataset(np.zeros((3, 2)), np.zeros(4, int))
    with pytest.raises(TypeError, match="labels are float64; expected integers"):
        ArrayDataset(np.zeros((3, 2)), np.zeros(3))
    with pytest.raises(ValueError, match=r"labels run from 0 to 5; expected 0\.\.1"):
        ArrayDataset(np.zeros((2, 2)), np.array([0, 5]), ["a", "b"])
    with pytest.raises(ValueError, match="labels run from -1 to 1"):
        ArrayDataset(np.zeros((2, 2)), np.array([-1, 1]))


def test_loader_batches_and_drop_last():
    sizes = [len(labels) for _, labels in DataLoader(counting(), 4)]
    assert sizes == [4, 4, 2] and len(DataLoader(counting(), 4)) == 3
    dropping = DataLoader(counting(), 4, drop_last=True)
    assert [len(labels) for _, labels in dropping] == [4, 4] and len(dropping) == 2
    assert order(DataLoader(counting(), 4)) == list(range(10))
    with pytest.raises(ValueError, match="batch_size is 0"):
        DataLoader(counting(), 0)


def test_loader_shuffles_every_epoch_anew_and_reproducibly():
    loader, twin, other = (DataLoader(counting(), 3, shuffle=True, seed=seed) for seed in (5, 5, 6))
    first, second = order(loader), order(loader)
    assert first != second and sorted(first) == sorted(second) == list(range(10))
    assert [order(twin), order(twin)] == [first, second]
    assert order(other) != first
    # Pairs stay together.
    assert all((images.reshape(-1) % 2 == labels).all() for images, labels in loader)


def test_loader_order_is_pinned():
    # The promise that a seed means the same order with every version of NumPy and of this library.
    assert order(DataLoader(counting(), 3, shuffle=True, seed=0)) == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]


def test_loader_continues_from_its_state():
    loader = DataLoader(counting(), 4, shuffle=True, seed=9)
    order(loader)
    state = loader.state_dict()
    expected = [order(loader), order(loader)]
    resumed = DataLoader(counting(), 4, shuffle=True, seed=1)
    resumed.load_state_dict(state)
    assert [order(resumed), order(resumed)] == expected


def test_loader_without_seed_follows_the_one_generator():
    fc.manual_seed(3)
    first = order(DataLoader(counting(), 4, shuffle=True))
    second = order(DataLoader(counting(), 4, shuffle=True))
    fc.manual_seed(3)
    assert order(DataLoader(counting(), 4, shuffle=True)) == first != second
    assert order(DataLoader(counting(), 4, shuffle=True, seed=np.random.default_rng(3))) == first


# Augmentation


def test_random_affine_of_nothing_changes_nothing():
    images = np.random.default_rng(2).random((5, 2, 6, 9)).astype(np.float32)
    out = RandomAffine()(images, np.random.default_rng(0))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, images, atol=1e-6)


def test_random_affine_is_seeded_and_stays_in_range():
    train, _ = fc.data.digits(32)
    images = train.images[:16]
    change = RandomAffine(degrees=10, zoom=0.1, shift=2)
    out = change(images, np.random.default_rng(4))
    assert out.shape == images.shape and out.dtype == np.float32 and out.min() >= 0 and out.max() <= 1
    np.testing.assert_array_equal(out, change(images, np.random.default_rng(4)))
    assert not np.array_equal(out, images)


def test_random_affine_shifts_by_at_most_its_limit():
    image = np.zeros((64, 1, 21, 21), np.float32)
    image[:, :, 10, 10] = 1
    out = RandomAffine(shift=3)(image, np.random.default_rng(6))
    _, _, row, column = np.nonzero(out)
    assert abs(row - 10).max() <= 4 and abs(column - 10).max() <= 4 and row.std() > 1
    # A bilinear shift spreads a pixel over four and keeps its sum.
    np.testing.assert_allclose(out.sum(axis=(1, 2, 3)), 1, atol=1e-5)


def test_random_affine_half_turn_point_reflects():
    class HalfTurn(np.random.Generator):
        def uniform(self, low=0.0, high=1.0, size=None):
            return np.full(size, high)

    images = np.random.default_rng(8).random((2, 1, 5, 5)).astype(np.float32)
    out = RandomAffine(degrees=180)(images, HalfTurn(np.random.PCG64(0)))
    np.testing.assert_allclose(out, images[:, :, ::-1, ::-1], atol=1e-5)


def test_loader_applies_the_transform_seeded_by_epoch():
    def noise(images, generator):
        return images + generator.random(images.shape).astype(np.float32)

    runs = [DataLoader(counting(), 5, seed=2, transform=noise) for _ in range(2)]
    epochs = [[np.concatenate([images for images, _ in loader]) for _ in range(2)] for loader in runs]
    np.testing.assert_array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0][0], epochs[0][1])
