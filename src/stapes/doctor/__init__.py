"""Does a pair of encoder and LLM, with an adapter, do what Stapes relies on? Every promise is tried on the real thing."""
