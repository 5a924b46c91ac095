"""What answers: any OpenAI-compatible endpoint, a local causal LM, spaCy. Each imports its library when it is made."""
