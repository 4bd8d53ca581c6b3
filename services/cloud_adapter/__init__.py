"""The only holder of provider secrets: sends OpenAI-format requests to providers and reads their answers once."""
