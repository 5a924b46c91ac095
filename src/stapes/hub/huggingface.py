"""Weights from a model hub, through ``huggingface_hub``: its cache (``$HF_HOME``), its ``$HF_ENDPOINT``, its tokens."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from stapes.errors import WeightsError

PROBE_SECONDS = 5.0
_SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_TORCH = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
_SMALL = re.compile(r".*\.(json|jinja|txt|model|tiktoken)")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_BESIDE = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json")

T = TypeVar("T")


def fetch_hf(name: str, *, progress: bool = True) -> tuple[Path, str]:
    """Have a hub's model on this machine: from the local cache if it is there, else from the hub.

    Only what ``from_pretrained`` reads is downloaded: configuration, tokenizer, and the weights once (safetensors where
    there are any). A download that broke off goes on where it stopped. A hub that does not answer costs ``PROBE_SECONDS``.

    Args:
        name: ``owner/name`` or ``owner/name@revision`` (a branch, tag or commit).
        progress: show the hub client's progress bars on stderr.

    Returns:
        The folder, and the commit that it holds.

    Raises:
        WeightsError: the hub cannot be reached, has no such model, or the model has no weights that can be used.
    """
    repository, _, revision = name.partition("@")
    where = f"hf:{name}"
    cached = cached_snapshot(repository, revision, "config.json")
    if cached and not missing_from(cached) and any((cached / file).exists() for file in _BESIDE):
        return cached, cached.name
    from huggingface_hub import HfApi, constants, snapshot_download

    if constants.HF_HUB_OFFLINE:
        raise WeightsError(where, "not in the local cache, and HF_HUB_OFFLINE is set", fix="unset it, or use another source")
    info = _ask(where, lambda: HfApi().model_info(repository, revision=revision or None, timeout=PROBE_SECONDS))
    files = _wanted(where, [sibling.rfilename for sibling in info.siblings or []])
    with _bars(progress):
        try:
            # by the name of the revision, not by its commit, so that the cache is found by that name later
            found = snapshot_download(repository, revision=revision or None, allow_patterns=files, etag_timeout=PROBE_SECONDS)
        except Exception as error:  # the client lets errors of several libraries through
            fix = "run it again: it goes on where it stopped"
            raise WeightsError(where, f"the download broke off ({_one_line(error)})", fix=fix) from error
    return Path(found), Path(found).name


def snapshot(name: str, files: Sequence[str], **options: Any) -> Path:
    """Have some files of a hub's repository on this machine: from the local cache if they are there, else from the hub.

    Args:
        name: ``owner/name`` or ``owner/name@revision``.
        files: paths in the repository.
        **options: ``token``, ``cache_dir``, ``force_download``, ``local_files_only``, as the hub's client takes them; with any
            of them the client is asked even where the files are in the cache.

    Returns:
        The folder that holds them.

    Raises:
        WeightsError: as in ``fetch_hf``, or the repository lacks one of the files.
    """
    repository, _, revision = name.partition("@")
    where = f"hf:{name}"
    cached = None if options else cached_snapshot(repository, revision, files[0])
    if cached and all((cached / file).is_file() for file in files):
        return cached
    from huggingface_hub import HfApi, constants, snapshot_download

    if constants.HF_HUB_OFFLINE:
        raise WeightsError(where, "not in the local cache, and HF_HUB_OFFLINE is set", fix="unset it")
    if not options.get("local_files_only"):
        api = HfApi(token=options.get("token"))
        info = _ask(where, lambda: api.model_info(repository, revision=revision or None, timeout=PROBE_SECONDS))
        there = {sibling.rfilename for sibling in info.siblings or []}
        if missing := [file for file in files if file not in there]:
            raise WeightsError(where, f"the repository has no {', '.join(missing)}", "a model of Stapes")
    try:
        found = snapshot_download(
            repository, revision=revision or None, allow_patterns=list(files), etag_timeout=PROBE_SECONDS, **options
        )
    except Exception as error:  # the client lets errors of several libraries through
        raise WeightsError(where, f"the download broke off ({_one_line(error)})", fix="run it again") from error
    return Path(found)


def missing_from(folder: Path) -> str:
    """The first file that a model in transformers' layout needs and ``folder`` lacks; empty if nothing is missing."""
    if not (folder / "config.json").is_file():
        return "config.json"
    for weights in _WEIGHTS:
        if (folder / weights).is_file():
            return ""
        index = folder / f"{weights}.index.json"
        if index.is_file():
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            return next((shard for shard in shards if not (folder / shard).is_file()), "")
    return _WEIGHTS[0]


def cached_snapshot(repository: str, revision: str, file: str) -> Path | None:
    """The snapshot of a revision (a branch, tag or commit; "" is the main branch) in the client's cache, if it has ``file``."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repository, file, revision=revision or None)
    except HFValidationError as error:
        raise WeightsError(f"hf:{repository}", "not a name of a model", "hf:owner/name[@revision]") from error
    return Path(found).parent if isinstance(found, str) else None


def _ask(where: str, question: Callable[[], T]) -> T:
    """The hub's answer, or a WeightsError within ``PROBE_SECONDS`` and a little (name look-ups know no timeout)."""
    answers: list[T] = []
    failures: list[Exception] = []

    def ask() -> None:
        try:
            answers.append(question())
        except Exception as error:  # noqa: BLE001 (handed to the caller below)
            failures.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS + 2)
    if answers:
        return answers[0]
    raise _no_answer(where, failures[0] if failures else None) from (failures[0] if failures else None)


def _no_answer(where: str, error: Exception | None) -> WeightsError:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return WeightsError(where, "the model is gated", fix="accept its terms on the hub and run `hf auth login`")
    if isinstance(error, RepositoryNotFoundError):
        return WeightsError(where, "the hub has no such model", fix="check the name; for a private one run `hf auth login`")
    if isinstance(error, RevisionNotFoundError):
        return WeightsError(where, "the model has no such revision", fix="check what stands behind the @")
    if isinstance(error, HfHubHTTPError):
        return WeightsError(where, f"the hub refused ({_one_line(error)})", fix="try again later, or use another source")
    fix = "check the network or HF_ENDPOINT, or use a pack or a folder (pack:name, path:/folder)"
    return WeightsError(where, f"the model hub {constants.ENDPOINT} does not answer", fix=fix)


def _wanted(where: str, files: list[str]) -> list[str]:
    """The files to download: the weights once, and the small files at the top."""
    for kind in (_SAFETENSORS, _TORCH):
        if weights := [file for file in files if kind.fullmatch(file)]:
            return weights + [file for file in files if "/" not in file and _SMALL.fullmatch(file)]
    raise WeightsError(where, "the model has no weights at its top", "model.safetensors or pytorch_model.bin")


@contextmanager
def _bars(progress: bool) -> Iterator[None]:
    """A block in which the client's progress bars are shown or not."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = are_progress_bars_disabled()
    if not progress:
        disable_progress_bars()
    try:
        yield
    finally:
        if not progress and not before:
            enable_progress_bars()


def _one_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
