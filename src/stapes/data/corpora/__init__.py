"""Corpora that ``stapes prepare`` can read: name -> the function that reads the layout in which it is published."""

from stapes.registry import Table

CORPORA = Table(
    "corpus",
    {
        "slue-voxpopuli": "stapes.data.corpora.slue_voxpopuli:slue_voxpopuli",
        "librispeech": "stapes.data.corpora.librispeech:librispeech",
        "ljspeech": "stapes.data.corpora.ljspeech:ljspeech",
        "cmu-arctic": "stapes.data.corpora.cmu_arctic:cmu_arctic",
        "speechocean762": "stapes.data.corpora.kaldi:kaldi",
        "kaldi": "stapes.data.corpora.kaldi:kaldi",
        "folder": "stapes.data.corpora.folder:folder",
        "csv": "stapes.data.corpora.table:table",
        "noise": "stapes.data.corpora.folder:noise",
        "jsonl": "stapes.data.corpora.jsonl:jsonl",
    },
)
