"""Labels for transcripts, written by an LLM or by spaCy, filtered, and measured against people's.

SENSE-ASR (arXiv 2509.04473) trains on LibriSpeech whose transcripts GPT-4o labelled: few-shot, with 1000 balanced examples of
SLUE-VoxPopuli, then two filters. The paper gives neither prompt nor counts; what is not marked as the paper's is ours.

``examples`` chooses the few shots, ``prompt`` asks, ``backends`` answer, ``label`` asks for every utterance and can be killed
at any time (``journal``), ``filter`` drops what is not in the transcript or means nothing, ``quality`` compares with people.
"""
