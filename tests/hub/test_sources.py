from pathlib import Path

import pytest

from stapes.errors import WeightsError
from stapes.hub import cache_folder, resolve, within
from stapes.hub.sources import with_kind


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_kinds_are_guessed(folder: Path):
    assert with_kind("whisper-base") == "pack:whisper-base"
    assert with_kind(str(folder)) == f"path:{folder}"
    assert with_kind("openai/whisper-base") == "hf:openai/whisper-base"
    assert with_kind("openai/whisper-base@v1") == "hf:openai/whisper-base@v1"
    assert with_kind("pack:x") == "pack:x"
    with pytest.raises(WeightsError, match=r"whisper-bas: no such weights.*did you mean 'whisper-base'"):
        with_kind("whisper-bas")


def test_a_folder_is_taken_as_it_is(folder: Path):
    for name in (f"path:{folder}", str(folder), [f"path:{folder}"]):
        weights = resolve(name)
        assert (weights.folder, weights.source, weights.revision) == (folder, f"path:{folder}", None)


def test_sources_are_tried_in_order(folder: Path):
    weights = resolve(["path:/no/such/folder", f"path:{folder}", "path:/never/asked"])
    assert weights.folder == folder


def test_when_all_fail_one_line_names_each_source_and_its_reason():
    with pytest.raises(WeightsError) as caught:
        resolve(["path:/no/such/folder", "pack:nothing"])
    line = str(caught.value)
    assert "path:/no/such/folder: no such folder" in line
    assert "pack:nothing: no such pack" in line
    assert line.endswith("mend one of these, or name a folder that holds the weights (path:/folder)")
    assert "\n" not in line
    with pytest.raises(WeightsError, match=r"^path:/no/such/folder: no such folder, expected"):
        resolve("path:/no/such/folder")
    with pytest.raises(WeightsError, match="no source given"):
        resolve([])


def test_what_a_folder_lacks_is_named(folder: Path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model.safetensors is missing"):
        resolve(str(folder))
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    with pytest.raises(WeightsError, match=r"model-00001-of-00002.safetensors is missing"):
        resolve(str(folder))
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")
    assert resolve(str(folder)).folder == folder
    (folder / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="not JSON"):
        resolve(str(folder))


def test_a_folder_beside_the_file_that_names_it(tmp_path: Path):
    """Only what is there is meant; everything else is left to be understood as ever."""
    (tmp_path / "llm").mkdir()
    assert within(tmp_path, "path:llm") == f"path:{tmp_path.resolve() / 'llm'}"
    for source in ("path:encoder", f"path:{tmp_path}/llm", "llm", "pack:llm", "hf:owner/llm", "path:"):
        assert within(tmp_path, source) == source


def test_a_pack_of_another_library_is_refused_before_it_is_fetched():
    with pytest.raises(WeightsError, match="pack:en-core-web-md: a model of spacy, expected one of transformers"):
        resolve("en-core-web-md")
    assert not cache_folder().exists()
