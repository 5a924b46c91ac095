import re

import pytest

from stapes.errors import WeightsError
from stapes.hub import available, packs
from stapes.hub.table import find_pack


def test_every_pack_is_pinned_and_whisper_has_two_copies():
    table = packs()
    assert set(table) == {"whisper-tiny.en", "whisper-base", "smollm2-135m-instruct", "en-core-web-md"}
    for name, pack in table.items():
        assert pack.name == name
        assert pack.licence in ("MIT", "Apache-2.0")
        assert len(pack.copies) == (2 if name.startswith("whisper") else 1)
        digests = [pack.tensors, *(copy.sha256 for copy in pack.copies)]
        digests += [package.sha256 for copy in pack.copies for package in copy.packages]
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
        for copy in pack.copies:
            names = {package.name for package in copy.packages}
            assert {place.split("/")[0] for place in [*copy.file, *copy.extras.values()]} <= names


def test_unknown_pack_names_the_nearest():
    with pytest.raises(WeightsError, match="pack:whisper-bse: no such pack; did you mean 'whisper-base'"):
        find_pack("whisper-bse")


def test_available_lists_every_pack_as_not_fetched_in_an_empty_cache():
    rows = {row.name: row for row in available()}
    assert rows.keys() == packs().keys()
    assert all(row.folder is None for row in rows.values())
    assert rows["whisper-base"].download_bytes == 66_273_783 + 67_069_883
