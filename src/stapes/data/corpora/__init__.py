"""Corpora that ``stapes prepare`` can read: name -> the function that reads the layout in which it is published."""

from stapes.registry import Table

CORPORA = Table(
    "corpus",
    {
        "slue-voxpopuli": "stapes.data.corpora.slue_voxpopuli:slue_voxpopuli",
        "slue-voxceleb": "stapes.data.corpora.slue_voxceleb:slue_voxceleb",
        "librispeech": "stapes.data.corpora.librispeech:librispeech",
        "ljspeech": "stapes.data.corpora.ljspeech:ljspeech",
        "cmu-arctic": "stapes.data.corpora.cmu_arctic:cmu_arctic",
        "speechocean762": "stapes.data.corpora.kaldi:kaldi",
        "covost2": "stapes.data.corpora.covost2:covost2",
        "must-c": "stapes.data.corpora.must_c:must_c",
        "fleurs": "stapes.data.corpora.fleurs:fleurs",
        "kaldi": "stapes.data.corpora.kaldi:kaldi",
        "folder": "stapes.data.corpora.folder:folder",
        "csv": "stapes.data.corpora.table:table",
        "noise": "stapes.data.corpora.folder:noise",
        "spoken-text": "stapes.data.corpora.spoken_text:spoken_text",
        "jsonl": "stapes.data.corpora.jsonl:jsonl",
    },
)
